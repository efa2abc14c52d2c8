"""Packed networks, run with numpy and the compiled library only: no torch, no other room.

import prunery.runtime
packed = prunery.runtime.load("resnet18.prunery")
scores = packed(images)          # float32, [batch, channels, rows, columns]
"""

import ctypes
import json
import mmap
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from . import native

__all__ = ["Broken", "Layer", "Packed", "load", "loads"]

ROOM = 1000
HEADER = 64


class Broken(ValueError):
    """A file that is no packed network, or an input that does not fit: one line."""


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
    """A packed file, mapped into memory and checked; its weights are laid out when it first runs."""
    try:
        with open(path, "rb") as file:
            empty = os.fstat(file.fileno()).st_size == 0
            held: Any = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise Broken(f"{path} cannot be read: {error.strerror or error}") from None
    return Packed(held, str(path), threads)


def loads(data: bytes, threads: int | None = None) -> "Packed":
    """A packed file's bytes."""
    return Packed(data, "the packed bytes", threads)


class Packed:
    """A network that runs on the CPU. It never changes, so any number of threads may call it at once."""

    def __init__(self, data: Any, name: str, threads: int | None = None, isa: str | None = None) -> None:
        self.threads = threads or cores()
        """how many threads a call may use, unless it says so itself"""
        self._data = np.frombuffer(data, np.uint8)
        self._library = _library(isa or native.instruction_set())
        message = ctypes.create_string_buffer(ROOM)
        self._handle = self._library.prunery_engine_open(self._data.ctypes.data, self._data.size, message, ROOM)
        if not self._handle:
            raise Broken(f"{name}: {_text(message)}")
        self._message = message
        facts = self._facts(False)
        self.input_shape, self.output_shape = _shape(facts[0:3]), _shape(facts[4:7])
        """of one image, without the batch"""
        self._vectors = len(self.input_shape) == 1
        self.input_type, self.output_type = (np.dtype(np.uint8 if t else np.float32) for t in (facts[3], facts[7]))

    @property
    def about(self) -> dict[str, Any]:
        """What the file says of itself: where it comes from, classes, how inputs are to be scaled."""
        tensors, ops, inputs, names, length = np.frombuffer(self._data[24:44].tobytes(), "<u4").tolist()
        start = HEADER + 32 * tensors + 192 * ops + 4 * inputs + names
        found = json.loads(self._data[start : start + length].tobytes() or b"{}")
        return found if isinstance(found, dict) else {}

    @property
    def data(self) -> bytes:
        """The file."""
        return self._data.tobytes()

    @property
    def nbytes(self) -> int:
        """of the file"""
        return int(self._data.size)

    def __call__(self, x: Any, threads: int | None = None) -> Any:
        """The outputs for a batch, or for one image without a batch; a torch tensor gives a torch tensor."""
        given = np.asarray(x)
        single = given.shape == self.input_shape
        batch = given[None] if single else given
        if self._vectors and batch.ndim > 2 and set(batch.shape[2:]) == {1}:
            batch = batch.reshape(batch.shape[:2])
        if batch.shape[1:] != self.input_shape:
            raise Broken(
                f"the input has shape {_words(given.shape)}; expected {_words(('batch', *self.input_shape))}, "
                "as packed: pack again with an example of this shape"
            )
        if batch.dtype != self.input_type and batch.dtype.kind not in "fiub":
            raise Broken(f"the input holds {batch.dtype}; expected {self.input_type}")
        batch = np.ascontiguousarray(batch, self.input_type)
        out = np.empty((len(batch), *self.output_shape), self.output_type)
        self._run(batch, out, threads or self.threads)
        result = out[0] if single else out
        return sys.modules["torch"].from_numpy(result) if type(x).__module__.partition(".")[0] == "torch" else result

    def _run(self, batch: np.ndarray, out: np.ndarray, threads: int) -> None:
        # The shortest way to an array's address: a small network takes a few microseconds, and so does `.ctypes`.
        x, y = batch.__array_interface__["data"][0], out.__array_interface__["data"][0]
        if self._library.prunery_engine_run(self._handle, x, y, len(batch), threads, self._message, ROOM):
            raise Broken(_text(self._message))

    def save(self, path: str | os.PathLike[str]) -> None:
        """The file, written to a temporary name and renamed."""
        final = Path(path)
        temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
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
        lines = self._described(batch)
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
        self._library.prunery_engine_time(self._handle, batch, repeats, x.ctypes.data, best.ctypes.data)
        return best.tolist()

    def _facts(self, batch: bool) -> np.ndarray:
        facts, message = np.zeros(11, np.int64), ctypes.create_string_buffer(ROOM)
        if self._library.prunery_engine_facts(self._handle, batch, facts.ctypes.data, message, ROOM):
            raise Broken(_text(message))
        return facts

    def __del__(self) -> None:
        if handle := self.__dict__.pop("_handle", None):
            self._library.prunery_engine_close(handle)

    def __repr__(self) -> str:
        return f"Packed({_words(self.input_shape)} -> {_words(self.output_shape)}, {self.nbytes:,} bytes)"


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def _shape(three: np.ndarray) -> tuple[int, ...]:
    channels, rows, columns = (int(n) for n in three)
    return (channels,) if rows == columns == 1 else (channels, rows, columns)


def _words(shape: tuple[Any, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _text(buffer: Any) -> str:
    return buffer.value.decode(errors="replace")
