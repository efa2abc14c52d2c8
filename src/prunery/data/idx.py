"""MNIST's own format: a magic number, the dimensions, the bytes."""

import math
import struct
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..spec import Refused
from .files import Blob, Layout, contents, locate
from .sets import Images, Published, Source, stamp

SIDE = 28
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
MNIST = Layout("mnist", "MNIST/raw", FILES, "MNIST")
FASHION = Layout("fashion_mnist", "FashionMNIST/raw", FILES, "FashionMNIST")
COUNTS = dict.fromkeys(FILES[:2], 60_000) | dict.fromkeys(FILES[2:], 10_000)
"""images or labels in a file: a part of the set must not pass for the whole under its name"""
ADVICE = "remove it and fetch or copy the published file again"


def source(layout: Layout, classes: tuple[str, ...], name: str, root: Path, resize: int) -> Source:
    files = locate(root, layout)
    return Source(stamp(list(files.values())), partial(read, files, classes))


def read(files: dict[str, Path], classes: tuple[str, ...]) -> Published:
    blobs = dict(contents(files))
    pairs = ((FILES[0], FILES[1]), (FILES[2], FILES[3]))
    train, test = (_images(blobs[a], blobs[b], len(classes), COUNTS[a]) for a, b in pairs)
    return Published.of(classes, train, test)


def _images(images: Blob, labels: Blob, classes: int, count: int) -> Images:
    """Pictures and labels that belong together."""
    x, y = parse(images, 3), parse(labels, 1)
    if x.shape[1:] != (SIDE, SIDE):
        raise Refused(f"{images.where} holds images of {x.shape[1]}x{x.shape[2]}; expected {SIDE}x{SIDE}: {ADVICE}")
    if len(x) != len(y):
        raise Refused(f"{labels.where} holds {len(y)} labels for the {len(x)} images of {images.where.name}; {ADVICE}")
    if len(x) != count:
        raise Refused(f"{images.where} holds {len(x)} images; expected the published {count}: {ADVICE}")
    if y.max() >= classes:
        raise Refused(f"{labels.where} holds the label {int(y.max())}; expected 0 to {classes - 1}: {ADVICE}")
    return Images(x[:, None], y.long())


def parse(blob: Blob, dimensions: int) -> Tensor:
    """The array in an idx file of unsigned bytes; every length is checked before it is used."""
    start = 4 + 4 * dimensions
    if blob.data[:4] != bytes([0, 0, 8, dimensions]) or len(blob.data) < start:
        seen, expected = blob.data[:4].hex(" "), bytes([0, 0, 8, dimensions]).hex(" ")
        raise Refused(
            f"{blob.where} begins with {seen or 'nothing'}; expected {expected}, the mark of such a file: {ADVICE}"
        )
    shape = struct.unpack_from(f">{dimensions}I", blob.data, 4)
    if len(blob.data) - start != math.prod(shape) or not math.prod(shape):
        size = f"{len(blob.data)} bytes; its header says {start + math.prod(shape)} for {'x'.join(map(str, shape))}"
        raise Refused(f"{blob.where} has {size}: it is {_fault(len(blob.data) - start, math.prod(shape))}; {ADVICE}")
    return torch.frombuffer(bytearray(blob.data), dtype=torch.uint8, offset=start).view(shape)


def _fault(seen: int, expected: int) -> str:
    return "empty" if not expected else "truncated" if seen < expected else "followed by something else"
