"""What flows through a chain."""

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
        """All in one dict, as a file holds them."""
        masks = {MASK + k: v for k, v in self.masks.items()}
        return {**self.weights, **masks, **{SCALE + k: v for k, v in self.scales.items()}}

    @classmethod
    def of(cls, tensors: "dict[str, Tensor]") -> "State":
        """`tensors` taken apart again."""
        masks = {k.removeprefix(MASK): v for k, v in tensors.items() if k.startswith(MASK)}
        scales = {k.removeprefix(SCALE): v for k, v in tensors.items() if k.startswith(SCALE)}
        return cls({k: v for k, v in tensors.items() if not k.startswith((MASK, SCALE))}, masks, scales)
