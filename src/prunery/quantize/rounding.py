"""Numbers to whole numbers in one pass over memory, there and back, where the kernel (native/rounding.cpp) is compiled.

torch's operators take three passes there and four back, and memory is what they wait for. The kernel rounds where they
do, so whole numbers and gradients of inputs are theirs; the gradient of the step is added up in another order.
"""

import ctypes
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from .. import native

KINDS = {torch.float32: 0, torch.bfloat16: 1}


class Kernels:
    """The library's two functions, for a tensor with one step for all of it."""

    def __init__(self, library: ctypes.CDLL) -> None:
        numbers: list[Any] = [ctypes.c_int64, *[ctypes.c_float] * 3]
        team: list[Any] = [ctypes.c_int, ctypes.c_void_p]
        self._blocks, self._forward = library.prunery_rounding_blocks, library.prunery_rounding_forward
        self._backward = library.prunery_rounding_backward
        self._blocks.argtypes, self._blocks.restype = [ctypes.c_int64], ctypes.c_int64
        self._forward.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 2, *numbers, *team]
        self._backward.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 3, *numbers, ctypes.c_void_p, *team]
        self._forward.restype, self._backward.restype = None, ctypes.c_double
        self._team = native.team()

    def forward(self, x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
        """x / step, rounded, within bounds."""
        whole = torch.empty_like(x)
        told = KINDS[x.dtype], x.data_ptr(), whole.data_ptr(), x.numel(), step.item(), low, high
        self._forward(*told, torch.get_num_threads(), self._team)
        return whole

    def backward(self, grad: Tensor, x: Tensor, step: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
        """The gradients of x and of the step."""
        inside = torch.empty_like(x)
        if grad.stride() != x.stride():  # numbers are met by their places in memory
            grad = inside.copy_(grad)
        sums = torch.empty(self._blocks(x.numel()), dtype=torch.float64)
        told = KINDS[x.dtype], *(t.data_ptr() for t in (x, grad, inside)), x.numel(), step.item(), low, high
        total = self._backward(*told, sums.data_ptr(), torch.get_num_threads(), self._team)
        return inside, step.new_tensor(total)


def kernels_for(x: Tensor, step: Tensor) -> Kernels | None:
    """The kernels, where they can take such a tensor: plain numbers in memory, without gaps, that no trace follows."""
    plain = type(x) in (Tensor, nn.Parameter) and x.dtype in KINDS and x.device.type == "cpu" and x.numel() > 0
    if not plain or step.ndim or step.device.type != "cpu" or step.dtype != torch.float32 or _followed():
        return None
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return _kernels() if last or x.is_contiguous() else None


def _followed() -> bool:
    """Whether a trace, a transform or a mode must see torch's operators."""
    mode: Any = torch._C
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or mode._functorch.peek_interpreter_stack() is not None
        or mode._len_torch_dispatch_stack() > 0
    )


@cache
def _kernels() -> Kernels | None:
    return Kernels(native.library()) if native.available() else None
