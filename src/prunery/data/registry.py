"""The sets by name, and the way from a spec to tensors."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..spec import Data, Refused, choose
from . import batches, classes, digits, folder, hub, idx
from .cache import cached
from .files import present
from .sets import Facts, Images, Published, Source, Splits
from .splits import hold_out

Open = Callable[[str, Path, int], Source]
"""name, root and side (0: as they are) to the source; downloads what is missing, decodes nothing"""


@dataclass(frozen=True)
class Dataset:
    """What is known of a set without reading it."""

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    held_out: int | None
    """validation images when the spec does not say; None: a tenth"""
    open: Open


DATASETS: dict[str, Dataset] = {
    "digits": Dataset((1, 8, 8), classes.DIGITS, None, digits.source),
    "mnist": Dataset((1, 28, 28), classes.DIGITS, 5000, partial(idx.source, idx.MNIST, classes.DIGITS)),
    "fashion_mnist": Dataset((1, 28, 28), classes.FASHION, 5000, partial(idx.source, idx.FASHION, classes.FASHION)),
    "cifar10": Dataset((3, 32, 32), classes.CIFAR10, 5000, partial(batches.source, batches.CIFAR10, classes.CIFAR10)),
    "cifar100": Dataset(
        (3, 32, 32), classes.CIFAR100, 5000, partial(batches.source, batches.CIFAR100, classes.CIFAR100)
    ),
}
LAYOUTS = {k.name: k for k in (idx.MNIST, idx.FASHION, batches.CIFAR10, batches.CIFAR100)}
PREFIXES: dict[str, Open] = {"folder:": folder.source, "hf:": hub.source}


def facts(spec: Data, root: Path) -> Facts:
    """Shape and classes; a set of the registry is not read for it."""
    known = DATASETS.get(spec.name)
    if known:
        return _facts(spec, known.shape, known.classes)
    found = _published(spec, Path(root))
    return _facts(spec, tuple(found.train.x.shape[1:]), found.classes)


def checksum(spec: Data, root: Path) -> str:
    """Of the images and labels of a set that its name does not say: a folder's change, those of the registry do not."""
    if spec.name in DATASETS:
        return ""
    return _sum(_published(spec, Path(root)))


def _sum(found: Published) -> str:
    digest = hashlib.sha256(repr(found.classes).encode())
    for part in (found.train, found.test):
        digest.update(repr(tuple(part.x.shape)).encode())
        digest.update(part.x.contiguous().numpy().data)
        digest.update(part.y.contiguous().numpy().data)
    return digest.hexdigest()


def found(name: str, root: Path) -> bool:
    """Whether a set can be used without a download."""
    layout = LAYOUTS.get(name)
    return layout is None or present(Path(root), layout)


def _facts(spec: Data, shape: tuple[int, ...], classes: tuple[str, ...]) -> Facts:
    """As the network sees them; what the spec asks of the images is possible."""
    channels, height, width = (shape[0], spec.resize, spec.resize) if spec.resize else shape
    if spec.scaling == "imagenet" and channels != 3:
        raise Refused(f'data.scaling = "imagenet" needs colour; {spec.name} has {channels} channel: choose "channel"')
    if spec.crop >= min(height, width):
        raise Refused(f"data.crop = {spec.crop} can miss an image of {width}x{height} altogether; give less")
    return Facts(spec.name, (channels, height, width), classes)


def load(spec: Data, root: Path, device: str | torch.device = "cpu") -> Splits:
    """Everything on the device, as bytes; images of a folder that are not those of the spec's checksum are refused."""
    if spec.name in DATASETS:
        facts(spec, root)  # what cannot be is refused before anything is downloaded
    found = _published(spec, Path(root))
    if spec.sha256 and spec.name not in DATASETS and _sum(found) != spec.sha256:
        raise Refused(f"the images of {spec.name} have changed: their SHA-256 is not {spec.sha256}; put those back")
    told = _facts(spec, tuple(found.train.x.shape[1:]), found.classes)
    if not len(found.test):
        raise Refused(f"{spec.name} has no test images; give a class two images or more, or a test folder")
    known = DATASETS.get(spec.name)
    parts = [*hold_out(found.train, spec, known.held_out if known else None), found.test]
    train, validation, test = (p.to(device) for p in parts)
    return Splits(spec, told, train, validation, test, found.mean.to(device), found.deviation.to(device))


def _published(spec: Data, root: Path) -> Published:
    """A set of unknown image sizes is resized as it is decoded, the others on the device."""
    prefix = next((p for p in PREFIXES if spec.name.startswith(p)), None)
    choose(prefix or spec.name, [*DATASETS, *PREFIXES], "data.name")
    resize = spec.resize if prefix else 0
    opened = PREFIXES[prefix] if prefix else DATASETS[spec.name].open
    try:
        return cached(spec.name, resize, root, opened(spec.name, root, resize))
    except OSError as error:
        raise Refused(f"{spec.name}: {error.filename or root} cannot be read: {error.strerror or error}") from None


def named(what: str) -> str:
    """The name of what a command calls its images: a set's own, or a folder's path."""
    return f"folder:{what}" if what not in DATASETS and os.path.isdir(what) else what


def describe(splits: Splits) -> dict[str, Any]:
    """What `prunery data` shows, ready for JSON."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {
        "name": splits.facts.name,
        "shape": list(splits.facts.shape),
        "classes": list(splits.facts.classes),
        "sizes": {k: len(v) for k, v in parts.items()},
        "per_class": {k: _counts(v, len(splits.facts.classes)) for k, v in parts.items()},
        "mean": _numbers(splits.mean),
        "deviation": _numbers(splits.deviation),
    }


def _counts(images: Images, classes: int) -> list[int]:
    return torch.bincount(images.y, minlength=classes).tolist()


def _numbers(x: Tensor) -> list[float]:
    return [round(v, 6) for v in x.tolist()]
