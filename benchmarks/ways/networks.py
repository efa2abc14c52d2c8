"""The networks that are compared: finished steps of the recipes, opened, or stand-ins that nobody has trained."""

import copy
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from contest import prunable, pruned
from torch import Tensor, nn

import prunery
from prunery import data
from prunery.chain import Place, filled, network_of
from prunery.masks import prunable as weights_of
from prunery.measure import count, totals
from prunery.models import build
from prunery.runs import Runs, Step
from prunery.spec import Model, Refused, read_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
LABELS = {
    "conv6_ways": ("dense", "dense_longer", "channels", "low_rank", "sparse", "blocks", "channels_sparse"),
    "conv6_student": ("student",),
}
SHAPE = (3, 32, 32)
TYPICAL = 320
"""training images that show every run time of bytes the ranges of activations"""


@dataclass(frozen=True)
class Net:
    """A network under its label, the step that made it, and what one image costs."""

    label: str
    network: nn.Module
    step: str
    commit: str
    multiply_adds: float
    kept: float
    """multiply-adds whose weight is not zero"""


@dataclass(frozen=True)
class Images:
    """Test images as the networks see them, with their labels, and typical ones to calibrate with."""

    x: Tensor
    y: Tensor
    typical: Tensor


def net(label: str, network: nn.Module, step: str = "", commit: str = "") -> Net:
    network = network.eval()
    shape = next(m.in_channels for m in network.modules() if isinstance(m, nn.Conv2d)), *SHAPE[1:]
    rows = count(network, shape, masks={n: w != 0 for n, w in weights_of(network).items()})
    sums = totals(rows)
    return Net(label, network, step, commit, sums["multiply_adds"], sums["kept_multiply_adds"])


def finished(runs: Path, root: Path, settings: list[str]) -> dict[str, Net]:
    """What the recipes have made in a folder of runs; `settings` are those that it was made with."""
    place, found = Place(Runs(runs), root), dict[str, Net]()
    for recipe, labels in LABELS.items():
        for label in labels:
            if step := step_of(recipe, label, place, settings):
                commit = step.env.get("commit") or "unknown"
                found[label] = net(label, network_of(step)[0], step.name, commit)
    return found


def step_of(recipe: str, label: str, place: Place, settings: list[str]) -> Step | None:
    """The step under a label, if it is there."""
    path = RECIPES / f"{recipe}.toml"
    known = {stage.label for stage in read_recipe(path).stages}
    mine = [s for s in settings if s.partition(".")[0] in known]
    try:
        node = filled(read_recipe(path, mine), place).nodes()[label]
    except Refused as refusal:  # the student's teacher is not here, so neither is the student
        print(f"{label}: {refusal}", file=sys.stderr)
        return None
    return Step(place.runs.path(node)) if place.runs.path(node).exists() else None


def test_images(root: Path) -> Images:
    recipe = read_recipe(RECIPES / "conv6_ways.toml")
    splits = data.load(recipe.data, root)
    chosen = torch.randperm(len(splits.train.y), generator=torch.Generator().manual_seed(0))[:TYPICAL]
    return Images(data.inputs(splits.test.x, splits), splits.test.y, data.inputs(splits.train.x[chosen], splits))


# ---- stand-ins: the same shapes, untrained


def stand_ins() -> dict[str, Net]:
    dense = untrained("conv6")
    made = {
        "dense": dense,
        "dense_longer": copy.deepcopy(dense),
        "student": untrained("resnet20"),
        "channels": narrow(dense),
    }
    for label, source, density, block in (
        ("sparse", "dense", 0.1, 1), ("blocks", "dense", 0.1, 4), ("channels_sparse", "channels", 0.2, 1),
    ):  # fmt: skip
        made[label] = copy.deepcopy(made[source])
        pruned(prunable(made[label]), density, "magnitude", block)
    made["low_rank"] = prunery.pruning.factorise(dense, torch.randn(2, *SHAPE), multiply_adds=0.33)
    return {label: net(label, network) for label, network in made.items()}


def untrained(name: str) -> nn.Module:
    return build(Model(name=name, input=SHAPE, classes=10, init="kaiming_normal"), 0).eval()


def narrow(dense: nn.Module) -> nn.Module:
    example = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    network = copy.deepcopy(dense)
    how = {"structure": "coupled", "criterion": "l1", "budget": "multiply_adds"}
    masks = prunery.prune(network, 0.33, example=example, **how)
    return prunery.shrink(network, masks, example, 8)[0]


def random_images(number: int, shape: tuple[int, int, int] = SHAPE) -> Images:
    rng = torch.Generator().manual_seed(0)
    x, typical = (torch.randn(n, *shape, generator=rng) for n in (number, 64))
    return Images(x, torch.randint(10, (number,), generator=rng), typical)
