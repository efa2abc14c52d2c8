"""What all networks of a lottery share, and who trains them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ..data import Images, Splits
from ..masks import Mask
from ..spec import Lottery
from ..train import Evaluation
from .fcsteps import Replica, Rule, Snapshot, orders
from .start import Start
from .supermask import MaskReplica
from .torchsteps import TorchReplica

BLOCK = 2000
"""steps whose batches are drawn in one go"""


class InTraining(Protocol):
    """A network between two of its steps."""

    step: int

    def advance(self, iteration: int, rates: Sequence[float]) -> Tensor: ...
    def evaluate(self, images: Images) -> Evaluation | None: ...
    def snapshot(self) -> Snapshot: ...


@dataclass(frozen=True)
class Table:
    """The images, the network, and what its kernels need where it has any."""

    lottery: Lottery
    splits: Splits
    network: nn.Module
    """its weights are those of no network of the lottery"""
    scale: Tensor | None = None
    shift: Tensor | None = None
    """of every pixel, for the kernels of linear layers; nothing where PyTorch trains"""
    lit: float = 0.0
    """share of the pixels that are not black, which decides about kernels"""

    @property
    def by_kernels(self) -> bool:
        """Whether the cost of a step falls with the density of the weights."""
        return self.scale is not None

    def replica(self, start: Start, mask: Mask, seed: int, after: Snapshot | None = None) -> InTraining:
        """A network in training, with a data order of its own; `after` is where it was before."""
        about = (self.lottery, self.splits, seed)
        if start.masking:
            return MaskReplica(self.network, start.weights, mask, *about, after=after)
        after = after or Snapshot(start.weights)
        return (
            ByKernels(self, after, mask, seed) if self.by_kernels else TorchReplica(self.network, after, mask, *about)
        )


class ByKernels(Replica):
    """The kernels of linear layers, fed with batches of this data order."""

    def __init__(self, table: Table, after: Snapshot, mask: Mask, seed: int) -> None:
        lottery = table.lottery
        assert table.scale is not None
        assert table.shift is not None
        rule = Rule(lottery.optimizer, momentum=lottery.momentum, weight_decay=lottery.weight_decay)
        super().__init__(after, mask, rule, lottery.batch, scale=table.scale, shift=table.shift, lit=table.lit)
        self.images, self.seed = table.splits.train, seed
        self.batches = torch.empty(0, lottery.batch, dtype=torch.int32)
        self.drawn = 0  # the iteration that the first of them belongs to

    def advance(self, iteration: int, rates: Sequence[float]) -> Tensor:
        """A step for each learning rate, from an iteration on; the losses before each."""
        return self.train(self.images, self._batches(iteration, len(rates)), rates)

    def _batches(self, iteration: int, steps: int) -> Tensor:
        first = iteration - self.drawn
        if not 0 <= first <= len(self.batches) - steps:
            self.batches = orders(self.seed, len(self.images), self.batch, iteration, max(BLOCK, steps))
            self.drawn, first = iteration, 0
        return self.batches[first : first + steps]
