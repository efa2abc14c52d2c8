"""Batch normalisation folded into the layer in front of it: the same outputs with fewer operations."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from ..arguments import a_plain_network, an_example, copied
from ..masks import PRUNABLE
from ..spec import Refused
from .shrink import EQUAL, difference

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold_batchnorm(network: nn.Module, example: Tensor) -> nn.Module:
    """A copy in evaluation mode whose layers hold what normalisation did to their outputs; checked on the example."""
    network, example = a_plain_network(network, "fold"), an_example(example, "fold")
    folded = copied(network, "fold").eval()
    for layer, norm in pairs(folded, example):
        _fold(folded.get_submodule(layer), folded.get_submodule(norm))
        parent, _, leaf = norm.rpartition(".")
        setattr(folded.get_submodule(parent), leaf, nn.Identity())
    seen = difference(copied(network, "fold").eval(), folded, example)
    if not seen <= EQUAL:
        raise Refused(
            f"fold: the folded network computes something else (relative difference {seen:.2g}); leave fold out"
        )
    return folded


def _plain(layer: Any) -> bool:
    """Computes what its class says and nothing else."""
    return type(layer).forward in (nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward, nn.Linear.forward)


def pairs(network: nn.Module, example: Tensor, known: Callable[[nn.Module], bool] = _plain) -> list[tuple[str, str]]:
    """(layer, normalisation) where the one's output is read by the other alone and each runs once."""
    names = {m: n for n, m in network.named_modules()}
    seen = _Seen()
    hooks = [m.register_forward_pre_hook(seen.before) for m in names if isinstance(m, NORMS)]
    hooks += [m.register_forward_hook(seen.after) for m in names if isinstance(m, (*PRUNABLE, *NORMS))]
    try:
        with torch.no_grad(), seen:
            network(example)
    finally:
        for hook in hooks:
            hook.remove()
    return [
        (names[layer], names[norm])
        for layer, norm in seen.pairs.items()
        if seen.reads[layer] == 1
        and seen.runs[layer] == seen.runs[norm] == 1
        and known(layer)
        and _fits(layer, norm, seen.made[layer])
    ]


class _Seen(TorchFunctionMode):
    """Who reads the layers' outputs while the network runs: every function that makes tensors of them, each time."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[nn.Module, Tensor] = {}
        self.makers: dict[int, nn.Module] = {}
        self.pairs: dict[nn.Module, nn.Module] = {}
        self.runs: Counter[nn.Module] = Counter()
        self.reads: Counter[nn.Module] = Counter()

    def before(self, norm: nn.Module, args: tuple[Any, ...]) -> None:
        if args and id(args[0]) in self.makers:
            self.pairs[self.makers[id(args[0])]] = norm

    def after(self, module: nn.Module, args: Any, y: Any) -> None:
        self.runs[module] += 1
        if isinstance(module, PRUNABLE) and isinstance(y, Tensor):
            self.made[module] = y  # kept, so that its identity is not used again
            self.makers[id(y)] = module

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        if any(isinstance(t, Tensor) for t in tree_leaves(made)):  # others only ask for a size or a kind
            for x in tree_leaves((args, kwargs)):
                if id(x) in self.makers:
                    self.reads[self.makers[id(x)]] += 1
        return made


def _fits(layer: Any, norm: Any, made: Tensor) -> bool:
    """Normalisation by running statistics, behind a layer whose output axis is the first of its weight."""
    usual = type(norm).forward is nn.BatchNorm2d.forward and norm.running_mean is not None
    return usual and (made.ndim == 2 or not isinstance(layer, nn.Linear))


def _fold(layer: Any, norm: Any) -> None:
    """w' = w s, b' = (b - mean) s + beta, with s = gamma / sqrt(variance + eps); in doubles."""
    weight: Tensor = layer.weight.data
    ones = torch.ones(len(weight), dtype=torch.float64)
    gamma = norm.weight.data.double() if norm.weight is not None else ones
    beta = norm.bias.data.double() if norm.bias is not None else ones * 0
    scale = gamma / (norm.running_var.double() + norm.eps).sqrt()
    bias = layer.bias.data.double() if layer.bias is not None else ones * 0
    shift = (bias - norm.running_mean.double()) * scale + beta
    layer.weight = nn.Parameter((weight.double() * scale.view(-1, *[1] * (weight.ndim - 1))).to(weight.dtype))
    layer.bias = nn.Parameter(shift.to(weight.dtype))
