"""Quantised operations with numpy, slowly and exactly: what every kernel is held to, bit by bit.

docs/format.md ("Quantised arithmetic") defines them. Arrays are [batch, channels, rows, columns], of bytes or float32.
"""

from collections.abc import Callable

import numpy as np
import torch

from ..spec import Refused
from .graph import Graph, Op, Tensor

LARGEST_BIAS = 2.0**30
LARGEST_ROUNDED = 2.0**29
"""of what is rounded, so that two of them can be added in 32 bits"""


def quantised(op: Op, inputs: list[np.ndarray], graph: Graph) -> np.ndarray:
    """What an operation with bytes on either side makes of its inputs."""
    tensors = [graph.tensors[i] for i in op.inputs]
    if op.kind not in OPERATIONS:
        raise Refused(f"{op.name}: there is no {op.kind} of bytes; use one of {', '.join(OPERATIONS)}")
    return OPERATIONS[op.kind](op, inputs, tensors, graph.tensors[op.output])


# ---- scales


def multiplier(by: float, largest: float, op: Op) -> np.float32:
    """A ratio of scales as kernels hold it, for numbers of such a size."""
    m = np.float32(by)
    if not abs(float(m)) * largest < LARGEST_ROUNDED:
        raise Refused(f"{op.name}: scales of its tensors lie too far apart")
    return m


def rounded(numbers: np.ndarray, by: np.float32 | np.ndarray) -> np.ndarray:
    """Whole numbers times a float32, rounded to whole numbers, ties to even."""
    return np.rint(numbers.astype(np.float32) * by).astype(np.int64)


def range_of(op: Op, t: Tensor) -> tuple[int, int]:
    """Where the activation holds the bytes of its output."""
    if op.activation == "none":
        return 0, 255
    if op.activation not in ("relu", "relu6"):
        raise Refused(f"{op.name}: there is no {op.activation} of bytes; use relu or relu6")
    top = t.zero + np.rint(6.0 / np.float64(np.float32(t.scale)))
    return t.zero, 255 if op.activation == "relu" else int(min(255, top))


def held(op: Op, y: np.ndarray, t: Tensor) -> np.ndarray:
    """Whole numbers around a tensor's zero point as its bytes."""
    return np.clip(y + t.zero, *range_of(op, t)).astype(np.uint8)


def scale_of(t: Tensor) -> float:
    """The scale as a file holds it."""
    return float(np.float32(t.scale))


# ---- matrices


def folded(op: Op, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """For each output, what one unit of its sum is worth, and the bias in such units."""
    assert op.weight is not None
    assert op.scales is not None
    step = scale_of(x) * op.scales.astype(np.float32).astype(np.float64)
    bias = np.zeros(len(op.weight)) if op.bias is None else op.bias.astype(np.float32).astype(np.float64)
    return step, np.clip(np.rint(bias / step), -LARGEST_BIAS, LARGEST_BIAS)


def finished(
    op: Op, sums: np.ndarray, inputs: list[np.ndarray], tensors: list[Tensor], y: Tensor, bias: np.ndarray
) -> np.ndarray:
    """From sums [batch, outputs, ...] without a bias to the output."""
    step, _ = folded(op, tensors[0])
    shape = (1, -1, 1, 1)
    total = (sums + bias.reshape(shape)).astype(np.int64)
    if y.type == "f32":
        return activated(op, total.astype(np.float32) * step.astype(np.float32).reshape(shape))
    assert op.weight is not None
    largest = np.abs(bias) + 255.0 * np.abs(op.weight.astype(np.int64)).sum(1)
    by = np.array([multiplier(s / scale_of(y), n, op) for s, n in zip(step, largest, strict=True)], np.float32)
    made = rounded(total, by.reshape(shape))
    if len(inputs) > 1:
        r = tensors[1]
        made += rounded(inputs[1].astype(np.int64) - r.zero, multiplier(scale_of(r) / scale_of(y), 255, op))
    return held(op, made, y)


def activated(op: Op, y: np.ndarray) -> np.ndarray:
    """Floats after an activation, computed in double precision and rounded once."""
    from .interpret import ACTIVATIONS

    return ACTIVATIONS[op.activation](torch.from_numpy(y.astype(np.float64)), op.slope).float().numpy()


def conv(op: Op, inputs: list[np.ndarray], tensors: list[Tensor], y: Tensor) -> np.ndarray:
    assert op.weight is not None
    x = tensors[0]
    windows = windows_of(op, centred(inputs[0], x), y, 0)
    batch, channels, rows, columns = windows.shape[:4]
    # Sums of whole numbers below 2^53 are exact in float64, in any order.
    taken = windows.reshape(batch, op.groups, channels // op.groups, rows, columns, -1).astype(np.float64)
    weight = op.weight.astype(np.float64).reshape(op.groups, len(op.weight) // op.groups, channels // op.groups, -1)
    sums = np.einsum("bgcyxk,gock->bgoyx", taken, weight, optimize=True).reshape(batch, -1, rows, columns)
    return finished(op, sums, inputs, tensors, y, folded(op, x)[1])


def linear(op: Op, inputs: list[np.ndarray], tensors: list[Tensor], y: Tensor) -> np.ndarray:
    assert op.weight is not None
    x = centred(inputs[0], tensors[0]).reshape(len(inputs[0]), -1).astype(np.float64)
    sums = (x @ op.weight.astype(np.float64).T)[:, :, None, None]
    return finished(op, sums, inputs, tensors, y, folded(op, tensors[0])[1])


def centred(x: np.ndarray, t: Tensor) -> np.ndarray:
    """Bytes as whole numbers around zero."""
    return x.astype(np.int64) - t.zero


# ---- windows


def windows_of(op: Op, x: np.ndarray, y: Tensor, padding: int) -> np.ndarray:
    """[batch, channels, rows, columns, places of the kernel]; whatever lies outside of the picture is `padding`."""
    padded = np.pad(x, ((0, 0), (0, 0), *surround(op, x.shape[2:], y)), constant_values=padding)
    places = [
        padded[:, :, i * op.dilation[0] :, j * op.dilation[1] :][:, :, :: op.stride[0], :: op.stride[1]][
            :, :, : y.rows, : y.columns
        ]
        for i in range(op.kernel[0])
        for j in range(op.kernel[1])
    ]
    return np.stack(places, -1)


def surround(op: Op, size: tuple[int, ...], y: Tensor) -> list[tuple[int, int]]:
    """What windows see before and behind the picture, on each axis: a last one may stick out of the padding."""
    found = []
    for axis, count in enumerate((y.rows, y.columns)):
        before = op.padding[axis]
        reach = (count - 1) * op.stride[axis] + op.dilation[axis] * (op.kernel[axis] - 1) + 1
        found.append((before, max(0, reach - before - size[axis])))
    return found


def counted(op: Op, x: Tensor, y: Tensor) -> np.ndarray:
    """How many pixels each window averages: [rows, columns]."""
    inside = np.ones((1, 1, x.rows, x.columns), np.int64)
    if op.count_padding:
        above, left, below, right = op.padding
        inside = np.pad(inside, ((0, 0), (0, 0), (above, below), (left, right)), constant_values=1)
    around = [*surround(op, (x.rows, x.columns), y)]
    if op.count_padding:
        added = ((op.padding[0], op.padding[2]), (op.padding[1], op.padding[3]))
        around = [(b - p, max(0, e - q)) for (b, e), (p, q) in zip(around, added, strict=True)]
    padded = np.pad(inside, ((0, 0), (0, 0), *around))
    whole = Op("avg_pool", "", [], 0, op.kernel, op.stride, op.dilation)
    return windows_of(whole, padded, y, 0)[0, 0].sum(-1)


def max_pool(op: Op, inputs: list[np.ndarray], tensors: list[Tensor], y: Tensor) -> np.ndarray:
    alike(op, tensors, y)
    return windows_of(op, inputs[0].astype(np.int64), y, -1).max(-1).astype(np.uint8)


def avg_pool(op: Op, inputs: list[np.ndarray], tensors: list[Tensor], y: Tensor) -> np.ndarray:
    x = tensors[0]
    sums = windows_of(op, centred(inputs[0], x), y, 0).sum(-1)
    multiplier(scale_of(x) / scale_of(y), 255.0 * op.kernel[0] * op.kernel[1], op)
    by = (scale_of(x) / (scale_of(y) * counted(op, x, y).astype(np.float64))).astype(np.float32)
    return np.clip(rounded(sums, by) + y.zero, 0, 255).astype(np.uint8)


def global_pool(op: Op, inputs: list[np.ndarray], tensors: list[Tensor], y: Tensor) -> np.ndarray:
    x = tensors[0]
    pixels = x.rows * x.columns
    sums = centred(inputs[0], x).sum((2, 3), keepdims=True)
    if y.type == "f32":
        return sums.astype(np.float32) * np.float32(scale_of(x) / pixels)
    by = multiplier(scale_of(x) / (scale_of(y) * pixels), 255.0 * pixels, op)
    return np.clip(rounded(sums, by) + y.zero, 0, 255).astype(np.uint8)


# ---- the rest


def add(op: Op, inputs: list[np.ndarray], tensors: list[Tensor], y: Tensor) -> np.ndarray:
    by = [multiplier(scale_of(t) / scale_of(y), 255, op) for t in tensors]
    parts = [rounded(centred(x, t), m) for x, t, m in zip(inputs, tensors, by, strict=True)]
    return held(op, parts[0] + parts[1], y)


def alike(op: Op, tensors: list[Tensor], y: Tensor) -> None:
    if any((t.scale, t.zero) != (y.scale, y.zero) for t in tensors):
        raise Refused(f"{op.name}: its tensors need one scale and zero point")


def concat(op: Op, inputs: list[np.ndarray], tensors: list[Tensor], y: Tensor) -> np.ndarray:
    alike(op, tensors, y)
    return np.concatenate(inputs, 1)


def gather(op: Op, inputs: list[np.ndarray], tensors: list[Tensor], y: Tensor) -> np.ndarray:
    alike(op, tensors, y)
    return inputs[0][:, op.index]


def flatten(op: Op, inputs: list[np.ndarray], tensors: list[Tensor], y: Tensor) -> np.ndarray:
    alike(op, tensors, y)
    return inputs[0].reshape(len(inputs[0]), -1, 1, 1)


def quantize(op: Op, inputs: list[np.ndarray], tensors: list[Tensor], y: Tensor) -> np.ndarray:
    return bytes_of(inputs[0], y)


def bytes_of(x: np.ndarray, t: Tensor) -> np.ndarray:
    """float32 as a tensor's bytes; what is not a number becomes zero."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = x.astype(np.float32) * np.float32(1.0 / scale_of(t))
    whole = np.rint(np.clip(np.where(np.isnan(scaled), np.float32(0), scaled), -1024, 1024))
    return np.clip(whole.astype(np.int64) + t.zero, 0, 255).astype(np.uint8)


def dequantize(op: Op, inputs: list[np.ndarray], tensors: list[Tensor], y: Tensor) -> np.ndarray:
    return values_of(inputs[0], tensors[0])


def values_of(x: np.ndarray, t: Tensor) -> np.ndarray:
    """What a tensor's bytes stand for."""
    return np.float32(t.scale) * centred(x, t).astype(np.float32)


OPERATIONS: dict[str, Callable[[Op, list[np.ndarray], list[Tensor], Tensor], np.ndarray]] = {
    "conv": conv,
    "linear": linear,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "global_pool": global_pool,
    "add": add,
    "concat": concat,
    "gather": gather,
    "flatten": flatten,
    "quantize": quantize,
    "dequantize": dequantize,
}
"""what bytes can do"""
