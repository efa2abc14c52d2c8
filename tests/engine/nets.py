"""Small graphs that between them use every kind of operation, every activation, encoding and type."""

import numpy as np

from prunery.engine.graph import ACTIVATIONS, Graph, Op, Tensor


class Net:
    """A graph that grows: each call adds an operation and gives back the tensor that it writes."""

    def __init__(self, *shape, seed=0):
        self.graph = Graph()
        self.rng = np.random.default_rng(seed)
        self.graph.input = self.graph.tensor(Tensor(*shape))

    def add(self, kind, inputs, shape, kind_of=("f32", 0.0, 0), **fields):
        output = self.graph.tensor(Tensor(*(*shape, 1, 1)[:3], *kind_of))
        self.graph.ops.append(Op(kind, f"{kind}{len(self.graph.ops)}", list(inputs), output, **fields))
        self.graph.output = output
        return output

    def shape(self, tensor):
        return self.graph.tensors[tensor].shape

    def kind_of(self, tensor):
        t = self.graph.tensors[tensor]
        return t.type, t.scale, t.zero

    def weight(self, outputs, inputs, density, integers=False):
        """Rows of random numbers; the first row is kept whole, so that no density leaves nothing."""
        kept = self.rng.random((outputs, inputs)) < density
        if integers:
            return (self.rng.integers(1, 100, (outputs, inputs)) * kept).astype(np.int8)
        return ((self.rng.standard_normal((outputs, inputs)) + 4) * kept).astype(np.float32)

    def floats(self, count):
        return self.rng.standard_normal(count).astype(np.float32)

    def conv(self, x, outputs, kernel=(3, 3), density=1.0, residual=None, to=None, **fields):
        channels, rows, columns = self.shape(x)
        stride, dilation = fields.get("stride", (1, 1)), fields.get("dilation", (1, 1))
        above, left, below, right = fields.get("padding", (0, 0, 0, 0))
        down = (rows + above + below - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
        across = (columns + left + right - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
        integers = self.kind_of(x)[0] == "u8"
        weight = self.weight(outputs, channels // fields.get("groups", 1) * kernel[0] * kernel[1], density, integers)
        scales = self.rng.uniform(0.001, 0.01, outputs).astype(np.float32) if integers else None
        inputs = [x] if residual is None else [x, residual]
        fields |= {"kernel": kernel, "weight": weight, "scales": scales, "bias": self.floats(outputs)}
        return self.add("conv", inputs, (outputs, down, across), to or self.kind_of(x), **fields)

    def linear(self, x, outputs, density=1.0, residual=None, to=None, **fields):
        integers = self.kind_of(x)[0] == "u8"
        weight = self.weight(outputs, self.shape(x)[0], density, integers)
        scales = self.rng.uniform(0.001, 0.01, outputs).astype(np.float32) if integers else None
        inputs = [x] if residual is None else [x, residual]
        return self.add("linear", inputs, (outputs,), to or self.kind_of(x), weight=weight, scales=scales, **fields)

    def pool(self, kind, x, size, **fields):
        return self.add(kind, [x], (self.shape(x)[0], *size), self.kind_of(x), **fields)

    def like(self, kind, x, *more, **fields):
        return self.add(kind, [x, *more], self.shape(x), self.kind_of(x), **fields)

    def flat(self, x):
        return self.add("flatten", [x], (int(np.prod(self.shape(x))),), self.kind_of(x))


def tiny():
    """Of each table one row."""
    net = Net(3)
    net.add("linear", [0], (2,), weight=np.array([[1, 0, 0], [0, 0, 2]], np.float32), bias=np.float32([0.5, -0.5]))
    return net.graph


def plain(density=1.0):
    """A convolutional network with a residual, as most are."""
    net = Net(3, 9, 7, seed=1)
    x = net.conv(0, 8, padding=(1, 1, 1, 1), density=density, activation="relu")
    y = net.conv(x, 8, padding=(1, 1, 1, 1), density=density, residual=x, activation="relu")
    y = net.pool("max_pool", y, (5, 4), kernel=(2, 2), stride=(2, 2))  # the last row and column stick out
    y = net.conv(y, 12, (1, 1), density=density, stride=(2, 1))
    net.linear(net.flat(y), 5, density=density, bias=net.floats(5))
    return net.graph


def windows():
    """Groups, depthwise, dilation, lopsided kernels, strides and padding, and both ways of averaging."""
    net = Net(6, 11, 10, seed=2)
    x = net.conv(0, 6, groups=6, padding=(1, 1, 1, 1), activation="relu6")
    x = net.conv(x, 4, groups=2, dilation=(2, 1), padding=(2, 0, 1, 2), density=0.5)
    x = net.conv(x, 5, (1, 5), padding=(0, 4, 0, 1), density=0.3)
    x = net.conv(x, 5, (4, 1), stride=(2, 1), padding=(3, 0, 0, 0))
    rows, columns = net.shape(x)[1:]
    x = net.pool("avg_pool", x, (rows, columns), kernel=(3, 3), padding=(1, 1, 1, 1), count_padding=True)
    x = net.pool("avg_pool", x, (-(-(rows - 1) // 2) + 1, columns - 1), kernel=(1, 2), stride=(2, 1))
    x = net.pool("max_pool", x, net.shape(x)[1:], kernel=(3, 1), padding=(2, 0, 2, 0), dilation=(2, 1))
    net.add("global_pool", [x], (5,))
    return net.graph


def branches():
    """Everything that moves numbers about: affine, gather, concat, add, mul by a picture and by a vector, softmax."""
    net = Net(6, 5, 4, seed=3)
    x = net.like("affine", 0, weight=net.floats(6)[:, None], bias=net.floats(6), activation="relu")
    a = net.add("gather", [x], (3, 5, 4), index=np.array([0, 2, 4], np.uint32))
    b = net.add("gather", [x], (3, 5, 4), index=np.array([5, 3, 1], np.uint32))
    y = net.add("concat", [b, a, b], (9, 5, 4))
    squeezed = net.linear(net.add("global_pool", [y], (9,)), 9, activation="hard_sigmoid")
    y = net.like("mul", y, squeezed)
    y = net.like("mul", y, y, activation="tanh")
    y = net.like("add", y, y, activation="relu")
    y = net.linear(net.flat(y), 7, density=0.4)
    net.like("softmax", net.linear(y, 7, residual=y, activation="gelu"))
    return net.graph


def flattened():
    """The input as a vector, before all kinds of operations that take one."""
    net = Net(4, 3, 5, seed=10)
    x = net.flat(0)
    y = net.like("mul", x, net.linear(x, 60, density=0.3, activation="sigmoid"))
    y = net.like("affine", y, weight=net.floats(60)[:, None], bias=net.floats(60))
    y = net.like("add", y, net.add("global_pool", [x], (60,)))
    chosen = net.add("gather", [x], (7,), index=np.array([59, 0, 1, 15, 14, 16, 30], np.uint32))
    around = net.conv(x, 3, padding=(2, 2, 2, 2), density=0.2)
    y = net.add("concat", [y, net.like("softmax", x), chosen, net.flat(around)], (60 + 60 + 7 + 27,))
    net.linear(y, 5)
    return net.graph


def straight():
    """The input as a vector for linear layers alone."""
    net = Net(2, 3, 5, seed=11)
    x = net.flat(0)
    net.linear(x, 4, residual=net.linear(x, 4, density=0.4, activation="relu"))
    return net.graph


def flat_bytes():
    """The input, in bytes, as a vector."""
    net = Net(4, 3, 5, "u8", float(np.float32(0.02)), 120, seed=12)
    x = net.flat(0)
    y = net.linear(x, 60, density=0.3, to=("u8", float(np.float32(0.2)), 128))
    y = net.add("add", [x, y], (60,), net.kind_of(y))
    z = net.conv(x, 4, (1, 1), padding=(0, 0, 0, 0), to=net.kind_of(y))
    y = net.add("concat", [y, z, net.pool("max_pool", y, (1, 1))], (124,), net.kind_of(y))
    net.linear(y, 5, to=("f32", 0.0, 0))
    return net.graph


def activations():
    """One after the other, alone and behind a convolution."""
    net = Net(3, 4, 4, seed=4)
    x = 0
    for name in ACTIVATIONS:
        slope = 0.25 if name in ("leaky_relu", "elu") else 0.0
        x = net.like("activate", x, activation=name, slope=slope)
        x = net.conv(x, 3, (1, 1), activation=name, slope=slope)
    return net.graph


def integers(density=1.0):
    """A quantised network: every kind that is defined for bytes."""
    net = Net(4, 9, 8, seed=5)

    def u8(scale, zero):
        return "u8", float(np.float32(scale)), zero

    x = net.add("quantize", [0], (4, 9, 8), u8(0.02, 120))
    x = net.conv(x, 8, padding=(1, 1, 1, 1), density=density, activation="relu", to=u8(0.05, 0))
    y = net.conv(x, 8, padding=(1, 1, 1, 1), density=density, residual=x, activation="relu6", to=u8(0.03, 3))
    y = net.conv(y, 8, groups=8, padding=(1, 1, 1, 1), density=density, to=u8(0.1, 100))
    y = net.like("add", y, x, activation="relu")
    y = net.pool("max_pool", y, (5, 4), kernel=(2, 2), stride=(2, 2))
    y = net.pool("avg_pool", y, (5, 4), kernel=(3, 3), padding=(1, 1, 1, 1))
    a = net.add("gather", [y], (4, 5, 4), net.kind_of(y), index=np.array([7, 1, 2, 4], np.uint32))
    y = net.add("concat", [a, y], (12, 5, 4), net.kind_of(y))
    pooled = net.add("global_pool", [y], (12,), u8(0.05, 7))
    z = net.linear(net.flat(y), 12, density=density, to=u8(0.2, 128), bias=net.floats(12))
    z = net.linear(z, 12, density=density, residual=pooled, to=u8(0.2, 10))
    mean = net.add("global_pool", [y], (12,))
    logits = net.linear(z, 12, density=density, activation="sigmoid", to=("f32", 0.0, 0))
    back = net.add("dequantize", [z], (12,))
    net.like("add", net.like("add", logits, mean), back)
    return net.graph


def curved():
    """Convolutions of bytes that write floats, which become bytes again behind an activation that bytes have not."""
    net = Net(4, 9, 8, seed=9)
    x = net.add("quantize", [0], (4, 9, 8), ("u8", float(np.float32(0.02)), 120))
    x = net.conv(x, 8, padding=(1, 1, 1, 1), activation="silu", to=("f32", 0.0, 0))
    x = net.add("quantize", [x], (8, 9, 8), ("u8", float(np.float32(0.03)), 9))
    x = net.conv(x, 8, groups=8, padding=(1, 1, 1, 1), density=0.5, activation="hard_swish", to=("f32", 0.0, 0))
    net.linear(net.flat(x), 3)
    return net.graph


def wide():
    """More than 65536 inputs, so that an index needs 32 bits."""
    net = Net(70001, seed=6)
    net.linear(0, 2, density=0.01, bias=net.floats(2))
    return net.graph


def empty():
    """All weights are pruned, and a part of the names is not ASCII."""
    net = Net(4, 3, 3, seed=7)
    x = net.conv(0, 5, density=0.0)
    net.linear(net.flat(x), 3, density=0.0)
    net.graph.ops[0].name, net.graph.ops[1].name = "", "Schicht.größe.層"
    return net.graph


NETS = {
    "tiny": (tiny, "f32"),
    "plain": (plain, "f32"),
    "halves": (plain, "f16"),
    "sparse": (lambda: plain(0.3), "f32"),
    "sparse halves": (lambda: plain(0.3), "f16"),
    "windows": (windows, "f32"),
    "branches": (branches, "f32"),
    "flattened": (flattened, "f32"),
    "straight": (straight, "f32"),
    "flat bytes": (flat_bytes, "f32"),
    "activations": (activations, "f32"),
    "integers": (integers, "f32"),
    "curved": (curved, "f32"),
    "sparse integers": (lambda: integers(0.2), "f32"),
    "wide": (wide, "f32"),
    "empty": (empty, "f16"),
}
"""name -> what makes the graph, and how the file stores its floats"""
