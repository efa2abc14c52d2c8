"""Products of bfloat16 in single precision, a piece at a time: the wide numbers live and die in a core's cache.

A processor without instructions for bfloat16 multiplies in single precision, twice as wide as what is handed on. Rather
than whole tensors of it, written and read back between widening, multiplying and rounding and kept for the way back,
some thousand rows at a time are widened, multiplied and rounded.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

PIECE = 2**21
"""bytes of single precision that a thread works on at a time"""


class Rows(torch.autograd.Function):
    """x @ weight.T + bias for rows of bfloat16; every sum in single precision, rounded once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        (rows, ins), outs = x.shape, len(weight)
        wide = weight.float().t().contiguous()
        out = x.new_empty(rows, outs)
        for at, a, b in _spaces(rows, ins, outs):
            a.copy_(x[at])
            out[at] = torch.mm(a, wide, out=b) if bias is None else torch.addmm(bias.float(), a, wide, out=b)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: the gradient must itself have one, which whole tensors' has
            return _graphed(grad, x, weight, ctx.needs_input_grad)
        (rows, ins), outs = x.shape, len(weight)
        to_x, to_weight, to_bias = ctx.needs_input_grad
        wide = weight.float()
        for_x = torch.empty_like(x, memory_format=torch.contiguous_format) if to_x else None
        for_weight = wide.new_zeros(outs, ins) if to_weight else None
        for_bias = wide.new_zeros(outs) if to_bias else None
        for at, a, b in _spaces(rows, ins, outs):
            b.copy_(grad[at])
            if for_bias is not None:
                for_bias += b.sum(0)
            if for_weight is not None:
                a.copy_(x[at])
                for_weight.addmm_(b.t(), a)
            if for_x is not None:
                for_x[at] = torch.mm(b, wide, out=a)
        return for_x, *(None if g is None else g.to(x.dtype) for g in (for_weight, for_bias))


def _graphed(grad: Tensor, x: Tensor, weight: Tensor, needed: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    """The gradients by torch's operators, in one piece."""
    with torch.autocast("cpu", enabled=False):
        wide = grad.float()
        found = wide @ weight.float(), wide.t() @ x.float(), wide.sum(0)
        return tuple(g.to(x.dtype) if need else None for g, need in zip(found, needed, strict=True))


def _spaces(rows: int, ins: int, outs: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Pieces of the rows, with the same memory again and again for what goes in and what comes out."""
    size = min(rows, max(1, PIECE * torch.get_num_threads() // (4 * (ins + outs))))
    a, b = torch.empty(size, ins), torch.empty(size, outs)
    for start in range(0, rows, size):
        at = slice(start, min(start + size, rows))
        yield at, a[: at.stop - start], b[: at.stop - start]


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution whose filters see one point each, of images that lie point by point: rows times a matrix."""
    images, ins, height, width = x.shape
    made = Rows.apply(x.permute(0, 2, 3, 1).reshape(-1, ins), weight.flatten(1), bias)
    return made.view(images, height, width, len(weight)).permute(0, 3, 1, 2)
