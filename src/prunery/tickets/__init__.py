"""The lottery: train and prune in turn, rewind, compare."""

from .fcsteps import Replica, Rule, Snapshot, affine, orders, train

__all__ = ["Replica", "Rule", "Snapshot", "affine", "orders", "train"]
