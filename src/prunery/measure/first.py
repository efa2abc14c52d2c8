"""What a network's first layer looks for and what it finds: its filters, their masks, and its maps of a few images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from ..masks import Mask
from ..train import frozen

LARGEST = 32
"""pixels of a map's side; larger ones are averaged down"""


@dataclass(frozen=True)
class First:
    """The first layer that reads the images; a linear layer's weights are laid out as the images are."""

    name: str
    filters: np.ndarray
    """float32 [filters, channels, height, width]"""
    kept: np.ndarray
    """of the same shape, true where a weight is not pruned"""
    maps: np.ndarray
    """float32 [images, filters, height, width], before activation; a linear layer has none: [images, 0, 0, 0]"""


def first_layer(network: nn.Module, masks: Mask, images: Tensor) -> First | None:
    """The layer with weights that runs first, and what it makes of the images; None where it is of another kind."""
    seen: list[tuple[str, nn.Module, Tensor, Tensor]] = []

    def kept(name: str, layer: nn.Module, given: Any, made: Tensor) -> None:
        if not seen and given:  # a layer that is called by keyword hands over nothing that can be looked at
            seen.append((name, layer, given[0].detach(), made.detach()))

    handles = [
        module.register_forward_hook(lambda layer, given, made, name=name: kept(name, layer, given, made))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    try:
        with frozen(network):
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return _first(*seen[0], masks, tuple(images.shape[1:])) if seen else None


def _first(
    name: str, layer: nn.Module, given: Tensor, made: Tensor, masks: Mask, shape: tuple[int, ...]
) -> First | None:
    weight: Tensor = layer.weight.detach().cpu().float()  # type: ignore[operator]
    mask = masks.get(f"{name}.weight", torch.ones_like(weight, dtype=torch.bool)).cpu()
    if isinstance(layer, nn.Linear):
        if given[0].numel() != weight.shape[1] or weight.shape[1] != int(np.prod(shape)):
            return None  # it reads something else than the images
        weight, mask, made = weight.view(-1, *shape), mask.view(-1, *shape), made.new_zeros(len(made), 0, 0, 0)
    maps = made.cpu().float()
    small = (min(LARGEST, maps.shape[2]), min(LARGEST, maps.shape[3]))
    maps = adaptive_avg_pool2d(maps, small) if small != maps.shape[2:] else maps
    return First(name, (weight * mask).numpy(), mask.numpy(), maps.numpy())
