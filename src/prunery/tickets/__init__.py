"""The lottery: train and prune in turn, rewind, compare."""

from .arms import CONTROLS, STRATEGIES
from .fcsteps import Replica, Rule, Snapshot, affine, orders, train
from .imp import imp
from .lottery import run
from .pace import Pace

__all__ = [
    "CONTROLS", "STRATEGIES", "Pace", "Replica", "Rule", "Snapshot", "affine", "imp", "orders", "run", "train",
]  # fmt: skip
