"""Where a network of a lottery begins, and how it goes on from there."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Start:
    """The first weights, and what is not as in every other network."""

    weights: dict[str, Tensor]
    iteration: int = 0
    until: int | None = None
    """the last iteration; the lottery's when not given"""
    slow: bool = False
    """train at the learning rate that is left after all drops"""
    masking: bool = False
    """train the mask, as many places of each layer as it has, and leave the weights as they are"""
