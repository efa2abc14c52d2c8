"""The engine's own small graph: what the packed file says, as Python sees it. docs/format.md has every field."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

KINDS = (
    "conv", "linear", "max_pool", "avg_pool", "global_pool", "add", "mul", "activate", "affine", "concat", "gather",
    "flatten", "softmax", "quantize", "dequantize",
)  # fmt: skip
"""kind number 1 is the first. A graph that is not in bytes yet may also have `rounded`, which no file holds"""
ACTIVATIONS = (
    "none", "relu", "relu6", "hard_swish", "hard_sigmoid", "silu", "sigmoid", "gelu", "tanh", "leaky_relu", "elu",
)  # fmt: skip
"""activation number 0 is the first"""


@dataclass
class Tensor:
    """The shape of one image's tensor; a vector is channels x 1 x 1."""

    channels: int
    rows: int = 1
    columns: int = 1
    type: Literal["f32", "u8"] = "f32"
    scale: float = 0.0
    zero: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.rows, self.columns

    @property
    def is_vector(self) -> bool:
        return self.rows == self.columns == 1


@dataclass(frozen=True)
class Rounding:
    """What a quantiser does: x / step to a whole number within bounds, or to its sign."""

    step: float
    low: int
    high: int
    binary: bool = False


@dataclass
class Op:
    """An operation; `inputs` and `output` are places in the graph's tensors."""

    kind: str
    name: str
    inputs: list[int]
    output: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    """above, left, below, right"""
    groups: int = 1
    count_padding: bool = False
    activation: str = "none"
    slope: float = 0.0
    weight: np.ndarray | None = None
    """outputs x inputs: float32, or int8 with `scales`; zeros are what was pruned. Whole numbers with scales, in
    float32, are a quantised layer that is not in bytes yet"""
    scales: np.ndarray | None = None
    bias: np.ndarray | None = None
    index: np.ndarray | None = None
    rounding: Rounding | None = None


@dataclass
class Graph:
    """Operations in order; every tensor but the input is written by one of them."""

    tensors: list[Tensor] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    input: int = 0
    output: int = 0

    def tensor(self, tensor: Tensor) -> int:
        """The place of a new tensor."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1
