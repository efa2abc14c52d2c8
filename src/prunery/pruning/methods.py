"""The published methods as short compositions of steps: a plan in, for each density the steps that lead there."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..spec import Prune, Reset, Shrink, Spec, Train


@dataclass(frozen=True)
class Plan:
    """What all methods of one comparison share."""

    densities: tuple[float, ...]
    """from the largest to the smallest: a method goes on from each to the next"""
    retrain: Train
    """what a method may spend on each density"""
    start: Reset
    """where the weights go back to, for methods that begin anew"""
    parts: tuple[tuple[str, ...], ...] = ((),)
    """the layers whose channels can go, in a few parts from front to back, for methods that work layer by layer"""
    seed: int = 0

    @property
    def data(self) -> dict[str, Any]:
        return {"data": self.retrain.data, "seed": self.seed}


Steps = list[Spec]
Method = Callable[[Plan, float], Steps]


def global_(plan: Plan, density: float) -> Steps:
    """The weights of lowest magnitude of the whole network, not retrained."""
    return [Prune(density=density, **plan.data)]


def han(plan: Plan, density: float) -> Steps:
    """The weights of lowest magnitude of the whole network, retrained, and again (Han et al., 1506.02626)."""
    return [Prune(density=density, **plan.data), plan.retrain]


def random(plan: Plan, density: float) -> Steps:
    """The control of the methods for single weights: as many, chosen blindly, and retrained."""
    return [Prune(density=density, criterion="random", **plan.data), plan.retrain]


def lamp(plan: Plan, density: float) -> Steps:
    """Layer-adaptive magnitude (Lee et al., 2010.07611)."""
    return [Prune(density=density, scope="lamp", **plan.data), plan.retrain]


def flops(plan: Plan, density: float) -> Steps:
    """Magnitude, with the density counted in multiply-adds."""
    return [Prune(density=density, scope="flops", budget="multiply_adds", **plan.data), plan.retrain]


def lth(plan: Plan, density: float) -> Steps:
    """Prune what was trained, reset to the first weights, train again (Frankle and Carbin, 1803.03635)."""
    return [Prune(density=density, measure=False, **plan.data), plan.start, plan.retrain]


def rigl(plan: Plan, density: float) -> Steps:
    """Prune with ERK's layer densities, then let masks move to where gradients are large (Evci et al., 1911.11134)."""
    return [Prune(density=density, scope="erk", **plan.data), replace(plan.retrain, sparse="rigl")]


def set_(plan: Plan, density: float) -> Steps:
    """Prune with ERK's layer densities, then let masks move to places chosen at random (Mocanu et al., 1707.04780)."""
    return [Prune(density=density, scope="erk", **plan.data), replace(plan.retrain, sparse="set")]


def gradual(plan: Plan, density: float) -> Steps:
    """Prune on a cubic curve while retraining (Zhu and Gupta, 1710.01878)."""
    return [replace(plan.retrain, sparse="gradual", density=density)]


def snip(plan: Plan, density: float) -> Steps:
    """Prune the untrained network once, by what the loss says of each weight, then train (Lee et al., 1810.02340)."""
    return [plan.start, Prune(density=density, measure=False, criterion="snip", **plan.data), plan.retrain]


def synflow(plan: Plan, density: float) -> Steps:
    """Prune the untrained network without data, in a hundred rounds, then train (Tanaka et al., 2006.05467)."""
    rounds: dict[str, Any] = {"schedule": "geometric", "rounds": 100, "batches": 1, "batch": 2}
    return [plan.start, Prune(density=density, measure=False, criterion="synflow", **rounds, **plan.data), plan.retrain]


def _channels(plan: Plan, density: float, **how: Any) -> Prune:
    """Whole channels at that share of the first network's multiply-adds."""
    return Prune(density=density, structure="coupled", budget="multiply_adds", measure=False, **how, **plan.data)


def _by_parts(plan: Plan, density: float, **how: Any) -> Steps:
    """Front to back: a few layers lose channels, the rest is retrained; the last part meets the target exactly."""
    turns = [*plan.parts[:-1], ()]
    found: Steps = []
    for i, layers in enumerate(turns):
        short = replace(_part(plan.retrain, i, len(turns)), measure=i + 1 == len(turns))
        found += [_channels(plan, density, layers=layers, **how), Shrink(data=plan.retrain.data, measure=False), short]
    return found


def _part(train: Train, i: int, parts: int) -> Train:
    """One of several parts of the retraining, everything in it as much shorter; together they cost what it costs."""
    share = 1 / parts
    steps = None if train.steps is None else train.steps * (i + 1) // parts - train.steps * i // parts
    return replace(
        train,
        epochs=train.epochs * share,
        steps=steps,
        warmup=train.warmup * share,
        milestones=tuple(m * share for m in train.milestones),
        step_epochs=train.step_epochs * share if train.schedule == "step" else train.step_epochs,
    )


def li(plan: Plan, density: float) -> Steps:
    """Filters with the smallest L1 norm, of each layer as many as its sensitivity allows, layer by layer and retrained
    (Li et al., 1608.08710)."""
    return _by_parts(plan, density, criterion="l1", scope="sensitivity")


def thinet(plan: Plan, density: float) -> Steps:
    """Channels whose going the next layers feel least, those that stay reweighted, layer by layer with retraining
    (Luo et al., 1707.06342)."""
    return _by_parts(plan, density, criterion="thinet", scope="layer")


def thinet_norms(plan: Plan, density: float) -> Steps:
    """ThiNet by the norms of feature maps (a simplification): channels with the weakest go, layer by layer with
    retraining."""
    return _by_parts(plan, density, criterion="activation", scope="layer")


def random_channels(plan: Plan, density: float) -> Steps:
    """The control of the methods for channels: as many, chosen blindly, layer by layer with retraining."""
    return _by_parts(plan, density, criterion="random", scope="layer")


SLIMMING = 1e-4
"""Liu et al.'s weight of the scales' L1 norm for ResNets and DenseNets (1e-4 or 1e-5)."""


def slimming(plan: Plan, density: float) -> Steps:
    """Half of the retraining presses batch normalisation's scales to zero, the smallest go, the other half recovers
    (Liu et al., 1708.06519)."""
    press = replace(_part(plan.retrain, 0, 2), bn_l1=SLIMMING, measure=False)
    return [
        press,
        _channels(plan, density, criterion="bn_scale", scope="global"),
        Shrink(data=plan.retrain.data, measure=False),
        _part(plan.retrain, 1, 2),
    ]


METHODS: dict[str, Method] = {
    "global": global_,
    "han": han,
    "random": random,
    "lamp": lamp,
    "flops": flops,
    "lth": lth,
    "rigl": rigl,
    "set": set_,
    "gradual": gradual,
    "snip": snip,
    "synflow": synflow,
    "li": li,
    "thinet": thinet,
    "thinet_norms": thinet_norms,
    "random_channels": random_channels,
    "slimming": slimming,
}
FROM_DENSE = ("gradual", "snip", "synflow")
"""Methods that reach every density from the dense network instead of going on from the density before."""
STRUCTURED = ("li", "thinet", "thinet_norms", "random_channels", "slimming")
"""Methods that remove channels; their densities are shares of the multiply-adds."""
