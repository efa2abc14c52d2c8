"""Files that others wrote, told for what they are without running anything that is in them."""

import json
import pickletools
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..spec import Refused

Told = dict[str, Any]
PLAIN = re.compile(
    r"torch\._utils _rebuild_(tensor|parameter)\w*|collections OrderedDict|torch (\w+Storage|Size|b?float\d+|int\d+)"
)
"""the names that weights alone need"""
MOST_HEADER, MOST_PICKLE = 1 << 27, 1 << 26
"""bytes that are read to tell what a file is"""
SEVEN = 0x7F


# --- PyTorch ----------------------------------------------------------------------------------------------------------


def torch_zip(path: Path) -> Told:
    """An archive of torch.save or torch.jit.save: its records by name, its pickle read as text."""
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
            name = next((n for n in sizes if n.endswith("data.pkl")), "")
            pickle = archive.read(name) if name and sizes[name] <= MOST_PICKLE else b""
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        raise Refused(f"{path} begins like a PyTorch file and is damaged ({error}); make or copy it again") from None
    if not name:
        raise Refused(f"{path} is an archive (zip) without a network; expected a checkpoint or a packed file")
    stored = {n: s for n, s in sizes.items() if "/data/" in n}
    kind = "a TorchScript program" if any("/code/" in n for n in sizes) else "a PyTorch file (torch.save)"
    return {"kind": kind, "storages": len(stored), "storage_bytes": sum(stored.values()), **_pickled(pickle)}


def torch_old(path: Path) -> Told:
    """What torch.save wrote before PyTorch 1.6."""
    return {"kind": "a PyTorch file of before version 1.6 (pickles in a row)", **_pickled(b"")}


def _pickled(pickle: bytes) -> Told:
    """What opening the pickle would call, without calling it."""
    names = sorted(set(_called(pickle)))
    other = [n for n in names if not PLAIN.fullmatch(n)]
    note = "not opened: a pickle can run any code"
    if pickle and not other:
        note = "not opened; its pickle calls nothing but what weights need"
    elif other:
        note = f"not opened; its pickle would call {', '.join(n.replace(' ', '.') for n in other[:8])}"
    return {"note": note, "calls": [n.replace(" ", ".") for n in names]}


def _called(pickle: bytes) -> Iterator[str]:
    texts: list[str] = []
    try:
        for code, value, _ in pickletools.genops(pickle):
            if code.name == "GLOBAL":
                yield str(value)
            elif code.name == "STACK_GLOBAL":
                yield " ".join(texts[-2:])
            elif isinstance(value, str):
                texts.append(value)
    except Exception:  # pickletools fails in many ways on what is no pickle
        yield "something that cannot be read"


# --- safetensors ------------------------------------------------------------------------------------------------------


def safetensors_header(path: Path) -> "tuple[Told, Told] | None":
    """The tensors and the texts of a header; nothing where there is none."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > min(size - 8, MOST_HEADER) or length < 2:
            return None
        try:
            head = json.loads(file.read(length))
        except (ValueError, RecursionError):
            return None
    if not isinstance(head, dict):
        return None
    words = head.pop("__metadata__", None)
    tensors = {k: v for k, v in head.items() if isinstance(v, dict) and {"dtype", "shape"} <= v.keys()}
    if 8 + length + max((_end(t) for t in tensors.values()), default=0) != size:
        raise Refused(f"{path} is not a whole safetensors file: it has {size:,} bytes; make or copy it again")
    return tensors, words if isinstance(words, dict) else {}


def _end(tensor: Told) -> int:
    """Where a tensor's bytes end, counted from the header's end."""
    places = tensor.get("data_offsets")
    return places[1] if isinstance(places, list) and len(places) == 2 and isinstance(places[1], int) else -1


def safetensors(tensors: Told, words: Told) -> Told:
    """Weights of somebody else's."""
    numbers = 0
    for tensor in tensors.values():
        count = 1
        for side in tensor["shape"] if isinstance(tensor["shape"], list) else []:
            count *= side if isinstance(side, int) else 0
        numbers += count
    types = Counter(str(t["dtype"]) for t in tensors.values())
    return {
        "kind": "a safetensors file that prunery did not write", "tensors": len(tensors), "numbers": numbers,
        "types": dict(types), "first": list(tensors)[:8], "metadata": {k: str(v)[:200] for k, v in words.items()},
        "note": "it does not say which network it belongs to: --set model.weights=FILE in a recipe gives it one",
    }  # fmt: skip


# --- ONNX -------------------------------------------------------------------------------------------------------------


def onnx(path: Path) -> "Told | None":
    """A model of ONNX by its fields; nothing for a file that is none. No package is needed."""
    data = path.read_bytes()
    try:
        top = list(_fields(memoryview(data)))
        graph = next(v for n, v in top if n == 7 and isinstance(v, memoryview))
        parts = list(_fields(graph))
    except (StopIteration, ValueError):
        return None
    operators: Counter[str] = Counter()
    for number, node in parts:
        if number == 1 and isinstance(node, memoryview):
            operators.update(_text(v) for n, v in _fields(node) if n == 4)
    if not operators:
        return None
    first = dict(reversed(top))
    return {
        "kind": "an ONNX model", "ir_version": first.get(1), "producer": _text(first.get(2)),
        "nodes": sum(operators.values()), "operators": dict(operators.most_common()),
        "weights": sum(n == 5 for n, _ in parts), "bytes": len(data),
        "note": "ONNX Runtime runs it; prunery bench FILE.prunery --against onnxruntime compares",
    }  # fmt: skip


def _text(value: Any) -> str:
    return bytes(value).decode("utf-8", "replace") if isinstance(value, memoryview) else ""


def _fields(data: memoryview) -> Iterator["tuple[int, int | memoryview]"]:
    """Numbers and values of a protobuf message; ValueError for what is none."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind not in (1, 2, 5):
            raise ValueError(f"a field of kind {kind}")
        length, at = _varint(data, at) if kind == 2 else (8 if kind == 1 else 4, at)
        if at + length > len(data):
            raise ValueError("a field that goes beyond the end")
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("a number that does not end")
        byte = data[at]
        value |= (byte & SEVEN) << shift
        at, shift = at + 1, shift + 7
        if byte <= SEVEN:
            return value, at
