"""A convolution, its ReLU and its max-pool as one layer, with a native kernel for training small networks on a CPU.

torch's own operators are built for large channel counts: on LeNet-5 they spend ten times longer than the arithmetic
needs. The kernel (native/convpool.cpp) puts images in vector lanes, which fits any number of channels. It gives torch's
results up to rounding, the same whatever the number of threads. `ConvReLUPool.path` says when it is taken.
"""

import ctypes
import os
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import native

__all__ = ["ConvReLUPool"]

VARIABLE = "PRUNERY_CONVPOOL"
PATHS = ("native", "torch")


class ConvReLUPool(nn.Conv2d):
    """Conv2d, ReLU and, unless pool is 1, max_pool2d over windows of pool x pool; the parameters are Conv2d's."""

    def __init__(self, *args, pool: int = 2, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if pool not in (1, 2):
            raise ValueError(f"pool = {pool} is not supported; choose one of 1, 2")
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        if self.path(x) == "native":
            return _Native.apply(x, self.weight, self.bias, self.padding[0], self.pool)
        y = F.relu(self._conv_forward(x, self.weight, self.bias))
        return F.max_pool2d(y, self.pool) if self.pool > 1 else y

    def path(self, x: Tensor) -> str:
        """Which code this input takes: "native", or "torch" for what the kernel cannot do or would do more slowly."""
        wanted = os.environ.get(VARIABLE)
        if wanted not in (None, "", *PATHS):
            raise ValueError(f'{VARIABLE} = "{wanted}" is unknown; choose one of {", ".join(PATHS)}, or leave it unset')
        if wanted == "torch" or not self.training or not _plain(x, self.weight, self.bias) or not self._can(x):
            return "torch"
        return "native" if wanted == "native" or self._pays(x) else "torch"

    def _can(self, x: Tensor) -> bool:
        square = self.kernel_size[0] == self.kernel_size[1] and self.padding in ((0, 0), (1, 1), (2, 2))
        simple = self.groups == 1 and self.stride == self.dilation == (1, 1) and self.padding_mode == "zeros"
        if not (square and simple and x.dim() == 4 and x.shape[1] == self.in_channels and len(x)):
            return False
        grown = 2 * self.padding[0] - self.kernel_size[0] + 1
        return min(x.shape[2:]) + grown >= self.pool and _kernels() is not None

    def _pays(self, x: Tensor) -> bool:
        return True

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, pool={self.pool}"


def _plain(*tensors: Tensor | None) -> bool:
    """Nothing but eager training on the CPU in float32: no tracing, transform, autocast or subclass sees the call."""
    return (
        torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch._C._len_torch_dispatch_stack() == 0
        and all(
            type(t) in (Tensor, nn.Parameter) and t.dtype == torch.float32 and t.device.type == "cpu"
            for t in tensors
            if t is not None
        )
    )


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, padding, pool):
        plan = _plan(*x.shape, *weight.shape[::3], padding, pool)
        y, saved = _kernels().forward(plan, x.contiguous(), weight.contiguous(), bias)
        ctx.save_for_backward(x, weight, bias, saved)
        ctx.plan, ctx.padding, ctx.pool = plan, padding, pool
        return y

    @staticmethod
    def backward(ctx, dy):
        x, weight, bias, saved = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: the gradient must be differentiable itself, which torch's is
            return *_differentiable(ctx, x, weight, bias, dy), None, None
        needs_x, _, needs_bias = ctx.needs_input_grad[:3]
        return *_kernels().backward(ctx.plan, dy.contiguous(), weight.contiguous(), saved, needs_x, needs_bias), None, None


def _differentiable(ctx, x, weight, bias, dy):
    y = F.relu(F.conv2d(x, weight, bias, padding=ctx.padding))
    y = F.max_pool2d(y, ctx.pool) if ctx.pool > 1 else y
    wanted = [t for t, needed in zip((x, weight, bias), ctx.needs_input_grad, strict=False) if needed]
    found = iter(torch.autograd.grad(y, wanted, dy, create_graph=True))
    return [next(found) if needed else None for needed in ctx.needs_input_grad[:3]]


class _Shape(ctypes.Structure):
    """The order of the fields is that of convpool.cpp."""

    _fields_ = [
        (name, ctypes.c_int32)
        for name in ("images", "channels", "height", "width", "outputs", "kernel", "padding", "pool")
    ]


class _Plan:
    def __init__(self, shape, threads):
        self.shape = _Shape(*shape)
        images, _, height, width, outputs, kernel, padding, pool = shape
        grown = 2 * padding - kernel + 1
        self.x = shape[:4]
        self.y = images, outputs, (height + grown) // pool, (width + grown) // pool
        self.threads = threads
        self.reference = ctypes.byref(self.shape)
        sizes = (ctypes.c_int64 * 3)()
        _kernels().library.prunery_convpool_sizes(self.reference, threads, sizes)
        self.saved, self.forward, self.backward = sizes


def _plan(*shape):
    return _planned(shape, torch.get_num_threads())


@cache
def _planned(shape, threads):
    return _Plan(shape, threads)


class _Kernels:
    def __init__(self, library):
        self.library = library
        pointer, count = ctypes.c_void_p, ctypes.c_int
        self.sizes, self._forward, self._backward = (
            getattr(library, f"prunery_convpool_{name}") for name in ("sizes", "forward", "backward")
        )
        self.sizes.argtypes = [pointer, count, pointer]
        self._forward.argtypes = [pointer, count, *[pointer] * 7]
        self._backward.argtypes = [pointer, count, *[pointer] * 8]
        self.sizes.restype = self._forward.restype = self._backward.restype = None
        self.team = _team()

    def forward(self, plan, x, weight, bias):
        y = torch.empty(plan.y)
        saved = torch.empty(plan.saved, dtype=torch.uint8)
        scratch = torch.empty(plan.forward, dtype=torch.uint8)
        self._forward(
            plan.reference, plan.threads, self.team, x.data_ptr(), weight.data_ptr(),
            None if bias is None else bias.data_ptr(), y.data_ptr(), saved.data_ptr(), scratch.data_ptr(),
        )  # fmt: skip
        return y, saved

    def backward(self, plan, dy, weight, saved, needs_x, needs_bias):
        dx = torch.empty(plan.x) if needs_x else None
        dweight = torch.empty(weight.shape)
        dbias = torch.empty(len(weight)) if needs_bias else None
        scratch = torch.empty(plan.backward, dtype=torch.uint8)
        self._backward(
            plan.reference, plan.threads, self.team, dy.data_ptr(), weight.data_ptr(), saved.data_ptr(),
            dweight.data_ptr(), None if dbias is None else dbias.data_ptr(), None if dx is None else dx.data_ptr(),
            scratch.data_ptr(),
        )  # fmt: skip
        return dx, dweight, dbias


def _team():
    """The run-time that gives torch's operators their threads; without it the kernel runs on one."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p)
    except AttributeError:
        return None


@cache
def _kernels():
    return _Kernels(native.library()) if native.available() else None
