"""CIFAR's python batches. A pickle is a program: ours may only put lists, texts and the bytes of arrays together."""

import io
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..spec import Refused
from .files import Blob, Layout, contents, locate
from .sets import Images, Published, Source, stamp

SHAPE = (3, 32, 32)
ADVICE = "remove it and fetch or copy the published file again"
CIFAR10 = Layout(
    "cifar10",
    "cifar-10-batches-py",
    (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"),
    "CIFAR10",
    "cifar-10-python.tar.gz",
)
CIFAR100 = Layout("cifar100", "cifar-100-python", ("train", "test"), "CIFAR100", "cifar-100-python.tar.gz")
COUNTS = {**dict.fromkeys(CIFAR10.files, 10_000), "train": 50_000, "test": 10_000}
"""images in a file"""


def source(layout: Layout, classes: tuple[str, ...], name: str, root: Path, resize: int) -> Source:
    files = locate(root, layout)
    return Source(stamp(sorted(set(files.values()))), partial(read, files, classes))


def read(files: dict[str, Path], classes: tuple[str, ...]) -> Published:
    batches = {n: batch(b, COUNTS[n], len(classes)) for n, b in contents(files)}
    *train, test = (batches[n] for n in files)
    return Published.of(classes, Images(torch.cat([t.x for t in train]), torch.cat([t.y for t in train])), test)


def batch(blob: Blob, count: int, classes: int) -> Images:
    """The images of one file, in its own order."""
    found = unpickle(blob)
    labels = found.get("fine_labels", found.get("labels"))
    if not isinstance(labels, list) or not all(type(i) is int and 0 <= i < classes for i in labels):
        raise Refused(f"{blob.where} has no list of labels from 0 to {classes - 1}; {ADVICE}")
    x = _tensor(found.get("data"), blob.where)
    if x.shape[0] != count or len(labels) != count:
        seen = f"{x.shape[0]} images and {len(labels)} labels"
        raise Refused(f"{blob.where} holds {seen}; expected {count} of each: {ADVICE}")
    return Images(x.view(-1, *SHAPE), torch.tensor(labels))


class _Array:
    """What the file says about an array, kept as it stands: numpy is never called on a file's word."""

    __slots__ = ("state",)

    def __init__(self, *state: Any) -> None:
        self.state = state

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Type(_Array):
    """What the file says about an array's type; its name comes first, and what is set later does not matter."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


def _empty(*_: Any) -> _Array:
    return _Array()


def _buffer(raw: Any, kind: Any, shape: Any, order: Any, *_: Any) -> _Array:
    """Protocol 5 writes an array in one piece."""
    return _Array(1, shape, kind, order == "F", raw)


def _encode(text: str, how: str) -> bytes:
    """Protocol 2, written by Python 3, spells bytes as text."""
    return str.encode(text, "latin1")


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    **{(m, "_reconstruct"): _empty for m in ("numpy.core.multiarray", "numpy._core.multiarray")},
    **{(m, "_frombuffer"): _buffer for m in ("numpy.core.numeric", "numpy._core.numeric")},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no published batch does")
        return ALLOWED[module, name]


def unpickle(blob: Blob) -> dict[str, Any]:
    """The dictionary in a batch, keys as texts, whichever protocol wrote it."""
    file = io.BytesIO(blob.data)
    try:
        found = _Reader(file, encoding="bytes").load()
    except Exception as error:  # a damaged pickle fails in any way there is
        raise Refused(f"{blob.where} is damaged or not a CIFAR batch ({_line(error)}); {ADVICE}") from None
    if not isinstance(found, dict) or file.read(1):
        raise Refused(f"{blob.where} is not one dictionary, as a CIFAR batch is; {ADVICE}")
    return {k.decode("latin1") if isinstance(k, bytes) else str(k): v for k, v in found.items()}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _tensor(array: Any, where: Path) -> Tensor:
    """uint8 [n, 3072], if that is what the file described."""
    try:
        return torch.from_numpy(_rows(*array.state))
    except (AttributeError, TypeError, ValueError, IndexError):
        raise Refused(f"{where} has no array of bytes n x 3072 under data; {ADVICE}") from None


def _rows(version: Any, shape: Any, kind: Any, fortran: Any, raw: Any) -> np.ndarray:
    n, width = shape
    if width != 3072 or _name(kind) != "u1" or len(raw) != n * width:
        raise ValueError
    rows = np.frombuffer(bytearray(raw), np.uint8).reshape((n, width), order="F" if fortran else "C")
    return np.ascontiguousarray(rows)


def _name(kind: Any) -> str:
    name = kind.state[0]
    return (name.decode("latin1") if isinstance(name, bytes) else name).lstrip("|")
