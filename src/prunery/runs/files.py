"""Files that are whole or not there: temporary name, fsync, rename; tensors without pickle; refusals in one line."""

import errno
import hashlib
import json
import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..spec import Refused, quote

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the ways in which a disk says no into one line."""
    try:
        yield
    except OSError as error:
        raise Refused(f"{path} cannot be written: {_why(error, path)}") from None


def _why(error: OSError, path: Path) -> str:
    """The reason and what to do about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space, or choose another folder (--runs, --out)"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "it is read-only for you; expected a folder that can be written: choose another (--runs, --out)"
    if error.errno == errno.ENAMETOOLONG:
        return "the name is too long; choose a shorter one (--runs, --out)"
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        seen = next((p for p in (path, *path.parents) if p.is_file()), path)
        return f"{seen} is a file; expected a folder: choose another (--runs, --out)"
    return f"{error.strerror or error}; expected a folder that can be written: choose another (--runs, --out)"


LONGEST = 255
"""bytes of a name"""


def to_write(path: str | Path, such: str = "network.safetensors", make: bool = False) -> Path:
    """The name of a file that can be written, as far as can be told before there is anything to write.

    With `make`, its folder is made.
    """
    if not isinstance(path, str | Path) or not str(path) or "\0" in str(path):
        raise Refused(f"{quote(path)} is no file's name; expected one such as {such}")
    path = Path(path)
    if os.path.isdir(path):
        raise Refused(f"{path} is a folder; expected a file's name, such as {path / such}")
    if (length := len(os.fsencode(path.name))) > LONGEST:
        seen = f"{path.name[:40]}... cannot be written: its name is {length} bytes long"
        raise Refused(f"{seen}; expected at most {LONGEST}")
    if make:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.isdir(path.parent):
        file = next((p for p in path.parents if os.path.isfile(p)), None)
        why = f"{file} is a file; expected a folder" if file else f"there is no folder {path.parent}; make it"
        raise Refused(f"{path} cannot be written: {why}, or choose another")
    if not os.access(path.parent, os.W_OK):
        raise Refused(f"{path} cannot be written: {path.parent} is read-only for you; choose another folder")
    return path


def folder_to_write(path: Path) -> Path:
    """The name of a folder that is there or can be made, as far as can be told before there is anything to write."""
    there = next((p for p in (path, *path.parents) if os.path.exists(p)), Path())
    if not os.path.isdir(there):
        raise Refused(f"{there} is a file; expected a folder's name, such as {there.parent / 'figures'}")
    if not os.access(there, os.W_OK):
        raise Refused(f"{path} cannot be made: {there} is read-only for you; choose another folder")
    return path


def write_file(path: Path, data: bytes) -> None:
    """Whole or not at all: a temporary name, fsync, rename."""
    path = to_write(path)
    with writing(path):
        short = os.fsdecode(os.fsencode(path.name)[:200])  # as a longer name would be too long with what is added
        temporary = path.with_name(f".{short}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync(path.parent)


def sync(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Readable JSON, written whole."""
    write_file(path, (json.dumps(finite(value), indent=1, allow_nan=False) + "\n").encode())


def finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: at any depth they become null."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> dict[str, Any]:
    """The JSON table in a file of ours."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Refused(f"{path} is not JSON ({_short(error)}); delete its folder to have the step made again") from None
    if not isinstance(found, dict):
        seen = f"{path} holds a {type(found).__name__} where a table is expected"
        raise Refused(f"{seen}; delete its folder to have the step made again")
    return found


def write_tensors(path: Path, tensors: "dict[str, Tensor]", about: dict[str, Any] | None = None) -> None:
    """A safetensors file; `about` travels in its header as JSON."""
    from safetensors.torch import save

    flat = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    text = json.dumps(about or {})
    write_file(path, _in_order(save(flat, {"prunery": text, "sha256": seal(text, flat)})))


def _in_order(data: bytes) -> bytes:
    """The same file with its texts by name: safetensors keeps them in a table whose order changes from run to run."""
    (length,) = struct.unpack_from("<Q", data)
    head = json.loads(data[8 : 8 + length])
    head["__metadata__"] = dict(sorted(head["__metadata__"].items()))
    words = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    words += b" " * (-len(words) % 8)
    return b"".join((struct.pack("<Q", len(words)), words, memoryview(data)[8 + length :]))


def seal(text: str, tensors: "dict[str, Tensor]") -> str:
    """SHA-256 over what the header says and every tensor with its name, type and shape."""
    import torch

    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        t = tensors[name]
        digest.update(json.dumps([name, str(t.dtype), list(t.shape)]).encode())
        if t.numel():
            digest.update(t.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_tensors(path: Path, sealed: bool = False) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """The tensors of a safetensors file and what its header says about them.

    A checksum in the header must be right; files from before there was one are read unless `sealed` asks for it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = path.read_bytes()
        if kind := another_kind(path, data):
            raise Refused(kind)
        tensors, words = load(data), _words(data)
        given = words.get("sha256")
        if given is None and sealed and "format" in header(data):
            raise ValueError("its checksum is missing")
        if given is not None and given != seal(words.get("prunery", "{}"), tensors):
            raise ValueError("its checksum does not fit what it holds")
        return tensors, header(data)
    except FileNotFoundError:
        raise Refused(f"{path} does not exist; expected a .safetensors file") from None
    except IsADirectoryError:
        raise Refused(f"{path} is a folder; expected a .safetensors file") from None
    except Refused:
        raise
    except (SafetensorError, ValueError, OSError, RecursionError, struct.error) as error:
        raise Refused(f"{path} is not a whole safetensors file ({_short(error)}); make or copy it again") from None


PACKED, ZIP, OLD = b"\x93PRUNERY", b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""how packed networks begin, and what torch.save writes: an archive, before PyTorch 1.6 pickles"""


def another_kind(path: Path, data: bytes) -> str:
    """What to do with a file that is no safetensors file but one of a kind known here; empty for all others."""
    if data.startswith(PACKED):
        return (
            f"{path} is a packed network, no checkpoint: prunery bench {path} times it, prunery.runtime.load reads it; "
            "expected the .safetensors file that it was packed from"
        )
    if data.startswith(OLD) or (data.startswith(ZIP) and b"data.pkl" in data[:4096]):
        seen = f"{path} is a PyTorch file (torch.save), no checkpoint"
        if path.suffix == ".safetensors":
            return f"{seen}; load its weights into the network and prunery.save(network, FILE)"
        recipe, python = f"--set model.weights={path} in a recipe", f"prunery.load(NAME, weights={quote(str(path))})"
        named = "--model FILE.py:NAME with prune, sensitivity, pack or export"
        return f"{seen}; name its network: {named}, {recipe}, {python} in Python"
    return ""


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:150] or type(error).__name__


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Refused(f"{path} cannot be read ({error.strerror}); expected a file that can be read") from None


def _words(data: bytes) -> dict[str, str]:
    """The texts in the header."""
    (length,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + length]).get("__metadata__") or {}


def header(data: bytes) -> dict[str, Any]:
    """The `about` of `write_tensors`; empty for a file that others wrote."""
    about = json.loads(_words(data).get("prunery", "{}"))
    if not isinstance(about, dict):
        raise ValueError(f"its header says {type(about).__name__} where a table is expected")
    return about
