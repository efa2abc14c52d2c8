"""What a level leaves for the next: the pruned mask as bits, and weights only where a network will begin with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..masks import Mask
from ..runs import read_tensors, write_tensors
from ..runs.state import bits, places

FILE = "kept.safetensors"
MASK, WHOLE, LEFT, REWOUND = "mask:", "whole:", "left:", "rewound:"


def keep(folder: Path, mask: Mask, parts: Mapping[str, Mapping[str, Tensor]]) -> None:
    """The mask that follows; `parts` are weights under WHOLE, LEFT (those in the mask only) or REWOUND."""
    tensors = {MASK + n: bits(m) for n, m in mask.items()}
    for part, weights in parts.items():
        packed = {n: w[mask[n]] if part == LEFT and n in mask else w for n, w in weights.items()}
        tensors |= {part + n: w for n, w in packed.items()}
    write_tensors(folder / FILE, tensors)


@dataclass(frozen=True)
class Kept:
    """That file, read when it is asked for."""

    folder: Path
    names: Sequence[str]
    """of the network's weights and biases, in its own order, which files do not keep"""
    shapes: Mapping[str, tuple[int, ...]]
    """of the prunable weights"""

    def mask(self) -> Mask:
        tensors = self._tensors()
        return {n: places(tensors[MASK + n], shape, n) for n, shape in self.shapes.items()}

    def weights(self, part: str) -> dict[str, Tensor]:
        """Those under WHOLE, LEFT or REWOUND; what was pruned is zero."""
        tensors = self._tensors()
        found = {n: tensors[part + n] for n in self.names}
        masks = self.mask() if part == LEFT else {}
        return found | {n: torch.zeros(m.shape).masked_scatter_(m, found[n]) for n, m in masks.items()}

    def _tensors(self) -> dict[str, Tensor]:
        return read_tensors(self.folder / FILE)[0]
