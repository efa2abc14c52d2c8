"""What a step minimises: cross entropy, against smoothed, mixed or a teacher's answers."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..spec import Train

Loss = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


def loss_of(network: Callable[[Tensor], Tensor], teacher: nn.Module | None, spec: Train) -> Loss:
    """(images, labels, step number) -> (loss, logits), as the spec asks."""

    def hard(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=spec.label_smoothing)

    def plain(x: Tensor, y: Tensor, y2: Tensor, share: float) -> tuple[Tensor, Tensor]:
        logits = network(x)
        loss = hard(logits, y) if share == 1 else share * hard(logits, y) + (1 - share) * hard(logits, y2)
        return (loss if teacher is None else _imitate(loss, logits, teacher, x, spec)), logits

    def at(x: Tensor, y: Tensor, step: int) -> tuple[Tensor, Tensor]:
        if not spec.mixup:
            return plain(x, y, y, 1.0)
        share = mixing(spec, step)
        return plain(share * x + (1 - share) * x.flip(0), y, y.flip(0), share)

    return at


def mixing(spec: Train, step: int) -> float:
    """Mixup's weight at a step: drawn from the seed and the step's number alone."""
    return float(np.random.default_rng([spec.seed, step, 0x313]).beta(spec.mixup, spec.mixup))


def _imitate(loss: Tensor, logits: Tensor, teacher: nn.Module, x: Tensor, spec: Train) -> Tensor:
    """Hinton et al. (1503.02531): the temperature squared keeps the gradient's size."""
    with torch.no_grad():
        target = F.log_softmax(teacher(x) / spec.temperature, 1)
    student = F.log_softmax(logits / spec.temperature, 1)
    distance = F.kl_div(student, target, reduction="batchmean", log_target=True) * spec.temperature**2
    return (1 - spec.distill) * loss + spec.distill * distance
