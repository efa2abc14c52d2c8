"""Scopes: how many weights each ranking keeps, and which layers are ranked together."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..masks import Mask, kept, size

Scores = dict[str, Tensor]
Scope = Callable[[Scores, Mask, float], Mask]


def best(scores: Tensor, mask: Tensor, keep: int) -> Tensor:
    """The `keep` best of the weights that are still there; ties go to the earlier ones, so the count is exact."""
    ranked = scores.flatten().masked_fill(~mask.flatten(), -torch.inf)
    order = ranked.argsort(descending=True, stable=True)[:keep]
    return torch.zeros_like(mask.flatten()).index_fill_(0, order, True).view_as(mask)


def layer_counts(mask: Mask, density: float) -> dict[str, int]:
    """The same share of each layer, at least one weight of it."""
    return {n: max(1, round(density * m.numel())) for n, m in mask.items()}


def layer(scores: Scores, mask: Mask, density: float) -> Mask:
    """Each layer keeps the same share of its weights, at least one, and never more than it has left."""
    counts = layer_counts(mask, density)
    return {n: best(s, mask[n], min(counts[n], int(mask[n].sum()))) for n, s in scores.items()}


def everywhere_count(mask: Mask, density: float) -> int:
    """The share of all weights, at least one for each layer."""
    return max(len(mask), round(density * size(mask)))


def everywhere(scores: Scores, mask: Mask, density: float) -> Mask:
    """All weights in one ranking; each layer's best weight stays, so that no layer is cut through."""
    guarded = {n: _guard(s.float(), mask[n]) for n, s in scores.items()}
    flat = torch.cat([s.flatten() for s in guarded.values()])
    alive = torch.cat([mask[n].flatten() for n in guarded])
    keep = min(everywhere_count(mask, density), kept(mask))
    parts = best(flat, alive, keep).split([s.numel() for s in scores.values()])
    return {n: p.view_as(s) for (n, s), p in zip(scores.items(), parts, strict=True)}


def _guard(scores: Tensor, mask: Tensor) -> Tensor:
    """The layer's best weight made unbeatable."""
    flat = scores.flatten().clone()
    flat[flat.masked_fill(~mask.flatten(), -torch.inf).argmax()] = torch.inf
    return flat.view_as(scores)


COUNTS: dict[str, Callable[[Mask, float], int]] = {
    "global": everywhere_count,
    "layer": lambda mask, density: sum(layer_counts(mask, density).values()),
}
"""How many weights a scope keeps in all."""
SCOPES: dict[str, Scope] = {"global": everywhere, "layer": layer}
