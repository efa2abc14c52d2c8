"""Removes what masks have killed: a really smaller network whose outputs equal the masked one's, checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..arguments import a_plain_network, an_example, answers, copied, fitting
from ..masks import Mask, apply_
from ..spec import Refused, quote
from .evidence import read
from .groups import Group, Slice, groups
from .surgery import cut, cut_masks, cuts

EQUAL = 1e-5
"""largest difference of outputs, relative to the largest output"""


def shrink(network: nn.Module, masks: Mask | None, example: Tensor, multiple: int = 1) -> tuple[nn.Module, Mask]:
    """A smaller copy, and the masks of what is left in it.

    Channels go that give nothing (their rows are zero) or that nobody reads (all columns that read them are zero). What
    a dead channel still gives, such as the bias of the normalisation behind it, is folded into the layers that read it.
    Widths are rounded up to `multiple` with channels that would have gone.
    """
    network, example = a_plain_network(network, "shrink"), an_example(example, "shrink").detach().cpu()
    if isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1:
        raise Refused(f"shrink: multiple = {quote(multiple)} is not allowed; expected a whole number, 1 or more")
    masks = {n: m.clone() for n, m in fitting(network, masks or {}, "shrink").items()}
    smaller = _masked(network, masks)
    before = copied(smaller, "shrink")
    inputs = _inputs(example)
    free = {g.name for g in groups(smaller, example) if not g.protected}
    with torch.no_grad():
        answers(smaller, example, "shrink")
    while free:
        found = [g for g in groups(smaller, example, verify=False) if g.name in free and g.slices]
        keeps = _keeps(smaller, found, inputs, masks, multiple)
        if all(bool(k.all()) for k in keeps.values()):
            break
        where = cuts(smaller, found, keeps)
        cut(smaller, where)
        masks = cut_masks(masks, where)
    _equal(before, smaller, inputs, network)
    return _as_before(smaller, network), masks


def _as_before(smaller: nn.Module, network: nn.Module) -> nn.Module:
    """On the same device and in the same modes as the network that it came from."""
    for new, old in zip(smaller.modules(), network.modules(), strict=True):
        new.training = old.training
    first = next(network.parameters(), None)
    return smaller if first is None else smaller.to(first.device)


def _masked(network: nn.Module, masks: Mask) -> nn.Module:
    twin = copied(network, "shrink").cpu().eval()
    named = dict(twin.named_parameters())
    apply_({n: named[n].data for n in masks}, masks)
    broken = next((n for n, p in named.items() if p.is_floating_point() and not bool(p.isfinite().all())), "")
    if broken:
        raise Refused(f"shrink: {broken} holds NaN or infinity; expected weights that did not diverge")
    return twin


def _inputs(example: Tensor) -> list[Tensor]:
    """The example and two of random numbers, as large."""
    rng = torch.Generator().manual_seed(4)
    size = example.float().std().clamp_min(1e-3) if example.numel() > 1 else torch.ones(())
    return [example, *(torch.randn(example.shape, generator=rng).to(example) * size for _ in range(2))]


@dataclass
class _Reading:
    """A layer that reads a group: what arrives at each place for every input, as its least and its largest value."""

    part: Slice
    layer: Any
    low: Tensor
    high: Tensor

    @property
    def constant(self) -> Tensor:
        """By unit: whether what arrives never changes."""
        return (self.low == self.high).flatten(1).all(1)

    @property
    def foldable(self) -> bool:
        """Whether a constant can become part of a bias: there is no border where it is missing."""
        layer = self.layer
        if isinstance(layer, nn.modules.conv._ConvTransposeNd) or not _linear(layer):
            return False
        padding = getattr(layer, "padding", "valid")
        return padding == "valid" or (not isinstance(padding, str) and not any(padding))

    @property
    def carrying(self) -> bool:
        """Whether one channel can carry the constants of others: anything linear in its input."""
        return _linear(self.layer) and self.part.places.shape[1] == 1


def _linear(layer: Any) -> bool:
    """Whether a layer sums weights times inputs, and nothing happens to either before (as in timm's padded ones)."""
    known = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    plain = any(type(layer).forward is k.forward for k in known) or hasattr(layer, "apart")
    return plain and getattr(layer, "groups", 1) == 1


def _keeps(
    network: nn.Module, found: Sequence[Group], inputs: list[Tensor], masks: Mask, multiple: int
) -> dict[str, Tensor]:
    """Which units of each group stay; what those that go still gave is folded in."""
    seen = _watched(network, found, inputs)
    keeps = {}
    for group in found:
        readings = [
            r for s in group.slices if s.role == "in" and (r := seen.get((group.name, s.parameter))) is not None
        ]
        going = _unread(network, group) | (_silent(network, group) & _constant(readings, group))
        keeps[group.name] = _settled(network, group, readings, going, masks, multiple)
    return keeps


def _rows(tensor: Tensor, part: Slice) -> Tensor:
    """[units, entries]"""
    return tensor.detach().movedim(part.axis, 0)[part.places.flatten()].reshape(len(part.places), -1)


def _silent(network: nn.Module, group: Group) -> Tensor:
    """Units whose rows are all zero: a bias may be left, which is a constant.

    A depthwise convolution reads the unit itself: what it makes of a constant is seen where the unit is read.
    """
    named = dict(network.named_parameters())
    parts = [s for s in group.slices if s.role == "out" and not _depthwise(network, s)]
    if not parts:
        return torch.zeros(group.units, dtype=torch.bool)
    return torch.stack([(_rows(named[s.parameter], s) == 0).all(1) for s in parts]).all(0)


def _depthwise(network: nn.Module, part: Slice) -> bool:
    layer = network.get_submodule(part.parameter.rpartition(".")[0])
    return getattr(layer, "groups", 1) == getattr(layer, "in_channels", 0) == getattr(layer, "out_channels", 0) > 1


def _unread(network: nn.Module, group: Group) -> Tensor:
    """Units whose columns are all zero where they are read."""
    named = dict(network.named_parameters())
    parts = [s for s in group.slices if s.role == "in"]
    if not parts:
        return torch.zeros(group.units, dtype=torch.bool)
    return torch.stack([(_rows(named[s.parameter], s) == 0).all(1) for s in parts]).all(0)


def _constant(readings: list[_Reading], group: Group) -> Tensor:
    """Units that arrive as a constant everywhere."""
    if not readings:
        return torch.zeros(group.units, dtype=torch.bool)
    return torch.stack([r.constant for r in readings]).all(0)


def _settled(
    network: nn.Module, group: Group, readings: list[_Reading], going: Tensor, masks: Mask, multiple: int
) -> Tensor:  # fmt: skip
    """Units that stay: those that live, one that carries constants where it must, and some to fill a width up."""
    unread = _unread(network, group)
    carrier = _carrier(readings, going & ~unread)
    for reading in readings:
        loud = going & ~unread & (reading.high.flatten(1) != 0).any(1)
        if not bool(loud.any()) or reading.foldable:
            continue
        if not reading.carrying or carrier is None or float(reading.high[carrier].abs().max()) == 0:
            going = going & ~loud
    if carrier is not None:
        going[carrier] = False
    keep = ~going
    wanted = min(-(-max(int(keep.sum()), 1) // multiple) * multiple, group.units)
    keep[going.nonzero().flatten()[: wanted - int(keep.sum())]] = True
    for reading in readings:
        _fold(network, reading, ~keep & ~unread, carrier, masks)
    return keep


def _carrier(readings: list[_Reading], going: Tensor) -> int | None:
    """The unit that others' constants are put on, where a border forbids a bias: the loudest of the weakest."""
    padded = [r for r in readings if not r.foldable and r.carrying]
    loud = [r.high[:, 0].abs() for r in padded]
    if not loud or not any(bool((v[going] != 0).any()) for v in loud):
        return None
    least = torch.stack([v for v in loud if bool((v[going] != 0).any())]).min(0).values.masked_fill(~going, -1)
    return int(least.argmax()) if float(least.max()) > 0 else None


def _fold(network: nn.Module, reading: _Reading, gone: Tensor, carrier: int | None, masks: Mask) -> None:
    """What the units gave to this layer, into its bias or onto the carrier's column."""
    values = reading.high.masked_fill(~gone.view(-1, 1), 0)
    if not bool((values != 0).any()):
        return
    weight = reading.layer.weight.data
    columns = weight.movedim(reading.part.axis, 0)[reading.part.places]  # [units, width, out, ...]
    if reading.foldable:
        sums = columns.double().flatten(3).sum(3) if columns.ndim > 3 else columns.double()
        _add_bias(reading.layer, (sums * values.double().unsqueeze(2)).sum((0, 1)))
        return
    assert carrier is not None
    shares = (values[:, 0] / reading.high[carrier, 0]).double()
    more = torch.tensordot(shares, columns[:, 0].double(), 1)
    place = int(reading.part.places[carrier, 0])
    weight.select(reading.part.axis, place).add_(more.to(weight.dtype))
    if (mask := masks.get(reading.part.parameter)) is not None:
        mask.select(reading.part.axis, place).logical_or_(weight.select(reading.part.axis, place) != 0)


def _add_bias(layer: Any, more: Tensor) -> None:
    weight: Tensor = layer.weight
    if layer.bias is None:
        layer.bias = nn.Parameter(torch.zeros(len(weight), dtype=weight.dtype, device=weight.device))
    layer.bias.data.add_(more.to(weight.dtype))


def _watched(network: nn.Module, found: Sequence[Group], inputs: list[Tensor]) -> dict[tuple[str, str], _Reading]:
    """What arrives at each layer, by the groups that it reads."""
    parts = [(g.name, s) for g in found for s in g.slices if s.role == "in"]
    layers = {network.get_submodule(s.parameter.rpartition(".")[0]) for _, s in parts}
    low: dict[nn.Module, Tensor] = {}
    high: dict[nn.Module, Tensor] = {}

    def note(layer: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        x = read(args, named).detach()
        flat = x.flatten(0, -2) if isinstance(layer, nn.Linear) else x.transpose(0, 1).flatten(1).t()
        a, b = flat.amin(0), flat.amax(0)
        low[layer] = torch.minimum(low[layer], a) if layer in low else a
        high[layer] = torch.maximum(high[layer], b) if layer in high else b

    hooks = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        with torch.no_grad():
            for x in inputs:
                network(x)
    finally:
        for hook in hooks:
            hook.remove()
    found_ = {}
    for name, part in parts:
        layer = network.get_submodule(part.parameter.rpartition(".")[0])
        if layer in low:
            places = _channels(layer, part)
            found_[name, part.parameter] = _Reading(part, layer, low[layer][places], high[layer][places])
    return found_


def _channels(layer: Any, part: Slice) -> Tensor:
    """Input channels of the units; a convolution in groups reads each place once in every group."""
    count = getattr(layer, "groups", 1)
    if count == 1 or part.axis == 0:  # a transposed convolution lists its inputs first, all of them
        return part.places
    inner = layer.in_channels // count
    return torch.cat([part.places + g * inner for g in range(count)], 1)


def _equal(before: nn.Module, after: nn.Module, inputs: list[Tensor], network: nn.Module) -> None:
    for x in inputs:
        seen = difference(before, after, x)
        if not seen <= EQUAL:
            kind = type(network).__name__
            raise Refused(
                f"shrink: the smaller {kind} differs (relatively by {seen:.2g}, at most {EQUAL:g}); "
                "expected equal outputs: leave out the layers that are special to it (exclude)"
            )


def difference(before: nn.Module, after: nn.Module, x: Tensor) -> float:
    """The largest difference of two networks' outputs, relative to the largest output."""
    with torch.no_grad():
        pairs = list(zip(tree_leaves(before(x)), tree_leaves(after(x)), strict=True))
    shares = [float((want - got).abs().max()) / max(float(want.abs().max()), 1e-12) for want, got in pairs]
    return next((s for s in shares if s != s), max(shares))  # what is no number must not hide behind the others
