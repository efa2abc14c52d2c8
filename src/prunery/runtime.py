"""Packed networks, run with numpy and the compiled library only: no torch, no room but native and refused.

import prunery.runtime
packed = prunery.runtime.load("resnet18.prunery")
scores = packed(images)          # float32, of the shape that the network itself gives
"""

import ctypes
import json
import operator
import os
import sys
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from . import native
from .refused import Refused

__all__ = ["Broken", "Layer", "Packed", "load", "loads"]

ROOM = 1000
HEADER = 64
MAGIC = b"\x93PRUNERY"
RESULT_SHAPE = "result_shape"
"""what `about` calls the shape of one image's result, where the tensor's own, as vectors or pictures, is another"""
MOST_DIMENSIONS = 16
LONGEST = 255
"""bytes of a file's name"""
SURE = 8
"""threads that may be asked for on any machine; elsewhere four for each core"""


class Broken(Refused):
    """A file that is no packed network, an input or a number of threads that does not fit, a file that cannot be
    written: one line. `except prunery.Refused` catches it too.
    """


@dataclass(frozen=True)
class Layer:
    """One step of a plan: what `explain` tells."""

    name: str
    kernel: str
    density: float
    multiply_adds: float
    predicted_us: float
    measured_us: float | None
    bytes: int
    why: str


def load(path: str | os.PathLike[str], threads: int | None = None) -> "Packed":
    """A packed file, read and checked, its weights laid out for this processor; what becomes of the file then is no
    matter.

    A call uses up to `threads` threads; None means all cores of this process.
    """
    _named(path)
    if os.path.isdir(path):
        raise Broken(f"{path} is a folder; expected a packed file in it, which prunery pack writes")
    try:
        held = _read(path)
    except OSError as error:
        reason = error.strerror or error
        raise Broken(f"{path} cannot be read: {reason}; expected a file that prunery pack wrote") from None
    except MemoryError:
        raise Broken(f"{path} cannot be read: it is larger than there is memory for") from None
    return Packed(held, str(path), threads)


def _read(path: str | os.PathLike[str]) -> bytes:
    """All of a packed file, of any other its first bytes, which tell what it is, however large it may be."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        is_packed = file.read(len(MAGIC)) == MAGIC
        file.seek(0)
        return file.read(size if is_packed else min(size, HEADER))


def loads(data: bytes, threads: int | None = None) -> "Packed":
    """A packed file's bytes; `threads` as in `load`."""
    try:
        held = data if isinstance(data, bytes) else memoryview(data).tobytes()
    except TypeError:
        seen = f"a {type(data).__name__} is no packed network"
        raise Broken(f"{seen}; expected the bytes of a file (load takes its name)") from None
    return Packed(held, "the packed bytes", threads)


class Packed:
    """A network that runs on the CPU. It never changes, so any number of threads may call it at once."""

    def __init__(self, data: Any, name: str, threads: int | None = None, isa: str | None = None) -> None:
        self.threads = threads
        self._isa = isa
        self._data = np.frombuffer(data, np.uint8)
        self._library = _library(isa or native.instruction_set())
        message = ctypes.create_string_buffer(ROOM)
        self._handle = self._library.prunery_engine_open(self._data.ctypes.data, self._data.size, message, ROOM)
        if not self._handle:
            raise Broken(_kind(self._data[:HEADER].tobytes(), name) or f"{name}: {_text(message)}")
        self._message = message
        about, facts = _about(self._data, name), self._facts(False, f"{name}: ")
        self.input_shape, self.output_shape = _shape(facts[0:3]), _shape(facts[4:7])
        """of one image, without the batch"""
        if RESULT_SHAPE in about:
            self.output_shape = _result_shape(about[RESULT_SHAPE], prod(self.output_shape), name)
        self._vectors = len(self.input_shape) == 1
        self.input_type, self.output_type = (np.dtype(np.uint8 if t else np.float32) for t in (facts[3], facts[7]))

    @property
    def threads(self) -> int:
        """How many threads a call may use, unless it says so itself."""
        return self._threads

    @threads.setter
    def threads(self, wanted: int | None) -> None:
        self._threads = cores() if wanted is None else _threads(wanted)

    @property
    def about(self) -> dict[str, Any]:
        """What the file says of itself: where it comes from, classes, how inputs are to be scaled."""
        return _about(self._data, "the packed network")

    @property
    def data(self) -> bytes:
        """The file."""
        return self._data.tobytes()

    @property
    def nbytes(self) -> int:
        """of the file"""
        return int(self._data.size)

    def __call__(self, x: Any, threads: int | None = None) -> Any:
        """The outputs for a batch, or for one image without a batch; a torch tensor gives a torch tensor.

        Whatever floats, integers or truth values are given become float32; results know no gradients.
        """
        given = x if type(x) is np.ndarray else _array(x)
        if given.dtype != self.input_type:
            _numbers(given.dtype, self.input_type)
        single = given.shape == self.input_shape
        batch = given[None] if single else given
        if self._vectors and batch.ndim > 2 and set(batch.shape[2:]) == {1}:
            batch = batch.reshape(batch.shape[:2])
        if batch.shape[1:] != self.input_shape:
            raise Broken(
                f"the input has shape {_words(given.shape)}; expected {_words(('batch', *self.input_shape))}, "
                "as packed: pack again with an example of this shape"
            )
        batch = np.ascontiguousarray(batch, self.input_type)
        out = np.empty((len(batch), *self.output_shape), self.output_type)
        self._run(batch, out, self._threads if threads is None else _threads(threads))
        result = out[0, ...] if single else out
        return result if given is x or not _is_tensor(x) else sys.modules["torch"].from_numpy(result)

    def _run(self, batch: np.ndarray, out: np.ndarray, threads: int) -> None:
        # The shortest way to an array's address: a small network takes a few microseconds, and so does `.ctypes`.
        x, y = batch.__array_interface__["data"][0], out.__array_interface__["data"][0]
        if self._library.prunery_engine_run(self._handle, x, y, len(batch), threads, self._message, ROOM):
            raise Broken(_text(self._message))

    def save(self, path: str | os.PathLike[str]) -> None:
        """The file, written to a temporary name and renamed."""
        final = _to_write(path)
        short = os.fsdecode(os.fsencode(final.name)[:200])  # as a longer name would be too long with what is added
        temporary = final.with_name(f".{short}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(self._data.data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, final)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise Broken(f"{path} cannot be written: {error.strerror or error}") from None

    def explain(self, batch: bool = False, repeats: int = 0) -> list[Layer]:
        """Every step of the plan for one image, or for a batch; measured on random numbers where `repeats` says so."""
        repeats = _whole(repeats, "repeats", 0, 1 << 20)
        lines = self._described(bool(batch))
        measured = self._measured(batch, repeats, len(lines)) if repeats else [None] * len(lines)
        return [_layer(line, ns) for line, ns in zip(lines, measured, strict=True)]

    def memory(self, batch: bool = False) -> dict[str, int]:
        """Bytes that one run needs, bytes of weights as they are laid out, and images that one run computes."""
        facts = self._facts(batch)
        return {"images": int(facts[8]), "run": int(facts[9]), "weights": int(facts[10])}

    def _described(self, batch: bool) -> list[str]:
        size = self._library.prunery_engine_describe(self._handle, batch, None, 0)
        text = ctypes.create_string_buffer(max(size, 0) + 1)
        self._library.prunery_engine_describe(self._handle, batch, text, len(text))
        return _text(text).splitlines()

    def _measured(self, batch: bool, repeats: int, steps: int) -> list[float]:
        images = self.memory(batch)["images"]
        x = np.random.default_rng(0).standard_normal((images, *self.input_shape)).astype(self.input_type)
        best = np.zeros(steps)
        if self._library.prunery_engine_time(self._handle, batch, repeats, x.ctypes.data, best.ctypes.data):
            raise Broken("the steps cannot be timed: there is not enough memory for a run")
        return best.tolist()

    def _facts(self, batch: bool, whose: str = "") -> np.ndarray:
        facts, message = np.zeros(11, np.int64), ctypes.create_string_buffer(ROOM)
        if self._library.prunery_engine_facts(self._handle, batch, facts.ctypes.data, message, ROOM):
            raise Broken(whose + _text(message))
        return facts

    def __del__(self) -> None:
        if handle := self.__dict__.pop("_handle", None):
            self._library.prunery_engine_close(handle)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made from the file: what the library holds belongs to one object only."""
        return Packed, (self.data, "the packed bytes", self.threads, self._isa)

    def __repr__(self) -> str:
        return f"Packed({_words(self.input_shape)} -> {_words(self.output_shape)}, {self.nbytes:,} bytes)"


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---- what is handed over


def _array(x: Any) -> np.ndarray:
    """Anything but an array as one."""
    try:
        return _of_tensor(x) if _is_tensor(x) else np.asarray(x)
    except (Broken, MemoryError):
        raise
    except Exception as error:  # numpy asks objects of any kind, and each fails in its own way
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise Broken(
            f"the input is a {type(x).__name__} that is no array ({reason}); expected numbers, all rows of one length"
        ) from None


def _is_tensor(x: Any) -> bool:
    """Whether torch, if anybody has imported it, calls it a tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def _of_tensor(x: Any) -> np.ndarray:
    """A tensor's numbers, without its gradient; numpy has no bfloat16."""
    if x.device.type != "cpu":
        values = "which has no values" if x.is_meta else "and a packed network runs on the CPU"
        raise Broken(f"the input is on the device {x.device}, {values}; expected a tensor on the CPU, such as x.cpu()")
    if x.layout is not sys.modules["torch"].strided or x.is_nested or x.is_quantized:
        kind = "nested" if x.is_nested else "quantised" if x.is_quantized else f"of the layout {x.layout}"
        raise Broken(f"the input is {kind}; expected a dense tensor of numbers: x.to_dense() or x.dequantize()")
    if x.is_floating_point() and x.element_size() < 4:
        x = x.float()
    found: np.ndarray = x.detach().resolve_neg().resolve_conj().numpy()
    return found


def _numbers(seen: np.dtype, expected: np.dtype) -> None:
    """Numbers can become floats; bytes are taken as they are."""
    if seen.kind not in ("ub" if expected == np.uint8 else "fiub") or (expected == np.uint8 and seen.itemsize > 1):
        kind = {"O": "objects", "U": "text", "S": "text"}.get(seen.kind, str(seen))
        raise Broken(f"the input holds {kind}; expected {expected}, or numbers that can become {expected}")


def _threads(wanted: Any) -> int:
    """A number of threads that makes sense here."""
    if type(wanted) is int and 1 <= wanted <= SURE:
        return wanted
    return _whole(wanted, "threads", 1, max(SURE, 4 * cores()), "; leave it out for all cores")


def _whole(value: Any, name: str, low: int, high: int, advice: str = "") -> int:
    """A whole number of any type, within bounds."""
    try:
        number = low - 1 if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        number = low - 1
    if not low <= number <= high:
        raise Broken(f"{name} = {_said(value)} is not allowed; expected a whole number from {low} to {high}{advice}")
    return number


def _said(value: Any) -> str:
    """A value on one line, cut short."""
    return " ".join(repr(value).split())[:80]


def _named(path: Any) -> Path:
    """A path that could be a file's."""
    if not isinstance(path, str | os.PathLike) or not (text := os.fsdecode(path)) or "\0" in text:
        raise Broken(f"{_said(path)} is no file's name; expected one such as network.prunery")
    return Path(text)


def _to_write(path: Any) -> Path:
    """The name of a file that can be written, as far as can be told before."""
    final = _named(path)
    if os.path.isdir(final):
        raise Broken(f"{final} is a folder; expected a file's name, such as {final / 'network.prunery'}")
    if (length := len(os.fsencode(final.name))) > LONGEST:
        raise Broken(f"{final.name[:40]}... is {length} bytes long; expected a file's name of at most {LONGEST}")
    if not os.path.isdir(final.parent):
        raise Broken(f"{final} cannot be written: {final.parent} is no folder; make it, or choose another")
    return final


def _kind(head: bytes, name: str) -> str:
    """What a file is that is no packed one, where its first bytes say so; nothing where they do not."""
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        seen = f"{name} is a checkpoint (safetensors), no packed network"
        return f"{seen}; prunery pack {name} --out network.prunery makes one"
    if head.startswith((b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")):
        seen = f"{name} is a PyTorch file (torch.save), no packed network"
        packs = f"prunery pack {name} --model FILE.py:NAME --data NAME"
        return f"{seen}; {packs}, or prunery.pack(network, example).save(FILE), makes one"
    return ""


@cache
def _library(isa: str) -> ctypes.CDLL:
    library = native.library(isa)
    void, text, whole = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64
    number = ctypes.c_int
    of: dict[str, tuple[Any, list[Any]]] = {}
    of["open"] = (void, [void, ctypes.c_uint64, text, number])
    of["close"] = (None, [void])
    of["facts"] = (number, [void, number, void, text, number])
    of["run"] = (number, [void, void, void, whole, number, text, number])
    of["describe"] = (whole, [void, number, text, whole])
    of["time"] = (number, [void, number, number, void, void])
    for name, (result, arguments) in of.items():
        function = getattr(library, f"prunery_engine_{name}")
        function.restype, function.argtypes = result, arguments
    return library


def _layer(line: str, ns: float | None) -> Layer:
    name, kernel, density, multiply_adds, predicted, size, why = line.split("\t")
    return Layer(
        name, kernel, float(density), float(multiply_adds), float(predicted) / 1e3,
        None if ns is None else ns / 1e3, int(size), why,
    )  # fmt: skip


def _about(data: np.ndarray, name: str) -> dict[str, Any]:
    """What a file, whose lengths the library has checked, says of itself."""
    tensors, ops, inputs, names, length = np.frombuffer(data[24:44].tobytes(), "<u4").tolist()
    start = HEADER + 32 * tensors + 192 * ops + 4 * inputs + names
    try:
        found = json.loads(data[start : start + length].tobytes())
    except (ValueError, RecursionError):
        raise Broken(f"{name}: what it says about itself is damaged; expected JSON") from None
    if not isinstance(found, dict):
        raise Broken(f"{name}: what it says about itself is a {type(found).__name__}; expected a table")
    return found


def _result_shape(said: Any, numbers: int, name: str) -> tuple[int, ...]:
    """The shape that a file says its results have, if it is one of as many numbers as there are."""
    fits = isinstance(said, list) and len(said) <= MOST_DIMENSIONS and all(type(n) is int and n >= 1 for n in said)
    if not fits or prod(said) != numbers:
        wanted = f"at most {MOST_DIMENSIONS} whole numbers from 1 whose product is {numbers}"
        raise Broken(f"{name}: {RESULT_SHAPE} = {_said(said)} is no shape of its results; expected {wanted}")
    return tuple(said)


def _shape(three: np.ndarray) -> tuple[int, ...]:
    channels, rows, columns = (int(n) for n in three)
    return (channels,) if rows == columns == 1 else (channels, rows, columns)


def _words(shape: tuple[Any, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _text(buffer: Any) -> str:
    return buffer.value.decode(errors="replace")
