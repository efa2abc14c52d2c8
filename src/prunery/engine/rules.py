"""What can be folded, fused or left out: rules that look at one operation and at what stands around it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import torch

from .graph import Graph, Op, Tensor

LAYERS = ("conv", "linear")
ACTIVATED = (*LAYERS, "add", "mul", "activate", "affine")
RISING = ("relu", "relu6", "leaky_relu")
"""activations that cost nothing behind a layer, and that the largest of a window comes out of last as well as first"""


class Around:
    """Who makes and who reads each tensor."""

    def __init__(self, graph: Graph) -> None:
        self.tensors = graph.tensors
        self.output = graph.output
        self.makers = {op.output: op for op in graph.ops}
        self.uses = Counter(i for op in graph.ops for i in op.inputs)
        self.uses[graph.output] += 1

    def only(self, tensor: int, *kinds: str) -> Op | None:
        """The operation of one of these kinds that made a tensor which is read once."""
        op = self.makers.get(tensor) if self.uses[tensor] == 1 else None
        return op if op and op.kind in kinds else None

    def bare(self, tensor: int, *kinds: str) -> Op | None:
        """The same, where it has no activation."""
        op = self.only(tensor, *kinds)
        return op if op and op.activation == "none" else None

    def vectors(self, op: Op) -> bool:
        """Whether an operation is one of vectors."""
        return self.tensors[op.inputs[0]].is_vector and self.tensors[op.output].is_vector

    def another(self, like: int) -> int:
        """A new tensor of the same shape."""
        self.tensors.append(replace(self.tensors[like]))
        return len(self.tensors) - 1


@dataclass
class Change:
    """What a rule does: operations in the place of the one that it looked at, and tensors that others stand for."""

    made: list[Op] = field(default_factory=list)
    gone: list[Op] = field(default_factory=list)
    """besides the one that was looked at"""
    same: dict[int, int] = field(default_factory=dict)


Rule = Callable[[Op, Around], Change | None]


def numbers(weight: np.ndarray | None) -> np.ndarray:
    """Weights of an operation that has some."""
    assert weight is not None
    return weight


def scale_shift(op: Op) -> tuple[np.ndarray, np.ndarray]:
    """An affine's numbers, in doubles."""
    return numbers(op.weight)[:, 0].astype(np.float64), bias_of(op)


def bias_of(op: Op) -> np.ndarray:
    """A bias in doubles; zeros where there is none."""
    return np.zeros(len(numbers(op.weight))) if op.bias is None else op.bias.astype(np.float64)


def with_end(op: Op, last: Op) -> Op:
    """An operation that writes where another wrote, with its activation."""
    return replace(op, output=last.output, activation=last.activation, slope=last.slope)


# ---- activations that networks spell out


def shifted_relu6(op: Op, around: Around) -> Change | None:
    """relu6(x + 3) is 6 * hard_sigmoid(x)."""
    shift = around.bare(op.inputs[0], "affine")
    if op.kind != "activate" or op.activation != "relu6" or shift is None:
        return None
    scale, by = scale_shift(shift)
    if not ((scale == 1).all() and (by == 3).all()):
        return None
    inner = replace(shift, kind="activate", activation="hard_sigmoid", weight=None, bias=None)
    six = np.full((len(scale), 1), 6.0)
    return Change([inner, replace(op, kind="affine", inputs=[inner.output], activation="none", weight=six)], [shift])


GATES = {"sigmoid": "silu", "hard_sigmoid": "hard_swish"}


def gated_by_itself(op: Op, around: Around) -> Change | None:
    """x * sigmoid(x) and x * hard_sigmoid(x), which have names; a factor in between stays behind."""
    if op.kind != "mul":
        return None
    for x, gate in (op.inputs, op.inputs[::-1]):
        factor = around.bare(gate, "affine")
        inner = around.only(factor.inputs[0] if factor else gate, "activate")
        if inner is None or inner.inputs != [x] or inner.activation not in GATES:
            continue
        named = replace(inner, activation=GATES[inner.activation], name=op.name)
        if factor is None:
            return Change([replace(named, output=op.output)], [inner])
        if not scale_shift(factor)[1].any():
            return Change([named, replace(factor, output=op.output)], [inner, factor])
    return None


# ---- what does nothing


def nothing(op: Op, around: Around) -> Change | None:
    """What changes no number goes: one times x plus zero, pools of one pixel, a concat of one, a choice of all."""
    whole_network = op.output == around.output and op.inputs[0] not in around.makers
    idle = IDLE.get(op.kind)
    return Change(same={op.output: op.inputs[0]}) if idle and not whole_network and idle(op, around) else None


def idle_affine(op: Op, around: Around) -> bool:
    scale, shift = scale_shift(op)
    return op.activation == "none" and bool((scale == 1).all() and (shift == 0).all())


def idle_pool(op: Op, around: Around) -> bool:
    """Windows of one pixel: whatever else they see is padding that does not count."""
    single = op.kernel == (1, 1) and op.stride == (1, 1) and not any(op.padding)
    return single or (around.vectors(op) and not op.count_padding)


def idle_gather(op: Op, around: Around) -> bool:
    return np.array_equal(numbers(op.index), np.arange(around.tensors[op.inputs[0]].channels))


def of_vectors(op: Op, around: Around) -> bool:
    return around.vectors(op)


IDLE: dict[str, Callable[[Op, Around], bool]] = {
    "affine": idle_affine, "max_pool": idle_pool, "avg_pool": idle_pool, "gather": idle_gather,
    "global_pool": of_vectors, "flatten": of_vectors,
    "concat": lambda op, around: len(op.inputs) == 1,
    "activate": lambda op, around: op.activation == "none",
}  # fmt: skip


# ---- scales and shifts


def affine_of_affine(op: Op, around: Around) -> Change | None:
    """Two in a row are one."""
    first = around.bare(op.inputs[0], "affine")
    if op.kind != "affine" or first is None:
        return None
    (a, b), (c, d) = scale_shift(first), scale_shift(op)
    return Change([replace(op, inputs=first.inputs, weight=(a * c)[:, None], bias=b * c + d)], [first])


def affine_into_layer(op: Op, around: Around) -> Change | None:
    """A layer's rows times the scale: BatchNorm behind a convolution."""
    layer = around.bare(op.inputs[0], *LAYERS) if op.kind == "affine" else None
    if layer is None or len(layer.inputs) > 1:
        return None
    return Change([scaled(with_end(layer, op), *scale_shift(op))], [layer])


def affine_into_parts(op: Op, around: Around) -> Change | None:
    """The same for layers whose channels were put one after the other."""
    concat = around.only(op.inputs[0], "concat") if op.kind == "affine" else None
    layers = [around.bare(i, *LAYERS) for i in concat.inputs] if concat else []
    found = [layer for layer in layers if layer and len(layer.inputs) == 1]
    if concat is None or len(found) < len(layers):
        return None
    ends = np.cumsum([len(numbers(layer.weight)) for layer in found])[:-1]
    parts = zip(found, *(np.split(n, ends) for n in scale_shift(op)), strict=True)
    made = [replace(scaled(part, *by), output=around.another(part.output)) for part, *by in parts]
    after = replace(op, kind="activate", weight=None, bias=None, inputs=[around.another(op.output)])
    return Change(
        [*made, replace(concat, inputs=[m.output for m in made], output=after.inputs[0]), after], [concat, *found]
    )


def scaled(layer: Op, scale: np.ndarray, shift: np.ndarray) -> Op:
    """A layer whose outputs are other multiples, and shifted."""
    bias = bias_of(layer) * scale + shift
    if layer.scales is not None:
        return replace(layer, scales=layer.scales * scale, bias=bias)
    return replace(layer, weight=times(numbers(layer.weight), scale[:, None]), bias=bias)


def times(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """A product in doubles, rounded once."""
    made = np.empty(weight.shape, np.float32)
    return np.multiply(weight, scale, out=made, dtype=np.float64, casting="same_kind")


def layer_after_affine(op: Op, around: Around) -> Change | None:
    """A layer's columns times the scale, the shift into its bias; not where padding would have been shifted too."""
    affine = around.bare(op.inputs[0], "affine") if op.kind in LAYERS else None
    if affine is None:
        return None
    scale, shift = scale_shift(affine)
    if any(op.padding) and shift.any():
        return None
    weight = numbers(op.weight)
    by, plus = (columns(n, op, len(weight)) for n in (scale, shift))
    bias = bias_of(op) + np.einsum("oi,oi->o", weight, plus, dtype=np.float64)
    inputs = [*affine.inputs, *op.inputs[1:]]
    return Change([replace(op, inputs=inputs, weight=times(weight, by), bias=bias)], [affine])


def columns(channels: np.ndarray, op: Op, rows: int) -> np.ndarray:
    """A number for each channel, where a layer's weights read that channel."""
    groups = channels.reshape(op.groups, -1).repeat(prod(op.kernel), 1)
    return groups if op.groups == 1 else groups.repeat(rows // op.groups, 0)


def affine_later(op: Op, around: Around) -> Change | None:
    """An affine behind a mean or a choice of channels instead of in front, where fewer numbers are left."""
    affine = around.bare(op.inputs[0], "affine") if op.kind in SPREAD else None
    if affine is None or (op.count_padding and any(op.padding)):
        return None
    pixels = prod(around.tensors[op.inputs[0]].shape[1:])
    scale, shift = (SPREAD[op.kind](n, op, pixels) for n in scale_shift(affine))
    inner = around.another(op.output)
    last = replace(affine, inputs=[inner], output=op.output, weight=scale[:, None], bias=shift)
    return Change([replace(op, inputs=affine.inputs, output=inner), last], [affine])


SPREAD: dict[str, Callable[[np.ndarray, Op, int], np.ndarray]] = {
    "global_pool": lambda channels, op, pixels: channels,
    "avg_pool": lambda channels, op, pixels: channels,
    "flatten": lambda channels, op, pixels: channels.repeat(pixels),
    "gather": lambda channels, op, pixels: channels[numbers(op.index)],
}


def concat_of_affines(op: Op, around: Around) -> Change | None:
    """One affine behind instead of one in front of each part."""
    parts = [around.bare(i, "affine") for i in op.inputs] if op.kind == "concat" else []
    found = [part for part in parts if part]
    if not found or len(found) < len(parts):
        return None
    scale, shift = (np.concatenate(n) for n in zip(*map(scale_shift, found), strict=True))
    inner = around.another(op.output)
    first = replace(op, inputs=[part.inputs[0] for part in found], output=inner)
    last = replace(found[0], inputs=[inner], output=op.output, weight=scale[:, None], bias=shift)
    return Change([first, last], found)


# ---- layers


def sum_of_layers(op: Op, around: Around) -> Change | None:
    """Two layers of one input that are added are one, as long as one kernel lies inside of the other (RepVGG)."""
    parts = [around.bare(i, *LAYERS, "affine") for i in op.inputs] if op.kind == "add" else []
    found = sorted((p for p in parts if p), key=lambda p: (p.kind == "affine", -prod(p.kernel)))
    if len(found) < 2 or found[0] is found[1] or found[0].kind == "affine":
        return None
    large, small = found
    residual = [*large.inputs[1:], *small.inputs[1:]]
    if large.inputs[0] != small.inputs[0] or len(residual) > 1 or (corner := inside(large, small)) is None:
        return None
    weight, bias = summed(large, small, *corner), bias_of(large) + bias_of(small)
    inputs = [large.inputs[0], *residual]
    return Change([replace(with_end(large, op), inputs=inputs, weight=weight, bias=bias)], found)


def inside(large: Op, small: Op) -> tuple[int, int] | None:
    """Where in one's kernel the other's begins."""
    alike = large.stride == small.stride and (small.kernel == (1, 1) or large.dilation == small.dilation)
    if not alike or (small.kind != "affine" and small.groups != large.groups):
        return None
    row, column = (a - b for a, b in zip(large.padding[:2], small.padding[:2], strict=True))
    if row % large.dilation[0] or column % large.dilation[1]:
        return None
    row, column = row // large.dilation[0], column // large.dilation[1]
    fits = row + small.kernel[0] <= large.kernel[0] and column + small.kernel[1] <= large.kernel[1]
    return (row, column) if fits and min(row, column) >= 0 else None


def summed(large: Op, small: Op, row: int, column: int) -> np.ndarray:
    """The weights of one layer that does what two do."""
    shape = numbers(large.weight).shape
    weight = numbers(large.weight).astype(np.float64).reshape(shape[0], -1, *large.kernel)
    if small.kind == "affine":
        every = np.arange(len(weight))
        weight[every, every % weight.shape[1], row, column] += scale_shift(small)[0]
    else:
        part = numbers(small.weight).reshape(len(weight), -1, *small.kernel)
        weight[:, :, row : row + small.kernel[0], column : column + small.kernel[1]] += part
    return weight.reshape(shape).astype(np.float32)


def conv_of_vectors(op: Op, around: Around) -> Change | None:
    """A convolution of one pixel that makes one: only the tap that sees it counts."""
    if op.kind != "conv" or not around.vectors(op):
        return None
    taps = numbers(op.weight).reshape(len(numbers(op.weight)), -1, *op.kernel)
    (row, above), (column, left) = (divmod(p, d) for p, d in zip(op.padding[:2], op.dilation, strict=True))
    weight = np.zeros_like(taps[:, :, 0, 0]) if above or left else taps[:, :, row, column]
    if op.groups == len(weight) == around.tensors[op.inputs[0]].channels and len(op.inputs) == 1:
        weight = weight if op.scales is None else times(weight, op.scales[:, None])
        return Change([replace(plain(op), kind="affine", weight=weight, scales=None, bias=bias_of(op))])
    return Change([replace(plain(op), kind="linear", weight=ungrouped(weight, op.groups))])


def plain(op: Op) -> Op:
    """An operation without a window."""
    one = (1, 1)
    return replace(op, kernel=one, stride=one, dilation=one, padding=(0, 0, 0, 0), groups=1, count_padding=False)


def ungrouped(weight: np.ndarray, groups: int) -> np.ndarray:
    """The whole matrix of one that is given by groups."""
    outputs, inputs = len(weight) // groups, weight.shape[1]
    whole = np.zeros((groups, outputs, groups, inputs), weight.dtype)
    for g in range(groups):
        whole[g, :, g] = weight[g * outputs : (g + 1) * outputs]
    return whole.reshape(groups * outputs, groups * inputs)


def conv_of_all(op: Op, around: Around) -> Change | None:
    """A convolution whose kernel is as large as the picture is a matrix times the picture's numbers."""
    x = around.tensors[op.inputs[0]]
    if op.kind != "conv" or op.groups > 1 or not covers(op, x) or x.is_vector:
        return None
    around.tensors.append(Tensor(prod(x.shape)))
    vector = len(around.tensors) - 1
    flat = Op("flatten", op.name, op.inputs[:1], vector)
    return Change([flat, replace(plain(op), kind="linear", inputs=[vector, *op.inputs[1:]])])


def covers(op: Op, x: Tensor) -> bool:
    """Whether one window is all of a picture."""
    return op.kernel == (x.rows, x.columns) and op.dilation == (1, 1) and not any(op.padding)


def pool_of_all(op: Op, around: Around) -> Change | None:
    """A mean over the whole picture."""
    if op.kind != "avg_pool" or not covers(op, around.tensors[op.inputs[0]]):
        return None
    return Change([replace(plain(op), kind="global_pool")])


# ---- choices of channels


def gather_of_gather(op: Op, around: Around) -> Change | None:
    """A choice of a choice is a choice."""
    first = around.only(op.inputs[0], "gather")
    if op.kind != "gather" or first is None:
        return None
    return Change([replace(op, inputs=first.inputs, index=numbers(first.index)[numbers(op.index)])], [first])


def concat_of_gathers(op: Op, around: Around) -> Change | None:
    """Choices of one tensor's channels, one after the other, are a choice."""
    parts = [around.only(i, "gather") for i in op.inputs] if op.kind == "concat" else []
    found = [part for part in parts if part]
    if not found or len(found) < len(parts) or len({part.inputs[0] for part in found}) > 1:
        return None
    index = np.concatenate([numbers(part.index) for part in found])
    return Change([replace(found[0], output=op.output, index=index)], found)


def concat_of_concat(op: Op, around: Around) -> Change | None:
    """Channels of channels, in one go."""
    inner = [around.only(i, "concat") for i in op.inputs] if op.kind == "concat" else []
    if not any(inner):
        return None
    inputs = [i for own, one in zip(op.inputs, inner, strict=True) for i in (one.inputs if one else [own])]
    return Change([replace(op, inputs=inputs)], [one for one in inner if one])


def layer_after_gather(op: Op, around: Around) -> Change | None:
    """A layer reads channels where they are, if they only changed places, or were repeated and added."""
    tree = sum_tree(op.inputs[0], around) if op.kind in LAYERS and op.groups == 1 else []
    gathers = [one for one in tree if one.kind == "gather"]
    channels = around.tensors[op.inputs[0]].channels
    if len(tree) != 2 * len(gathers) - 1 or len({one.inputs[0] for one in gathers}) != 1:
        return None
    x = gathers[0].inputs[0]
    if around.tensors[x].channels > channels:
        return None
    taps = np.arange(prod(op.kernel))
    weight = torch.zeros(len(numbers(op.weight)), around.tensors[x].channels * len(taps))
    for one in gathers:
        places = (numbers(one.index).astype(np.int64)[:, None] * len(taps) + taps).ravel()
        weight.index_add_(1, torch.from_numpy(places), torch.from_numpy(op.weight))
    return Change([replace(op, inputs=[x, *op.inputs[1:]], weight=weight.numpy())], tree)


def sum_tree(tensor: int, around: Around) -> list[Op]:
    """The sums of gathers that a tensor is made of, if nobody else reads them."""
    op = around.bare(tensor, "add", "gather")
    if op is None or op.kind == "gather":
        return [op] if op else []
    return [op, *(one for i in op.inputs for one in sum_tree(i, around))]


# ---- what operations take over from those behind them


def activation_into_maker(op: Op, around: Around) -> Change | None:
    """An operation that ends with the activation that followed it."""
    maker = around.bare(op.inputs[0], *ACTIVATED) if op.kind == "activate" else None
    return Change([with_end(maker, op)], [maker]) if maker else None


def activation_into_parts(op: Op, around: Around) -> Change | None:
    """The same for operations whose channels were put one after the other."""
    concat = around.only(op.inputs[0], "concat") if op.kind == "activate" else None
    parts = [around.bare(i, *ACTIVATED) for i in concat.inputs] if concat else []
    found = [part for part in parts if part]
    if concat is None or len(found) < len(parts):
        return None
    made = [replace(with_end(part, op), output=around.another(part.output)) for part in found]
    return Change([*made, replace(concat, inputs=[m.output for m in made], output=op.output)], [concat, *found])


def activation_before_max_pool(op: Op, around: Around) -> Change | None:
    """relu(max(x)) is max(relu(x)), and an operation in front takes the relu."""
    pool = around.only(op.inputs[0], "max_pool") if op.kind == "activate" else None
    if pool is None or op.activation not in RISING or op.slope < 0 or not around.bare(pool.inputs[0], *ACTIVATED):
        return None
    inner = around.another(pool.inputs[0])
    first = replace(op, inputs=pool.inputs, output=inner)
    return Change([first, replace(pool, inputs=[inner], output=op.output)], [pool])


def residual_into_layer(op: Op, around: Around) -> Change | None:
    """A sum with what a layer made: the layer that comes later takes the other as its residual."""
    if op.kind != "add":
        return None
    order = {tensor: place for place, tensor in enumerate(around.makers)}
    for x, other in sorted((op.inputs, op.inputs[::-1]), key=lambda pair: -order.get(pair[0], -1)):
        layer = around.bare(x, *LAYERS)
        if layer and len(layer.inputs) == 1:
            return Change([replace(with_end(layer, op), inputs=[*layer.inputs, other])], [layer])
    return None


SPELT_OUT: tuple[Rule, ...] = (shifted_relu6,)
"""first, before shifts are folded away"""
NAMED: tuple[Rule, ...] = (nothing, affine_of_affine, gated_by_itself)
FOLDED: tuple[Rule, ...] = (
    nothing, affine_of_affine, affine_into_layer, affine_into_parts, layer_after_affine, affine_later,
    concat_of_affines, sum_of_layers, pool_of_all, conv_of_vectors, conv_of_all, gather_of_gather, concat_of_gathers,
    concat_of_concat, layer_after_gather,
)  # fmt: skip
FUSED: tuple[Rule, ...] = (
    *FOLDED, activation_into_maker, activation_into_parts, activation_before_max_pool, residual_into_layer,
)  # fmt: skip
"""last, because activations and residuals stand in the way of folding"""
