"""A network over a whole set of images: loss and hits."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import Images, Splits, inputs
from .half import arithmetic

PIXELS = (
    128 * 3 * 32 * 32
)  # of one evaluation batch: larger ones leave the cache (ResNet-20 takes 1.5 times as long with 512)

ROOM = 64
"""times as many on a GPU, which two images of 224 x 224 would leave idle"""


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and accuracy over n images."""

    loss: float
    hits: int
    n: int

    @property
    def accuracy(self) -> float:
        return self.hits / self.n

    @property
    def standard_error(self) -> float:
        """Of the accuracy, over the choice of n test images."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.n)

    def as_dict(self) -> dict[str, float]:
        return {"accuracy": self.accuracy, "standard_error": self.standard_error, "n": self.n, "loss": self.loss}


@contextmanager
def frozen(network: nn.Module) -> Iterator[nn.Module]:
    """The network in evaluation mode without gradients, and back as it was."""
    modes = {m: m.training for m in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield network
    finally:
        for module, mode in modes.items():
            module.training = mode


def evaluate(network: nn.Module, images: Images, splits: Splits, precision: str = "float32") -> Evaluation | None:
    """Loss and accuracy over all images; None where there are none."""
    if not len(images.y):
        return None
    with frozen(network), arithmetic(precision, images.x.device.type):
        parts = [_part(network, x, y, splits) for x, y in batches(images, splits)]
    loss, hits = torch.stack(parts).sum(0).tolist()
    return Evaluation(loss / len(images.y), round(hits), len(images.y))


def batches(images: Images, splits: Splits) -> Iterator[tuple[Tensor, Tensor]]:
    """All images in order, unscaled, in batches that fit any memory."""
    channels, height, width = splits.facts.shape
    room = PIXELS if images.x.device.type == "cpu" else ROOM * PIXELS
    size = max(1, room // (channels * height * width))
    yield from zip(images.x.split(min(size, 2048)), images.y.split(min(size, 2048)), strict=True)


def _part(network: nn.Module, x: Tensor, y: Tensor, splits: Splits) -> Tensor:
    logits = network(laid(inputs(x, splits), network)).float()
    return torch.stack([F.cross_entropy(logits, y, reduction="sum"), (logits.argmax(1) == y).sum()]).cpu().double()


def laid(x: Tensor, network: nn.Module) -> Tensor:
    """Images in the memory layout that the network's weights have."""
    last = any(p.ndim == 4 and not p.is_contiguous() for p in network.parameters())
    return x.contiguous(memory_format=torch.channels_last) if last else x
