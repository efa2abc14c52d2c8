"""torch's operators in the words of the engine's graph: a table of functions, one for each operator or family of them.

A function gets the graph that is being built and the operator's arguments under the names that torch's schema gives
them (`self` and `input` are both called x), as Values where they depend on the images and as torch tensors or numbers
where they do not. It returns the Value of the result.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch

from .graph import Rounding
from .net import NONE, Net, canonical, flattened, move, surrounded, tensor_of
from .places import IMAGES, Shape, Sides, Value, indexed, placed, shaped

Constant = float | torch.Tensor


# ---- one number from one number


def pointwise(net: Net, x: Value, activation: str, slope: float = 0.0) -> Value:
    """An activation; of the whole tensor where the value is all of it, in whatever order."""
    tensor = x.tensor if x.places is None else tensor_of(net, x)
    shape = net.graph.tensors[tensor].shape
    return Value(net.emit("activate", [tensor], shape, activation=activation, slope=slope), x.shape)


def activated(activation: str, net: Net, x: Value, **_: Any) -> Value:
    """An activation without settings."""
    return pointwise(net, x, activation)


def gelu(net: Net, x: Value, approximate: str = "none") -> Value:
    """The exact one only."""
    if approximate != "none":
        raise net.refused(f'with approximate="{approximate}" is not there', 'use approximate="none"')
    return pointwise(net, x, "gelu")


def leaky_relu(net: Net, x: Value, negative_slope: float = 0.01) -> Value:
    """A slope below zero; none is relu."""
    return pointwise(net, x, "leaky_relu", float(negative_slope)) if negative_slope else pointwise(net, x, "relu")


def elu(net: Net, x: Value, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Value:
    """scale * x above zero, scale * alpha * (exp(input_scale * x) - 1) below."""
    inner = pointwise(net, affine(net, x, float(input_scale), 0.0), "elu", float(alpha * input_scale))
    return affine(net, inner, float(scale / input_scale), 0.0)


def selu(net: Net, x: Value) -> Value:
    """An elu with two famous constants."""
    return elu(net, x, alpha=1.6732632423543772, scale=1.0507009873554805)


def celu(net: Net, x: Value, alpha: float = 1.0) -> Value:
    """An elu whose slope does not jump."""
    return elu(net, x, alpha, 1.0, 1.0 / alpha)


def clamp(net: Net, x: Value, min: Any = None, max: Any = None, min_val: Any = None, max_val: Any = None) -> Value:
    """relu and relu6 shifted and stretched to where they cut (clamp and hardtanh name their bounds differently)."""
    low, high = (min if min_val is None else min_val), (max if max_val is None else max_val)
    if any(isinstance(bound, torch.Tensor | Value) for bound in (low, high)):
        raise net.refused("has tensors as bounds, expected numbers")
    if low is None and high is None:
        return x
    if high is None:
        return affine(net, pointwise(net, affine(net, x, 1.0, -low), "relu"), 1.0, low)
    if low is None:
        return affine(net, pointwise(net, affine(net, x, -1.0, high), "relu"), -1.0, high)
    if not low < high:
        raise net.refused(f"has the bounds {low:g} and {high:g}, expected the first below the second")
    stretch = 6.0 / (high - low)
    return affine(net, pointwise(net, affine(net, x, stretch, -low * stretch), "relu6"), 1 / stretch, low)


def prelu(net: Net, x: Value, weight: Any) -> Value:
    """max(x, 0) - w max(-x, 0); a leaky_relu where all slopes are one."""
    slopes = constant(net, weight)
    if slopes.numel() == 1 or bool((slopes == slopes[0]).all()):
        return leaky_relu(net, x, float(slopes.flatten()[0]))
    slopes = slopes.reshape(1, -1, *[1] * (len(x.shape) - 1))
    below = pointwise(net, affine(net, x, -1.0, 0.0), "relu")
    return combined(net, "add", pointwise(net, x, "relu"), affine(net, below, -slopes, 0.0))


def rounded(net: Net, x: Value, step: float, low: int, high: int, binary: bool) -> Value:
    """What a quantised layer reads: whole numbers."""
    tensor = x.tensor if x.places is None else tensor_of(net, x)
    rounding = Rounding(float(step), int(low), int(high), bool(binary))
    return Value(net.emit("rounded", [tensor], net.graph.tensors[tensor].shape, rounding=rounding), x.shape)


def same(net: Net, x: Value, **_: Any) -> Value:
    """Nothing happens to the numbers."""
    return x


def dropout(net: Net, x: Value, train: bool = False, **_: Any) -> Value:
    """Nothing, in evaluation mode."""
    if train:
        raise net.refused("is random", "use it in training mode only (training=self.training)")
    return x


def cast(net: Net, x: Value, **_: Any) -> Value:
    """A change of type between floats of the network; the engine has one."""
    return x


# ---- arithmetic with constants and between tensors


def constant(net: Net, argument: Any) -> torch.Tensor:
    """An argument that must not depend on the images."""
    if isinstance(argument, Value):
        raise net.refused("computes its weights from the images, expected parameters")
    return torch.as_tensor(argument, dtype=torch.double if isinstance(argument, float) else None).detach()


def affine(net: Net, x: Value, scale: Constant, shift: Constant) -> Value:
    """scale * x + shift; nothing where that is x."""
    if isinstance(scale, float) and isinstance(shift, float | int) and scale == 1 and shift == 0:
        return x
    scale, shift = constant(net, scale), constant(net, shift)
    feature_by_feature = len(x.shape) == 1 and max(scale.numel(), shift.numel()) > 1
    if x.places is not None or feature_by_feature:
        x = Value(tensor_of(net, x), x.shape)
    weight, bias = (per_channel(net, c, x) for c in (scale, shift))
    base = net.base(x).shape
    return Value(net.emit("affine", [x.tensor], base, weight=weight[:, None], bias=bias), x.shape)


def per_channel(net: Net, numbers: torch.Tensor, x: Value) -> np.ndarray:
    """A constant as one number for each channel of the tensor that x is all of."""
    if numbers.ndim > len(x.shape):
        numbers = one_image(net, numbers)
    try:
        spread = np.broadcast_to(numbers.double().numpy(), x.shape)
    except ValueError:
        raise net.refused(f"has a constant of shape {[*numbers.shape]} that makes its result larger") from None
    rows = spread.reshape(net.base(x).channels, -1)
    if not (rows == rows[:, :1]).all():
        raise net.refused("has a constant that differs from pixel to pixel, expected one number for each channel")
    return rows[:, 0].copy()


def one_image(net: Net, numbers: torch.Tensor) -> torch.Tensor:
    """A constant with a dimension for images, without it."""
    if numbers.ndim and len(numbers) == IMAGES and not bool((numbers[0] == numbers[1]).all()):
        raise net.refused("has a constant that differs from image to image")
    return numbers[0]


def add(net: Net, x: Any, other: Any, alpha: float = 1) -> Value:
    """x + alpha * other."""
    if not isinstance(other, Value):
        return affine(net, x, 1.0, constant(net, other) * alpha)
    if not isinstance(x, Value):
        return affine(net, other, float(alpha), constant(net, x))
    return combined(net, "add", x, affine(net, other, float(alpha), 0.0))


def sub(net: Net, x: Any, other: Any, alpha: float = 1) -> Value:
    """x - alpha * other."""
    return add(net, x, other, -alpha)


def rsub(net: Net, x: Any, other: Any, alpha: float = 1) -> Value:
    """other - alpha * x."""
    return add(net, other, x, -alpha)


def mul(net: Net, x: Any, other: Any) -> Value:
    """x * other."""
    if not isinstance(other, Value):
        return affine(net, x, constant(net, other).double(), 0.0)
    if not isinstance(x, Value):
        return affine(net, other, constant(net, x).double(), 0.0)
    return combined(net, "mul", x, other)


def div(net: Net, x: Any, other: Any, rounding_mode: str | None = None) -> Value:
    """x / a constant."""
    if isinstance(other, Value):
        raise net.refused("by something that depends on the images is not there, expected a constant")
    if rounding_mode:
        raise net.refused(f'with rounding_mode="{rounding_mode}" is not there')
    return affine(net, x, 1 / constant(net, other).double(), 0.0)


def neg(net: Net, x: Value) -> Value:
    """-x."""
    return affine(net, x, -1.0, 0.0)


def power(net: Net, x: Any, exponent: Any) -> Value:
    """x * x, and x."""
    if not isinstance(x, Value) or exponent not in (1, 2):
        raise net.refused("is there for the exponents 1 and 2 only")
    return x if exponent == 1 else combined(net, "mul", x, x)


def square(net: Net, x: Value) -> Value:
    """x * x."""
    return combined(net, "mul", x, x)


def combined(net: Net, kind: str, a: Value, b: Value) -> Value:
    """a + b or a * b of one shape, or with numbers that are spread over each other's channels, rows and columns."""
    if a.shape == b.shape and a.places is b.places is None and net.base(a).shape == net.base(b).shape:
        return Value(net.emit(kind, [a.tensor, b.tensor], net.base(a).shape), a.shape)
    if len(a.shape) != len(b.shape):
        raise net.refused("mixes the images of a batch: its operands have different numbers of dimensions")
    a, b = narrowed(a), narrowed(b)
    if len(a.shape) == len(b.shape) == 3 and a.shape[1:] != b.shape[1:] and (1, 1) in (a.shape[1:], b.shape[1:]):
        picture, vector = (a, b) if b.shape[1:] == (1, 1) else (b, a)
        return over_pixels(net, kind, spread_to(net, picture, (net.made[0], *picture.shape[1:])), vector)
    tensors = [tensor_of(net, spread_to(net, value, net.made)) for value in (a, b)]
    return Value(net.emit(kind, tensors, canonical(net, net.made)), net.made)


def narrowed(value: Value) -> Value:
    """One number for each channel, where a picture repeats it for every pixel."""
    if value.places is None or len(value.shape) != 3 or not (value.places == value.places[:, :1, :1]).all():
        return value
    return replace(value, shape=(value.shape[0], 1, 1), places=value.places[:, :1, :1])


def spread_to(net: Net, value: Value, shape: Shape) -> Value:
    """A value repeated to a larger shape."""
    if value.shape == shape:
        return value
    places = np.broadcast_to(indexed(value), shape)
    return placed(value.tensor, places, prod(net.base(value).shape), value.fill)


def over_pixels(net: Net, kind: str, picture: Value, vector: Value) -> Value:
    """A picture and a number for each of its channels; their sum by way of a picture of ones times the numbers."""
    whole = tensor_of(net, picture)
    shape = net.graph.tensors[whole].shape
    numbers = tensor_of(net, spread_to(net, vector, (shape[0], 1, 1)))
    if kind == "mul":
        return Value(net.emit("mul", [whole, numbers], shape), shape)
    ones = affine(net, Value(whole, shape), 0.0, 1.0)
    return Value(net.emit("add", [whole, net.emit("mul", [ones.tensor, numbers], shape)], shape), shape)


# ---- layers


def pair(numbers: Sequence[int] | int) -> tuple[int, int]:
    """torch's lists of one or two numbers, or a number."""
    numbers = [numbers] if isinstance(numbers, int) else numbers
    return int(numbers[0]), int(numbers[-1])


def extents(kernel: Shape, dilation: Shape) -> Shape:
    """How far a kernel reaches."""
    return tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))


def sides_of(padding: Any, extent: Shape) -> Sides:
    """torch's padding: numbers, "valid" or "same"."""
    if padding == "valid":
        return NONE
    if padding == "same":
        top, left = ((e - 1) // 2 for e in extent)
        return top, left, extent[0] - 1 - top, extent[1] - 1 - left
    return (*pair(padding), *pair(padding))


def conv2d(
    net: Net, x: Value, weight: Any, bias: Any = None,
    stride: Any = (1,), padding: Any = (0,), dilation: Any = (1,), groups: int = 1, transposed: bool = False, **_: Any,
) -> Value:  # fmt: skip
    """A convolution, with whatever padding the value brought along; of a vector seen as one picture, a matrix."""
    weight = constant(net, weight)
    if transposed or weight.ndim != 4 or not isinstance(x, Value):
        raise net.refused("is there for two dimensions, not transposed")
    kernel, dilation = pair(weight.shape[2:]), pair(dilation)
    extent = extents(kernel, dilation)
    sides = sides_of(padding, extent)
    if groups == 1 and sides == NONE and x.places is None and kernel == x.shape[1:] and net.base(x).is_vector:
        return shaped(linear(net, shaped(x, (prod(x.shape),)), weight.flatten(1), bias), net.made)
    tensor, sides = surrounded(net, x, sides, extent)
    window: dict[str, Any] = {"kernel": kernel, "stride": pair(stride), "dilation": dilation, "padding": sides}
    output = net.emit("conv", [tensor], net.made, groups=groups, **window, **weights(net, weight, bias))
    return Value(output, net.made)


def weights(net: Net, weight: torch.Tensor, bias: Any) -> dict[str, np.ndarray]:
    """Weights as a matrix, and the bias if there is one."""
    matrix = {"weight": weight.reshape(len(weight), -1).float().numpy()}
    return matrix if bias is None else {**matrix, "bias": constant(net, bias).double().numpy()}


def linear(net: Net, x: Value, weight: Any, bias: Any = None) -> Value:
    """A matrix times a vector."""
    weight = constant(net, weight)
    if prod(x.shape[:-1]) != 1 or weight.ndim != 2:
        raise net.refused(f"reads {['B', *x.shape]}, expected one vector for each image", "flatten its input")
    vector = tensor_of(net, shaped(x, x.shape[-1:]))
    output = net.emit("linear", [vector], (len(weight), 1, 1), **weights(net, weight, bias))
    return Value(output, (*x.shape[:-1], len(weight)))


def matmul(net: Net, x: Any, mat2: Any = None, other: Any = None, **_: Any) -> Value:
    """A vector times a constant matrix."""
    matrix = mat2 if other is None else other
    if not isinstance(x, Value) or isinstance(matrix, Value):
        raise net.refused("between two tensors that depend on the images is not there, expected a constant matrix")
    return linear(net, x, constant(net, matrix).T)


def addmm(net: Net, x: Any, mat1: Any, mat2: Any, beta: float = 1, alpha: float = 1, **_: Any) -> Value:
    """bias + vector times matrix."""
    if isinstance(x, Value) or not isinstance(mat1, Value):
        raise net.refused("is there for a constant bias and a constant matrix")
    return linear(net, mat1, constant(net, mat2).T * alpha, constant(net, x) * beta)


def batch_norm(
    net: Net, x: Value, weight: Any, bias: Any, running_mean: Any, running_var: Any,
    eps: float, training: bool = False, **_: Any,
) -> Value:  # fmt: skip
    """(x - mean) / sqrt(variance + eps) * weight + bias, in doubles."""
    if training or running_mean is None:
        raise net.refused("computes its statistics from the images", "give it running statistics, and train it again")
    scale = (constant(net, running_var).double() + eps).rsqrt()
    scale = scale if weight is None else scale * constant(net, weight).double()
    shift = -constant(net, running_mean).double() * scale
    shift = shift if bias is None else shift + constant(net, bias).double()
    scale, shift = (c.reshape(-1, *[1] * (len(x.shape) - 1)) for c in (scale, shift))
    return affine(net, x, scale, shift)


def batch_norm_legit(net: Net, x: Value, **arguments: Any) -> list[Any]:
    """The same after decomposition: with two results more that nobody reads."""
    return [batch_norm(net, x, **arguments), None, None]


def softmax(net: Net, x: Value, dim: int, **_: Any) -> Value:
    """Over the scores of an image."""
    axis = dim % (len(x.shape) + 1) - 1
    if axis < 0 or prod(x.shape) != x.shape[axis]:
        raise net.refused(f"over dimension {dim} of {['B', *x.shape]} is not there, expected a vector of scores")
    vector = tensor_of(net, shaped(x, x.shape[axis : axis + 1]))
    return Value(net.emit("softmax", [vector], net.graph.tensors[vector].shape), x.shape)


# ---- pools


def pooled(
    net: Net, kind: str, x: Value, kernel: Shape, stride: Shape, sides: Sides = NONE, dilation: Shape = (1, 1),
    count: bool = False,
) -> Value:  # fmt: skip
    """A pool whose output has the shape that torch gave it."""
    if len(x.shape) != 3:
        raise net.refused(f"reads {['B', *x.shape]}, expected pictures")
    zeros = kind == "avg_pool" and (count or sides == NONE) and x.places is not None
    extent = extents(kernel, dilation)
    tensor, around = x.tensor, sides
    if zeros or kind == "max_pool":
        tensor, around = surrounded(net, x, sides, extent, 0.0 if zeros else -np.inf)
    if (kind == "avg_pool" and not zeros) or not begins_inside(net, tensor, stride, around, extent):
        tensor, around = tensor_of(net, x), sides
    counted = kind == "avg_pool" and (count or zeros) and around != NONE
    fields: dict[str, Any] = {"kernel": kernel, "stride": stride, "padding": around, "dilation": dilation}
    return Value(net.emit(kind, [tensor], net.made, **fields, count_padding=counted), net.made)


def begins_inside(net: Net, tensor: int, stride: Shape, sides: Sides, extent: Shape) -> bool:
    """Whether the format has the last windows: those that stick out begin in the picture or in the padding before."""
    rows_columns = net.graph.tensors[tensor].shape[1:]
    for n, s, e, before, after, outputs in zip(
        rows_columns, stride, extent, sides[:2], sides[2:], net.made[1:], strict=True
    ):
        if outputs > (n + before + after - e) // s + 1 and (outputs - 1) * s >= n + before:
            return False
    return True


def max_pool2d(
    net: Net, x: Value, kernel_size: Any, stride: Any = (), padding: Any = (0,), dilation: Any = (1,), **_: Any
) -> Value:
    """The largest of each window."""
    kernel = pair(kernel_size)
    return pooled(net, "max_pool", x, kernel, pair(stride or kernel), sides_of(padding, kernel), pair(dilation))


def max_pool2d_with_indices(net: Net, x: Value, **arguments: Any) -> list[Any]:
    """The same; whoever reads the places of the largest is refused there."""
    return [max_pool2d(net, x, **arguments), None]


def avg_pool2d(
    net: Net, x: Value, kernel_size: Any, stride: Any = (), padding: Any = (0,),
    count_include_pad: bool = True, divisor_override: int | None = None, **_: Any,
) -> Value:  # fmt: skip
    """The mean of each window."""
    if divisor_override:
        raise net.refused("with divisor_override is not there")
    kernel = pair(kernel_size)
    sides = sides_of(padding, kernel)
    return pooled(net, "avg_pool", x, kernel, pair(stride or kernel), sides, count=count_include_pad)


def adaptive(kind: str, net: Net, x: Value, output_size: Any) -> Value:
    """Windows that divide the picture evenly; means of up to four pixels each where the result is larger."""
    inside, outside = x.shape[-2:], net.made[-2:]
    if inside == outside:
        return x
    if all(i % o == 0 for i, o in zip(inside, outside, strict=True)):
        kernel = (inside[0] // outside[0], inside[1] // outside[1])
        return global_pool(net, x) if outside == (1, 1) and kind == "avg_pool" else pooled(net, kind, x, kernel, kernel)
    if kind == "avg_pool" and all(i <= o for i, o in zip(inside, outside, strict=True)):
        return stretched(net, x)
    raise net.refused(
        f"makes {outside[0]}x{outside[1]} pixels of {inside[0]}x{inside[1]}, expected sizes that divide evenly",
        "use another size of images, or 1x1",
    )


def stretched(net: Net, x: Value) -> Value:
    """A larger picture, as a vector: pixel i is the mean of the pixels that [i, i + 1) * inside / outside touches."""
    edges = [touched(i, o) for i, o in zip(x.shape[-2:], net.made[-2:], strict=True)]
    vector = flattened(net, tensor_of(net, x))
    whole = np.arange(prod(x.shape)).reshape(x.shape)
    corners = {(whole[:, r][:, :, c]).tobytes(): whole[:, r][:, :, c] for r in edges[0] for c in edges[1]}
    shape = (prod(net.made), 1, 1)
    first, *others = (net.emit("gather", [vector], shape, index=places.ravel()) for places in corners.values())
    for other in others:
        first = net.emit("add", [first, other], shape)
    return affine(net, Value(first, net.made), 1.0 / len(corners), 0.0)


def touched(inside: int, outside: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last pixel of the windows of an adaptive pool."""
    place = np.arange(outside)
    return place * inside // outside, ((place + 1) * inside - 1) // outside


def adaptive_max_pool2d(net: Net, x: Value, output_size: Any) -> list[Any]:
    """With its indices, which nobody reads."""
    return [adaptive("max_pool", net, x, output_size), None]


def global_pool(net: Net, x: Value) -> Value:
    """The mean of each channel, in the shape that torch gives it."""
    tensor = x.tensor if x.places is None and net.base(x).channels == x.shape[0] else tensor_of(net, x)
    return Value(net.emit("global_pool", [tensor], (x.shape[0], 1, 1)), net.made)


def mean(net: Net, x: Value, dim: Any = None, **_: Any) -> Value:
    """Of each channel over all pixels, or of pixels over channels, rows or columns."""
    gone = averaged(net, x, dim)
    if len(gone) == len(x.shape):
        whole = shaped(x, (prod(x.shape),))
        return shaped(linear(net, whole, torch.full((1, *whole.shape), 1 / prod(x.shape))), net.made)
    if len(x.shape) - len(gone) == 1:
        return channel_means(net, x, gone)
    if len(x.shape) != 3 or len(gone) != 1:
        raise net.refused(f"over dimension {dim} of {['B', *x.shape]} is not there, expected the mean of each channel")
    if gone == [1]:
        weight = torch.full((1, x.shape[0], 1, 1), 1 / x.shape[0])
        output = net.emit("conv", [tensor_of(net, x)], (1, *x.shape[1:]), **weights(net, weight, None))
        return Value(output, net.made)
    kernel = (x.shape[1], 1) if gone == [2] else (1, x.shape[2])
    shape = (x.shape[0], x.shape[1] // kernel[0], x.shape[2] // kernel[1])
    return Value(net.emit("avg_pool", [tensor_of(net, x)], shape, kernel=kernel), net.made)


def averaged(net: Net, x: Value, dim: Any) -> list[int]:
    """The dimensions that go, counted from the front."""
    rank = len(x.shape) + 1
    gone = sorted(d % rank for d in ([dim] if isinstance(dim, int) else dim or range(rank)))
    if 0 in gone:
        raise net.refused("over the images of a batch mixes them", "leave dimension 0 out")
    return gone


def channel_means(net: Net, x: Value, gone: list[int]) -> Value:
    """The mean of each channel, wherever its pixels are."""
    front = [d for d in range(1, len(x.shape) + 1) if d not in gone]
    first = move(net, [x], lambda t: t.permute(0, *front, *gone)) if front != [1] else x
    rows = first.shape[1:] if len(gone) == 2 else (1, prod(first.shape[1:]))
    return global_pool(net, shaped(first, (first.shape[0], *rows)))


def total(net: Net, x: Value, dim: Any = None, **others: Any) -> Value:
    """A mean, times how many there were."""
    count = prod(x.shape[d - 1] for d in averaged(net, x, dim))
    return affine(net, mean(net, x, dim), float(count), 0.0)


# ---- numbers that move


def cat(net: Net, tensors: Sequence[Any], dim: int = 0) -> Value:
    """Channels one after the other; parts of one tensor in any dimension."""
    axis = dim % (len(net.made) + 1)
    values = [t for t in tensors if isinstance(t, Value)]
    if len({v.tensor for v in values}) == 1:
        return cat_parts(net, tensors, axis, values)
    if axis != 1 or len(values) != len(tensors):
        raise net.refused(f"of dimension {dim}, or with constants, is not there, expected channels of pictures")
    output = net.emit("concat", [tensor_of(net, v) for v in values], canonical(net, net.made))
    return Value(output, net.made)


def slice_scatter(
    net: Net, x: Any, src: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Value:
    """Channels written over: those before, the new ones, and those behind."""
    channels, axis = net.made[0], dim % (len(net.made) + 1)
    first, last, _ = slice(start, end).indices(channels)
    if axis != 1 or step != 1 or not isinstance(x, Value):
        raise net.refused("writes over something else than channels in a row, expected those")
    before, behind = (move(net, [x], lambda t, a=a, b=b: t[:, a:b]) for a, b in ((0, first), (last, channels)))
    return cat(net, [part for part in (before, src, behind) if not isinstance(part, Value) or part.shape[0]], 1)


def copied(net: Net, x: Any, src: Any, **_: Any) -> Any:
    """What is written over a tensor, in its shape."""
    if isinstance(src, Value):
        return spread_to(net, src, net.made) if len(src.shape) == len(net.made) else src
    return src.expand(IMAGES, *net.made)


def cat_parts(net: Net, tensors: Sequence[Any], axis: int, values: list[Value]) -> Value:
    """Parts of one tensor, and zeros."""
    if any(not isinstance(t, Value) and bool(t.any()) for t in tensors):
        raise net.refused("with constants other than zeros is not there")
    if any(value.fill for value in values):
        raise net.refused("of what was padded with something else than zeros is not there")

    def function(*places: torch.Tensor) -> torch.Tensor:
        rest = iter(places)
        return torch.cat([next(rest) if isinstance(t, Value) else torch.full(t.shape, -1.0) for t in tensors], axis)

    return move(net, values, function)


def pad(net: Net, x: Value, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Value:
    """Zeros around a picture or its channels; minus infinity for the pool that follows."""
    fill = float(value or 0.0)
    if mode != "constant" or fill not in (0.0, -np.inf):
        raise net.refused(f"with {mode} {fill:g} is not there, expected zeros")
    if x.places is not None and x.fill != fill and x.places.min() < 0:
        x = Value(tensor_of(net, x), x.shape)
    made = move(net, [x], lambda t: torch.nn.functional.pad(t, list(pad), value=-1.0))
    return replace(made, fill=fill if made.places is not None else 0.0)


ACTIVATED = {
    "relu": "relu", "relu6": "relu6", "hardswish": "hard_swish", "hardsigmoid": "hard_sigmoid", "silu": "silu",
    "sigmoid": "sigmoid", "tanh": "tanh",
}  # fmt: skip
SAME = ("contiguous", "clone", "detach", "alias", "lift_fresh_copy", "lift_fresh", "positive")
CASTS = ("to", "_to_copy", "type_as")
DROPOUTS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
CONVOLUTIONS = ("conv2d", "convolution")
MOVES = (
    "view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose",
    "movedim", "swapaxes", "swapdims", "slice", "select", "narrow", "chunk", "split", "split_with_sizes",
    "tensor_split", "unsafe_chunk", "unsafe_split", "unbind", "expand", "expand_as", "view_as", "reshape_as", "repeat",
    "flip", "roll", "index", "index_select", "channel_shuffle", "pixel_unshuffle", "pixel_shuffle", "t", "numpy_T",
)  # fmt: skip
"""that torch carries out on places as it would on numbers"""
SHAPED = (
    "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "expand_as", "view_as", "reshape_as",
    "fill", "zero",
)  # fmt: skip
"""that want nothing but the shape of a tensor"""
OPERATORS: dict[str, Callable[..., Any]] = {
    **{name: partial(activated, activation) for name, activation in ACTIVATED.items()},
    **dict.fromkeys(SAME, same),
    **dict.fromkeys(CASTS, cast),
    **dict.fromkeys(DROPOUTS, dropout),
    **dict.fromkeys(CONVOLUTIONS, conv2d),
    "gelu": gelu, "leaky_relu": leaky_relu, "elu": elu, "selu": selu, "celu": celu, "prelu": prelu,
    "_prelu_kernel": prelu, "clamp": clamp, "clamp_min": clamp, "clamp_max": clamp, "hardtanh": clamp,
    "add": add, "sub": sub, "subtract": sub, "rsub": rsub, "mul": mul, "multiply": mul, "div": div, "divide": div,
    "true_divide": div, "neg": neg, "pow": power, "square": square,
    "linear": linear, "matmul": matmul, "mm": matmul, "addmm": addmm, "batch_norm": batch_norm,
    "_native_batch_norm_legit_no_training": batch_norm_legit, "native_batch_norm": batch_norm_legit,
    "softmax": softmax, "_softmax": softmax,
    "max_pool2d": max_pool2d, "max_pool2d_with_indices": max_pool2d_with_indices, "avg_pool2d": avg_pool2d,
    "adaptive_avg_pool2d": partial(adaptive, "avg_pool"), "_adaptive_avg_pool2d": partial(adaptive, "avg_pool"),
    "adaptive_max_pool2d": adaptive_max_pool2d, "mean": mean, "sum": total,
    "cat": cat, "concat": cat, "slice_scatter": slice_scatter,
    "copy": copied, "rounded": rounded, "pad": pad, "constant_pad_nd": pad,
}  # fmt: skip
