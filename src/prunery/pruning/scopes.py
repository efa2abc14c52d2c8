"""Scopes: which units are ranked together, how many of each layer stay. Counts are exact, ties go to the earlier."""

from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import Tensor

from ..spec import Refused
from .select import best, itself


@dataclass(frozen=True)
class Ranking:
    """The units of each layer (or of each group of coupled channels): scores, who is left, and what they cost."""

    scores: dict[str, Tensor]
    alive: dict[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    costs: dict[str, float] = field(default_factory=dict)
    """multiply-adds of a unit"""
    curves: dict[str, Tensor] = field(default_factory=dict)
    """sensitivity: rows of (density, what the loss rose by)"""
    table: dict[str, float] = field(default_factory=dict)
    """of scope table: density by layer (or group)"""
    allow_empty: bool = False
    rank: Callable[[Tensor], Tensor] = itself
    """scores of what `scores` holds, where that is cheaper to make piece by piece than to keep (magnitude)"""

    def ranked(self, name: str) -> Tensor:
        return self.rank(self.scores[name])

    @property
    def units(self) -> int:
        return sum(a.numel() for a in self.alive.values())

    @property
    def left(self) -> dict[str, int]:
        return {n: int(a.count_nonzero()) for n, a in self.alive.items()}

    @property
    def least(self) -> int:
        """Units that every layer keeps."""
        return 0 if self.allow_empty else 1


Kept = dict[str, Tensor]
Scope = Callable[[Ranking, float], Kept]


def _within(ranking: Ranking, counts: dict[str, int]) -> Kept:
    """The best of each layer; never more than are left, never fewer than must stay."""
    found = {}
    for name, left in ranking.left.items():
        keep = min(max(counts[name], ranking.least), left)
        (found[name],) = best([ranking.scores[name]], [ranking.alive[name]], keep, ranking.rank)
    return found


def _together(ranking: Ranking, keep: int, scores: dict[str, Tensor]) -> Kept:
    """All units in one ranking; each layer's best stays, so that no layer is cut through, unless that is allowed."""
    names = list(scores)
    alive = [ranking.alive[n] for n in names]
    left = ranking.left
    keep = min(max(keep, ranking.least * sum(map(bool, left.values()))), sum(left.values()))
    same = scores is ranking.scores
    every = bool(ranking.least)
    return dict(
        zip(names, best([scores[n] for n in names], alive, keep, ranking.rank if same else itself, every), strict=True)
    )


def _shared(ranking: Ranking, shares: dict[str, float], total: int) -> dict[str, int]:
    """Whole numbers near the shares that add up to the total: the largest remainders are rounded up."""
    left = ranking.left
    wish = {n: min(max(shares[n] * ranking.alive[n].numel(), min(ranking.least, left[n])), left[n]) for n in shares}
    counts = {n: int(w) for n, w in wish.items()}
    order = sorted(wish, key=lambda n: counts[n] - wish[n])
    spare = total - sum(counts.values())
    while spare > 0 and any(counts[n] < left[n] for n in order):
        for n in order:
            if spare > 0 and counts[n] < left[n]:
                counts[n], spare = counts[n] + 1, spare - 1
    while spare < 0 and any(counts[n] > min(ranking.least, left[n]) for n in order):
        for n in reversed(order):  # layers that were raised to the least they keep took from the others
            if spare < 0 and counts[n] > min(ranking.least, left[n]):
                counts[n], spare = counts[n] - 1, spare + 1
    return counts


def everywhere(ranking: Ranking, density: float) -> Kept:
    return _together(ranking, round(density * ranking.units), ranking.scores)


def layer(ranking: Ranking, density: float) -> Kept:
    """The same share of every layer."""
    return _within(ranking, {n: round(density * a.numel()) for n, a in ranking.alive.items()})


def uniform(ranking: Ranking, density: float) -> Kept:
    """The first layer whole, the same share of all others (Evci et al., 1911.11134); exact over the whole network."""
    first, *others = ranking.alive
    whole, rest = ranking.alive[first].numel(), ranking.units - ranking.alive[first].numel()
    total = round(density * ranking.units)
    if total < whole + len(others):
        least = (whole + len(others)) / ranking.units
        raise Refused(
            f"prune.density = {density:g} is too little for scope uniform, which keeps {first} whole: "
            f"expected {least:.4g} or more, or another scope (layer, erk)"
        )
    shares = {n: 1.0 if n == first else (total - whole) / max(rest, 1) for n in ranking.alive}
    return _within(ranking, _shared(ranking, shares, total))


def erk(ranking: Ranking, density: float) -> Kept:
    """Erdos-Renyi-kernel: density in proportion to the sum of a weight's sides over their product (1911.11134)."""
    raw = {n: sum(s) / float(np.prod(s)) for n, s in ranking.shapes.items()}
    return _within(ranking, _shared(ranking, _capped(ranking, raw, density), round(density * ranking.units)))


def _capped(ranking: Ranking, raw: dict[str, float], density: float) -> dict[str, float]:
    """Densities in proportion to `raw`; layers that would exceed 1 are whole, and the others share what is left."""
    whole: set[str] = set()
    while True:
        budget = density * ranking.units - sum(ranking.alive[n].numel() for n in whole)
        size = sum(raw[n] * ranking.alive[n].numel() for n in raw if n not in whole)
        factor = max(budget, 0) / size if size else 0.0
        over = {n for n in raw if n not in whole and factor * raw[n] > 1}
        if not over:
            return {n: 1.0 if n in whole else factor * r for n, r in raw.items()}
        whole |= over


def lamp(ranking: Ranking, density: float) -> Kept:
    """A weight's square over those of all that are as large or larger in its layer (Lee et al., 2010.07611)."""
    scores = {n: _lamp(ranking.ranked(n), ranking.alive[n]) for n in ranking.scores}
    return _together(ranking, round(density * ranking.units), scores)


def _lamp(scores: Tensor, alive: Tensor) -> Tensor:
    squares = scores.double().square().masked_fill(~alive, 0)
    order = squares.argsort(descending=True, stable=True)
    sums = squares[order].cumsum(0)
    return torch.empty_like(squares).index_copy_(0, order, squares[order] / sums.clamp_min(1e-300)).float()


def flops(ranking: Ranking, density: float) -> Kept:
    """One ranking of score over the root of a unit's multiply-adds: of all masks with as much work, the one that keeps
    the largest sum of squared scores. (Plain global magnitude spares early layers, where a weight works hardest.)"""
    scores = {n: ranking.ranked(n) / ranking.costs[n] ** 0.5 for n in ranking.scores}
    return _together(ranking, round(density * ranking.units), scores)


def sensitivity(ranking: Ranking, density: float) -> Kept:
    """Each layer as sparse as it can be until the loss rises by one common amount (Li et al., 1608.08710)."""
    total = round(density * ranking.units)
    low, high = 0.0, max(0.0, *(float(c[:, 1].max()) for c in ranking.curves.values())) * 2 + 2e-6
    for _ in range(60):
        middle = (low + high) / 2
        few = sum(_bearing(c, middle) * ranking.alive[n].numel() for n, c in ranking.curves.items()) <= total
        low, high = (low, middle) if few else (middle, high)
    return _within(ranking, _shared(ranking, {n: _bearing(c, high) for n, c in ranking.curves.items()}, total))


def _bearing(curve: Tensor, rise: float) -> float:
    """The smallest density at which the loss has risen by no more; at 0 it would have risen twice the most."""
    points = curve[curve[:, 0].argsort(descending=True)].numpy()
    worst = np.maximum.accumulate(
        np.concatenate([[0.0], np.maximum(points[:, 1], 0), [2 * max(points[:, 1].max(), 0) + 1e-6]])
    )
    steps = worst + np.arange(len(worst)) * 1e-9  # strictly rising, so that the inverse exists
    return float(np.interp(rise, steps, np.concatenate([[1.0], points[:, 0], [0.0]])))


def table(ranking: Ranking, density: float) -> Kept:
    """Each layer's own density; layers that have none stay as they are."""
    given = {n: round(d * ranking.alive[n].numel()) for n, d in ranking.table.items()}
    return _within(ranking, ranking.left | given)


def hits(name: str, pattern: str) -> bool:
    """A pattern may mean the layer or its weight."""
    return fnmatchcase(name, pattern) or fnmatchcase(name.removesuffix(".weight"), pattern)


SCOPES: dict[str, Scope] = {
    "global": everywhere,
    "layer": layer,
    "uniform": uniform,
    "erk": erk,
    "lamp": lamp,
    "flops": flops,
    "sensitivity": sensitivity,
    "table": table,
}
NEEDS: dict[str, tuple[str, ...]] = {"flops": ("places",), "sensitivity": ("sensitivity",)}
"""What a scope must have seen."""
