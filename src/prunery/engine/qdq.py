"""A graph with quantisers of its own -> ONNX: bytes as pairs of QuantizeLinear and DequantizeLinear around layers.

What a layer reads is rounded at its own step to unsigned bytes, with the zero point 0, or 128 where there is a sign,
and held within its own bounds by a Clip of bytes where it has fewer than eight bits. Weights are signed bytes with a
scale for each output. What is written for such readers alone is rounded before its activation, which goes into the
bounds, so that nothing stands between a convolution and its QuantizeLinear: other engines then compute in integers.
Everything else stays in floats, as in evaluation.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Any

import numpy as np
from torch import Tensor as Images

from ..spec import Refused
from .calibrate import ENDINGS, TIED, Seen, watched
from .graph import Graph, Op, Rounding
from .interpret import overhang
from .learned import MOST_BIAS, calibrated, matrix
from .rules import LAYERS

OPSET, IR = 17, 8
"""of 2022: what every engine of today reads"""
BYTE = 255
WHOLE = Rounding(1.0, 0, 0)
"""for weights of bytes behind inputs of floats"""


def model(
    graph: Graph, shape: tuple[int, ...], result: tuple[int, ...], batches: Iterable[Images] | None = None
) -> Any:
    """The ONNX model of a graph for any number of inputs of such a shape, each with such a result.

    With batches of typical inputs also what convolutions write for readers of floats becomes bytes, as ONNX Runtime's
    integer convolutions want it.
    """
    writer = Writer(apart(graph))
    if batches is not None:
        writer.homes = writer.found(batches)
    return writer.written(shape, result)


def apart(graph: Graph) -> Graph:
    """The graph with residuals, and activations that bounds do not say, in operations behind their layers."""
    graph = replace(graph, tensors=list(graph.tensors))
    ops = list[Op]()
    for op in graph.ops:
        if op.rounding and op.rounding.binary:
            raise Refused(
                f"{op.name} reads one bit with a sign, which no byte with a step says; use two bits of inputs"
            )
        if op.kind in LAYERS and (len(op.inputs) > 1 or op.activation not in ENDINGS):
            between, (first, *others) = graph.tensor(replace(graph.tensors[op.output])), op.inputs
            ops.append(replace(op, inputs=[first], output=between, activation="none", slope=0.0))
            kind, inputs = "add" if others else "activate", [between, *others]
            op = Op(kind, op.name, inputs, op.output, activation=op.activation, slope=op.slope)
        ops.append(op)
    return replace(graph, ops=ops)


def zero_of(r: Rounding) -> int:
    """The byte that stands for zero."""
    return -r.low if r.high - r.low == BYTE else 0 if r.low == 0 else 128


def bounds(r: Rounding, activation: str) -> tuple[int, int]:
    """The bytes that a rounding behind an activation may give."""
    low = r.low if activation == "none" else max(r.low, 0)
    high = min(r.high, int(np.rint(6.0 / r.step))) if activation == "relu6" else r.high
    return zero_of(r) + low, zero_of(r) + high


@dataclass
class Writer:
    """The model as far as it is written, and the name of each tensor in each form that somebody reads.

    A form is a rounding, for its bytes, or None, for floats.
    """

    graph: Graph
    homes: dict[int, Rounding] = field(default_factory=dict)
    """how convolutions write bytes whose readers take them as floats"""
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    vectors: set[str] = field(default_factory=set)
    """names of what has two axes, not four"""
    names: dict[tuple[int, Rounding | None], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.roundings: dict[int, Rounding] = {}
        for op in self.graph.ops:
            if found := op.rounding or self.passed(op):
                self.roundings[op.output] = found
        self.needs = self.needed()

    # -- who reads what

    def passed(self, op: Op) -> Rounding | None:
        """How the whole numbers that an operation passes on were rounded, if all were in one way."""
        kinds = {self.roundings.get(i) for i in op.inputs} if op.kind in TIED else {None}
        return kinds.pop() if len(kinds) == 1 else None

    def reads(self, op: Op) -> Rounding | None:
        """How a layer that multiplies whole numbers has rounded its inputs."""
        return self.roundings.get(op.inputs[0]) if op.kind in LAYERS and op.scales is not None else None

    def needed(self) -> dict[int, dict[Rounding | None, None]]:
        """Of each tensor the forms that somebody reads."""
        needs: dict[int, dict[Rounding | None, None]] = {t: {} for t in range(len(self.graph.tensors))}
        needs[self.graph.output][None] = None
        for op in reversed(self.graph.ops):
            own: dict[Rounding | None, None] = {op.rounding or self.reads(op): None}
            if op.kind in TIED and None not in needs[op.output]:
                own = needs[op.output]
            for i in op.inputs:
                needs[i] |= own
        return needs

    def found(self, batches: Iterable[Images]) -> dict[int, Rounding]:
        """A rounding for what integer convolutions write for readers of floats: the coarsest of eight bits among its
        other readers, or else what is off the least on typical inputs."""
        seen, homes = watched(self.graph, batches), {}
        for op in self.graph.ops:
            forms = self.needs[op.output]
            if op.kind == "conv" and self.reads(op) and None in forms:
                whole = [r for r in forms if r and r.high - r.low == BYTE]
                homes[op.output] = max(whole, key=lambda r: r.step, default=None) or rounding_of(seen[op.output])
        return homes

    # -- nodes

    def node(self, kind: str, *inputs: str, vector: bool | None = None, **settings: Any) -> str:
        """A new node; the name of what it gives, which has as many axes as its first input if nothing is said."""
        from onnx import helper

        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **settings))
        if vector or (vector is None and inputs[0] in self.vectors):
            self.vectors.add(name)
        return name

    def constant(self, value: Any, dtype: Any, name: str = "constant") -> str:
        """The name of a new constant."""
        name = name if name not in self.constants and name != "constant" else f"{name}_{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def quantised(self, x: str, r: Rounding) -> str:
        """Floats as bytes, at a rounding's step and zero point."""
        return self.node("QuantizeLinear", x, self.constant(r.step, np.float32), self.constant(zero_of(r), np.uint8))

    def bytes(self, x: str, r: Rounding, activation: str = "none") -> str:
        """Floats before an activation as bytes of a rounding, within its bounds."""
        low, high = bounds(r, activation)
        y = self.quantised(x, r)
        if (low, high) == (0, BYTE):
            return y
        return self.node("Clip", y, self.constant(low, np.uint8), self.constant(high, np.uint8))

    def floats(self, x: str, r: Rounding, step: float) -> str:
        """Bytes of a rounding as floats, one worth so much."""
        return self.node("DequantizeLinear", x, self.constant(step, np.float32), self.constant(zero_of(r), np.uint8))

    def image(self, x: str) -> str:
        """With four axes."""
        return self.node("Unsqueeze", x, self.constant([2, 3], np.int64), vector=False) if x in self.vectors else x

    def vector(self, x: str) -> str:
        """With two axes."""
        return x if x in self.vectors else self.node("Flatten", x, axis=1, vector=True)

    # -- operations

    def written(self, shape: tuple[int, ...], result: tuple[int, ...]) -> Any:
        """The whole model."""
        from onnx import TensorProto, helper, numpy_helper

        if len(shape) == 1:
            self.vectors.add("images")
        self.give(self.graph.input, "images")
        for op in self.graph.ops:
            self.emit(op)
        self.finish(result)
        first, last = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["count", *sizes])
            for name, sizes in (("images", shape), ("results", result))
        )
        constants = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph(self.nodes, "network", [first], [last], constants)
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR, producer_name="prunery")

    def finish(self, result: tuple[int, ...]) -> None:
        """The output under its name, with its axes."""
        from onnx import helper

        x = self.names[self.graph.output, None]
        shape = self.constant([-1, *result], np.int64)
        self.nodes.append(helper.make_node("Reshape", [x, shape], ["results"], "results"))

    def emit(self, op: Op) -> None:
        """An operation, in the forms that are needed."""
        forms = self.needs[op.output]
        if op.rounding:
            self.names[op.output, op.rounding] = made = self.names[op.inputs[0], op.rounding]
            if None in forms:
                self.names[op.output, None] = self.floats(made, op.rounding, 1.0)
        elif op.kind in TIED and None not in forms:
            for r in filter(None, forms):
                inputs = [self.floats(self.names[i, r], r, r.step) for i in op.inputs]
                self.names[op.output, r] = self.quantised(OPERATIONS[op.kind](self, op, inputs), r)
        else:
            self.give(op.output, self.computed(op), op.activation, op.slope)

    def give(self, tensor: int, x: str, activation: str = "none", slope: float = 0.0) -> None:
        """What is computed, but for its activation, in all forms that are needed."""
        forms, home = self.needs[tensor], self.homes.get(tensor)
        if home:
            self.names[tensor, home] = made = self.bytes(x, home, activation)
            x, activation = self.floats(made, home, home.step), "none"
        elif not self.in_bytes(tensor, activation):
            x, activation = ACTIVATIONS[activation](self, x, slope), "none"
        for r in forms:
            if (tensor, r) not in self.names:
                self.names[tensor, r] = x if r is None else self.bytes(x, r, activation)

    def in_bytes(self, tensor: int, activation: str) -> bool:
        """Whether nobody reads floats of a tensor, nor has a byte to be made from them."""
        return tensor in self.homes or (None not in self.needs[tensor] and activation in ENDINGS)

    def computed(self, op: Op) -> str:
        """An operation but for its activation."""
        r = self.reads(op)
        x = [self.names[i, r] for i in op.inputs]
        if op.kind not in LAYERS:
            return OPERATIONS[op.kind](self, op, x)
        if r:
            x = [self.floats(self.vector(x[0]) if op.kind == "linear" else x[0], r, r.step)]
        return LAYER[op.kind](self, op, x[0], *self.operands(op, r or WHOLE))

    def operands(self, op: Op, r: Rounding) -> tuple[str, str]:
        """Names of a layer's weights and of its bias, if any: bytes with a scale for each output where they are whole.

        A bias that is added to sums of whole numbers is one itself; in front of floats it stays as it is.
        """
        if op.scales is None:
            assert op.weight is not None
            return self.constant(self.laid(op, op.weight), np.float32, f"{op.name}.weight"), self.plain(op, op.bias)
        weight, scales, bias = finer(op, r)
        name, axis = self.constant(self.laid(op, weight), np.int8, f"{op.name}.weight"), int(self.by_matmul(op))
        name = self.node("DequantizeLinear", name, self.constant(scales, np.float32, f"{op.name}.scale"), axis=axis)
        if bias is None or op.kind != "conv" or r is WHOLE or not self.in_bytes(op.output, op.activation):
            return name, self.plain(op, bias)
        unit = np.float32(r.step) * scales
        whole = np.clip(np.rint(bias / unit.astype(np.float64)), -MOST_BIAS, MOST_BIAS)
        held = self.constant(whole, np.int32, f"{op.name}.bias")
        return name, self.node("DequantizeLinear", held, self.constant(unit, np.float32), axis=0)

    def laid(self, op: Op, weight: np.ndarray) -> np.ndarray:
        """Weights with the axes that ONNX gives them."""
        if op.kind == "linear":
            return weight.T if self.by_matmul(op) else weight
        return weight.reshape(len(weight), self.graph.tensors[op.inputs[0]].channels // op.groups, *op.kernel)

    def plain(self, op: Op, bias: np.ndarray | None) -> str:
        """A bias of floats."""
        if bias is None:
            return ""
        return self.constant(-bias if self.by_matmul(op) else bias, np.float32, f"{op.name}.bias")

    def by_matmul(self, op: Op) -> bool:
        """Whether a linear layer multiplies whole numbers, whose sums come out as floats."""
        return op.kind == "linear" and self.reads(op) is not None


def finer(op: Op, r: Rounding) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """A layer's weights, scales and bias; weights of few bits are doubled as often as signed bytes have room for it.

    Products stay what they are, to the last bit, and the unit that biases are whole numbers of becomes smaller. Two
    products stay below 2^15, which is where processors without VNNI stop counting.
    """
    found = matrix(op, r)
    weight, scales = found["weight"].astype(np.int32), found["scales"]
    most = 2**14 // max(1, zero_of(r) + r.high)
    while weight.any() and -2 * weight.min() <= min(128, most) and 2 * weight.max() <= min(127, most):
        weight, scales = 2 * weight, scales / np.float32(2)
    return weight.astype(np.int8), scales, found.get("bias")


def rounding_of(seen: Seen) -> Rounding:
    """Eight bits of a range that is off the least on what was seen."""
    home = calibrated([seen])
    return Rounding(home.scale, -home.zero, BYTE - home.zero)


# ---- operations, without their activations


def conv(writer: Writer, op: Op, x: str, weight: str, bias: str) -> str:
    inputs = [writer.image(x), weight, *([bias] if bias else [])]
    around: dict[str, Any] = {"pads": op.padding, "strides": op.stride, "dilations": op.dilation}
    return writer.node("Conv", *inputs, kernel_shape=op.kernel, group=op.groups, **around)


def linear(writer: Writer, op: Op, x: str, weight: str, bias: str) -> str:
    """A bias of floats behind sums of whole numbers is taken away with its sign turned: ONNX Runtime would make one
    operation of a sum, for which it has no integers."""
    x = writer.vector(x)
    if not writer.by_matmul(op):
        return writer.node("Gemm", x, weight, *([bias] if bias else []), transB=1)
    y = writer.node("MatMul", x, weight)
    return writer.node("Sub", y, bias) if bias else y


def pooled(writer: Writer, op: Op, x: str, kind: str, padding: Sequence[int], **more: Any) -> str:
    """Windows that stick out below and to the right see padding there."""
    pads = [n + max(0, beyond) for n, beyond in zip(padding, overhang(op, writer.graph), strict=True)]
    return writer.node(kind, x, kernel_shape=op.kernel, strides=op.stride, pads=pads, **more)


def max_pool(writer: Writer, op: Op, inputs: list[str]) -> str:
    return pooled(writer, op, writer.image(inputs[0]), "MaxPool", op.padding, dilations=op.dilation)


def avg_pool(writer: Writer, op: Op, inputs: list[str]) -> str:
    """Padding that counts is put around the picture first: what lies beyond it never does."""
    x, padding = writer.image(inputs[0]), op.padding
    if op.count_padding:
        above, left, below, right = op.padding
        sides = writer.constant([0, 0, above, left, 0, 0, below, right], np.int64)
        x, padding = writer.node("Pad", x, sides), (0, 0, 0, 0)
    return pooled(writer, op, x, "AveragePool", padding)


def joined(writer: Writer, op: Op, inputs: list[str], kind: str, **settings: Any) -> str:
    """Several tensors, with as many axes each."""
    if not writer.vectors.issuperset(inputs):
        inputs = [writer.image(x) for x in inputs]
    return writer.node(kind, *inputs, **settings)


def affine(writer: Writer, op: Op, inputs: list[str]) -> str:
    assert op.weight is not None
    shape = [1, -1] if inputs[0] in writer.vectors else [1, -1, 1, 1]
    y = writer.node("Mul", inputs[0], writer.constant(op.weight.reshape(shape), np.float32, f"{op.name}.weight"))
    if op.bias is None:
        return y
    return writer.node("Add", y, writer.constant(op.bias.reshape(shape), np.float32, f"{op.name}.bias"))


def gather(writer: Writer, op: Op, inputs: list[str]) -> str:
    return writer.node("Gather", inputs[0], writer.constant(op.index, np.int64), axis=1)


Operation = Callable[[Writer, Op, list[str]], str]
LAYER: dict[str, Callable[[Writer, Op, str, str, str], str]] = {"conv": conv, "linear": linear}
OPERATIONS: dict[str, Operation] = {
    "max_pool": max_pool, "avg_pool": avg_pool, "affine": affine, "gather": gather,
    "global_pool": lambda writer, op, inputs: writer.node("GlobalAveragePool", writer.image(inputs[0])),
    "add": lambda writer, op, inputs: joined(writer, op, inputs, "Add"),
    "mul": lambda writer, op, inputs: joined(writer, op, inputs, "Mul"),
    "concat": lambda writer, op, inputs: joined(writer, op, inputs, "Concat", axis=1),
    "activate": lambda writer, op, inputs: inputs[0],
    "flatten": lambda writer, op, inputs: writer.vector(inputs[0]),
    "softmax": lambda writer, op, inputs: writer.node("Softmax", inputs[0], axis=1),
}  # fmt: skip


# ---- activations


def silu(writer: Writer, x: str, slope: float) -> str:
    return writer.node("Mul", x, writer.node("Sigmoid", x))


def gelu(writer: Writer, x: str, slope: float) -> str:
    """x times the share of a normal distribution below x."""
    inner = writer.node("Erf", writer.node("Mul", x, writer.constant(sqrt(0.5), np.float32)))
    share = writer.node(
        "Mul", writer.node("Add", inner, writer.constant(1, np.float32)), writer.constant(0.5, np.float32)
    )
    return writer.node("Mul", x, share)


def relu6(writer: Writer, x: str, slope: float) -> str:
    return writer.node("Clip", x, writer.constant(0, np.float32), writer.constant(6, np.float32))


ACTIVATIONS: dict[str, Callable[[Writer, str, float], str]] = {
    "none": lambda writer, x, slope: x,
    "relu": lambda writer, x, slope: writer.node("Relu", x),
    "relu6": relu6,
    "hard_swish": lambda writer, x, slope: writer.node("HardSwish", x),
    "hard_sigmoid": lambda writer, x, slope: writer.node("HardSigmoid", x, alpha=1 / 6, beta=0.5),
    "silu": silu,
    "sigmoid": lambda writer, x, slope: writer.node("Sigmoid", x),
    "gelu": gelu,
    "tanh": lambda writer, x, slope: writer.node("Tanh", x),
    "leaky_relu": lambda writer, x, slope: writer.node("LeakyRelu", x, alpha=slope),
    "elu": lambda writer, x, slope: writer.node("Elu", x, alpha=slope),
}
