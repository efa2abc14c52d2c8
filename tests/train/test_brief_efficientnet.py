"""recipes/efficientnet_b0_cifar10.toml against the brief's own PyTorch code."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import random_split
from torchvision import transforms

from prunery.data import Images, Splits, inputs
from prunery.data.registry import facts
from prunery.data.splits import hold_out
from prunery.data.stream import Stream
from prunery.models import build
from prunery.spec import Model, Train, read_recipe
from prunery.train import Freezing, rate
from prunery.train.optim import optimizer

RECIPE = read_recipe(Path(__file__).parents[2] / "recipes/efficientnet_b0_cifar10.toml")
TRAIN = next(s.spec for s in RECIPE.stages if isinstance(s.spec, Train))
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def splits(pixels):
    images = Images(pixels, torch.zeros(len(pixels), dtype=torch.int64))
    ones = torch.ones(3)
    return Splits(TRAIN.data, facts(TRAIN.data, Path("nowhere")), images, images, images, ones, ones)


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def theirs(pixels):
    """Resize, ToTensor, Normalize on pictures, as the brief has them for validation."""
    prepare = transforms.Compose([transforms.Resize(224), transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)])
    return torch.stack([prepare(Image.fromarray(np.asarray(p.permute(1, 2, 0)))) for p in pixels])


def test_the_split_is_random_splits():
    everything = torch.arange(50_000)
    train_size = int(0.9 * 50_000)
    sizes = [train_size, 50_000 - train_size]
    theirs = random_split(everything, sizes, generator=torch.Generator().manual_seed(42))
    ours = hold_out(Images(everything[:, None], everything), TRAIN.data, None)
    assert [part.y.tolist() for part in ours] == [list(part.indices) for part in theirs]


def test_images_are_those_of_its_transforms(pixels):
    """To a grey level: pictures are rounded when they are resized, once along each side."""
    ours = inputs(pixels, splits(pixels))
    assert ours.shape == (4, 3, 224, 224)
    assert float((ours - theirs(pixels)).abs().max()) <= 1.01 / 255 / min(DEVIATION)


def test_training_images_are_those_or_their_mirror_images(pixels):
    plain = inputs(pixels, splits(pixels))
    seen = set()
    for step in range(12):
        x, _ = Stream(splits(pixels), 4, 0)(step)
        for image in x:
            found = [(i, m) for i in range(4) for m in (0, 1)
                     if torch.allclose(image, plain[i].flip(2) if m else plain[i], atol=1e-6)]  # fmt: skip
            assert len(found) == 1
            seen.add(found[0])
    assert len(seen) == 8


def test_the_rule_is_its_optimiser_and_its_schedule():
    network = build(Model(name="efficientnet_b0", input=(3, 32, 32), classes=10), 0)
    freezing = Freezing(network, TRAIN)
    freezing.set_(TRAIN.epochs)
    ours = optimizer(network, TRAIN)
    assert type(ours) is torch.optim.SGD
    (group,) = ours.param_groups
    assert {k: group[k] for k in ("lr", "momentum", "weight_decay", "nesterov")} == {
        "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": False,
    }  # fmt: skip
    wanted = list(filter(lambda p: p.requires_grad, network.parameters()))
    assert [id(p) for p in group["params"]] == list(map(id, wanted))
    assert 0 < len(wanted) < len(list(network.parameters()))
    theirs = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(theirs, step_size=5, gamma=0.1)
    for epoch in range(int(TRAIN.epochs)):
        assert rate(TRAIN, 352 * epoch, 352, 352 * 15) == pytest.approx(schedule.get_last_lr()[0])
        theirs.step()
        schedule.step()


def test_the_rest_of_its_settings():
    assert (TRAIN.batch, TRAIN.label_smoothing, TRAIN.mixup, TRAIN.teacher) == (128, 0.0, 0.0, "")
    assert RECIPE.init.model == Model(name="efficientnet_b0", weights="pretrained")
    assert all(s.spec.data == TRAIN.data for s in RECIPE.stages if hasattr(s.spec, "data"))


def test_the_head_learns_first_and_the_front_never():
    network = build(Model(name="efficientnet_b0", input=(3, 32, 32), classes=10), 0)
    freezing = Freezing(network, TRAIN)
    learning = []
    for epoch in (0.0, 0.99, 1.0, 2.0, 14.99):
        frozen = freezing.at(epoch)
        names = (n for n in network.state_dict() if n not in frozen)
        learning.append({n.split(".")[1] if n.startswith("features") else "head" for n in names})
    front = {"head", "7", "8"}
    assert learning == [{"head"}, {"head"}, front, front | {"5", "6"}, front | {"5", "6"}]
