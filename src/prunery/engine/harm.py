"""What rounding a tensor to bytes does to the outputs, measured on some images: which range suits it, if any does.

A range that is off the least on a tensor's own numbers can be the worst for the network: what it cuts off may be all
that matters. Networks with few of their channels far larger than the rest are the case; one such tensor can cost more
than all others together, and is better left in floats.
"""

from collections.abc import Iterable, Iterator, Sequence
from math import prod

import torch
from torch import Tensor as Images

from .graph import Graph
from .interpret import applied, every_tensor, numbers

ALLOWED = 0.003
"""of the outputs' variance: what all roundings together may add to them; ten times what they do to a ResNet-20"""
WORK = 2e11
"""multiply-adds that may go into looking: ten to twenty seconds of a core"""
FEWEST, MOST = 4, 128
"""images that are looked at"""
PART = 32
"""images at once: all their activations are in memory"""

Look = tuple[frozenset[int], float, int]
"""tensors, and the scale and zero point of the bytes that they become"""


class Harm:
    """How far the outputs of a graph of floats move on some images."""

    def __init__(self, graph: Graph, images: Images) -> None:
        self.graph, self.images = graph, images
        self.held = [numbers(op, torch.float32) for op in graph.ops]

    def of(self, looks: Sequence[Look]) -> list[float]:
        """For each look the mean squared error of the outputs, as a share of their variance, where only its tensors are
        bytes."""
        squares, outputs = [0.0] * len(looks), list[Images]()
        for part in self.images.split(PART):
            base = every_tensor(self.graph, part, torch.float32)
            outputs.append(base[self.graph.output])
            for number, look in enumerate(looks):
                squares[number] += float((self.moved(base, *look) - outputs[-1]).double().square().sum())
        wanted = torch.cat(outputs)
        spread = float((wanted - wanted.mean()).square().mean()) or 1.0
        return [sum_ / wanted.numel() / spread for sum_ in squares]

    def moved(self, base: dict[int, Images], tensors: frozenset[int], scale: float, zero: int) -> Images:
        """The outputs where these tensors are bytes, given all tensors as they are."""
        with torch.no_grad():
            made: dict[int, Images] = {}
            if self.graph.input in tensors:
                made[self.graph.input] = rounded(base[self.graph.input], scale, zero)
            for op, own in zip(self.graph.ops, self.held, strict=True):
                if any(i in made for i in op.inputs):
                    made[op.output] = applied(op, [made.get(i, base[i]) for i in op.inputs], self.graph, own)
                if op.output in tensors:
                    made[op.output] = rounded(made.get(op.output, base[op.output]), scale, zero)
        return made.get(self.graph.output, base[self.graph.output])


def rounded(x: Images, scale: float, zero: int) -> Images:
    """Floats as bytes of such a scale and zero point say them."""
    return (x / scale).round().clamp(-zero, 255 - zero) * scale


def how_many(graph: Graph, looks: int) -> int:
    """Images for so many looks, each of which computes half of the network again."""
    each = sum(
        op.weight.shape[1] * prod(graph.tensors[op.output].shape)
        for op in graph.ops
        if op.weight is not None and op.kind != "affine"
    )
    return max(FEWEST, min(MOST, int(WORK / max(1, looks * each / 2))))


class Kept:
    """Batches as they pass, and the first images of all."""

    def __init__(self, batches: Iterable[Images], most: int) -> None:
        self.batches, self.most = batches, most
        self.parts: list[Images] = []

    def __iter__(self) -> Iterator[Images]:
        room = self.most
        for batch in self.batches:
            if room > 0:
                self.parts.append(batch[:room].detach().cpu().float())
                room -= len(self.parts[-1])
            yield batch

    def images(self) -> Images:
        return torch.cat(self.parts)
