"""Pruned networks as PyTorch has them, and back: torch.nn.utils.prune's hooks and state dicts, and parametrisations.

torch.nn.utils.prune keeps a parameter `weight_orig` and a buffer `weight_mask`, and a hook multiplies them into the
attribute `weight` before each forward; torch.ao.pruning parametrises `weight` with a module that holds the mask.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils import prune as torch_prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ..masks import Mask, apply_, prunable
from ..spec import Refused, choose

ORIG, MASK = "_orig", "_mask"
ORIGINAL = re.compile(r"(?P<stem>(.*\.)?)parametrizations\.(?P<leaf>[^.]+)\.original")


@dataclass(frozen=True)
class _Pruned:
    """A parameter that PyTorch masks: its plain name, whose it is, its own values, and which of them count."""

    name: str
    owner: nn.Module
    leaf: str
    original: Tensor
    kept: Tensor


def from_torch(network: nn.Module) -> Mask:
    """What PyTorch has pruned, by the names that the plain network has; the network stays as it is.

    Linear and convolutional weights that nothing masks are taken by their exact zeros, which is what
    `torch.nn.utils.prune.remove` leaves behind.
    """
    _ordinary(network)
    first: dict[int, _Pruned] = {}
    for found in _pruned(network):
        first.setdefault(id(found.original), found)  # a shared parameter has its first name
    zeros = {name: weight != 0 for name, weight in prunable(network).items()}
    mask = zeros | {found.name: found.kept for found in first.values()}
    place = {name: i for i, (name, _) in enumerate(network.named_modules())}
    return {name: mask[name] for name in sorted(mask, key=lambda name: place[name.rpartition(".")[0]])}


@torch.no_grad()
def plain_(network: nn.Module) -> Mask:
    """Makes a network that PyTorch has pruned a plain one with zeros, in place, and returns its mask.

    The parameters stay the same objects, so that an optimiser goes on with them, in the order that layers give them.
    """
    mask = from_torch(network)
    for found in _pruned(network):
        order = [n if n != found.leaf + ORIG else found.leaf for n in found.owner._parameters]
        if parametrize.is_parametrized(found.owner, found.leaf):
            parametrize.remove_parametrizations(found.owner, found.leaf, leave_parametrized=False)
        else:
            torch_prune.remove(found.owner, found.leaf)
        _reorder(found.owner, order)
    apply_(dict(network.named_parameters()), mask)  # PyTorch's products leave -0, and NaN where infinity was pruned
    return mask


def to_torch_(network: nn.Module, mask: Mask) -> None:
    """Attaches the mask as torch.nn.utils.prune does, in place: training goes on masked, and its `remove` works.

    As with PyTorch's own, a module that others read from without calling it goes on with the weights of that moment;
    those of PyTorch that are read like this are refused.
    """
    _ordinary(network)
    parameters = dict(network.named_parameters())
    users = Counter(id(p) for m in network.modules() for p in m._parameters.values())
    for name, kept in mask.items():
        _known(network, parameters, name)
        _fits(name, kept, parameters[name], users[id(parameters[name])])
        _read_by_its_owner(network, name)
    for name, kept in mask.items():
        owner, leaf = _owner(network, name)
        torch_prune.custom_from_mask(owner, leaf, kept.to(parameters[name].device))


def from_state_dict(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Mask]:
    """Plain weights and the mask from the state dict of a network that PyTorch masks.

    A state dict of plain weights comes back as it is with an empty mask: which zeros were pruned, its network says.
    """
    for key, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise Refused(f"the state dict's {key} is a {type(tensor).__name__}; expected a tensor")
    pairs = {key: pair for key in tensors if (pair := _pair(key, tensors))}
    partners = {partner for _, partner in pairs.values()}
    weights, mask = {}, {}
    for key, tensor in tensors.items():
        name, partner = pairs.get(key, (key, ""))
        if partner:
            mask[name] = _truth(name, tensors[partner], tensor)
            weights[name] = tensor.detach().masked_fill(~mask[name].to(tensor.device), 0)
        elif key not in partners:
            weights[key] = tensor
    return weights, mask


def _pair(key: str, tensors: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """For the key of a masked parameter's own values: its plain name and the key of its mask."""
    if found := ORIGINAL.fullmatch(key):
        pair = found["stem"] + found["leaf"], key.removesuffix("original") + "0.mask"
        _only_a_mask(key, pair[1], tensors)
    else:
        stem = key.removesuffix(ORIG)
        pair = stem, stem + MASK
    if not key.endswith((ORIG, "original")) or pair[1] not in tensors:
        return None
    if pair[0] in tensors:
        raise Refused(f"the state dict holds both {pair[0]} and {key}; expected one of them")
    return pair


def _only_a_mask(key: str, partner: str, tensors: Mapping[str, Tensor]) -> None:
    """torch.ao.pruning leaves its masks out of state dicts, and other parametrisations are not ours to undo."""
    beside = [k for k in tensors if k.startswith(key.removesuffix("original")) and k != key]
    if not beside:
        raise Refused(f"the state dict holds {key} but no mask for it; expected {partner}: save after plain_")
    if partner in beside and len(beside) > 1:
        raise Refused(f"the state dict parametrises {key} by more than a mask; expected {partner} alone")


def _pruned(network: nn.Module) -> list[_Pruned]:
    """Each parameter that a hook or a parametrisation masks."""
    found = []
    for prefix, module in network.named_modules():
        stem = f"{prefix}." if prefix else ""
        leaves = {leaf: _of_hook(module, leaf, stem) for leaf in _hooked(module, stem)}
        leaves |= _parametrised(module, stem)
        found += [_Pruned(stem + n, module, n, own, _truth(stem + n, mask, own)) for n, (own, mask) in leaves.items()]
    _shared_alike(network, found)
    return found


def _hooked(module: nn.Module, stem: str) -> list[str]:
    """Names of the parameters that torch.nn.utils.prune masks in this module."""
    hooks = [h for h in module._forward_pre_hooks.values() if isinstance(h, torch_prune.BasePruningMethod)]
    hooked = [str(h._tensor_name) for h in hooks]
    halves = {n.removesuffix(ORIG) for n in module._parameters if n.endswith(ORIG)}
    for leaf in halves - set(hooked):
        if leaf + MASK in module._buffers:
            raise Refused(f"{stem}{leaf} has {ORIG} and {MASK} but not PyTorch's hook; expected all or none of them")
    return hooked


def _of_hook(module: nn.Module, leaf: str, stem: str) -> tuple[Tensor, Tensor]:
    own, mask = module._parameters.get(leaf + ORIG), module._buffers.get(leaf + MASK)
    if own is None or mask is None:
        raise Refused(
            f"{stem}{leaf} has PyTorch's pruning hook, but not both {leaf}{ORIG} and {leaf}{MASK}; expected all"
        )
    return own, mask


def _parametrised(module: nn.Module, stem: str) -> dict[str, tuple[Tensor, Tensor]]:
    """By name, values and mask of the parameters that a mask alone parametrises in this module."""
    found = {}
    for leaf, steps in _lists(module).items():
        masks = [mask for m in steps if isinstance(mask := getattr(m, "mask", None), Tensor)]
        if not masks:
            continue
        if not _is_product(steps, masks[0]):
            raise Refused(
                f"{stem}{leaf} is parametrised by more than a product with a mask; expected the product alone"
            )
        found[leaf] = steps.original, masks[0]
    return found


def _lists(module: nn.Module) -> dict[str, parametrize.ParametrizationList]:
    if not parametrize.is_parametrized(module):
        return {}
    found = module.get_submodule("parametrizations").named_children()
    return {n: steps for n, steps in found if isinstance(steps, parametrize.ParametrizationList)}


@torch.no_grad()
def _is_product(steps: parametrize.ParametrizationList, mask: Tensor) -> bool:
    own = steps.original
    if len(steps) > 1 or mask.shape != own.shape:
        return False
    return torch.allclose(steps(), own * mask, rtol=0, atol=0, equal_nan=True)


def _truth(name: str, mask: Tensor, own: Tensor) -> Tensor:
    """The mask as truth values."""
    if mask.shape != own.shape:
        raise Refused(f"the mask of {name} has shape {list(mask.shape)}; expected its parameter's, {list(own.shape)}")
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise Refused(
            f"the mask of {name} holds more than 0 and 1; expected these alone: its weights are scaled, not pruned"
        )
    return mask.detach().bool()


def _shared_alike(network: nn.Module, found: list[_Pruned]) -> None:
    """A parameter that several layers use is plain again only if all of them mask it alike."""
    users = Counter(id(p) for m in network.modules() for p in m._parameters.values())
    for one in found:
        alike = [f for f in found if f.original is one.original and torch.equal(f.kept, one.kept)]
        if len(alike) != users[id(one.original)]:
            raise Refused(
                f"{one.name} is shared by layers that mask it differently; expected the same mask in all of them"
            )


def _ordinary(network: nn.Module) -> None:
    """Networks whose parameters can be looked at."""
    if isinstance(network, torch.jit.ScriptModule):
        raise Refused("the network is compiled by torch.jit; expected the module that it was made from")
    for name, parameter in network.named_parameters():
        if is_lazy(parameter):
            raise Refused(f"{name} has no shape yet; expected a network that has seen an input: run one")


def _reorder(module: nn.Module, order: list[str]) -> None:
    """Parameters as they were; a weight that PyTorch put last comes before its bias, as layers have it."""
    names = [*order, *(n for n in module._parameters if n not in order)]
    for name in list(names):
        bias = name.removesuffix("weight") + "bias"
        if name.endswith("weight") and bias in names and names.index(bias) < names.index(name):
            names.remove(name)
            names.insert(names.index(bias), name)
    for name in names:
        module._parameters[name] = module._parameters.pop(name)


def _owner(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    prefix, _, leaf = name.rpartition(".")
    return network.get_submodule(prefix), leaf


def _known(network: nn.Module, parameters: Mapping[str, Tensor], name: str) -> None:
    stem, _, leaf = name.rpartition(".")
    original = f"{stem}.parametrizations.{leaf}.original".lstrip(".")
    if name + ORIG in parameters or original in parameters or ORIGINAL.fullmatch(name):
        raise Refused(f"{name} is masked or parametrised already; expected a plain network: call plain_ first")
    choose(name, parameters, "the mask's name")


def _fits(name: str, kept: Tensor, parameter: Tensor, users: int) -> None:
    if kept.dtype != torch.bool:
        raise Refused(f"the mask of {name} is of {kept.dtype}; expected torch.bool, True where the weight is kept")
    if kept.shape != parameter.shape:
        raise Refused(
            f"the mask of {name} has shape {list(kept.shape)}; expected {list(parameter.shape)}, its parameter's"
        )
    if users > 1:
        raise Refused(f"{name} is used by {users} layers, which hooks would part; expected a parameter of one layer")


def _read_by_its_owner(network: nn.Module, name: str) -> None:
    """PyTorch's hooks run when the module that has the parameter is called, after the hooks that were there before."""
    owner, leaf = _owner(network, name)
    above = network.get_submodule(name.rpartition(".")[0].rpartition(".")[0])
    silent = isinstance(above, nn.MultiheadAttention) and owner is above.out_proj
    if silent or isinstance(owner, nn.ParameterList | nn.ParameterDict):
        raise Refused(f"{name} is read without a call of its module, and the hook would never run: leave it out")
    if any(isinstance(hook, WeightNorm | SpectralNorm) for hook in owner._forward_pre_hooks.values()):
        raise Refused(f"{name} is normalised by a hook that would run before the mask's; expected a layer without")
    if hasattr(owner, leaf + MASK) or hasattr(owner, leaf + ORIG):
        raise Refused(f"{name}: its layer has its own {leaf}{MASK} or {leaf}{ORIG}; expected these names to be free")
