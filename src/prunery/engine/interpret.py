"""The graph carried out plainly by torch: what docs/format.md says, for tests and for the check of what was packed."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .graph import Graph, Op

Images = Tensor | np.ndarray


class Numbers(NamedTuple):
    """What an operation brings along, as torch holds it."""

    weight: Tensor | None
    bias: Tensor | None
    chosen: Tensor | None


def interpret(graph: Graph, images: Images, dtype: torch.dtype = torch.float32) -> Tensor:
    """The network's output for a batch of images: [B, F] or [B, C, H, W]."""
    return shown(graph, every_tensor(graph, images, dtype)[graph.output])


def every_tensor(graph: Graph, images: Images, dtype: torch.dtype = torch.float32) -> dict[int, Tensor]:
    """All tensors of the graph for a batch of images, each [B, C, H, W]."""
    with torch.no_grad():
        return carried_out(graph, torch.as_tensor(images), [numbers(op, dtype) for op in graph.ops], dtype)


class Interpreted(nn.Module):
    """A graph of floats as a network of torch, for engines that start from one."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        for place, op in enumerate(graph.ops):
            for name, tensor in numbers(op, torch.float32)._asdict().items():
                self.register_buffer(f"{name}{place}", tensor)

    def forward(self, x: Tensor) -> Tensor:
        held = [
            Numbers(*(getattr(self, f"{n}{place}") for n in Numbers._fields)) for place in range(len(self.graph.ops))
        ]
        return shown(self.graph, carried_out(self.graph, x, held, torch.float32)[self.graph.output])


def shown(graph: Graph, output: Tensor) -> Tensor:
    """Vectors without their rows and columns."""
    return output.flatten(1) if graph.tensors[graph.output].is_vector else output


def carried_out(graph: Graph, images: Tensor, held: Sequence[Numbers], dtype: torch.dtype) -> dict[int, Tensor]:
    """Every tensor, one operation after the other."""
    images = images.reshape(-1, *graph.tensors[graph.input].shape)
    made = {graph.input: images if images.dtype == torch.uint8 else images.to(dtype)}
    for op, own in zip(graph.ops, held, strict=True):
        inputs = [made[i] for i in op.inputs]
        if any(graph.tensors[i].type == "u8" for i in [*op.inputs, op.output]):
            made[op.output] = in_bytes(op, inputs, graph)
        else:
            made[op.output] = applied(op, inputs, graph, own)
    return made


def applied(op: Op, inputs: Sequence[Tensor], graph: Graph, own: Numbers) -> Tensor:
    """An operation of floats."""
    return ACTIVATIONS[op.activation](KINDS[op.kind](op, inputs, graph, own), op.slope)


def in_bytes(op: Op, inputs: Sequence[Tensor], graph: Graph) -> Tensor:
    """A quantised operation, which has an arithmetic of its own."""
    from .integers import quantised

    return torch.from_numpy(np.ascontiguousarray(quantised(op, [i.numpy() for i in inputs], graph)))


def numbers(op: Op, dtype: torch.dtype) -> Numbers:
    """Weights, bias and index of an operation; weights of bytes are left to the arithmetic of bytes."""
    weight = None if op.weight is None else tensor_of(op.weight, dtype)
    if weight is not None and op.scales is not None:
        weight = weight * tensor_of(op.scales, dtype)[:, None]
    bias = None if op.bias is None else tensor_of(op.bias, dtype)
    return Numbers(weight, bias, None if op.index is None else tensor_of(op.index, torch.int64))


def tensor_of(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    """An array as a tensor: a copy where the array is not ours to write, as torch wants it."""
    if array.dtype == np.uint32:
        array = array.astype(np.int64)
    return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(dtype)


ACTIVATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "none": lambda x, slope: x,
    "relu": lambda x, slope: F.relu(x),
    "relu6": lambda x, slope: F.relu6(x),
    "hard_swish": lambda x, slope: F.hardswish(x),
    "hard_sigmoid": lambda x, slope: F.hardsigmoid(x),
    "silu": lambda x, slope: F.silu(x),
    "sigmoid": lambda x, slope: torch.sigmoid(x),
    "gelu": lambda x, slope: F.gelu(x),
    "tanh": lambda x, slope: torch.tanh(x),
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
}


def plus_residual(y: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """The sum with the second input, if there is one."""
    return y + inputs[1] if len(inputs) > 1 else y


def conv(op: Op, inputs: Sequence[Tensor], graph: Graph, own: Numbers) -> Tensor:
    """Zeros around the picture, then a convolution without padding."""
    assert own.weight is not None
    x = surrounded(inputs[0], op.padding, 0.0)
    weight = own.weight.reshape(-1, x.shape[1] // op.groups, *op.kernel)
    return plus_residual(F.conv2d(x, weight, own.bias, op.stride, 0, op.dilation, op.groups), inputs)


def linear(op: Op, inputs: Sequence[Tensor], graph: Graph, own: Numbers) -> Tensor:
    """A matrix times a vector."""
    assert own.weight is not None
    return plus_residual(F.linear(inputs[0].flatten(1), own.weight, own.bias)[:, :, None, None], inputs)


def surrounded(x: Tensor, padding: Sequence[int], fill: float) -> Tensor:
    """A picture with padding above, left, below and right."""
    above, left, below, right = padding
    return F.pad(x, (left, right, above, below), value=fill) if any(padding) else x


def overhang(op: Op, graph: Graph) -> tuple[int, int, int, int]:
    """How far the last windows stick out below and to the right of the padding; negative: pixels that none reaches."""
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    above, left, below, right = op.padding
    down = (y.rows - 1) * op.stride[0] + op.dilation[0] * (op.kernel[0] - 1) + 1 - above - x.rows - below
    across = (y.columns - 1) * op.stride[1] + op.dilation[1] * (op.kernel[1] - 1) + 1 - left - x.columns - right
    return 0, 0, down, across


def max_pool(op: Op, inputs: Sequence[Tensor], graph: Graph, own: Numbers) -> Tensor:
    """Padding and what lies beyond it never win."""
    x = surrounded(inputs[0], op.padding, -torch.inf)
    return F.max_pool2d(surrounded(x, overhang(op, graph), -torch.inf), op.kernel, op.stride, 0, op.dilation)


def avg_pool(op: Op, inputs: Sequence[Tensor], graph: Graph, own: Numbers) -> Tensor:
    """The sum of each window, by how many of its pixels count."""
    beyond = overhang(op, graph)
    counts = surrounded(torch.ones_like(inputs[0][:1, :1]), op.padding, float(op.count_padding))
    total, count = (sums(surrounded(t, beyond, 0.0), op) for t in (surrounded(inputs[0], op.padding, 0.0), counts))
    return total / count


def sums(x: Tensor, op: Op) -> Tensor:
    """The sum of each window."""
    ones = torch.ones(x.shape[1], 1, *op.kernel, dtype=x.dtype)
    return F.conv2d(x, ones, None, op.stride, 0, op.dilation, x.shape[1])


def global_pool(op: Op, inputs: Sequence[Tensor], graph: Graph, own: Numbers) -> Tensor:
    """The mean of each channel."""
    return inputs[0].mean((2, 3), keepdim=True)


def affine(op: Op, inputs: Sequence[Tensor], graph: Graph, own: Numbers) -> Tensor:
    """A scale and a shift for each channel."""
    assert own.weight is not None
    y = inputs[0] * own.weight.reshape(-1, 1, 1)
    return y if own.bias is None else y + own.bias[:, None, None]


def rounded(op: Op, inputs: Sequence[Tensor], graph: Graph, own: Numbers) -> Tensor:
    """Whole numbers of a step, within bounds."""
    assert op.rounding is not None
    u = inputs[0] / op.rounding.step
    return u.sign() if op.rounding.binary else u.round().clamp(op.rounding.low, op.rounding.high)


def gather(op: Op, inputs: Sequence[Tensor], graph: Graph, own: Numbers) -> Tensor:
    """Channels in another order."""
    return inputs[0][:, own.chosen]


def plain(function: Callable[..., Tensor], op: Op, inputs: Sequence[Tensor], graph: Graph, own: Any) -> Tensor:
    """An operation that is a function of its inputs alone."""
    return function(*inputs)


KINDS: dict[str, Callable[[Op, Sequence[Tensor], Graph, Numbers], Tensor]] = {
    "conv": conv, "linear": linear, "max_pool": max_pool, "avg_pool": avg_pool, "global_pool": global_pool,
    "affine": affine, "gather": gather, "rounded": rounded,
    "add": partial(plain, torch.add),
    "mul": partial(plain, torch.mul),
    "activate": partial(plain, lambda x: x),
    "concat": partial(plain, lambda *inputs: torch.cat(inputs, 1)),
    "flatten": partial(plain, lambda x: x.flatten(1)[:, :, None, None]),
    "softmax": partial(plain, lambda x: x.softmax(1)),
}  # fmt: skip
