"""Training of any other network, convolutions above all: PyTorch's own steps, asked in the same way as the kernels'.

A replica is for one thread at a time and computes on one core; many train side by side. Its steps are those of
`train`'s loop on the same stream of images, gradients masked, so pruned weights and their moments are exactly zero.
"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import Images, Splits, Stream
from ..masks import Mask, apply_
from ..spec import Lottery, Refused, Train
from ..train import Evaluation, evaluate
from ..train.evaluate import laid
from ..train.half import arithmetic
from ..train.loop import derived
from ..train.optim import optimizer
from .fcsteps import Snapshot

MOMENTS = {"adam": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}
"""PyTorch's names of what a snapshot calls first and second"""
DRAWING = (nn.modules.dropout._DropoutNd, nn.RReLU)


class Dropped(nn.Module):
    """Dropout with chance of its own: networks that train side by side would draw each other's."""

    def __init__(self, share: float, rng: torch.Generator) -> None:
        super().__init__()
        self.keep, self.rng = 1 - share, rng

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * torch.empty_like(x).bernoulli_(self.keep, generator=self.rng) / max(self.keep, 1e-9)


def trainable(network: nn.Module) -> None:
    """Refuses other layers that draw random numbers while they train."""
    for name, module in network.named_modules():
        if isinstance(module, DRAWING) and not isinstance(module, nn.Dropout):
            kind = type(module).__name__
            raise Refused(f"lottery: {name} ({kind}) draws random numbers in each step; expected nn.Dropout, or none")


def copied(network: nn.Module, rng: torch.Generator) -> nn.Module:
    """A network of its own, that draws from `rng`."""
    own = copy.deepcopy(network).to(memory_format=torch.channels_last)
    for name, module in list(own.named_modules()):
        if isinstance(module, nn.Dropout):
            own.set_submodule(name, Dropped(module.p, rng))
    return own


class TorchReplica:
    """One network with its masks: `advance` and `evaluate` as often as you like, `snapshot` to see it."""

    def __init__(
        self, network: nn.Module, start: Snapshot, masks: Mask, lottery: Lottery, splits: Splits, seed: int
    ) -> None:
        self.step, self.splits, self.precision = start.step, splits, lottery.precision
        self.stream, self.seed, self.rng = Stream(splits, lottery.batch, seed), seed, torch.Generator()
        self.network = copied(network, self.rng)
        self.network.load_state_dict(start.weights)
        self.names = list(start.weights)
        named = dict(self.network.named_parameters())
        apply_({n: named[n].data for n in masks}, masks)
        self.masked = [(named[n], m.to(named[n].dtype)) for n, m in masks.items() if not bool(m.all())]
        rule = Train(
            optimizer=lottery.optimizer, lr=lottery.lr, momentum=lottery.momentum, weight_decay=lottery.weight_decay
        )
        self.optimizer = optimizer(self.network, rule)
        self.moments = MOMENTS[lottery.optimizer] if lottery.optimizer == "adam" or lottery.momentum else ()
        if start.step:
            self._restore(named, start)

    def advance(self, iteration: int, rates: Sequence[float]) -> Tensor:
        """A step for each learning rate, from an iteration on; the losses before each."""
        alone()
        self.network.train()
        losses = torch.empty(len(rates))
        for i, rate in enumerate(rates):
            self.rng.manual_seed(derived(self.seed, f"dropout {iteration + i}"))
            losses[i] = self._step(*self.stream(iteration + i), rate)
        self.step += len(rates)
        return losses

    def _step(self, x: Tensor, y: Tensor, rate: float) -> Tensor:
        with arithmetic(self.precision, "cpu"):
            loss = F.cross_entropy(self._logits(laid(x, self.network)).float(), y.long())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for weight, mask in self.masked:
            if weight.grad is not None:
                weight.grad.mul_(mask)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return loss.detach()

    def _logits(self, x: Tensor) -> Tensor:
        return self.network(x)

    def evaluate(self, images: Images) -> Evaluation | None:
        """Loss and accuracy over all images; None where there are none."""
        alone()
        return evaluate(self.network, images, self.splits, self.precision)

    def snapshot(self) -> Snapshot:
        """Everything that training goes on from."""
        state, parameters = self.network.state_dict(), dict(self.network.named_parameters())
        weights = {n: state[n].detach().clone(memory_format=torch.contiguous_format) for n in self.names}
        first, second = [
            {
                n: self.optimizer.state[p][k].clone(memory_format=torch.contiguous_format)
                for n, p in parameters.items()
                if p.requires_grad
            }
            if k and self.step
            else {}
            for k in [*self.moments, "", ""][:2]
        ]
        return Snapshot(weights, first, second, self.step)

    def _restore(self, named: dict[str, nn.Parameter], start: Snapshot) -> None:
        for name, parameter in ((n, p) for n, p in named.items() if p.requires_grad):
            state = {"step": torch.tensor(float(start.step))} if len(self.moments) == 2 else {}
            for key, kept in zip(self.moments, (start.first, start.second), strict=False):
                state[key] = torch.empty_like(parameter).copy_(kept[name])
            self.optimizer.state[parameter] = state


def alone() -> None:
    """PyTorch takes one core in this thread from now on: setting it back would give other threads more than theirs."""
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)
