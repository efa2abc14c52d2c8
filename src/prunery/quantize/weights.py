"""Symmetric rounding of weights: w = scale * q, q a signed integer of so many bits."""

import torch
from torch import Tensor


def quantize(
    weights: dict[str, Tensor], bits: int, per: str = "channel"
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights as they are after rounding, and their scales."""
    scales = {n: scale(w, bits, per) for n, w in weights.items()}
    return {n: integers(w, scales[n]).to(w.dtype) * scales[n] for n, w in weights.items()}, scales


def scale(weight: Tensor, bits: int, per: str) -> Tensor:
    """The step size that just reaches the largest weight, of each output channel or of the whole layer."""
    axes = list(range(1, weight.ndim)) if per == "channel" else list(range(weight.ndim))
    largest = weight.abs().amax(axes, keepdim=True)
    return torch.where(largest > 0, largest / (2 ** (bits - 1) - 1), torch.ones_like(largest))


def integers(weight: Tensor, scales: Tensor) -> Tensor:
    """The nearest whole multiples of the scale."""
    return torch.round(weight / scales).to(torch.int8)
