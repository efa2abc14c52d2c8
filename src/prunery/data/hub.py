"""Sets of the Hugging Face hub, through `datasets`: an image column, a label column, a train split."""

import importlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..spec import Refused, install
from .pictures import pixels, readable, stack
from .sets import Images, Published, Source
from .splits import fifth


def source(name: str, root: Path, resize: int) -> Source:
    parts = _load(name.removeprefix("hf:"), name)
    prints = [getattr(parts[k], "_fingerprint", "") for k in sorted(parts)]
    return Source(" ".join(map(str, prints)), partial(read, parts, name, resize))


def _load(path: str, name: str) -> dict[str, Any]:
    try:
        load_dataset = importlib.import_module("datasets").load_dataset
    except ImportError:
        raise Refused(f"{name} needs a package that is missing; {install('hf', 'datasets')}") from None
    try:
        return dict(load_dataset(path))
    except Exception as error:  # the hub, the network and the files fail in their own ways
        raise Refused(f"{name} cannot be loaded: {' '.join(str(error).split())[:160]}") from None


def read(parts: dict[str, Any], name: str, resize: int) -> Published:
    if "train" not in parts:
        raise Refused(f"{name} has the splits {', '.join(parts)}; expected one called train")
    image, label, classes = _columns(parts["train"].features, name)
    test = next((parts[k] for k in ("test", "validation") if k in parts), ())
    pairs = [p for part in (parts["train"], test) for p in _pairs(part, image, label, name, resize)]
    x = stack([x for x, _ in pairs], [f"{name}: image {i}" for i in range(len(pairs))])
    everything = Images(x, _labels([y for _, y in pairs], len(classes), name))
    tests = torch.arange(len(pairs)) >= len(parts["train"]) if test else fifth(everything.y)
    return Published.of(classes, everything.at(~tests), everything.at(tests))


def _columns(features: dict[str, Any], name: str) -> tuple[str, str, tuple[str, ...]]:
    """The first column of images and the first of classes."""
    kinds = {kind: column for column, kind in reversed([(c, type(f).__name__) for c, f in features.items()])}
    if not {"Image", "ClassLabel"} <= set(kinds):
        raise Refused(f"{name} has the columns {', '.join(features)}; expected one of images and one of class labels")
    return kinds["Image"], kinds["ClassLabel"], tuple(features[kinds["ClassLabel"]].names)


def _pairs(part: Any, image: str, label: str, name: str, resize: int) -> Iterator[tuple[np.ndarray, Any]]:
    for i, row in enumerate(part):
        with readable(f"{name}: image {i}"):
            picture = pixels(row[image], f"{name}: image {i}", resize)
        yield picture, row[label]


def _labels(labels: list[Any], classes: int, name: str) -> torch.Tensor:
    bad = [i for i in labels if not (isinstance(i, int) and 0 <= i < classes)]
    if bad:
        raise Refused(f"{name} has the label {bad[0]!r}; expected 0 to {classes - 1} for every image")
    return torch.tensor(labels)
