"""Your own images: PATH/CLASS/*, or PATH/train/CLASS/* and PATH/test/CLASS/*."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..spec import Refused
from .pictures import pixels, readable, stack
from .sets import Images, Published, Source, stamp
from .splits import fifth

KINDS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
Found = list[tuple[Path, int]]


def source(name: str, root: Path, resize: int) -> Source:
    path = Path(name.removeprefix("folder:")).expanduser()
    if not path.is_dir():
        raise Refused(
            f"{path} is not a folder, seen from {Path.cwd()}; expected one with a sub-folder of images per class"
        )
    classes, train, test = survey(path)
    return Source(stamp([p for p, _ in train + test]), partial(read, classes, train, test, resize))


def survey(path: Path) -> tuple[tuple[str, ...], Found, Found]:
    """The classes, and every image with its class, without opening any."""
    cut = [p for p in (path / "train", path / "test") if p.is_dir()]
    if len(cut) == 1:
        raise Refused(f"{path} has {cut[0].name} and nothing beside it to compare; expected both train and test")
    classes = tuple(p.name for p in _folders(cut[0] if cut else path))
    if len(classes) < 2:
        raise Refused(f"{cut[0] if cut else path} has {len(classes)} sub-folders; expected one per class, two or more")
    train = _images(cut[0] if cut else path, classes)
    return classes, train, _images(cut[1], classes) if cut else []


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images(path: Path, classes: tuple[str, ...]) -> Found:
    """In the order of classes and names, whatever the file system's."""
    found = {folder: _inside(folder) for folder in _folders(path)}
    for folder, images in found.items():
        if folder.name not in classes:
            raise Refused(f"{folder} is a class that train does not have; expected some of {', '.join(classes[:9])}")
        if not images:
            raise Refused(f"{folder} has no images; expected files such as {', '.join(sorted(KINDS)[:5])}")
    if not found:
        raise Refused(f"{path} is empty; expected a sub-folder of images per class")
    return [(image, classes.index(folder.name)) for folder, images in found.items() for image in images]


def _inside(folder: Path) -> list[Path]:
    """Neither hidden files nor what lies in hidden folders, such as a disk's thumbnails."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in KINDS)
    return sorted(p for p in found if p.is_file() and not any(x.startswith(".") for x in p.relative_to(folder).parts))


def read(classes: tuple[str, ...], train: Found, test: Found, resize: int) -> Published:
    files = train + test
    x = stack(decode([p for p, _ in files], resize), [str(p) for p, _ in files])
    everything = Images(x, torch.tensor([label for _, label in files]))
    tests = torch.arange(len(files)) >= len(train) if test else fifth(everything.y)
    return Published.of(classes, everything.at(~tests), everything.at(tests))


def decode(files: list[Path], resize: int) -> list[np.ndarray]:
    """All at once: Pillow decodes outside the interpreter's lock."""
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return list(pool.map(partial(_decode, resize=resize), files))


def _decode(file: Path, resize: int) -> np.ndarray:
    with readable(str(file)), Image.open(file) as image:
        return pixels(image, str(file), resize)
