"""Quantised layers spelt out for whoever follows a network: a rounding, whole weights, a factor and a bias."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..quantize.fake import SMALLEST, QuantConv2d, Quantised, quantised_layers


@torch.library.custom_op("prunery::rounded", mutates_args=())
def rounded(x: Tensor, step: float, low: int, high: int, binary: bool) -> Tensor:
    """x / step as whole numbers within bounds: one operator, where a quantiser is many."""
    u = x / step
    return u.sign() if binary else u.round().clamp_(low, high)


@rounded.register_fake
def _(x: Tensor, step: float, low: int, high: int, binary: bool) -> Tensor:
    return torch.empty_like(x)


class Spelt(nn.Module):
    """A quantised layer as constants: the same numbers in the same order, so the same bits."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, layer: Quantised) -> None:
        super().__init__()
        with torch.no_grad():
            _, weight, scale = layer.operands(torch.zeros(1))
        own = layer.input_quantiser
        self.step = float(own.step.detach().clamp(min=SMALLEST)) if own else 0.0
        self.low, self.high, self.binary = (own.low, own.high, own.binary) if own else (0, 0, False)
        self.behind = layer.behind
        self.register_buffer("weight", weight.detach().clone())
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
        self.sums: Any = _Convolution(layer) if isinstance(layer, QuantConv2d) else F.linear

    def forward(self, x: Tensor) -> Tensor:
        whole = rounded(x, self.step, self.low, self.high, self.binary) if self.step else x
        shape = [-1, *[1] * (self.weight.ndim - 2)]  # outputs are an axis of their own
        y = self.sums(whole, self.weight) * self.scale.view(shape)
        y = y if self.bias is None else y + self.bias.view(shape)
        return y if self.behind is None else self.behind(y)


class _Convolution:
    """A convolution's sums, with its window."""

    def __init__(self, layer: QuantConv2d) -> None:
        keys = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
        self.window = nn.Conv2d(**{k: getattr(layer, k) for k in keys}, bias=False, device="meta")

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.window._conv_forward(x, weight, None)


def spelt_(network: nn.Module) -> nn.Module:
    """The network, with its quantised layers spelt out in place; one without any stays as it is."""
    for name, layer in quantised_layers(network).items():
        if not name:
            return Spelt(layer).eval()
        network.set_submodule(name, Spelt(layer).eval())
    return network
