"""The words of the room: what a set is, before and after it is split."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..spec import Data


@dataclass(frozen=True)
class Facts:
    """What a network must know: channels, height and width of one input, and the classes."""

    name: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Images:
    """uint8 [n, C, H, W] and int64 [n]."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def at(self, index: Tensor) -> "Images":
        return Images(self.x[index], self.y[index])

    def to(self, device: str | torch.device) -> "Images":
        return Images(self.x.to(device), self.y.to(device))


@dataclass(frozen=True)
class Published:
    """A set as its authors cut it; mean and deviation per channel of the training images, in 0..1 units."""

    classes: tuple[str, ...]
    train: Images
    test: Images
    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, classes: tuple[str, ...], train: Images, test: Images) -> "Published":
        return cls(classes, train, test, *moments(train.x))


@dataclass(frozen=True)
class Splits:
    """What training works on, all on one device."""

    spec: Data
    facts: Facts
    train: Images
    validation: Images
    test: Images
    mean: Tensor
    deviation: Tensor


@dataclass(frozen=True)
class Source:
    """Where a set comes from: a stamp that changes when the content does, and how to read it."""

    stamp: str
    read: Callable[[], Published]


def stamp(files: list[Path]) -> str:
    """Names, sizes and times of change."""
    facts = [(str(p.resolve()), (s := p.stat()).st_size, s.st_mtime_ns) for p in files]
    return f"{len(files)} files, {zlib.crc32(repr(facts).encode()):08x}"


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel: from the counts of the 256 values, so exact whatever the order of images."""
    values = torch.arange(256, dtype=torch.float64) / 255
    share = torch.stack([torch.bincount(c.flatten(), minlength=256) for c in x.unbind(1)]).double()
    share /= share.sum(1, keepdim=True)
    mean = share @ values
    return mean.float(), (share * (values - mean[:, None]) ** 2).sum(1).sqrt().float()
