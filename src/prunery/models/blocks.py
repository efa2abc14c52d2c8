"""A convolution, its ReLU and its max-pool as one layer, with a native kernel for training small networks on a CPU.

torch's operators are built for many channels: on LeNet-5 they take several times longer than the arithmetic needs. The
kernel (native/convpool.cpp) puts images in the lanes of vectors, which suits any number of channels. It gives torch's
results up to rounding, the same whatever the number of threads. `ConvReLUPool.path` says when it is taken.
"""

import ctypes
import os
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import native

__all__ = ["PATHS", "VARIABLE", "ConvReLUPool"]

VARIABLE = "PRUNERY_CONVPOOL"
PATHS = ("native", "torch")


class ConvReLUPool(nn.Conv2d):
    """Conv2d, ReLU and, unless pool is 1, max_pool2d over windows of 2x2; the parameters are those of Conv2d."""

    def __init__(self, *args: Any, pool: int = 2, **kwargs: Any) -> None:
        if pool not in (1, 2):
            raise ValueError(f"pool = {pool} is not supported; choose one of 1, 2")
        super().__init__(*args, **kwargs)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        if self.path(x) == "native":
            padding = int(self.padding[0])
            y: Tensor = _Fused.apply(x, self.weight, self.bias, padding, self.pool)
            return y
        return _pooled(self._conv_forward(x, self.weight, self.bias), self.pool)

    def path(self, x: Tensor) -> str:
        """The code that this input takes: "native", or "torch" for what the kernel cannot do or does more slowly.

        PRUNERY_CONVPOOL=torch turns the kernel off; =native takes it wherever it can be, even where it is slower.
        """
        wanted = os.environ.get(VARIABLE) or None
        if wanted not in (None, *PATHS):
            raise ValueError(f'{VARIABLE} = "{wanted}" is unknown; choose one of {", ".join(PATHS)}, or leave it unset')
        if wanted == "torch" or not self.training or not _eager(x, self.weight, self.bias) or not self._can(x):
            return "torch"
        return "native" if wanted or self._pays(x) else "torch"

    def apart(self) -> nn.Sequential:
        """The same layer as plain ones, over the same weights."""
        plain = nn.Conv2d(self.in_channels, self.out_channels, self.kernel_size, padding=self.padding, bias=False)  # type: ignore[arg-type]
        plain.weight, plain.bias = self.weight, self.bias
        return nn.Sequential(plain, nn.ReLU(), nn.MaxPool2d(self.pool))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, pool={self.pool}"

    def _can(self, x: Tensor) -> bool:
        kernel, padding = self.kernel_size, self.padding
        square = kernel[0] == kernel[1] and not isinstance(padding, str) and padding[0] == padding[1]
        simple = self.stride == self.dilation == (1, 1) and self.groups == 1 and self.padding_mode == "zeros"
        if not (square and simple and x.dim() == 4 and len(x) and x.shape[1] == self.in_channels):
            return False
        return min(x.shape[2:]) + 2 * int(padding[0]) - kernel[0] + 1 >= self.pool and _kernels() is not None

    def _pays(self, x: Tensor) -> bool:
        """Measured against torch 2.15 (AVX-512, one thread): from 1.4 times faster at the bound to 5 far below it."""
        lanes = _kernels().lanes  # type: ignore[union-attr]
        few = self.in_channels * self.out_channels <= 4 * lanes**2
        return self.pool == 2 and few and 4 * len(x) >= lanes and x.shape[2] * x.shape[3] <= 32 * 32


def _pooled(y: Tensor, pool: int) -> Tensor:
    return F.max_pool2d(F.relu(y), 2) if pool == 2 else F.relu(y)


def _eager(*tensors: Tensor | None) -> bool:
    """Plain training in float32 on the CPU: no trace, transform, mode, autocast or subclass must see the operators."""
    return (
        all(type(t) in (Tensor, nn.Parameter) and t.dtype == torch.float32 and t.device.type == "cpu"
            for t in tensors if t is not None)
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch._C._len_torch_dispatch_stack() == 0
    )  # fmt: skip


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, pool: int) -> Tensor:
        shape = (*x.shape, weight.shape[0], weight.shape[2], padding, pool)
        ctx.plan, ctx.kernels = _plan(shape, torch.get_num_threads()), _kernels()
        y, saved = ctx.kernels.forward(ctx.plan, x, weight, bias)
        ctx.save_for_backward(x, weight, bias, saved)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, saved = ctx.saved_tensors
        needed = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # create_graph: the gradient must itself have one, which torch's has
            return *_differentiable(ctx.plan, (x, weight, bias), needed, dy), None, None
        return *ctx.kernels.backward(ctx.plan, dy, weight, saved, needed), None, None


def _differentiable(plan: "_Plan", inputs: Sequence[Tensor], needed: Sequence[bool], dy: Tensor) -> list[Tensor | None]:
    y = _pooled(F.conv2d(inputs[0], inputs[1], inputs[2], padding=plan.shape.padding), plan.shape.pool)
    wanted = [tensor for tensor, need in zip(inputs, needed, strict=True) if need]
    found = iter(torch.autograd.grad(y, wanted, dy, create_graph=True))
    return [next(found) if need else None for need in needed]


class _Shape(ctypes.Structure):
    """The order of the fields is that of convpool.cpp."""

    _fields_ = tuple(
        (name, ctypes.c_int32)
        for name in ("images", "channels", "height", "width", "outputs", "kernel", "padding", "pool")
    )


class _Plan:
    """What one shape of input needs: the shape of the result and the bytes of each buffer."""

    def __init__(self, shape: tuple[int, ...], threads: int) -> None:
        images, _, height, width, outputs, kernel, padding, pool = shape
        sides = ((side + 2 * padding - kernel + 1) // pool for side in (height, width))
        self.x, self.y, self.threads = shape[:4], (images, outputs, *sides), threads
        self.shape = _Shape(*shape)
        self.reference = ctypes.byref(self.shape)
        sizes = (ctypes.c_int64 * 3)()
        native.library().prunery_convpool_sizes(self.reference, threads, sizes)
        self.saved, self.forward, self.backward = sizes


_plan = lru_cache(_Plan)


class _Kernels:
    def __init__(self, library: ctypes.CDLL) -> None:
        self._forward, self._backward = library.prunery_convpool_forward, library.prunery_convpool_backward
        self._forward.argtypes = [ctypes.c_void_p, ctypes.c_int, *[ctypes.c_void_p] * 7]
        self._backward.argtypes = [ctypes.c_void_p, ctypes.c_int, *[ctypes.c_void_p] * 8]
        self._forward.restype = self._backward.restype = None
        self.lanes: int = library.prunery_convpool_lanes()
        self.team = native.team()

    def forward(self, plan: _Plan, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        x, weight, bias = x.contiguous(), weight.contiguous(), None if bias is None else bias.contiguous()
        y, saved, scratch = _floats(plan.y), _bytes(plan.saved), _bytes(plan.forward)
        self._forward(plan.reference, plan.threads, self.team, *map(_address, (x, weight, bias, y, saved, scratch)))
        return y, saved

    def backward(
        self, plan: _Plan, dy: Tensor, weight: Tensor, saved: Tensor, needed: Sequence[bool]
    ) -> tuple[Tensor | None, ...]:
        dy, weight, scratch = dy.contiguous(), weight.contiguous(), _bytes(plan.backward)
        dx = _floats(plan.x) if needed[0] else None
        dweight, dbias = _floats(weight.shape), _floats(weight.shape[:1]) if needed[2] else None
        buffers = (dy, weight, saved, dweight, dbias, dx, scratch)
        self._backward(plan.reference, plan.threads, self.team, *map(_address, buffers))
        return dx, dweight, dbias


def _floats(shape: Sequence[int]) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def _bytes(count: int) -> Tensor:
    return torch.empty(count, dtype=torch.uint8, device="cpu")


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


@cache
def _kernels() -> _Kernels | None:
    return _Kernels(native.library()) if native.available() else None
