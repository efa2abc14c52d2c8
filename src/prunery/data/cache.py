"""Decoded once: a set as one safetensors file that is checked in full before it is believed."""

import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..runs import read_tensors, write_tensors
from ..spec import Refused
from .sets import Images, Published, Source

VERSION = 1
"""raised when the same source files would give other tensors"""


def cached(name: str, resize: int, root: Path, source: Source) -> Published:
    """From the cache where it is whole and as new as its source; otherwise read, and kept if a disk allows it."""
    if not source.stamp:
        return source.read()
    stamp = f"{VERSION} {name} {resize} {source.stamp}"
    places = [folder / _file(name, resize, root) for folder in _folders(root)]
    return next(filter(None, (_read(p, stamp) for p in places)), None) or _keep(source.read(), stamp, places)


def _folders(root: Path) -> list[Path]:
    """Beside the files, or in the user's own cache where those are read-only."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prunery"
    return [root / ".prunery", home] if root.is_dir() else [home]


def _file(name: str, resize: int, root: Path) -> str:
    key = hashlib.sha256(repr((name, resize, str(root.resolve()))).encode()).hexdigest()[:12]
    return f"{''.join(c if c.isalnum() else '-' for c in name)[-40:]}-{key}.safetensors"


def _keep(published: Published, stamp: str, places: list[Path]) -> Published:
    """In the first place that can be written; a set that cannot be kept is still a set."""
    tensors = _tensors(published)
    about = {"stamp": stamp, "classes": published.classes, "sum": _sum(tensors)}
    any(_wrote(place, tensors, about) for place in places)
    return published


def _wrote(place: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> bool:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(place, tensors, about)
        return True
    except (OSError, Refused):
        return False


def _tensors(published: Published) -> dict[str, Tensor]:
    parts = {"train": published.train, "test": published.test}
    images = {f"{n}.{k}": v for n, part in parts.items() for k, v in (("x", part.x), ("y", part.y))}
    return {**images, "mean": published.mean, "deviation": published.deviation}


def _read(place: Path, stamp: str) -> Published | None:
    """What is there, unless anything about it is wrong."""
    try:
        tensors, about = read_tensors(place)
        if about["stamp"] == stamp and about["sum"] == _sum(tensors) and _sound(tensors, len(about["classes"])):
            return _published(tensors, tuple(about["classes"]))
    except (Refused, KeyError, TypeError):
        pass
    return None


def _published(tensors: dict[str, Tensor], classes: tuple[str, ...]) -> Published:
    train, test = (Images(tensors[f"{n}.x"], tensors[f"{n}.y"]) for n in ("train", "test"))
    return Published(classes, train, test, tensors["mean"], tensors["deviation"])


def _sum(tensors: dict[str, Tensor]) -> str:
    """CRC-32 of all the bytes and what they mean."""
    crc = zlib.crc32(json.dumps([(k, str(v.dtype), v.shape) for k, v in sorted(tensors.items())]).encode())
    for _, tensor in sorted(tensors.items()):
        crc = zlib.crc32(tensor.contiguous().view(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"


def _sound(tensors: dict[str, Tensor], classes: int) -> bool:
    channels, *_ = tensors["train.x"].shape[1:]
    moments = [tensors["mean"], tensors["deviation"]]
    parts = [_whole(tensors[f"{n}.x"], tensors[f"{n}.y"], classes) for n in ("train", "test")]
    alike = tensors["train.x"].shape[1:] == tensors["test.x"].shape[1:]
    return all(parts) and alike and all(m.shape == (channels,) and m.isfinite().all() for m in moments)


def _whole(x: Tensor, y: Tensor, classes: int) -> bool:
    kinds = (x.dtype, y.dtype) == (torch.uint8, torch.int64) and (x.ndim, y.ndim) == (4, 1)
    return kinds and len(x) == len(y) > 0 and int(y.min()) >= 0 and int(y.max()) < classes
