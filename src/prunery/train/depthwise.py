"""Depthwise convolutions in half precision on a CPU: the same sums without torch's slow ways back.

In bfloat16 torch 2.15 differentiates some grouped convolutions many times slower than in single precision (a batch of
128, one core): towards inputs where there is a stride (48 channels of 16x16: 48 ms against 0.6), towards weights where
the filter is larger than 3x3 or than what it makes (672 channels of 4x4, 5x5: 93 ms against 19). Those gradients are
computed in single precision, from the same numbers, and rounded once.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

NAMES = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
DEFAULTS = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
USUAL = 3
"""largest side of a filter for which half precision has a quick way to the weights"""


class Grouped(torch.autograd.Function):
    """A grouped convolution in bfloat16, with those gradients in single precision that are quicker there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.biases = geometry, None if bias is None else [len(bias)]
        stride, padding, dilation, groups = geometry
        return torch.ops.aten.convolution(x, weight, bias, stride, padding, dilation, False, [0, 0], groups)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        to_x, to_weight, to_bias, _ = ctx.needs_input_grad
        single = to_x and max(stride) > 1, to_weight and _large(weight, grad), False
        rest = (ctx.biases, stride, padding, dilation, False, [0, 0], groups)
        found: list[Tensor | None] = [None, None, None]
        for part, kind in ((single, torch.float32), ((to_x, to_weight, to_bias), x.dtype)):
            which = [want and found[i] is None for i, want in enumerate(part)]
            if any(which):
                made = torch.ops.aten.convolution_backward(grad.to(kind), x.to(kind), weight.to(kind), *rest, which)
                found = [new.to(x.dtype) if want else old for want, new, old in zip(which, made, found, strict=True)]
        return found[0], found[1], found[2], None


def _large(weight: Tensor, made: Tensor) -> bool:
    """Whether a filter is larger than usual, or than what it makes."""
    return max(weight.shape[2:]) > min(USUAL, *made.shape[2:])


class _Instead(TorchFunctionMode):
    """Takes grouped convolutions wherever a network calls them; everything else goes its way."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.conv2d:
            return func(*args, **kwargs)
        told = DEFAULTS | dict(zip(NAMES, args, strict=False)) | kwargs
        stride, padding, dilation = (_pair(told[k]) for k in ("stride", "padding", "dilation"))
        x, weight, bias = told["input"], told["weight"], told["bias"]
        if told["groups"] == 1 or stride is None or padding is None or dilation is None or x.ndim != 4:
            return func(*args, **kwargs)
        if max(stride) == 1 and max(weight.shape[2:]) <= min(USUAL, *x.shape[2:]):
            return func(*args, **kwargs)
        half = torch.bfloat16
        bias = None if bias is None else bias.to(half)
        return Grouped.apply(x.to(half), weight.to(half), bias, (stride, padding, dilation, told["groups"]))


def _pair(told: Any) -> list[int] | None:
    """One number for both axes or two; None for words such as "same"."""
    if isinstance(told, str):
        return None
    return [told, told] if isinstance(told, int) else [told[0], told[-1]]


def quick(network: nn.Module, precision: str, device: str) -> AbstractContextManager[Any]:
    """The context in which a training step's grouped convolutions are quick, where there are any."""
    some = any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in network.modules())
    return _Instead() if some and precision == "bfloat16" and device == "cpu" else nullcontext()
