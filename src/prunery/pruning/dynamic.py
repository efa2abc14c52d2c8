"""Masks that move while the network trains: SET, RigL, and gradual pruning. Called by the training loop as it goes."""

import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..masks import Mask, density
from ..spec import Prune, Train
from .prune import prune
from .select import best

Named = dict[str, Tensor]


def _noise(spec: Train, step: int, name: str, like: Tensor) -> Tensor:
    """Where SET grows: a function of the seed, the step and the layer alone, so that a resumed run grows the same."""
    seed = int.from_bytes(hashlib.sha256(f"{spec.seed}/{step}/{name}".encode()).digest()[:7], "big")
    return torch.rand(like.shape, generator=torch.Generator().manual_seed(seed))


def moved(done: float, step: int, weights: Named, grads: Named, mask: Mask, spec: Train) -> Mask | None:
    """In each layer, the smallest weights go and as many come elsewhere, with the value zero.

    The share falls along a cosine (Evci et al., 1911.11134, section 3); what has just gone does not come back at once.
    """
    if done >= 1:
        return None
    share = spec.sparse_share / 2 * (1 + math.cos(math.pi * done))
    found = dict(mask)
    for name, there in mask.items():
        if weights[name].ndim > 1:
            found[name] = _swapped(weights[name].cpu(), there.cpu(), share, _wish(name, weights, grads, step, spec))
    return found


def _wish(name: str, weights: Named, grads: Named, step: int, spec: Train) -> Tensor:
    """How much each place deserves a weight."""
    if spec.sparse == "set" or name not in grads:
        return _noise(spec, step, name, weights[name])
    return grads[name].detach().float().abs().cpu()


def _swapped(weight: Tensor, there: Tensor, share: float, wish: Tensor) -> Tensor:
    count = min(int(share * int(there.sum())), int((~there).sum()))
    flat = there.flatten()
    (stay,) = best([weight.float().abs().flatten()], [flat], int(flat.sum()) - count)
    (grown,) = best([wish.flatten()], [~flat], count)
    return (stay | grown).view_as(there)


def gradual(done: float, step: int, weights: Named, grads: Named, mask: Mask, spec: Train) -> Mask | None:
    """Global magnitude, on Zhu and Gupta's cubic curve from the whole network on (1710.01878)."""
    wanted = {n: weights[n] for n in mask if weights[n].ndim > 1}
    target = spec.density + (1 - spec.density) * (1 - done) ** 3
    if target >= density({n: mask[n] for n in wanted}):
        return None
    return mask | prune(wanted, mask, Prune(density=target))


MOVES: dict[str, Callable[[float, int, Named, Named, Mask, Train], Mask | None]] = {
    "set": moved,
    "rigl": moved,
    "gradual": gradual,
}


def moving(spec: Train) -> Callable[[float, int, Named, Named, Mask], Mask | None]:
    """What a training step does to its masks, for the loop to call."""
    move = MOVES[spec.sparse]
    return lambda done, step, weights, grads, mask: move(done, step, weights, grads, mask, spec)
