"""What a ticket is compared with, and how tickets begin again: one function each, in two tables."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..masks import Mask
from .trial import Start

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
    oneshot: Callable[[], Mask]
    """the dense network pruned at once to this level"""
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
    return hand.first, hand.oneshot()


def oneshot_reinit(hand: Hand) -> Begun:
    """The mask of one round, other weights."""
    return Start(hand.fresh()), hand.oneshot()


def signs(hand: Hand) -> Begun:
    """Of the first weights only the signs: each has its layer's deviation as its size (Zhou et al. 1905.01067)."""
    return Start({n: w.sign() * w.std() if n in hand.mask else w for n, w in hand.theta.items()}), hand.mask


CONTROLS: dict[str, Callable[[Hand], Begun]] = {
    "reinit": reinit, "random": random, "shuffled": shuffled, "oneshot": oneshot, "oneshot_reinit": oneshot_reinit,
    "signs": signs,
}  # fmt: skip


def back(first: Start, last: Callable[[], Weights]) -> Start:
    """Strategy 1: tickets begin where they once began."""
    return first


def on(first: Start, last: Callable[[], Weights]) -> Start:
    """Strategy 2: go on from the trained weights, at the same learning rate (learning-rate rewinding)."""
    return Start(last())


STRATEGIES: dict[str, Callable[[Start, Callable[[], Weights]], Start]] = {"ticket": back, "continued": on}
"""Arms that are pruned from level to level by themselves."""


def _shuffled(hand: Hand) -> Mask:
    order = lambda m: torch.randperm(m.numel(), generator=hand.rng)  # noqa: E731
    return {n: m.flatten()[order(m)].view(m.shape) for n, m in hand.mask.items()}
