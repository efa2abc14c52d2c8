"""What flows through a chain."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MASK, SCALE = "mask:", "scale:"


@dataclass
class State:
    """What flows through a chain: weights and buffers, masks, and the scales of quantised weights."""

    weights: "dict[str, Tensor]"
    masks: "dict[str, Tensor]" = field(default_factory=dict)
    scales: "dict[str, Tensor]" = field(default_factory=dict)

    def tensors(self) -> "dict[str, Tensor]":
        """All in one dict, as a file holds them: masks as one bit a weight."""
        masks = {MASK + k: bits(v) for k, v in self.masks.items()}
        return {**self.weights, **masks, **{SCALE + k: v for k, v in self.scales.items()}}

    @classmethod
    def of(cls, tensors: "dict[str, Tensor]") -> "State":
        """`tensors` taken apart again; ValueError when they do not belong together."""
        packed = {k.removeprefix(MASK): v for k, v in tensors.items() if k.startswith(MASK)}
        scales = {k.removeprefix(SCALE): v for k, v in tensors.items() if k.startswith(SCALE)}
        weights = {k: v for k, v in tensors.items() if not k.startswith((MASK, SCALE))}
        for name in packed.keys() - weights.keys():
            raise ValueError(f"it has a mask but no weights of the name {name}")
        return cls(weights, {k: places(v, weights[k].shape, k) for k, v in packed.items()}, scales)


def bits(mask: "Tensor") -> "Tensor":
    """A mask as one bit a place."""
    import numpy as np
    import torch

    return torch.from_numpy(np.packbits(mask.flatten().cpu().numpy()))


def places(packed: "Tensor", shape: Sequence[int], name: str) -> "Tensor":
    """The mask that `bits` packed; ValueError when there are too few bits."""
    import numpy as np
    import torch

    if packed.dtype != torch.uint8 or min(shape, default=0) < 0 or packed.numel() * 8 < math.prod(shape):
        raise ValueError(f"the bits of {name} do not make a mask of shape {list(shape)}")
    found = np.unpackbits(packed.flatten().numpy(), count=math.prod(shape))
    return torch.from_numpy(found.astype(bool)).view(tuple(shape))
