"""A small learnable task, made up: three classes of 1x8x8 images that differ in where they are bright."""

import pytest
import torch
from torch import nn

from prunery.data import Facts, Images, Splits
from prunery.runs import Work
from prunery.spec import Data


def images(n, seed):
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (n,), generator=rng)
    x = torch.randint(0, 120, (n, 1, 8, 8), generator=rng)
    for i, label in enumerate(y):
        x[i, :, 2 * label : 2 * label + 3] += 100
    return Images(x.to(torch.uint8), y)


@pytest.fixture
def splits():
    facts = Facts("made-up", (1, 8, 8), ("a", "b", "c"))
    parts = (images(70, 1), images(40, 2), images(50, 3))
    return Splits(Data(scaling="unit"), facts, *parts, torch.tensor([0.4]), torch.tensor([0.3]))


@pytest.fixture
def network():
    """A convolution, a norm, dropout and a head: everything that has state of its own."""

    def make(seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
            return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 3))

    return make


@pytest.fixture
def work(tmp_path):
    def make(name="work"):
        (tmp_path / name).mkdir()
        return Work(tmp_path / name)

    return make
