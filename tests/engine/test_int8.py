"""Kernels on bytes are held to integers.py bit by bit, on every instruction set, in one image's lanes and in many's."""

import numpy as np
import pytest
import torch

from prunery import native
from prunery.engine import calibrate, integers
from prunery.engine.calibrate import RANGES, quantised_graph
from prunery.engine.file import write
from prunery.engine.graph import Graph, Op, Tensor
from prunery.engine.harm import FEWEST, MOST, Harm, Kept, how_many, rounded
from prunery.engine.interpret import applied, every_tensor, interpret, numbers
from prunery.runtime import Broken, Packed
from prunery.spec import Refused

ISAS = native.available()
LANES = {"baseline": 4, "v3": 8, "v4": 16, "neon": 4}


class Net:
    """A graph of bytes that grows by one operation at a time; each method gives the place of the new tensor."""

    def __init__(self, channels, rows=1, columns=1, seed=0, zero=None):
        self.rng = np.random.default_rng(seed)
        self.graph = Graph([self.tensor((channels, rows, columns), zero=zero)])

    def tensor(self, shape, like=None, floats=False, zero=None):
        if floats:
            return Tensor(*shape)
        if like is not None:
            t = self.graph.tensors[like]
            return Tensor(*shape, "u8", t.scale, t.zero)
        zero = int(self.rng.integers(0, 256)) if zero is None else zero
        return Tensor(*shape, "u8", float(np.float32(self.rng.uniform(0.01, 0.1))), zero)

    def op(self, kind, inputs, shape, like=None, floats=False, zero=None, **more):
        out = self.graph.tensor(self.tensor(shape, like, floats, zero))
        self.graph.ops.append(Op(kind, f"layer{len(self.graph.ops)}", list(inputs), out, **more))
        self.graph.output = out
        return out

    def shape(self, t):
        return self.graph.tensors[t].shape

    def weight(self, outputs, inputs, density, block=1):
        """Bytes of all sizes, -128 and 127 among them; `block` channels are kept or dropped together."""
        kept = self.rng.random((outputs, -(-inputs // block))) < density
        kept = np.repeat(kept, block, 1)[:, :inputs]
        return np.where(kept, self.rng.integers(-128, 128, (outputs, inputs)), 0).astype(np.int8)

    def matrix(self, outputs, channels, taps, density, block):
        weight = self.weight(outputs, channels * taps, density, block)
        weight = weight.reshape(outputs, taps, channels).transpose(0, 2, 1).reshape(outputs, -1)
        wide = np.sqrt(max(1.0, channels * taps * density)) * 70
        scales = self.rng.uniform(0.5, 1.5, outputs).astype(np.float32) / np.float32(wide)
        bias = self.rng.standard_normal(outputs).astype(np.float32)
        return {"weight": weight, "scales": scales, "bias": bias}

    def conv(self, x, outputs, kernel=3, stride=1, padding=None, dilation=1, groups=1, density=1.0, block=1, **more):
        kernel, stride, dilation = pair(kernel), pair(stride), pair(dilation)
        same = tuple((k - 1) * d // 2 for k, d in zip(kernel, dilation, strict=True))
        pads = (*same, *same) if padding is None else padding
        channels, *size = self.shape(x)
        rows, columns = (
            (size[i] + pads[i] + pads[i + 2] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)
        )
        inputs = [x, *more.pop("residual", [])]
        matrix = self.matrix(outputs, channels // groups, kernel[0] * kernel[1], density, block)
        return self.op(
            "conv", inputs, (outputs, rows, columns), kernel=kernel, stride=stride, dilation=dilation,
            padding=pads, groups=groups, **matrix, **more,
        )  # fmt: skip

    def linear(self, x, outputs, density=1.0, block=1, **more):
        matrix = self.matrix(outputs, self.shape(x)[0], 1, density, block)
        return self.op("linear", [x, *more.pop("residual", [])], (outputs, 1, 1), **matrix, **more)

    def pool(self, kind, x, kernel, stride, padding=(0, 0, 0, 0), size=None, **more):
        kernel, stride = pair(kernel), pair(stride)
        channels, *extent = self.shape(x)
        fits = ((extent[i] + padding[i] + padding[i + 2] - kernel[i]) // stride[i] + 1 for i in (0, 1))
        shape = (channels, *(size or fits))
        return self.op(kind, [x], shape, kernel=kernel, stride=stride, padding=padding, **more)

    def images(self, count):
        shape = (count, *self.shape(self.graph.input))
        if self.graph.tensors[self.graph.input].type == "f32":
            return (3 * self.rng.standard_normal(shape)).astype(np.float32)
        return self.rng.integers(0, 256, shape).astype(np.uint8)


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def expected(graph, x):
    """The graph, one operation after the other."""
    values = {graph.input: x}
    for op in graph.ops:
        values[op.output] = integers.quantised(op, [values[i] for i in op.inputs], graph)
    return values[graph.output]


def agree(net, isa, counts=(1, 2), threads=(1, 2, 3)):
    """The packed graph computes what the reference does: one image cut into blocks, and as many as there are lanes."""
    packed = Packed(write(net.graph, {}), "the test's graph", isa=isa)
    for count in (*counts, LANES[isa], LANES[isa] + 1):
        x = net.images(count)
        wanted = expected(net.graph, x)
        for n in threads if count == 1 else (1, 2):
            given = x.reshape(count, *packed.input_shape)
            found = packed(given, threads=n)
            np.testing.assert_array_equal(found.reshape(wanted.shape), wanted, err_msg=f"{count} images, {n} threads")


@pytest.fixture(params=["vnni", "plain"])
def vnni(request, monkeypatch):
    """With the processor's instruction for sums of products of bytes, and without."""
    if request.param == "plain":
        monkeypatch.setenv("PRUNERY_VNNI", "0")
    elif not {"avx512_vnni", "avx_vnni"} & native.features():
        pytest.skip("this processor has no such instruction")


CONVS = {
    "one channel": ((1, 7, 9), 1, {}),
    "three to four": ((3, 8, 8), 4, {"zero": 0, "activation": "relu"}),
    "four to five": ((4, 9, 5), 5, {"activation": "relu6"}),
    "five to three": ((5, 13, 6), 3, {"kernel": 5}),
    "sparse": ((16, 12, 12), 17, {"density": 0.1}),
    "blocks of four": ((64, 8, 8), 16, {"density": 0.2, "block": 4}),
    "half": ((17, 10, 10), 16, {"density": 0.5}),
    "wide": ((64, 16, 16), 64, {"density": 0.3, "activation": "relu"}),
    "nothing kept": ((8, 6, 6), 8, {"density": 0.0}),
    "pointwise": ((17, 7, 7), 12, {"kernel": 1, "density": 0.4}),
    "pointwise by two": ((16, 9, 9), 8, {"kernel": 1, "stride": 2}),
    "by two": ((5, 32, 32), 16, {"stride": 2, "density": 0.6}),
    "by two, odd": ((5, 15, 17), 6, {"stride": 2, "kernel": 5}),
    "by three": ((4, 14, 20), 5, {"stride": 3}),
    "by one and two": ((4, 9, 20), 5, {"stride": (1, 2), "padding": (1, 0, 1, 1)}),
    "by four": ((3, 33, 31), 8, {"stride": 4, "kernel": 7, "padding": (2, 2, 2, 2)}),
    "seven": ((3, 21, 30), 6, {"kernel": 7, "stride": 2, "density": 0.7}),
    "lopsided": ((6, 9, 11), 7, {"kernel": (1, 5), "padding": (0, 4, 0, 1)}),
    "without padding": ((6, 9, 11), 7, {"padding": (0, 0, 0, 0), "density": 0.5}),
    "much padding": ((3, 3, 3), 4, {"padding": (2, 2, 2, 2)}),
    "dilated": ((6, 12, 10), 5, {"dilation": 2}),
    "dilated lopsidedly": ((5, 12, 10), 4, {"dilation": (3, 1), "density": 0.5}),
    "depthwise": ((16, 14, 14), 16, {"groups": 16, "activation": "relu6"}),
    "depthwise, odd": ((7, 10, 9), 7, {"groups": 7, "stride": 2, "density": 0.5}),
    "depthwise, twice": ((6, 8, 8), 12, {"groups": 6, "kernel": 5}),
    "groups of quads": ((16, 8, 8), 8, {"groups": 2, "density": 0.5}),
    "groups of three": ((9, 8, 8), 6, {"groups": 3}),
    "one pixel": ((12, 1, 1), 9, {}),
    "a row": ((4, 1, 40), 4, {"density": 0.5}),
    "large": ((8, 40, 44), 9, {"density": 0.4}),
    "deep": ((512, 4, 4), 20, {"density": 0.1}),
}  # fmt: skip


@pytest.mark.usefixtures("vnni")
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("floats", [False, True], ids=["bytes", "floats"])
@pytest.mark.parametrize("name", CONVS)
def test_convolution(name, floats, isa):
    shape, outputs, settings = CONVS[name]
    net = Net(*shape, seed=len(name))
    net.conv(0, outputs, floats=floats, **settings)
    agree(net, isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("activation", ["silu", "hard_swish", "hard_sigmoid", "sigmoid", "gelu", "tanh", "leaky_relu"])
@pytest.mark.parametrize("name", ["wide", "by two", "depthwise", "one pixel"])
def test_floats_behind_any_activation(name, activation, isa):
    shape, outputs, settings = CONVS[name]
    net = Net(*shape, seed=len(name))
    slope = 0.1 if activation == "leaky_relu" else 0.0
    net.conv(0, outputs, floats=True, **settings | {"activation": activation, "slope": slope})
    packed = Packed(write(net.graph, {}), "the test's graph", isa=isa)
    for count in (1, LANES[isa] + 1):
        x = net.images(count)
        wanted = expected(net.graph, x)
        found = packed(x.reshape(count, *packed.input_shape)).reshape(wanted.shape)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max())


@pytest.mark.usefixtures("vnni")
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("density", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
def test_residual(density, activation, isa):
    net = Net(10, 11, 9, seed=3)
    x = net.conv(0, 14, density=density)
    net.conv(x, 14, density=density, residual=[x], activation=activation)
    agree(net, isa)


@pytest.mark.parametrize("isa", ISAS)
def test_coarse_residual(isa):
    """Steps of the residual that are hundreds of the output's: more than 16 bits hold; the sum may be small."""
    net = Net(6, 9, 9, seed=4, zero=100)
    net.conv(0, 6, residual=[0], zero=100)
    net.graph.tensors[1].scale = float(np.float32(net.graph.tensors[0].scale / 300))
    agree(net, isa)


@pytest.mark.usefixtures("vnni")
@pytest.mark.parametrize("isa", ISAS)
def test_extreme_bytes(isa):
    """Sums of 255 times -128 and 127, which saturate 16 bits where kernels are careless."""
    net = Net(64, 5, 5, zero=0)
    net.conv(0, 8)
    weight = net.graph.ops[0].weight
    weight[:4], weight[4:] = -128, 127
    weight[::2, ::2] = 127
    net.images = lambda count: np.full((count, 64, 5, 5), 255, np.uint8)
    agree(net, isa)


LINEARS = {
    "one": (1, 1, 1.0),
    "few": (5, 10, 1.0),
    "digits": (784, 300, 0.1),
    "very sparse": (300, 100, 0.005),
    "odd": (33, 17, 0.5),
    "last": (512, 10, 1.0),
    "wide": (130, 1000, 0.3),
    "nothing kept": (20, 20, 0.0),
}


@pytest.mark.usefixtures("vnni")
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("floats", [True, False], ids=["floats", "bytes"])
@pytest.mark.parametrize("name", LINEARS)
def test_linear(name, floats, isa):
    inputs, outputs, density = LINEARS[name]
    net = Net(inputs, seed=5)
    net.linear(0, outputs, density, floats=floats, activation="relu")
    agree(net, isa)


@pytest.mark.usefixtures("vnni")
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("density", [0.01, 0.5])
def test_linear_residual(density, isa):
    net = Net(40, seed=6)
    x = net.linear(0, 50, density)
    net.linear(x, 50, density, residual=[x], activation="relu6")
    agree(net, isa)


def max_pool(net):
    net.pool("max_pool", 0, 2, 2, like=0)


def max_pool_padded(net):
    net.pool("max_pool", 0, 3, 2, (1, 1, 1, 1), like=0)


def max_pool_sticking_out(net):
    _, rows, columns = net.shape(0)
    net.pool("max_pool", 0, 2, 2, size=(-(-rows // 2), -(-columns // 2)), like=0)


def avg_pool(net):
    net.pool("avg_pool", 0, 2, 2)


def avg_pool_padded(net):
    net.pool("avg_pool", 0, 3, 1, (1, 1, 1, 1))


def avg_pool_counting(net):
    net.pool("avg_pool", 0, (3, 2), (2, 1), (1, 1, 1, 0), count_padding=True)


def avg_pool_sticking_out(net):
    _, rows, columns = net.shape(0)
    size = (-(-(rows - 2) // 2) + 1, -(-(columns - 2) // 2) + 1)
    net.pool("avg_pool", 0, 2, 2, size=size)


def global_pool(net):
    net.op("global_pool", [0], (net.shape(0)[0], 1, 1))


def global_pool_floats(net):
    net.op("global_pool", [0], (net.shape(0)[0], 1, 1), floats=True)


def add(net):
    y = net.conv(0, net.shape(0)[0], 1)
    net.op("add", [0, y], net.shape(0), activation="relu")


def concat(net):
    channels, *size = net.shape(0)
    y = net.op("gather", [0], (3, *size), like=0, index=np.array([0, channels - 1, channels // 2], np.uint32))
    net.op("concat", [y, 0, y], (channels + 6, *size), like=0)


def concat_quads(net):
    channels, *size = net.shape(0)
    net.op("concat", [0, 0], (2 * channels, *size), like=0)


def shuffle(net):
    channels, *size = net.shape(0)
    index = net.rng.permutation(channels).astype(np.uint32)
    net.op("gather", [0], (channels, *size), like=0, index=index)


def flatten(net):
    y = net.op("flatten", [0], (int(np.prod(net.shape(0))), 1, 1), like=0)
    net.linear(y, 7, 0.5, floats=True)


def there_and_back(net):
    y = net.op("dequantize", [0], net.shape(0), floats=True)
    net.op("quantize", [y], net.shape(0))


SIMPLE = [
    max_pool, max_pool_padded, max_pool_sticking_out, avg_pool, avg_pool_padded, avg_pool_counting,
    avg_pool_sticking_out, global_pool, global_pool_floats, add, concat, concat_quads, shuffle, flatten, there_and_back,
]  # fmt: skip


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [(4, 8, 8), (5, 9, 7), (17, 4, 4), (1, 30, 3)], ids=str)
@pytest.mark.parametrize("made", SIMPLE, ids=lambda made: made.__name__)
def test_simple(made, shape, isa):
    net = Net(*shape, seed=7)
    made(net)
    agree(net, isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("made", [global_pool, add, concat, shuffle, flatten, there_and_back])
def test_vectors(made, isa):
    net = Net(37, seed=8)
    made(net) if made is not add else net.op("add", [0, net.linear(0, 37)], net.shape(0), activation="relu6")
    agree(net, isa)


@pytest.mark.parametrize("isa", ISAS)
def test_quantize_everything(isa):
    """Ties, what is out of range, infinities, and what is not a number."""
    odd = np.array([0.05, 0.15, -0.05, 1e30, -1e30, np.inf, -np.inf, np.nan, 0, -0.0, 12.75, 0.25, 3e-39], np.float32)
    net = Net(13)
    net.graph.tensors[0] = Tensor(13)
    net.graph.tensors.append(Tensor(13, 1, 1, "u8", 0.1, 7))
    net.graph.ops.append(Op("quantize", "in", [0], 1))
    net.graph.output = 1
    net.images = lambda count: np.tile(odd[None, :, None, None], (count, 1, 1, 1))
    agree(net, isa)


@pytest.mark.usefixtures("vnni")
@pytest.mark.parametrize("isa", ISAS)
def test_a_network(isa):
    """Strides, a shortcut, pools and two linear layers: tensors of one network share memory."""
    net = Net(3, 32, 32, seed=9)
    net.graph.tensors[0] = Tensor(3, 32, 32)
    x = net.op("quantize", [0], (3, 32, 32))
    x = net.conv(x, 16, activation="relu", zero=0)
    y = net.conv(x, 32, 3, stride=2, activation="relu", density=0.2, zero=0)
    shortcut = net.conv(x, 32, 1, stride=2, density=0.4)
    x = net.conv(y, 32, residual=[shortcut], activation="relu", density=0.1, zero=0)
    y = net.conv(x, 32, groups=32, activation="relu6")
    y = net.pool("max_pool", y, 2, 2, like=y)
    pooled = net.op("global_pool", [y], (32, 1, 1))
    hidden = net.linear(pooled, 20, 0.5, activation="relu")
    net.linear(hidden, 10, floats=True)
    agree(net, isa)


@pytest.mark.skipif("avx512_vnni" not in native.features() or "v4" not in ISAS, reason="the choice differs elsewhere")
def test_every_kernel_is_chosen_somewhere():
    """Lists for each output where little is kept, for four where much is; channels in blocks where there are many."""
    found = {}
    for density, channels in ((0.1, 64), (1.0, 64), (0.3, 512)):
        net = Net(channels, 8, 8)
        net.conv(0, 16, density=density)
        (layer,) = [x for x in Packed(write(net.graph, {}), "it", isa="v4").explain() if x.kernel.startswith("int8")]
        found[density] = layer
    assert [found[d].kernel for d in (0.1, 1.0, 0.3)] == ["int8 rows", "int8 fours", "int8 rows"]
    assert " 1 blocks" in found[0.1].why
    assert " 1 blocks" not in found[0.3].why
    assert found[0.1].multiply_adds < found[1.0].multiply_adds
    assert 0 < found[0.1].predicted_us < found[1.0].predicted_us
    assert found[0.1].bytes < found[1.0].bytes


def test_scales_too_far_apart():
    net = Net(4, 4, 4)
    net.conv(0, 4)
    net.graph.tensors[1].scale = 2.0**-40
    with pytest.raises(Refused, match="layer0: scales of its tensors lie too far apart"):
        expected(net.graph, net.images(1))
    with pytest.raises(Broken, match="layer0: scales of its tensors lie too far apart"):
        Packed(write(net.graph, {}), "the test's graph")


# ---- from floats to bytes


def resnet(make):
    net = make(3, 16, 16)
    x = net.conv(0, 12, activation="relu")
    y = net.conv(x, 24, stride=2, density=0.3, activation="relu")
    shortcut = net.conv(x, 24, 1, stride=2)
    y = net.conv(y, 24, density=0.3, residual=[shortcut], activation="relu")
    net.linear(net.op("global_pool", [y], (24, 1, 1)), 10)
    return net


def mobile(make):
    net = make(3, 20, 20)
    x = net.conv(0, 16, stride=2, activation="relu6")
    y = net.conv(x, 64, 1, activation="relu6")
    y = net.conv(y, 64, 3, groups=64, activation="relu6")
    x = net.conv(y, 16, 1, residual=[x])
    x = net.conv(x, 32, 1, activation="relu6")
    net.linear(net.op("global_pool", [x], (32, 1, 1)), 7)
    return net


def gated(make):
    """Squeeze and excite, SiLU and softmax, which bytes cannot do."""
    net = make(3, 24, 24)
    x = net.conv(0, 32, activation="silu")
    gate = net.linear(net.op("global_pool", [x], (32, 1, 1)), 32, activation="sigmoid")
    x = net.op("mul", [x, gate], net.shape(x))
    x = net.conv(x, 64, density=0.5, activation="relu")
    x = net.conv(x, 64, density=0.5, activation="hard_swish")
    x = net.linear(net.op("global_pool", [x], (64, 1, 1)), 9)
    net.op("softmax", [x], (9, 1, 1))
    return net


def branching(make):
    """Tensors that must share a scale."""
    net = make(4, 12, 12)
    a = net.conv(0, 8, activation="relu")
    b = net.pool("max_pool", net.conv(0, 8), 3, 1, 1)
    x = net.op("concat", [a, b], (16, 12, 12))
    x = net.op("gather", [x], (16, 12, 12), index=net.rng.permutation(16).astype(np.uint32))
    x = net.pool("avg_pool", net.conv(x, 16, density=0.5), 3, 2, 1)
    x = net.op("add", [x, x], net.shape(x), activation="relu")
    x = net.op("flatten", [x], (16 * 36, 1, 1))
    net.linear(net.linear(x, 64, activation="relu"), 5, activation="tanh")
    return net


def perceptron(make):
    net = make(200)
    x = net.linear(0, 300, density=0.1, activation="relu")
    x = net.linear(x, 100, density=0.1, activation="leaky_relu", slope=0.1)
    net.linear(x, 10)
    return net


NETS = [resnet, mobile, gated, branching, perceptron]


def whole(graph, images):
    """What the graph of floats or bytes gives."""
    return interpret(graph, torch.from_numpy(images)).numpy()


@pytest.mark.parametrize("choice", RANGES)
@pytest.mark.parametrize("made", NETS, ids=lambda made: made.__name__)
def test_quantised_graph_is_near(made, choice, make):
    """Bytes say almost what floats say, and the kernels say exactly what the graph of bytes says."""
    net = made(make)
    graph = quantised_graph(net.graph, [torch.from_numpy(net.images(32))], [choice], allowed=np.inf)
    assert any(t.type == "u8" for t in graph.tensors)
    assert graph.tensors[graph.output].type == "f32"
    x = net.images(20)
    wanted, found = whole(net.graph, x), whole(graph, x)
    assert np.sqrt(np.mean((found - wanted) ** 2)) < 0.02 * np.sqrt(np.mean(wanted**2))
    packed = Packed(write(graph, {}), "the test's graph")
    np.testing.assert_allclose(packed(x), found, rtol=0, atol=1e-4 * np.abs(found).max())


@pytest.mark.parametrize("made", NETS, ids=lambda made: made.__name__)
def test_pruned_stays_pruned(made, make):
    net = made(make)
    graph = quantised_graph(net.graph, [torch.from_numpy(net.images(4))])
    whole = {op.name: op for op in net.graph.ops if op.weight is not None}
    seen = [op for op in graph.ops if op.scales is not None]
    assert seen
    for op in seen:
        assert op.weight.dtype == np.int8
        assert not op.weight[whole[op.name].weight == 0].any()
        assert np.abs(op.weight * op.scales[:, None] - whole[op.name].weight).max() <= op.scales.max() * 0.5001


def test_correction_helps_on_average(make):
    net = resnet(make)
    batch = torch.from_numpy(net.images(64))
    wanted = whole(net.graph, batch.numpy())
    off = [
        np.abs((whole(quantised_graph(net.graph, [batch], ["minmax"], c), batch.numpy()) - wanted).mean(0)).mean()
        for c in (False, True)
    ]
    assert off[1] < off[0]


@pytest.mark.parametrize("activation", ["silu", "hard_swish"])
def test_nothing_is_rounded_between_a_convolution_and_its_activation(activation, make):
    net = make(3, 20, 20)
    x = net.conv(0, 32, activation=activation)
    x = net.conv(x, 64, activation=activation)
    net.linear(net.op("global_pool", [net.conv(x, 64, activation="relu")], (64, 1, 1)), 9)
    graph = quantised_graph(net.graph, [torch.from_numpy(net.images(16))])
    kinds = {op.output: (op.kind, op.activation, graph.tensors[op.output].type) for op in graph.ops}
    assert "dequantize" not in {kind for kind, *_ in kinds.values()}
    assert list(kinds.values()).count(("conv", activation, "f32")) == 2
    assert [op.kind for op in graph.ops if op.inputs[0] in kinds and kinds[op.inputs[0]][1] == activation] == [
        "quantize"
    ] * 2


def outlying(make):
    """A channel whose numbers are thousands of the others' and decide nothing, in front of the second convolution."""
    net = make(3, 16, 16)
    x = net.conv(0, 32, activation="relu")
    net.graph.ops[0].weight[0] *= 3000
    x = net.conv(x, 32, activation="relu")
    net.graph.ops[1].weight[:, :9] = 0
    x = net.conv(x, 32, activation="relu")
    net.linear(net.op("global_pool", [x], (32, 1, 1)), 9)
    return net


def test_what_does_harm_stays_in_floats(make):
    net = outlying(make)
    batch = torch.from_numpy(net.images(32))
    x = net.images(20)
    wanted = whole(net.graph, x)
    found, careless = (quantised_graph(net.graph, [batch], allowed=a) for a in (0.003, np.inf))
    read = {op.name: g.tensors[op.inputs[0]].type for g in (found,) for op in g.ops if op.kind == "conv"}
    assert read == {"layer0": "u8", "layer1": "f32", "layer2": "u8"}
    assert all(careless.tensors[op.inputs[0]].type == "u8" for op in careless.ops if op.kind == "conv")
    off = [float(np.square(whole(g, x) - wanted).mean() / wanted.var()) for g in (found, careless)]
    assert off[0] < 1e-4 < 0.003 < off[1]


@pytest.mark.parametrize("decides", [True, False])
def test_the_range_is_the_one_that_harms_least(decides, make, monkeypatch):
    """Rare large numbers are cut off where the network does not mind: of its input, not of what follows."""
    monkeypatch.setitem(RANGES, "narrow", lambda low, high, sample: (low / 50, high / 50))
    net = make(8, 8, 8)
    x = net.conv(0, 64, 1)
    net.graph.ops[0].weight[:, 0] *= decides
    net.linear(net.op("global_pool", [x], (64, 1, 1)), 5)
    images = 0.1 * net.images(32)
    images[:, 0, 0, 0] = np.random.default_rng(0).choice([-60, 60], 32)
    wanted = whole(net.graph, images)
    off = {}
    for rules in ("minmax", "narrow", "narrow minmax"):
        graph = quantised_graph(net.graph, [torch.from_numpy(images)], rules.split(), allowed=np.inf)
        assert [op.kind for op in graph.ops].count("quantize") == 1
        off[rules] = float(np.square(whole(graph, images) - wanted).mean())
    if decides:
        assert off["narrow minmax"] == off["minmax"] < 0.1 * off["narrow"]
    else:
        assert off["narrow minmax"] < 0.5 * min(off["minmax"], off["narrow"])


def test_the_harm_of_a_tensor_is_that_of_its_rounding_alone(make):
    net = gated(make)
    images = torch.from_numpy(net.images(70))  # looked at in three parts
    looked = (net.graph.input, 1, net.graph.output)
    harms = Harm(net.graph, images).of([(frozenset([tensor]), 0.05, 128) for tensor in looked])
    for tensor, harm in zip(looked, harms, strict=True):
        values = every_tensor(net.graph, images)
        values = {t: rounded(v, 0.05, 128) if t == tensor else v for t, v in values.items()}
        made = {net.graph.input: values[net.graph.input]}
        for op in net.graph.ops:
            own = numbers(op, torch.float32)
            made[op.output] = applied(op, [made[i] for i in op.inputs], net.graph, own)
            if op.output == tensor:
                made[op.output] = rounded(made[op.output], 0.05, 128)
        wanted = whole(net.graph, images.numpy())
        off = np.square(made[net.graph.output].flatten(1).numpy() - wanted).mean() / wanted.var()
        assert harm == pytest.approx(off, rel=1e-3)
        assert off > 0


def test_activations_are_held_of_few_images_at_once(make, monkeypatch):
    """Of a batch of any size: what is seen is the same, and as many numbers are kept of it."""
    net, most = make(3, 8, 8), 0
    net.linear(net.op("global_pool", [net.conv(0, 20)], (20, 1, 1)), 4)
    images, before = torch.from_numpy(net.images(150)), calibrate.every_tensor

    def held(graph, part, dtype):
        nonlocal most
        most = max(most, len(part))
        return before(graph, part, dtype)

    monkeypatch.setattr(calibrate, "every_tensor", held)
    monkeypatch.setattr("prunery.engine.harm.every_tensor", held)
    seen = calibrate.watched(net.graph, [images])
    quantised_graph(net.graph, [images])
    assert most == 32
    for tensor, values in before(net.graph, images).items():
        flat = values.numpy()
        assert (seen[tensor].low, seen[tensor].high) == (min(0, flat.min()), max(0, flat.max()))
        assert seen[tensor].images == 150
        np.testing.assert_allclose(seen[tensor].means(), flat.mean((0, 2, 3)), atol=1e-5)
        assert sum(map(len, seen[tensor].sample)) == pytest.approx(min(flat.size, calibrate.SAMPLE), abs=5)


def test_how_many_images_are_looked_at(make):
    small, large = make(3, 8, 8), make(64, 224, 224)
    for net in (small, large):
        net.conv(0, 64)
    assert how_many(small.graph, 10) == MOST
    assert how_many(large.graph, 100) == FEWEST


def test_the_first_images_are_kept_on_the_way():
    batches = [torch.full((4, 2), float(i)) for i in range(5)]
    kept = Kept(iter(batches), 6)
    assert len(list(kept)) == 5
    assert kept.images()[:, 0].tolist() == [0, 0, 0, 0, 1, 1]


def test_dead_channels_and_tensors(make):
    """A layer of which nothing is left, and one whose outputs are never above zero."""
    net = make(4, 6, 6)
    x = net.conv(0, 8, density=0.0, activation="relu")
    net.graph.ops[0].bias[:] = -1
    y = net.conv(x, 8, density=0.0)
    z = net.conv(y, 8, 1, residual=[y])
    net.linear(net.op("global_pool", [z], (8, 1, 1)), 3)
    graph = quantised_graph(net.graph, [torch.from_numpy(net.images(4))])
    x = net.images(3)
    wanted = whole(net.graph, x)
    np.testing.assert_allclose(whole(graph, x), wanted, atol=0.03 * np.abs(wanted).max())
    np.testing.assert_allclose(Packed(write(graph, {}), "the test's graph")(x), whole(graph, x), rtol=1e-5)


def test_without_images(make):
    with pytest.raises(Refused, match="there are no images"):
        quantised_graph(resnet(make).graph, [])


def test_too_large_for_bytes(make):
    net = make(3, 4, 4)
    net.conv(0, 4)
    images = np.full((1, 3, 4, 4), np.inf, np.float32)
    with pytest.raises(Refused, match="not finite"):
        quantised_graph(net.graph, [torch.from_numpy(images)])


def test_a_chain_of_nothing_for_bytes(make):
    """What bytes cannot do stays as it is."""
    net = make(6, 4, 4)
    net.op("activate", [0], net.shape(0), activation="silu")
    graph = quantised_graph(net.graph, [torch.from_numpy(net.images(2))])
    assert [op.kind for op in graph.ops] == ["activate"]
