"""Training of any other network, convolutions above all: PyTorch's own steps, asked in the same way as `Replica`.

A replica is for one thread at a time and computes on one core; many train side by side. Its steps are those of
`train`'s loop on the same batches, with gradients masked, so pruned weights and their moments are exactly zero.
"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import Images, Splits, inputs
from ..masks import Mask, apply_
from ..spec import Lottery, Refused, Train
from ..train import Evaluation, evaluate
from ..train.evaluate import arithmetic, laid
from ..train.optim import optimizer
from .fcsteps import Snapshot

MOMENTS = {"adam": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}
"""PyTorch's names of what a snapshot calls first and second"""
DRAWING = (nn.modules.dropout._DropoutNd, nn.RReLU)


def trainable(network: nn.Module) -> None:
    """Refuses layers that draw random numbers while they train: networks side by side would draw each other's."""
    for name, module in network.named_modules():
        if isinstance(module, DRAWING):
            kind = type(module).__name__
            raise Refused(f"lottery: {name} ({kind}) draws random numbers in each step; expected a network without")


class TorchReplica:
    """One network with its masks: `train` and `evaluate` as often as you like, `snapshot` to see it."""

    def __init__(self, network: nn.Module, start: Snapshot, masks: Mask, lottery: Lottery, splits: Splits) -> None:
        self.step, self.splits, self.precision = start.step, splits, lottery.precision
        self.network = copy.deepcopy(network).to(memory_format=torch.channels_last)
        self.network.load_state_dict(start.weights)
        self.names = list(start.weights)
        named = dict(self.network.named_parameters())
        apply_({n: named[n].data for n in masks}, masks)
        self.masked = [(named[n], m.to(named[n].dtype)) for n, m in masks.items() if not bool(m.all())]
        self.optimizer = optimizer(
            self.network, Train(optimizer=lottery.optimizer, lr=lottery.lr, momentum=lottery.momentum)
        )
        self.moments = MOMENTS[lottery.optimizer] if lottery.optimizer == "adam" or lottery.momentum else ()
        if start.step:
            self._restore(named, start)

    def train(self, images: Images, batches: Tensor, rates: Sequence[float] | Tensor) -> Tensor:
        """A step for each row of `batches`, which holds numbers of images and -1 at the end; losses before each."""
        _alone()
        self.network.train()
        losses = torch.empty(len(batches))
        for i, (row, rate) in enumerate(
            zip(batches, torch.as_tensor(rates, dtype=torch.float64).tolist(), strict=True)
        ):
            chosen = row[row >= 0].long()
            losses[i] = self._step(images.x[chosen], images.y[chosen].long(), rate)
        self.step += len(batches)
        return losses

    def _step(self, x: Tensor, y: Tensor, rate: float) -> Tensor:
        with arithmetic(self.precision, "cpu"):
            loss = F.cross_entropy(self.network(laid(inputs(x, self.splits), self.network)).float(), y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for weight, mask in self.masked:
            if weight.grad is not None:
                weight.grad.mul_(mask)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return loss.detach()

    def evaluate(self, images: Images) -> Evaluation | None:
        """Loss and accuracy over all images; None where there are none."""
        _alone()
        return evaluate(self.network, images, self.splits, self.precision)

    def snapshot(self) -> Snapshot:
        """Everything that training goes on from."""
        state, parameters = self.network.state_dict(), dict(self.network.named_parameters())
        weights = {n: state[n].detach().clone(memory_format=torch.contiguous_format) for n in self.names}
        first, second = [
            {n: self.optimizer.state[p][k].clone(memory_format=torch.contiguous_format) for n, p in parameters.items()}
            if k and self.step
            else {}
            for k in [*self.moments, "", ""][:2]
        ]
        return Snapshot(weights, first, second, self.step)

    def _restore(self, named: dict[str, nn.Parameter], start: Snapshot) -> None:
        for name, parameter in named.items():
            state = {"step": torch.tensor(float(start.step))} if len(self.moments) == 2 else {}
            for key, kept in zip(self.moments, (start.first, start.second), strict=False):
                state[key] = torch.empty_like(parameter).copy_(kept[name])
            self.optimizer.state[parameter] = state


def _alone() -> None:
    """PyTorch takes one core in this thread from now on: setting it back would give other threads more than theirs."""
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)
