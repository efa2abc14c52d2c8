"""The one way to a smaller mask."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..masks import Mask, density, kept, ones
from ..spec import Refused, choose
from .criteria import CRITERIA
from .scopes import COUNTS, SCOPES


def prune(
    weights: dict[str, Tensor],
    mask: Mask | None = None,
    target: float = 0.1,
    criterion: str = "magnitude",
    scope: str = "global",
    rng: torch.Generator | None = None,
) -> Mask:
    """A mask that keeps exactly round(target * all) of `weights`, of each layer or of the whole as the scope says.

    Every weight that it keeps was kept by `mask`; a layer keeps one weight at least.
    """
    mask = {n: m.cpu() for n, m in (ones(weights) | {n: m for n, m in (mask or {}).items() if n in weights}).items()}
    _check(weights, mask, target, COUNTS[choose(scope, SCOPES, "prune.scope")])
    score = CRITERIA[choose(criterion, CRITERIA, "prune.criterion")]
    rng = rng or torch.Generator().manual_seed(0)
    scores = {n: score(w.detach().cpu(), rng) for n, w in weights.items()}
    return SCOPES[scope](scores, mask, target)


def _check(weights: dict[str, Tensor], mask: Mask, target: float, count: Callable[[Mask, float], int]) -> None:
    if not weights:
        raise Refused("prune: the network has no prunable layer; expected at least one linear or convolutional layer")
    if not 0 < target <= 1:
        raise Refused(f"prune.density = {target:g} is not allowed; expected above 0 and at most 1")
    if count(mask, target) > kept(mask):
        left = density(mask)
        raise Refused(
            f"prune.density = {target:g} would bring weights back: {left:.6g} are left; expected that or less"
        )
    broken = [n for n, w in weights.items() if not bool(torch.isfinite(w).all())]
    if broken:
        raise Refused(f"prune: the weights of {broken[0]} are not all finite numbers; train again from an earlier step")
