"""The network in whole numbers: normalisation folded into a multiplier and a bias for each output, sums of integers.

Behind a fold a quantised layer is `y = (qx * qw) m + b` with qx and qw whole, and m and b of sixteen bits. Sums below
2^24 are exact in float32 in whatever order they are added, and larger ones are taken in parts and rounded once, so
evaluation gives the same bits as integer arithmetic; `with in_integers(network)` computes the sums in integers to show
it.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..spec import Refused
from .fake import SMALLEST, Codebook, QuantConv2d, Quantised, QuantLinear, quantised_layers

MOST = 2**31
"""sums that integers of 32 bits hold"""
IMAGES = 32
"""that are laid out for products at a time"""


def folded(network: nn.Module, behind: Mapping[str, str]) -> nn.Module:
    """A copy in evaluation mode whose weights are whole numbers; `behind` says which normalisation stands behind which
    layer, to be folded into it."""
    made = copy.deepcopy(network).eval()
    for name, layer in quantised_layers(made).items():
        norm = made.get_submodule(behind[name]) if name in behind else None
        _fold_(layer, norm)
        _bounded(layer, name)
        if norm is not None:
            made.set_submodule(behind[name], nn.Identity())
    left = [n for n, m in made.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if left:
        raise Refused(f"{left[0]} normalises what no quantised layer wrote; quantise the layer in front of it as well")
    return made


@torch.no_grad()
def _fold_(layer: Quantised, norm: Any) -> None:
    """y = (sums s + bias - mean) gamma / sqrt(variance + eps) + beta, as one multiplier and one bias, in doubles."""
    if layer.input_quantiser:
        layer.input_quantiser.step.copy_(_short(layer.input_quantiser.step.clamp(min=SMALLEST)))
    _, weight, scale = layer.operands(torch.zeros(1))
    scale, bias = scale.double(), torch.zeros(len(weight)).double() if layer.bias is None else layer.bias.double()
    if norm is not None:
        gain = (norm.running_var.double() + norm.eps).rsqrt()
        gain = gain if norm.weight is None else gain * norm.weight.double()
        scale, bias = scale * gain, (bias - norm.running_mean.double()) * gain
        bias = bias if norm.bias is None else bias + norm.bias.double()
    step = layer.input_quantiser.step if layer.input_quantiser else None
    book = layer.weight_quantiser if isinstance(layer.weight_quantiser, Codebook) else None
    layer.weight.data = weight if book is None else book.coded(layer.weight).float()
    layer.wear(replace(layer.bits, folded=True, per="tensor"))
    if layer.input_quantiser and step is not None:
        layer.input_quantiser.step.copy_(step)
    if book is not None and isinstance(layer.weight_quantiser, Codebook):
        layer.weight_quantiser.values.copy_(_short(book.values))
    layer.multiplier = _short(scale)
    layer.bias = nn.Parameter(_short(bias), requires_grad=False)


def _short(x: Tensor) -> Tensor:
    """Numbers of sixteen bits."""
    return x.float().bfloat16().float()


def whole_weights(layer: Quantised) -> Tensor:
    """The weights as int8, or the codes of those that share values."""
    if isinstance(layer.weight_quantiser, Codebook):
        return layer.weight_quantiser.coded(layer.weight)
    with torch.no_grad():
        return layer.weight_quantiser(layer.weight)[0].to(torch.int8)


def _bounded(layer: Quantised, name: str) -> None:
    """Refuses sums that integers may not hold."""
    largest = layer.largest(whole_weights(layer)) if layer.whole else 0
    if largest >= MOST:
        raise Refused(f"{name} may sum up to {largest}; expected less than {MOST}: use fewer bits")


@contextmanager
def in_integers(network: nn.Module) -> Iterator[None]:
    """For a while, sums of quantised layers are computed in integers."""
    layers = [layer for layer in quantised_layers(network).values() if layer.whole]
    for layer in layers:
        layer.sums = _IntegerSums(layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.sums


class _IntegerSums:
    """A layer's sums with products of whole numbers in 32 bits, some images at a time."""

    def __init__(self, layer: Quantised) -> None:
        self.layer = layer

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        if isinstance(self.layer, QuantLinear):
            return _products(weight, x.flatten(0, -2).T).T.reshape(*x.shape[:-1], len(weight)).float()
        if self.layer.padding_mode != "zeros" or isinstance(self.layer.padding, str):
            raise Refused("sums in integers know padding with zeros only")
        return torch.cat([self.some(part, weight) for part in x.split(IMAGES)]).float()

    def some(self, x: Tensor, weight: Tensor) -> Tensor:
        """Of a convolution."""
        layer: Any = self.layer
        columns = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        n, _, places = columns.shape
        sides = (n, len(weight), *_sides(layer, x))
        if layer.groups == 1:
            sums = _products(weight.flatten(1), columns.transpose(0, 1).flatten(1))
            return sums.view(len(weight), n, places).transpose(0, 1).reshape(sides)
        rows = weight.int().view(layer.groups, len(weight) // layer.groups, -1)
        return (rows @ columns.view(n, layer.groups, -1, places).int()).view(sides)


def _products(rows: Tensor, columns: Tensor) -> Tensor:
    """A matrix of signed bytes times one of bytes, signed or not, in integers of 32 bits.

    Where the processor multiplies bytes, unsigned ones are moved by 128 to become signed; the difference is added."""
    if rows.device.type != "cpu" or not torch.cpu._is_vnni_supported() or 0 in (*rows.shape, *columns.shape):
        return rows.int() @ columns.int()
    moved = 128 if float(columns.max()) > 127 else 0
    sums = torch._int_mm(rows.to(torch.int8).contiguous(), (columns - moved).to(torch.int8).contiguous())
    return sums + moved * rows.int().sum(1, keepdim=True, dtype=torch.int32)


def _sides(layer: QuantConv2d, x: Tensor) -> list[int]:
    """Rows and columns of the output."""
    sizes: Any = zip(x.shape[2:], layer.padding, layer.dilation, layer.kernel_size, layer.stride, strict=True)
    return [(side + 2 * p - d * (k - 1) - 1) // s + 1 for side, p, d, k, s in sizes]
