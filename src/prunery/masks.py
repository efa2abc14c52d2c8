"""The sparse vocabulary: a mask is a dict from a weight's name to a boolean tensor, True where the weight is kept."""

from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from .spec import Refused

Mask = dict[str, Tensor]
PRUNABLE = (nn.Linear, nn.modules.conv._ConvNd)


def prunable(network: nn.Module, exclude: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The weights that may be pruned, by name: those of linear and convolutional layers, biases never.

    Weights that are used under two names are left whole, as are those that are computed anew at each call.
    """
    uses = Counter(id(p) for _, p in network.named_parameters(remove_duplicate=False))
    layers = _weights(network)
    lazy = [n for n, w in layers.items() if isinstance(w, nn.parameter.UninitializedParameter)]
    if lazy:
        raise Refused(f"{lazy[0].removesuffix('.weight')} has no size yet; run the network once on a batch first")
    names = {n: w for n, w in layers.items() if w is None or uses[id(w)] == 1}
    _known(exclude, names)
    return {n: w.detach() for n, w in names.items() if w is not None and not any(_hits(n, p) for p in exclude)}


def computed(network: nn.Module, exclude: tuple[str, ...] = ()) -> list[str]:
    """The weights of layers that would be prunable if they were not computed anew at each call, as with weight_norm."""
    return [n for n, w in _weights(network).items() if w is None and not any(_hits(n, p) for p in exclude)]


def _weights(network: nn.Module) -> dict[str, Tensor | None]:
    """Looked up and never computed, which may change the network; None where no parameter holds them."""
    layers = {n: m for n, m in network.named_modules() if isinstance(m, PRUNABLE)}
    return {f"{n}.weight" if n else "weight": m._parameters.get("weight") for n, m in layers.items()}


def _hits(name: str, pattern: str) -> bool:
    """A pattern may mean the layer or its weight."""
    return fnmatchcase(name, pattern) or fnmatchcase(name.removesuffix(".weight"), pattern)


def _known(patterns: tuple[str, ...], names: Iterable[str]) -> None:
    layers = [n.removesuffix(".weight") for n in names]
    for pattern in patterns:
        if not any(_hits(n, pattern) for n in names):
            raise Refused(f'exclude = "{pattern}" meets no layer; the prunable layers are {", ".join(layers)}')


def ones(weights: dict[str, Tensor]) -> Mask:
    """Nothing pruned yet."""
    return {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}


@torch.no_grad()
def apply_(weights: dict[str, Tensor], mask: Mask) -> None:
    """Set pruned weights to exactly +0, in place."""
    for name, kept in mask.items():
        if name not in weights or weights[name].shape != kept.shape or kept.dtype != torch.bool:
            there = f"weights of {list(weights[name].shape)}" if name in weights else "no such weights"
            seen = f"the mask of {name} is {str(kept.dtype).removeprefix('torch.')} {list(kept.shape)} for {there}"
            raise Refused(f"{seen}; expected a bool tensor of the weights' own shape")
        weights[name].masked_fill_(~kept.to(weights[name].device), 0)


def kept(mask: Mask) -> int:
    """How many weights are left."""
    return sum(int(m.count_nonzero()) for m in mask.values())


def size(mask: Mask) -> int:
    """How many weights there were."""
    return sum(m.numel() for m in mask.values())


def density(mask: Mask) -> float:
    """Kept over all; 1 for an empty mask."""
    return kept(mask) / size(mask) if size(mask) else 1.0
