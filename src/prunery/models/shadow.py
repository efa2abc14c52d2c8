"""A network's shadow: the same modules over tensors without data, to be asked for shapes at no cost and no harm."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

Watch = Callable[[nn.Module], AbstractContextManager]


def probe(network: nn.Module, input: tuple[int, ...], batch: int, watch: Watch = lambda _: nullcontext()) -> Any:
    """What a batch of zeros gives, in evaluation mode, while `watch` looks at the network that is really run.

    Networks whose code depends on values (an `if x.sum() > 0`) cannot do without data: they are run themselves.
    """
    try:
        return _run(shadow(network), input, batch, "meta", watch)
    except Exception:
        with still(network):
            return _run(network, input, batch, _device(network), watch)


def shadow(network: nn.Module) -> nn.Module:
    """A deep copy in which every tensor is replaced by an empty one of its shape; shared ones stay shared."""
    return copy.deepcopy(network, {id(t): _empty(t) for t in _tensors(network)}).eval()


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    """Parameters, buffers, and tensors that are mere attributes."""
    for module in network.modules():
        yield from module.parameters(recurse=False)
        yield from module.buffers(recurse=False)
        yield from (v for v in vars(module).values() if isinstance(v, Tensor))


def _empty(tensor: Tensor) -> Tensor:
    empty = tensor.detach().to("meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _run(network: nn.Module, input: tuple[int, ...], batch: int, device: Any, watch: Watch) -> Any:
    with torch.no_grad(), torch.random.fork_rng(devices=[]), torch.device(device), watch(network):
        return network(torch.zeros(batch, *input, dtype=_dtype(network)))


def _dtype(network: nn.Module) -> torch.dtype:
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)


def _device(network: nn.Module) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("cpu"))


@contextmanager
def still(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; modes and buffers are put back, and attention does not hide in fused kernels."""
    modes = {module: module.training for module in network.modules()}
    buffers = [(b, b.clone()) for b in network.buffers()]
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        network.eval()
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, mode in modes.items():
            module.training = mode
        for buffer, value in buffers:
            buffer.copy_(value)
