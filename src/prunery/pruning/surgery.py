"""Channels taken out of a copy of a network: parameters and buffers cut along axes, modules told of their new size."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..arguments import copied
from ..masks import Mask

if TYPE_CHECKING:
    from .groups import Group

Cuts = dict[str, list[tuple[int, Tensor]]]
"""parameter or buffer -> (axis, places that stay)"""


def without(network: nn.Module, groups: "Sequence[Group]", keeps: dict[str, Tensor]) -> nn.Module:
    """A copy without the units that are not kept."""
    smaller = shared_copy(network)
    cut(smaller, cuts(smaller, groups, keeps))
    return smaller


def shared_copy(network: nn.Module) -> nn.Module:
    """New modules over the same tensors: cutting replaces tensors and never writes into one."""
    return copied(network, "prune", [*network.parameters(), *network.buffers()])


def cuts(network: nn.Module, groups: "Sequence[Group]", keeps: dict[str, Tensor]) -> Cuts:
    """Where to cut for that; several groups may meet on one axis, as behind a concatenation."""
    sides = {n: t.shape for n, t in (*network.named_parameters(), *network.named_buffers())}
    gone: dict[tuple[str, int], list[Tensor]] = defaultdict(list)
    for group in groups:
        known = {s.parameter for s in group.slices}
        for part in group.slices:
            leaving = part.places[~keeps[group.name]].flatten()
            gone[part.parameter, part.axis].append(leaving)
            bias = part.parameter.removesuffix("weight") + "bias"
            if part.role == "out" and bias in sides and bias not in known:  # one that came into being after the groups
                gone[bias, 0].append(leaving)
    found: Cuts = defaultdict(list)
    for (name, axis), places in gone.items():
        stays = torch.ones(sides[name][axis], dtype=torch.bool)
        stays[torch.cat(places)] = False
        if not bool(stays.all()):
            found[name].append((axis, stays.nonzero().flatten()))
    return found


def cut(network: nn.Module, where: Cuts) -> None:
    """In place."""
    touched = {name.rpartition(".")[0] for name in where}
    for name, axes in where.items():
        owner, _, leaf = name.rpartition(".")
        module = network.get_submodule(owner)
        old = getattr(module, leaf)
        new = shortened(old.detach(), axes)
        setattr(module, leaf, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
    for name in touched:
        _resize(network.get_submodule(name))


def shortened(tensor: Tensor, axes: list[tuple[int, Tensor]]) -> Tensor:
    for axis, stays in axes:
        tensor = tensor.index_select(axis, stays.to(tensor.device))
    return tensor.contiguous()


def _resize(module: Any) -> None:
    """Sizes as the weights now have them."""
    if isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = len(next(t for t in (module.weight, module.running_mean) if t is not None))
        return
    if isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
        return
    rows, columns = module.weight.shape[:2]
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = rows, columns
        return
    assert isinstance(module, nn.modules.conv._ConvNd)
    if module.groups == module.in_channels == module.out_channels and module.groups > 1:
        module.groups = rows
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        module.in_channels, module.out_channels = rows, columns * module.groups
    else:
        module.out_channels, module.in_channels = rows, columns * module.groups


def cut_masks(masks: Mask, where: Cuts) -> Mask:
    """Masks of what is left."""
    return {n: shortened(m, where.get(n, [])) for n, m in masks.items()}
