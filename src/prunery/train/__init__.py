"""(network, masks, images, spec) -> weights: the one training loop and the evaluation that goes with it."""

from .evaluate import Evaluation, evaluate, frozen, laid
from .freeze import Freezing
from .loop import Stopped, Ways, train
from .optim import OPTIMIZERS, SCHEDULES, rate

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Evaluation",
    "Freezing",
    "Stopped",
    "Ways",
    "evaluate",
    "frozen",
    "laid",
    "rate",
    "train",
]
