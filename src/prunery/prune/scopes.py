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


def layer(scores: Scores, mask: Mask, density: float) -> Mask:
    """Each layer keeps the same share of its weights, at least one, and never more than it has left."""
    return {n: best(s, mask[n], min(max(1, round(density * s.numel())), int(mask[n].sum()))) for n, s in scores.items()}


def everywhere(scores: Scores, mask: Mask, density: float) -> Mask:
    """All weights in one ranking; each layer's best weight stays, so that no layer is cut through."""
    guarded = {n: _guard(s.float(), mask[n]) for n, s in scores.items()}
    flat = torch.cat([s.flatten() for s in guarded.values()])
    alive = torch.cat([mask[n].flatten() for n in guarded])
    keep = min(max(len(scores), round(density * size(mask))), kept(mask))
    parts = best(flat, alive, keep).split([s.numel() for s in scores.values()])
    return {n: p.view_as(s) for (n, s), p in zip(scores.items(), parts, strict=True)}


def _guard(scores: Tensor, mask: Tensor) -> Tensor:
    """The layer's best weight made unbeatable."""
    flat = scores.flatten().clone()
    flat[flat.masked_fill(~mask.flatten(), -torch.inf).argmax()] = torch.inf
    return flat.view_as(scores)


SCOPES: dict[str, Scope] = {"global": everywhere, "layer": layer}
