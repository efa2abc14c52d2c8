"""The graph while it is built, and how what was only moved about becomes one of its tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from ..spec import Refused
from .graph import Graph, Op, Tensor
from .places import Mixed, Shape, Sides, Value, channel_index, indexed, moved, placed, surround, taps

INSTEAD = "replace it, or leave the network to PyTorch (without quantisers prunery export takes it to ONNX Runtime)"
LARGEST = 255
"""kernel, stride and dilation that the format holds"""
NONE: Sides = (0, 0, 0, 0)


@dataclass
class Net:
    """The graph as far as it is built, and the place in the network that is being read."""

    graph: Graph = field(default_factory=Graph)
    path: str = ""
    module: str = ""
    operator: str = ""
    made: Shape = ()
    """the shape of what the operator makes, without images"""

    def refused(self, why: str, instead: str = INSTEAD) -> Refused:
        """One line with the module's path and the operator's name."""
        where = f"{self.path} ({self.module})" if self.path else f"the network itself ({self.module})"
        return Refused(f"{where}: {self.operator} {why}; {instead}")

    def emit(self, kind: str, inputs: Sequence[int], shape: Shape, **fields: Any) -> int:
        """A new operation; the tensor that it writes."""
        sizes = [*fields.get("kernel", ()), *fields.get("stride", ()), *fields.get("dilation", ())]
        if max(sizes, default=1) > LARGEST:
            raise self.refused(f"has a kernel, stride or dilation of {max(sizes)}, expected at most {LARGEST}")
        output = self.graph.tensor(sized(shape))
        self.graph.ops.append(Op(kind, self.path or self.operator, list(inputs), output, **fields))
        return output

    def base(self, value: Value) -> Tensor:
        """The graph's tensor that a value lies in."""
        return self.graph.tensors[value.tensor]


def sized(shape: Shape) -> Tensor:
    """A tensor of channels, rows and columns."""
    channels, rows, columns = shape
    return Tensor(channels, rows, columns)


def tensor_of(net: Net, value: Value) -> int:
    """A graph's tensor that holds just this value: a vector, or a picture."""
    shape, base = canonical(net, value.shape), net.base(value)
    rows_in_a_row = len(value.shape) == 2 and value.shape[0] == base.channels
    if value.places is None and (shape == base.shape or rows_in_a_row):
        return value.tensor
    if value.fill and value.places is not None:
        raise net.refused(f"reads a padding of {value.fill:g}, expected zeros")
    vector = shape[1:] == (1, 1)
    if value.places is None and vector:
        return flattened(net, value.tensor)
    places = indexed(value).reshape(shape)
    if (index := channel_index(places, base.shape)) is not None:
        return net.emit("gather", [value.tensor], shape, index=index)
    if vector and places.min() >= 0:
        return net.emit("gather", [flattened(net, value.tensor)], shape, index=places.ravel())
    return picked(net, value.tensor, places)


def canonical(net: Net, shape: Shape) -> Shape:
    """Channels, rows and columns of a shape without images."""
    if len(shape) != 3 and prod(shape) == max(shape, default=1):
        return prod(shape), 1, 1
    if len(shape) not in (2, 3):
        raise net.refused(f"reads a tensor of {len(shape) + 1} dimensions, expected [B, C, H, W] or [B, F]")
    return shape if len(shape) == 3 else (shape[0], 1, shape[1])


def flattened(net: Net, tensor: int) -> int:
    """A tensor as a vector."""
    base = net.graph.tensors[tensor]
    return tensor if base.is_vector else net.emit("flatten", [tensor], (prod(base.shape), 1, 1))


def picked(net: Net, tensor: int, places: np.ndarray) -> int:
    """What a convolution of ones and zeros picks of a tensor."""
    base = net.graph.tensors[tensor].shape
    found = taps(places, base)
    if found is None:
        raise net.refused("reads numbers in an order that no choice of channels, rows and columns gives")
    weight = found.matrix(base[0])
    groups = prod(found.kernel) * base[0] // weight.shape[1]
    window: dict[str, Any] = {"kernel": found.kernel, "stride": found.stride, "padding": found.padding}
    return net.emit("conv", [tensor], places.shape, weight=weight, groups=groups, **window)


def surrounded(net: Net, value: Value, sides: Sides, extent: Shape, fill: float = 0.0) -> tuple[int, Sides]:
    """A tensor and the padding that an operation puts around it: its own, and that which the value brought along."""
    base = net.base(value).shape
    own = surround(value.places, base) if value.places is not None and value.fill == fill else None
    total = together(own or NONE, sides)
    if own and fits(total, extent):
        return value.tensor, total
    if fits(sides, extent):
        return tensor_of(net, value), sides
    return tensor_of(net, padded(net, value, sides)), NONE


def together(a: Sides, b: Sides) -> Sides:
    """Two paddings around one another."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]


def fits(sides: Sides, extent: Shape) -> bool:
    """Whether the format holds a padding around a kernel of this extent."""
    return max(sides[0], sides[2]) < extent[0] and max(sides[1], sides[3]) < extent[1]


def padded(net: Net, value: Value, sides: Sides, fill: float = 0.0) -> Value:
    """Zeros, or another fill, around a picture."""
    if value.places is not None and value.fill != fill and indexed(value).min() < 0:
        value = Value(tensor_of(net, value), value.shape)
    top, left, below, right = sides
    widths = [(0, 0)] * (len(value.shape) - 2) + [(top, below), (left, right)]
    return placed(value.tensor, np.pad(indexed(value), widths, constant_values=-1), prod(net.base(value).shape), fill)


def move(net: Net, values: Sequence[Value], function: Callable[..., Any]) -> Any:
    """Values of one tensor after a torch function that only moves numbers."""
    try:
        return moved(values, prod(net.base(values[0]).shape), function)
    except Mixed:
        raise net.refused(
            "mixes the images of a batch, or moves the batch to another dimension", "expected the batch to stay first"
        ) from None
