"""Optimisers and learning rates: two tables, one function each per name."""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim import Optimizer

from ..quantize import Step
from ..spec import Refused, Train


def _sgd(groups: list[dict], spec: Train) -> Optimizer:
    return torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum, nesterov=spec.nesterov, fused=True)


def _adam(groups: list[dict], spec: Train) -> Optimizer:
    return torch.optim.Adam(groups, lr=spec.lr, betas=(spec.beta1, spec.beta2), eps=spec.eps or 1e-8, fused=True)


def _adamw(groups: list[dict], spec: Train) -> Optimizer:
    return torch.optim.AdamW(groups, lr=spec.lr, betas=(spec.beta1, spec.beta2), eps=spec.eps or 1e-8, fused=True)


def _adadelta(groups: list[dict], spec: Train) -> Optimizer:
    return torch.optim.Adadelta(groups, lr=spec.lr, eps=spec.eps or 1e-6, foreach=True)


OPTIMIZERS: dict[str, Callable[[list[dict], Train], Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
    "adadelta": _adadelta,
}


def optimizer(network: nn.Module, spec: Train) -> Optimizer:
    """The optimiser that a spec names, over the parameters that want gradients."""
    wanted = [p for p in network.parameters() if p.requires_grad]
    decays = {id(p): not isinstance(p, Step) and (spec.decay_all or p.ndim > 1) for p in wanted}
    decayed = [p for p in wanted if decays[id(p)]]
    plain = [p for p in wanted if not decays[id(p)]]
    groups = [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if not wanted:
        raise Refused("the network has no weights to train; expected at least one layer with parameters")
    return OPTIMIZERS[spec.optimizer]([g for g in groups if g["params"]], spec)


def joined_(optimizer: Optimizer) -> None:
    """Momentum for parameters that learn from now on: zero, with which a first step is what it always is.

    (PyTorch's fused SGD takes parameters with momentum, or without, but not both in one step.)
    """
    for group in optimizer.param_groups if isinstance(optimizer, torch.optim.SGD) else ():
        for weight in group["params"] if group["momentum"] else ():
            if weight.requires_grad and not optimizer.state.get(weight):
                optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)


def _step(spec: Train, epoch: float, _: float) -> float:
    return spec.gamma ** math.floor(epoch / spec.step_epochs)


def _multistep(spec: Train, epoch: float, _: float) -> float:
    return spec.gamma ** sum(epoch >= m for m in spec.milestones)


def _cosine(spec: Train, epoch: float, epochs: float) -> float:
    done = max(0.0, epoch - spec.warmup) / max(epochs - spec.warmup, 1e-9)
    return spec.final_lr + (1 - spec.final_lr) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def _onecycle(spec: Train, epoch: float, epochs: float) -> float:
    """Up a line to the peak (at `warmup`, or 30 % of the way), then down a line to `final_lr`."""
    peak = spec.warmup or 0.3 * epochs
    falling = 1 - (1 - spec.final_lr) * (epoch - peak) / max(epochs - peak, 1e-9)
    return max(epoch / peak, 0.04) if epoch < peak else max(falling, 0.0)


SCHEDULES: dict[str, Callable[[Train, float, float], float]] = {
    "constant": lambda spec, epoch, epochs: 1.0,
    "step": _step,
    "multistep": _multistep,
    "cosine": _cosine,
    "onecycle": _onecycle,
}


def rate(spec: Train, step: int, steps_per_epoch: int, total: int) -> float:
    """The learning rate of one step; a function of the step alone, so that a resumed run needs no schedule state."""
    epoch, epochs = step / steps_per_epoch, total / steps_per_epoch
    rising = (step + 1) / (spec.warmup * steps_per_epoch) if spec.warmup and spec.schedule != "onecycle" else 1.0
    return spec.lr * min(rising, 1.0) * SCHEDULES[spec.schedule](spec, epoch, epochs)
