"""Tiny sets in the published layouts, made up on the spot: no test needs a network or a real set."""

import pickle
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prunery.data import DATASETS, batches, idx
from prunery.spec import Data

IMAGES = 20  # in each file
RNG = np.random.default_rng(0)


def idx_bytes(array):
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    )


def lay_idx(folder: Path, n: int = IMAGES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(RNG.integers(0, 256, (n, 28, 28))))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(n) % 10))
    return folder


def batch_dict(n: int, classes: int, key: str) -> dict:
    return {key: [i % classes for i in range(n)], "data": RNG.integers(0, 256, (n, 3072)).astype(np.uint8)}


def lay_batches(folder: Path, layout, n: int = IMAGES, protocol: int = 4) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    classes, key = (10, "labels") if layout is batches.CIFAR10 else (100, "fine_labels")
    for name in layout.files:
        (folder / name).write_bytes(pickle.dumps(batch_dict(n, classes, key), protocol=protocol))
    return folder


def lay_folder(path: Path, n: int = 10, classes: tuple[str, ...] = ("ant", "bee", "cat"), mode: str = "RGB") -> Path:
    for name in classes:
        (path / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            pixels = RNG.integers(0, 256, (8, 8) if mode == "L" else (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(path / name / f"{i:03}.png")
    return path


class ClassLabel:
    names = ("no", "yes")


def _hub_image():
    return type("Image", (), {})()


class Part(list):
    """As much of `datasets.Dataset` as is used."""

    def __init__(self, n: int, labels=(0, 1)):
        rows = ({"picture": Image.new("RGB", (8, 8), (i, 0, 0)), "answer": labels[i % len(labels)]} for i in range(n))
        super().__init__(rows)
        self.features = {"id": object(), "picture": _hub_image(), "answer": ClassLabel()}
        self._fingerprint = f"{n}"


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the package `datasets`: put splits under names."""
    store: dict[str, dict[str, Part]] = {"some/set": {"train": Part(20), "test": Part(6)}}
    fake = types.ModuleType("datasets")
    fake.load_dataset = lambda name: store[name]
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return store


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(idx, "COUNTS", dict.fromkeys(idx.COUNTS, IMAGES))
    monkeypatch.setattr(batches, "COUNTS", dict.fromkeys(batches.COUNTS, IMAGES))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    from torchvision import datasets

    def fetch(folder, download):
        raise RuntimeError("no route\nto host")

    for name in ("MNIST", "FashionMNIST", "CIFAR10", "CIFAR100"):
        monkeypatch.setattr(datasets, name, fetch)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    """A root with every set in it."""
    root = tmp_path_factory.mktemp("shelf")
    for layout in (idx.MNIST, idx.FASHION):
        lay_idx(root / layout.folder)
    for layout in (batches.CIFAR10, batches.CIFAR100):
        lay_batches(root / layout.folder, layout)
    lay_folder(root / "pets")
    return root


@pytest.fixture(params=[*DATASETS, "folder:", "hf:"])
def base(request, shelf, hub):
    """One spec for every way to name a set."""
    name = {"folder:": f"folder:{shelf / 'pets'}", "hf:": "hf:some/set"}.get(request.param, request.param)
    return Data(name=name, validation=4)


@pytest.fixture
def lay():
    """The makers, for tests that lay and then spoil."""
    return types.SimpleNamespace(
        idx=lay_idx, batches=lay_batches, folder=lay_folder, idx_bytes=idx_bytes, batch=batch_dict, Part=Part, n=IMAGES
    )


@pytest.fixture
def known():
    """A generator that tests may draw from."""
    return torch.Generator().manual_seed(7)
