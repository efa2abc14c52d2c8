"""What a ticket is compared with, and how tickets begin again: one function each, in two tables."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ..masks import Mask
from .start import Start

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Hand:
    """What a control is made from, at one level of one seed."""

    mask: Mask
    """the ticket's"""
    first: Start
    """what tickets go back to"""
    theta: Weights
    """the first weights, before any training"""
    dense: Callable[[], Weights]
    """the dense network after training"""
    pruned: Callable[[Weights], Mask]
    """any weights pruned at once to this level"""
    early: Callable[[], tuple[Weights, int]]
    """the dense network when its mask of this level has settled, and that iteration"""
    source: Callable[[], Mask]
    """the mask of this level that another lottery's ticket has"""
    fresh: Callable[[], Weights]
    """weights drawn anew"""
    rng: torch.Generator


Begun = tuple[Start, Mask]


def reinit(hand: Hand) -> Begun:
    """The ticket's mask, other weights."""
    return Start(hand.fresh()), hand.mask


def random(hand: Hand) -> Begun:
    """As many weights of each layer, at random places, and other values: the paper's random sparse networks."""
    return Start(hand.fresh()), _shuffled(hand)


def shuffled(hand: Hand) -> Begun:
    """The ticket's first weights, as many of each layer, at random places."""
    return hand.first, _shuffled(hand)


def oneshot(hand: Hand) -> Begun:
    """Pruned in one round instead of many."""
    return hand.first, hand.pruned(hand.dense())


def oneshot_reinit(hand: Hand) -> Begun:
    """The mask of one round, other weights."""
    return Start(hand.fresh()), hand.pruned(hand.dense())


def signs(hand: Hand) -> Begun:
    """Of the first weights only the signs: each has its layer's deviation as its size (Zhou et al. 1905.01067)."""
    return Start(_on_masked(hand, lambda w: w.sign() * w.std())), hand.mask


def constant(hand: Hand) -> Begun:
    """The same sizes, and signs drawn anew: what `signs` is to be compared with."""
    return Start(_on_masked(hand, lambda w: (torch.randn(w.shape, generator=hand.rng)).sign() * w.std())), hand.mask


def resampled(hand: Hand) -> Begun:
    """Each layer's own first weights, those of the ticket, in another order (the paper's appendix F.3)."""
    weights = dict(hand.theta)
    for name, mask in hand.mask.items():
        values = hand.theta[name][mask]
        order = torch.randperm(len(values), generator=hand.rng)
        weights[name] = hand.theta[name].masked_scatter(mask, values[order])
    return Start(weights), hand.mask


def noise(deviations: float, hand: Hand) -> Begun:
    """The first weights and noise of so many of their layer's deviations (the paper's appendix F.7)."""
    add = lambda w: w + deviations * w.std() * torch.randn(w.shape, generator=hand.rng)  # noqa: E731
    return Start(_on_masked(hand, add)), hand.mask


def untrained(hand: Hand) -> Begun:
    """The ticket before it is trained: what the mask alone knows."""
    return replace(hand.first, until=hand.first.iteration), hand.mask


def untrained_same_sign(hand: Hand) -> Begun:
    """The same with the dense network's largest weights, of those that have kept their signs (1905.01067)."""
    kept = {n: (w * hand.theta[n].sign()).clamp(min=0) if n in hand.mask else w for n, w in hand.dense().items()}
    return Start(hand.theta, until=0), hand.pruned(kept)


def supermask(hand: Hand) -> Begun:
    """The first weights as they are, and a mask that is learned."""
    return Start(hand.theta, masking=True), hand.mask


def earlybird(hand: Hand) -> Begun:
    """Pruned at once when the dense network's mask no longer changes, and trained on from there (1909.11957)."""
    weights, iteration = hand.early()
    return Start(weights, iteration), hand.pruned(weights)


def transferred(hand: Hand) -> Begun:
    """The mask that a ticket has on other images or with another optimiser, on the same first weights."""
    return hand.first, hand.source()


def twin(hand: Hand) -> Begun:
    """The ticket again, with another order of images: how far apart do two of them end?"""
    return hand.first, hand.mask


NOISES = (0.5, 1.0, 2.0, 3.0)
CONTROLS: dict[str, Callable[[Hand], Begun]] = {
    "reinit": reinit, "random": random, "shuffled": shuffled, "oneshot": oneshot, "oneshot_reinit": oneshot_reinit,
    "signs": signs, "constant": constant, "resampled": resampled,
    **{f"noise_{d:g}": partial(noise, d) for d in NOISES},
    "untrained": untrained, "untrained_same_sign": untrained_same_sign, "supermask": supermask,
    "earlybird": earlybird, "transferred": transferred, "twin": twin,
}  # fmt: skip


def back(first: Start, last: Callable[[], Weights]) -> Start:
    """Strategy 1: tickets begin where they once began."""
    return first


def on(first: Start, last: Callable[[], Weights]) -> Start:
    """Strategy 2: go on from the trained weights; learning rates begin again (learning-rate rewinding)."""
    return Start(last())


def finely(first: Start, last: Callable[[], Weights]) -> Start:
    """Go on from the trained weights with the learning rate that is left at the end."""
    return Start(last(), slow=True)


STRATEGIES: dict[str, Callable[[Start, Callable[[], Weights]], Start]] = {
    "ticket": back, "continued": on, "finetuned": finely,
}  # fmt: skip
"""Arms that are pruned from level to level by themselves."""


def _shuffled(hand: Hand) -> Mask:
    order = lambda m: torch.randperm(m.numel(), generator=hand.rng)  # noqa: E731
    return {n: m.flatten()[order(m)].view(m.shape) for n, m in hand.mask.items()}


def _on_masked(hand: Hand, change: Callable[[Tensor], Tensor]) -> Weights:
    """The first weights, those of prunable layers changed."""
    return {n: change(w) if n in hand.mask else w for n, w in hand.theta.items()}
