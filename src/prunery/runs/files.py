"""Files that are whole or not there: temporary name, fsync, rename; tensors without pickle; refusals in one line."""

import errno
import hashlib
import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..spec import Refused

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
        return "the disk is full; free some space, or choose another folder with --runs"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "the folder is read-only for you; choose another with --runs"
    return f"{error.strerror or error}; expected a folder that can be written, choose one with --runs"


def write_file(path: Path, data: bytes) -> None:
    """Whole or not at all: a temporary name, fsync, rename."""
    with writing(path):
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
    write_file(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def write_tensors(path: Path, tensors: "dict[str, Tensor]", about: dict[str, Any] | None = None) -> None:
    """A safetensors file; `about` travels in its header as JSON."""
    from safetensors.torch import save

    flat = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    write_file(path, save(flat, {"prunery": json.dumps(about or {})}))


def read_tensors(path: Path) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """The tensors of a safetensors file and what its header says about them."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = path.read_bytes()
        return load(data), header(data)
    except FileNotFoundError:
        raise Refused(f"{path} does not exist; expected a .safetensors file") from None
    except (SafetensorError, ValueError, OSError, struct.error) as error:
        raise Refused(f"{path} is not a whole safetensors file ({error}); make or copy it again") from None


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Refused(f"{path} cannot be read ({error.strerror}); expected a file of weights") from None


def header(data: bytes) -> dict[str, Any]:
    """The `about` of `write_tensors`; empty for a file that others wrote."""
    (length,) = struct.unpack_from("<Q", data)
    about = json.loads(data[8 : 8 + length]).get("__metadata__", {}).get("prunery", "{}")
    return json.loads(about)
