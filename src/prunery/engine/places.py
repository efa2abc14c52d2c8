"""Where the numbers of a torch tensor lie in the graph: views, slices, shuffles and paddings without an operation.

A Value says, for each number of a torch tensor (of one image), which number of a graph's tensor it is. Whatever torch
does to a tensor without arithmetic is done to these places, by torch itself. Only when an operation wants a picture or
a vector does somebody ask what the places amount to: the tensor as it is, a choice of channels, or a convolution that
picks one number each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

Shape = tuple[int, ...]
Sides = tuple[int, int, int, int]
IMAGES = 2
"""that places are moved with: what an operation does to the second tells whether images stay apart"""


@dataclass(frozen=True)
class Value:
    """A torch tensor, without its images. `places` None: all numbers of the graph's tensor, in order; -1: the fill."""

    tensor: int
    shape: Shape
    places: np.ndarray | None = None
    fill: float = 0.0


class Mixed(Exception):
    """The images of a batch do not stay apart."""


def shaped(value: Value, shape: Shape) -> Value:
    """The same numbers in another shape."""
    places = None if value.places is None else value.places.reshape(shape)
    return replace(value, shape=shape, places=places)


def indexed(value: Value) -> np.ndarray:
    """The places, written out."""
    return np.arange(np.prod(value.shape)).reshape(value.shape) if value.places is None else value.places


def placed(tensor: int, places: np.ndarray, numbers: int, fill: float = 0.0) -> Value:
    """A value of these places in a tensor of so many numbers."""
    straight = places.size == numbers and bool((places.ravel() == np.arange(numbers)).all())
    return Value(tensor, places.shape, None if straight else places, fill)


def moved(values: Sequence[Value], numbers: int, function: Callable[..., Any]) -> Any:
    """What a torch function that only moves numbers makes of values of one tensor: a value, or a list of them."""
    made = function(*(_batch(indexed(value), numbers) for value in values))
    fill = values[0].fill
    if isinstance(made, torch.Tensor):
        return placed(values[0].tensor, _image(made, numbers), numbers, fill)
    return [placed(values[0].tensor, _image(one, numbers), numbers, fill) for one in made]


def _batch(places: np.ndarray, numbers: int) -> torch.Tensor:
    """Places as torch takes them everywhere: doubles, which hold them exactly."""
    images = [np.where(places < 0, -1, places + image * numbers) for image in range(IMAGES)]
    return torch.from_numpy(np.ascontiguousarray(np.stack(images), np.float64))


def _image(made: torch.Tensor, numbers: int) -> np.ndarray:
    """The first image's places, if the others' are the same in their own images."""
    if made.ndim == 0 or len(made) != IMAGES:
        raise Mixed
    first, second = made.long().numpy()
    if not np.array_equal(np.where(first < 0, -1, first + numbers), second) or first.max(initial=-1) >= numbers:
        raise Mixed
    return first


def channel_index(places: np.ndarray, base: Shape) -> np.ndarray | None:
    """The channel that each channel of the places is, if they are whole channels of pictures of one size."""
    area = base[1] * base[2]
    if places.shape[1:] != base[1:]:
        return None
    index = places[:, 0, 0] // area
    expected = index[:, None] * area + np.arange(area)
    return index if (places.reshape(len(places), area) == expected).all() and (index >= 0).all() else None


@dataclass(frozen=True)
class Taps:
    """A convolution that picks one number for each of its own: which channel, and which place of its kernel."""

    source: np.ndarray
    """of each output channel; -1: it is all zeros"""
    at: np.ndarray
    """row and column of the kernel, for each output channel"""
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: Sides

    @property
    def apart(self) -> bool:
        """Whether each channel comes from itself."""
        return np.array_equal(self.source, np.arange(len(self.source)))

    def matrix(self, channels: int) -> np.ndarray:
        """The weights; of a depthwise convolution where channels stay apart."""
        rows = np.flatnonzero(self.source >= 0)
        depthwise = self.apart and channels == len(self.source)
        weight = np.zeros((len(self.source), 1 if depthwise else channels, *self.kernel), np.float32)
        weight[rows, 0 if depthwise else self.source[rows], self.at[rows, 0], self.at[rows, 1]] = 1
        return weight.reshape(len(weight), -1)


def taps(places: np.ndarray, base: Shape) -> Taps | None:
    """The convolution that the places amount to: slices with steps, paddings with zeros, pixels to channels."""
    used = places >= 0
    channel, *rows_columns = np.unravel_index(np.maximum(places, 0), base)
    source = np.where(used, channel, -1).max((1, 2))
    strides, offsets = [], []
    for axis, at in enumerate(rows_columns, 1):
        stride = _stride(at, used, axis, base[axis])
        steps = stride * np.arange(places.shape[axis]).reshape(-1, *[1] * (2 - axis))
        strides.append(stride)
        offsets.append(np.where(source < 0, 0, np.where(used, at - steps, -(2**62)).max((1, 2))))
    if min(strides) < 1 or not np.array_equal(places, _picked(source, offsets, strides, places.shape, base)):
        return None
    (kh, top, bottom), (kw, left, right) = (
        _window(int(offset.min()), int(offset.max()), places.shape[axis], stride, base[axis])
        for axis, (offset, stride) in enumerate(zip(offsets, strides, strict=True), 1)
    )
    at = np.stack([offsets[0] + top, offsets[1] + left], 1)
    return Taps(source, at, (kh, kw), (strides[0], strides[1]), (top, left, bottom, right))


def _stride(at: np.ndarray, used: np.ndarray, axis: int, inputs: int) -> int:
    """The step from one output to the next; where no two of them tell, one that leaves the picture."""
    both = np.logical_and(*_neighbours(used, axis))
    before, after = _neighbours(at, axis)
    return int((after - before)[both].max()) if both.any() else inputs if at.shape[axis] > 1 else 1


def _neighbours(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    length = array.shape[axis]
    return array.take(range(length - 1), axis), array.take(range(1, length), axis)


def _picked(source: np.ndarray, offsets: list[np.ndarray], strides: list[int], shape: Shape, base: Shape) -> np.ndarray:
    """The places that a choice of one number each gives."""
    rows, columns = (o[:, None] + s * np.arange(n) for o, s, n in zip(offsets, strides, shape[1:], strict=True))
    rows, columns, channel = rows[:, :, None], columns[:, None, :], source[:, None, None]
    inside = (channel >= 0) & (rows >= 0) & (rows < base[1]) & (columns >= 0) & (columns < base[2])
    return np.where(inside, (channel * base[1] + rows) * base[2] + columns, -1)


def _window(low: int, high: int, outputs: int, stride: int, inputs: int) -> tuple[int, int, int]:
    """Kernel and padding before and after, on one axis, for taps from low to high; padding is less than the kernel."""
    before = max(0, -low)
    kernel = high + before + 1
    after = (outputs - 1) * stride + kernel - before - inputs
    kernel, after = kernel + max(0, -after), max(0, after)
    grown = max(0, before - kernel + 1)
    kernel, after = kernel + grown, after + grown
    grown = max(0, after - kernel + 1)
    return kernel + grown, before + grown, after


def surround(places: np.ndarray, base: Shape) -> Sides | None:
    """The padding (above, left, below, right) that the places put around the whole picture, and nothing else."""
    if places.ndim != 3 or len(places) != base[0]:
        return None
    corner = np.argwhere(places[0] == 0)
    if len(corner) != 1:
        return None
    top, left = map(int, corner[0])
    below, right = places.shape[1] - base[1] - top, places.shape[2] - base[2] - left
    if min(below, right) < 0:
        return None
    whole = np.arange(np.prod(base)).reshape(base)
    padded = np.pad(whole, ((0, 0), (top, below), (left, right)), constant_values=-1)
    return (top, left, below, right) if np.array_equal(places, padded) else None
