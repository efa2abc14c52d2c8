"""Supermasks: the weights stay as they were drawn, and training chooses which of them are there (1911.13299).

Every weight has a score; the largest of each layer, as many as asked for, are kept. Gradients pass the choice as if it
were not there. Scores begin with the sizes of the weights, so the first mask keeps the largest; Adam trains them.
What is kept is scaled up until the layer's sums are as large as without a mask (1905.01067).
"""

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..data import Images, Splits
from ..masks import Mask
from ..pruning import best
from ..spec import Lottery
from ..train import Evaluation, evaluate
from .fcsteps import Snapshot
from .torchsteps import TorchReplica, alone

NIMBLE = 25
"""steps of Adam that a score takes from nothing to the mean: with 800, MNIST's LeNet was 5 points behind after 1,500
iterations"""


class Chosen(torch.autograd.Function):
    """Scores to a mask; backwards as if it were the scores."""

    @staticmethod
    def forward(ctx, scores: Tensor, keep: int) -> Tensor:
        return best([scores], [torch.ones_like(scores, dtype=torch.bool)], keep, lambda s: s)[0].to(scores.dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class MaskReplica(TorchReplica):
    """A network of fixed weights in training of its mask; what `snapshot` calls weights are scores."""

    def __init__(
        self, network: nn.Module, theta: Mapping[str, Tensor], mask: Mask, lottery: Lottery, splits: Splits, seed: int,
        after: Snapshot | None = None,
    ) -> None:  # fmt: skip
        self.keeps = {n: int(m.sum()) for n, m in mask.items()}
        scale = {n: (m.numel() / max(self.keeps[n], 1)) ** 0.5 for n, m in mask.items()}
        self.theta = {n: theta[n] * scale[n] for n in mask}
        self.seen = copy.deepcopy(network)
        fixed = copy.deepcopy(network)
        for name, parameter in fixed.named_parameters():
            parameter.requires_grad_(name in mask)
        unit = NIMBLE * lottery.lr
        scores = {n: unit * w.abs() / w.abs().mean() if n in mask else w for n, w in theta.items()}
        rule = replace(lottery.rules(), arms=("ticket",), optimizer="adam", momentum=0.0, weight_decay=0.0)
        super().__init__(fixed, after or Snapshot(scores), {}, rule, splits, seed)

    def evaluate(self, images: Images) -> Evaluation | None:
        """Loss and accuracy over all images; None where there are none."""
        with torch.no_grad():
            self.seen.load_state_dict(self.network.state_dict() | self._effective())
        alone()
        return evaluate(self.seen, images, self.splits, self.precision)

    def chosen(self) -> Mask:
        """The mask as it is now."""
        return {n: w != 0 for n, w in self._effective().items()}

    def _effective(self) -> dict[str, Tensor]:
        """The weights that the scores choose."""
        named = dict(self.network.named_parameters())
        return {n: w * Chosen.apply(named[n], self.keeps[n]) for n, w in self.theta.items()}

    def _logits(self, x: Tensor) -> Tensor:
        return torch.func.functional_call(self.network, self._effective(), (x,))
