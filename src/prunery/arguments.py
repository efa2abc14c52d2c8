"""What Python callers hand over: networks, examples, batches, masks; wrong kinds are refused before any work."""

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune
from torch.utils._pytree import tree_leaves

from .spec import Refused, quote

NOT_COPIED = ("_parameters", "_modules")


def a_network(network: Any, who: str) -> nn.Module:
    """A module whose parameters have values."""
    if isinstance(network, type):
        kind = network.__name__
        raise Refused(f"{who}: network is the class {kind}; expected a network of it, such as {kind}()")
    if isinstance(network, str | Path):
        made = f"prunery.load({quote(str(network))}) makes one"
        raise Refused(f"{who}: network is the text {quote(str(network))}; expected a torch.nn.Module: {made}")
    if not isinstance(network, nn.Module):
        raise Refused(f"{who}: network is a {type(network).__name__}; expected a torch.nn.Module")
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if tensor.is_meta:
            raise Refused(f"{who}: {name} is on the meta device and has no values; expected a network with weights")
    return network


def a_plain_network(network: Any, who: str) -> nn.Module:
    """One that may be worked on: without hooks that make its weights anew at each call, and where gradients work."""
    network = a_network(network, who)
    if torch.is_inference_mode_enabled():
        raise Refused(f"{who}: called inside torch.inference_mode(), where nothing can be learnt; call it outside")
    if layer := hooked(network):
        raise Refused(
            f"{who}: {layer} is pruned by torch.nn.utils.prune; make the network plain first: masks = "
            "prunery.plain_(network)"
        )
    return network


def hooked(network: nn.Module) -> str:
    """The first layer that torch.nn.utils.prune holds; empty if there is none."""
    for name, module in network.named_modules():
        if any(isinstance(h, torch_prune.BasePruningMethod) for h in module._forward_pre_hooks.values()):
            return name or type(module).__name__
    return ""


def copied(network: nn.Module, who: str, shared: Iterable[Tensor] = ()) -> nn.Module:
    """A deep copy; activations that modules keep are copied as plain values, which PyTorch refuses to do.

    The copy holds the `shared` tensors themselves.
    """
    kept = [v for m in network.modules() for k, v in vars(m).items() if k not in NOT_COPIED]
    computed = [t for t in tree_leaves(kept) if isinstance(t, Tensor) and not t.is_leaf]
    try:
        return copy.deepcopy(network, {id(t): t.detach().clone() for t in computed} | {id(t): t for t in shared})
    except Exception as error:  # whatever a module holds says no in its own way
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        kind = type(network).__name__
        raise Refused(f"{who}: {kind} cannot be copied ({reason}); expected one that copy.deepcopy copies") from error


def an_example(example: Any, who: str) -> Tensor:
    """A batch of inputs."""
    if isinstance(example, Tensor) and example.ndim and len(example):
        return example
    if isinstance(example, Tensor):
        raise Refused(f"{who}: example has shape {list(example.shape)}; expected a batch of one input or more")
    if example is None:
        raise Refused(f"{who}: example is None; expected a batch of inputs, such as images[:2]")
    seen = f"{who}: example is a {type(example).__name__}"
    if hasattr(example, "__array__"):
        raise Refused(f"{seen}; expected a tensor: torch.from_numpy(example)")
    raise Refused(f"{seen}; expected one tensor, a batch of inputs (networks of several inputs are not supported)")


def pairs(data: Any, who: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of (inputs, labels), each looked at as it comes."""
    if not isinstance(data, Iterable) or isinstance(data, Tensor | str | dict):
        raise Refused(f"{who}: data is a {type(data).__name__}; expected an iterable of (inputs, labels): a DataLoader")
    for batch in data:
        if not isinstance(batch, tuple | list) or len(batch) != 2 or not all(isinstance(t, Tensor) for t in batch):
            raise Refused(f"{who}: a batch of data is {_kind(batch)}; expected two tensors, (inputs, labels)")
        x, y = batch
        if not x.ndim or not y.ndim or len(x) != len(y):
            raise Refused(
                f"{who}: a batch has inputs of {list(x.shape)} and labels of {list(y.shape)}; expected as many"
            )
        yield x, y


def _kind(batch: Any) -> str:
    if isinstance(batch, Tensor):
        return f"one tensor of {list(batch.shape)}"
    if isinstance(batch, tuple | list):
        return f"a {type(batch).__name__} of {', '.join(type(t).__name__ for t in batch) or 'nothing'}"
    return f"a {type(batch).__name__}"


def answers(network: nn.Module, x: Tensor, who: str) -> Any:
    """What the network makes of a batch; what it cannot take is refused."""
    try:
        return network(x)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if isinstance(error, torch.OutOfMemoryError | Refused):
            raise
        reason = " ".join(str(error).split())[:160]
        raise Refused(f"{who}: {type(network).__name__} cannot take inputs of {list(x.shape)} ({reason})") from error


def scores(made: Any, y: Tensor, who: str) -> Tensor:
    """The scores of classes that labels can be compared with."""
    if not isinstance(made, Tensor) or made.ndim < 2:
        seen = f"results of {list(made.shape)}" if isinstance(made, Tensor) else f"a {type(made).__name__}"
        raise Refused(f"{who}: the network gives {seen}; expected scores of classes, [inputs, classes]")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise Refused(f"{who}: labels are {str(y.dtype).removeprefix('torch.')}; expected whole numbers of classes")
    low, high = (int(v) for v in torch.aminmax(y)) if y.numel() else (0, 0)
    if low < 0 or high >= made.shape[1]:
        seen = f"labels reach from {low} to {high}"
        raise Refused(f"{who}: {seen}; expected 0 to {made.shape[1] - 1}, as the network has {made.shape[1]} classes")
    return made


def fitting(network: nn.Module, masks: Any, who: str) -> dict[str, Tensor]:
    """Masks of this network's parameters, on the CPU."""
    if not isinstance(masks, dict):
        seen = f"{who}: masks are a {type(masks).__name__}"
        raise Refused(f"{seen}; expected a dict of names and bool tensors, as prune returned it")
    named = dict(network.named_parameters())
    for name, mask in masks.items():
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            kind = str(mask.dtype).removeprefix("torch.") if isinstance(mask, Tensor) else type(mask).__name__
            raise Refused(f"{who}: the mask of {name} is {kind}; expected a bool tensor, True where the weight is kept")
        if name not in named or named[name].shape != mask.shape:
            there = f"weights of {list(named[name].shape)}" if name in named else "no such weights here"
            seen = f"{who}: the mask of {name} does not fit this network (it is {list(mask.shape)}, there are {there})"
            raise Refused(f"{seen}; expected what prune or shrink returned for it")
    return {n: m.cpu() for n, m in masks.items()}


def applied(network: nn.Module, masks: dict[str, Tensor], who: str) -> dict[str, Tensor]:
    """The masks, once the weights are zero where these prune them."""
    named = dict(network.named_parameters())
    for name, mask in masks.items():
        if bool(named[name].detach().cpu()[~mask].any()):
            wanted = "prunery.masks.apply_(dict(network.named_parameters()), masks) makes it so"
            raise Refused(f"{who}: {name} is not zero where its mask prunes it; expected it to be: {wanted}")
    return masks
