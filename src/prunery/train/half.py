"""bfloat16 on a CPU, without torch's slow ways: the same numbers, multiplied in single precision and rounded once.

A processor without instructions for it: torch 2.15 falls back to plain loops (a batch of 128 through the score game's
tiny network, one core with AVX2: more than 5 s a step, and 0.5 in single precision). All products that a network calls
are taken there, attention as a whole; what torch multiplies inside a function of its own, such as an LSTM, is not seen.

One with them: torch differentiates some grouped convolutions many times slower than in single precision (a batch of
128, one core): towards inputs where there is a stride (48 channels of 16x16: 48 ms against 0.6), towards weights where
the filter is larger than 3x3 or than what it makes (672 channels of 4x4, 5x5: 93 ms against 19). Those alone are taken.
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .rows import pointwise

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
    """Takes slow grouped convolutions wherever a network calls them; everything else goes its way."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.conv2d or not _halves(args, kwargs):
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


PRODUCTS = {
    torch.conv1d, torch.conv2d, torch.conv3d,
    torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d,
    torch.nn.functional.linear, torch.nn.functional.scaled_dot_product_attention,
    *(getattr(where, name) for where in (torch, Tensor) for name in ("matmul", "mm", "bmm", "addmm", "baddbmm")),
    Tensor.__matmul__, torch.einsum, torch.nn.functional.multi_head_attention_forward,
}  # fmt: skip
"""what autocast computes in bfloat16, and what is made of it: a mode does not see what is called within"""
NARROW = (torch.float32, torch.bfloat16, torch.float16)
"""numbers that autocast makes bfloat16 of"""


class _Single(TorchFunctionMode):
    """Every product of numbers that bfloat16 holds, in single precision and rounded once, there and back."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in PRODUCTS or not _halves(args, kwargs):
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            if func is torch.conv2d and (told := _points(args, kwargs)):
                return pointwise(*told)
            return _rounded(func(*map(_held, args), **{k: _held(v) for k, v in kwargs.items()}))


def _halves(args: Any, kwargs: Any) -> bool:
    """Whether autocast would take such a call: it is on, numbers are floats and not wide, a result is asked for."""
    if not torch.is_autocast_enabled("cpu") or kwargs.get("out") is not None:
        return False
    flat = [b for a in (*args, *kwargs.values()) for b in (a if isinstance(a, list | tuple) else (a,))]
    kinds = [t.dtype for t in flat if isinstance(t, Tensor) and t.dtype != torch.bool]  # masks of attention
    return bool(kinds) and all(kind in NARROW for kind in kinds)


def _points(args: Any, kwargs: Any) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """Inputs, weights and bias in bfloat16 of a call of torch.conv2d that multiplies rows by a matrix; else None."""
    told = DEFAULTS | dict(zip(NAMES, args, strict=False)) | kwargs
    x, weight, bias = told["input"], told["weight"], told["bias"]
    whole = told["groups"] == 1 and _pair(told["stride"]) == [1, 1] and _pair(told["padding"]) in ([0, 0], None)
    if weight.shape[2:] != (1, 1) or not whole or x.ndim != 4 or not x.numel():
        return None
    if not x.is_contiguous(memory_format=torch.channels_last):  # the channels of a point do not lie together
        return None
    half = torch.bfloat16
    return x.to(half), weight.to(half), None if bias is None else bias.to(half)


def _held(told: Any) -> Any:
    """Floats as bfloat16 holds them, to be multiplied in single precision."""
    if isinstance(told, list | tuple):
        return type(told)(map(_held, told))
    return told.bfloat16().float() if isinstance(told, Tensor) and told.is_floating_point() else told


def _rounded(made: Any) -> Any:
    """What came of it, as bfloat16."""
    return tuple(map(_rounded, made)) if isinstance(made, tuple) else made if made is None else made.bfloat16()


X86 = ("x86_64", "amd64", "i386", "i686")


@cache
def has_bfloat16() -> bool:
    """Whether torch multiplies bfloat16 by this processor's own instructions.

    torch says yes to all of AVX-512, where its library widens and narrows numbers by hand if need be: a step of the
    score game's tiny network takes 1.7 times as long as with products in single precision, so that counts as no."""
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    own = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return platform.machine().lower() not in X86 or own


@contextmanager
def arithmetic(precision: str, device: str) -> Iterator[None]:
    """The context in which forward and backward compute."""
    half = precision == "bfloat16"
    with torch.autocast(device, torch.bfloat16, enabled=half), _ways() if half and device == "cpu" else nullcontext():
        yield


def _ways() -> TorchFunctionMode:
    return _Instead() if has_bfloat16() else _Single()
