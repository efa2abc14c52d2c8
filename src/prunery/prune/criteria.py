"""Criteria: (weight, generator) -> a score of the same shape; what scores high is kept."""

from collections.abc import Callable

import torch
from torch import Tensor

Criterion = Callable[[Tensor, torch.Generator], Tensor]


def magnitude(weight: Tensor, _: torch.Generator) -> Tensor:
    """Small weights matter least (Han et al., 1506.02626)."""
    return weight.abs()


def random(weight: Tensor, rng: torch.Generator) -> Tensor:
    """The control that every other criterion has to beat."""
    return torch.rand(weight.shape, generator=rng)


CRITERIA: dict[str, Criterion] = {"magnitude": magnitude, "random": random}
