"""Low rank: a layer as a product of smaller ones. Truncated SVD for matrices, Tucker-2 for convolutions.

A convolution [out, in, kh, kw] becomes 1x1 (in -> r_in), kh x kw (r_in -> r_out), 1x1 (r_out -> out): Kim et al.,
1511.06530. Ranks start from the higher-order SVD and are improved by a few orthogonal iterations.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import a_plain_network, an_example, copied
from ..masks import prunable
from ..spec import Refused, quote
from .evidence import places, watching
from .scopes import hits

ITERATIONS = 3


@dataclass(frozen=True)
class Layer:
    """A layer that can be factorised: its weight, its singular values by mode, and how often each weight is used."""

    name: str
    module: nn.Module
    uses: float
    """output places, for one input"""
    inner_uses: float
    """places of its input, where the first of three factors works"""

    @property
    def weight(self) -> Tensor:
        weight: Tensor = self.module.weight  # type: ignore[assignment]
        return weight.detach()

    @property
    def tucker(self) -> bool:
        """Three factors, where there is a window; two otherwise."""
        return self.weight.ndim > 2 and self.weight[0, 0].numel() > 1

    @cached_property
    def spectra(self) -> tuple[Tensor, ...]:
        """Squared singular values of each mode that is cut: outputs and inputs of a window, one of a matrix."""
        weight = self.weight.double()
        modes = [weight.flatten(1), weight.transpose(0, 1).flatten(1)]
        return tuple(torch.linalg.svdvals(m).square() for m in modes[: 1 + self.tucker])

    @property
    def full(self) -> tuple[int, ...]:
        """The ranks at which nothing is lost."""
        out, inputs = self.weight.shape[:2]
        window = self.weight[0, 0].numel()
        return (min(out, inputs * window), min(inputs, out * window)) if self.tucker else (min(out, inputs),)

    def ranks_by_share(self, share: float) -> tuple[int, ...]:
        return self.together(max(1, round(share * r)) for r in self.full)

    def ranks_by_number(self, number: int) -> tuple[int, ...]:
        return self.together(min(number, r) for r in self.full)

    def ranks_by_energy(self, energy: float) -> tuple[int, ...]:
        """The smallest ranks that keep that share of the squared singular values, in each mode."""
        return self.together(_smallest(s, energy) for s in self.spectra)

    def together(self, ranks: Iterable[int]) -> tuple[int, ...]:
        """No mode of a core has a higher rank than its other sides allow: a wider one would hold nothing more."""
        found = tuple(ranks)
        if not self.tucker:
            return found
        window = self.weight[0, 0].numel()
        return min(found[0], found[1] * window), min(found[1], found[0] * window)

    def work(self, ranks: tuple[int, ...] | None) -> float:
        """Multiply-adds for one input; of the layer as it is without ranks."""
        out, inputs = self.weight.shape[:2]
        if ranks is None:
            return self.weight.numel() * self.uses
        if not self.tucker:
            return ranks[0] * (inputs + out) * self.uses
        window = self.weight[0, 0].numel()
        return inputs * ranks[1] * self.inner_uses + (ranks[0] * ranks[1] * window + ranks[0] * out) * self.uses


def _smallest(squares: Tensor, energy: float) -> int:
    sums = squares.cumsum(0)
    return min(int((sums < energy * sums[-1] * (1 - 1e-12)).sum()) + 1, len(squares))


def factorise(
    network: nn.Module,
    example: Tensor,
    rank: float | int | None = None,
    energy: float | None = None,
    multiply_adds: float | None = None,
    layers: tuple[str, ...] = ("*",),
) -> nn.Module:
    """A copy in which layers are rows of smaller ones where that saves work; exactly one of the three says how small.

    rank: a share of the full rank (a float up to 1) or a number (an int); energy: the share of the squared singular
    values that stays; multiply_adds: the share that stays of the work of all linear and convolutional layers.
    """
    how, value = _asked({"rank": rank, "energy": energy, "multiply_adds": multiply_adds})
    network, example = a_plain_network(network, "factorise"), an_example(example, "factorise")
    if not isinstance(layers, tuple | list):
        raise Refused(f'factorise.layers = {quote(layers)} is not allowed; expected a list, such as ["fc*"]')
    smaller = copied(network, "factorise")
    there, total = _layers(smaller, example, tuple(layers))
    ranks = HOW[how](there, value, total)
    saving = [layer for layer in there if layer.work(ranks[layer.name]) < layer.work(None)]
    if not saving:
        raise Refused(f"factorise.{how} = {value:g} saves nothing in any layer; expected less, or other layers")
    for layer in saving:
        parent, _, leaf = layer.name.rpartition(".")
        setattr(smaller.get_submodule(parent), leaf, _row(layer, ranks[layer.name]).train(layer.module.training))
    return smaller


def _asked(given: dict[str, float | None]) -> tuple[str, float]:
    """The one setting that is given, and its value."""
    chosen = {k: v for k, v in given.items() if v is not None}
    if len(chosen) != 1:
        seen = ", ".join(chosen) or "nothing"
        raise Refused(f"factorise: {seen} given; expected exactly one of rank, energy, multiply_adds")
    ((how, value),) = chosen.items()
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and value > 0 and (value <= 1 or (how == "rank" and isinstance(value, int)))):
        whole = ", or a whole number" * (how == "rank")
        raise Refused(f"factorise.{how} = {quote(value)} is not allowed; expected above 0 and at most 1{whole}")
    return how, value


def _layers(network: nn.Module, example: Tensor, patterns: tuple[str, ...]) -> tuple[list[Layer], float]:
    """What can be factorised, and the multiply-adds of all prunable layers together."""
    batch = [(example[:1], torch.zeros(1))]
    weights = prunable(network)
    if "weight" in weights:
        seen = f"the network is itself a layer, {type(network).__name__}"
        raise Refused(f"factorise: {seen}; expected one that holds layers, such as nn.Sequential(layer)")
    names = [n for n in weights if any(hits(n, p) for p in patterns)]
    if not names:
        known = ", ".join(n.removesuffix(".weight") for n in weights) or "none"
        raise Refused(f"factorise: {', '.join(patterns)} meets no layer; the layers are {known}")
    broken = next((n for n in names if not bool(weights[n].isfinite().all())), None)
    if broken:
        raise Refused(f"factorise: {broken} holds NaN or infinity; expected weights that did not diverge")
    try:
        uses = places(network, batch)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:100]
        seen = f"the network cannot take the example, {list(example.shape)} ({reason})"
        raise Refused(f"factorise: {seen}; expected a batch of its inputs") from None
    # A layer that is never called is one whose weight somebody else reads: it has to stay what it is.
    called = [n.rpartition(".")[0] for n in names if n in uses]
    modules = {n: m for n in called if n and _can(m := network.get_submodule(n))}
    inner = _input_places(network, modules, batch)
    found = [Layer(n, m, float(uses[f"{n}.weight"]), inner[n]) for n, m in modules.items()]
    return found, sum(float(uses[n]) * weights[n].numel() for n in uses)


def _can(module: nn.Module) -> bool:
    """Plain layers whose forward pass is the product and nothing more."""
    linear = isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward
    conv = type(module) is nn.Conv2d and module.groups == 1 and module.padding_mode == "zeros"
    return linear or conv


def _input_places(
    network: nn.Module, modules: dict[str, nn.Module], batch: list[tuple[Tensor, Tensor]]
) -> dict[str, float]:
    """How many places of its input each layer sees."""
    found = dict.fromkeys(modules, 0.0)
    names = {m: n for n, m in modules.items()}

    def note(module: nn.Module, x: Tensor) -> None:
        found[names[module]] += x.numel() / (x.shape[-1] if isinstance(module, nn.Linear) else x.shape[1])

    watching(network, list(names), batch, note)
    return found


Ranks = dict[str, tuple[int, ...]]


def _by_rank(layers: list[Layer], value: float, total: float) -> Ranks:
    if isinstance(value, int):
        return {layer.name: layer.ranks_by_number(value) for layer in layers}
    return {layer.name: layer.ranks_by_share(value) for layer in layers}


def _by_energy(layers: list[Layer], value: float, total: float) -> Ranks:
    return {layer.name: layer.ranks_by_energy(value) for layer in layers}


def _by_work(layers: list[Layer], value: float, total: float) -> Ranks:
    """The largest common energy that the budget affords, by halving; layers that would not save stay whole."""
    fixed = total - sum(layer.work(None) for layer in layers)

    def cost(energy: float) -> float:
        return fixed + sum(min(layer.work(layer.ranks_by_energy(energy)), layer.work(None)) for layer in layers)

    least = cost(0.0) / total
    if least > value:
        seen = f"factorise.multiply_adds = {value:g} cannot be reached: rank 1 everywhere leaves {least:.3g}"
        raise Refused(f"{seen}; expected that or more")
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) <= value * total else (low, middle)
    return _by_energy(layers, low, total)


HOW: dict[str, Callable[[list[Layer], float, float], Ranks]] = {
    "rank": _by_rank,
    "energy": _by_energy,
    "multiply_adds": _by_work,
}


def _row(layer: Layer, ranks: tuple[int, ...]) -> nn.Sequential:
    """The layer as two or three plain ones."""
    module: Any = layer.module
    weight = layer.weight.double()
    bias = module.bias is not None
    if isinstance(module, nn.Linear):
        left, right = _svd(weight, ranks[0])
        first = nn.Linear(module.in_features, ranks[0], bias=False, device="meta")
        last = nn.Linear(ranks[0], module.out_features, bias, device="meta")
        return _filled([first, last], [right, left], module)
    last_conv = partial(nn.Conv2d, out_channels=module.out_channels, kernel_size=1, bias=bias, device="meta")
    place = {"stride": module.stride, "padding": module.padding, "bias": False, "device": "meta"}
    if not layer.tucker:
        left, right = _svd(weight.flatten(1), ranks[0])
        first_conv = nn.Conv2d(module.in_channels, ranks[0], 1, **place)
        return _filled([first_conv, last_conv(ranks[0])], [right[..., None, None], left[..., None, None]], module)
    outer, core, inner = _tucker(weight, *ranks)
    thin = nn.Conv2d(module.in_channels, ranks[1], 1, bias=False, device="meta")
    middle = nn.Conv2d(ranks[1], ranks[0], module.kernel_size, dilation=module.dilation, **place)
    weights = [inner.T[..., None, None], core, outer[..., None, None]]
    return _filled([thin, middle, last_conv(ranks[0])], weights, module)


def _filled(layers: list[nn.Module], weights: list[Tensor], old: Any) -> nn.Sequential:
    """A row of these layers with these weights, and the bias on the last; they train where the old one did."""
    row = nn.Sequential(*layers)
    for layer, weight in zip(layers, weights, strict=True):
        layer.weight = nn.Parameter(weight.to(old.weight.dtype).contiguous(), old.weight.requires_grad)
    if old.bias is not None:
        row[-1].bias = nn.Parameter(old.bias.detach().clone(), old.bias.requires_grad)
    return row


def _svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """left @ right, each with the root of the singular values."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, root[:, None] * v[:rank]


def _tucker(weight: Tensor, rank_out: int, rank_in: int) -> tuple[Tensor, Tensor, Tensor]:
    """outer [out, r_out], core [r_out, r_in, ...], inner [in, r_in]."""
    outer, inner = _leading(weight.flatten(1), rank_out), _leading(weight.transpose(0, 1).flatten(1), rank_in)
    for _ in range(ITERATIONS):
        outer = _leading(torch.einsum("oi...,ir->or...", weight, inner).flatten(1), rank_out)
        inner = _leading(torch.einsum("oi...,or->ir...", weight, outer).flatten(1), rank_in)
    return outer, torch.einsum("oi...,or,is->rs...", weight, outer, inner), inner


def _leading(matrix: Tensor, rank: int) -> Tensor:
    """The leading left singular vectors."""
    return torch.linalg.svd(matrix, full_matrices=False)[0][:, :rank]
