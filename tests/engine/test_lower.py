"""What lowering leaves: the fewest operations, for the same numbers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunery.engine.capture import captured
from prunery.engine.check import check
from prunery.engine.given import evaluated
from prunery.engine.graph import Graph, Op, Tensor
from prunery.engine.interpret import every_tensor, interpret
from prunery.engine.lower import alive, applied, compact, fused, lower, single
from prunery.engine.places import Value, indexed, surround, taps
from prunery.engine.rules import FUSED, SPELT_OUT
from prunery.engine.trial import difference, lowered
from prunery.models import build
from prunery.spec import Model


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


class Function(nn.Module):
    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x):
        return self.function(self, x)


def settled(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return network.eval()


def low(network, *shape):
    """The lowered graph, equal to the network."""
    network = evaluated(settled(network))
    graph = lower(captured(network, torch.zeros(1, *shape)))
    check(graph)
    images = torch.randn(3, *shape, dtype=torch.float64)
    with torch.no_grad():
        wanted = network.double()(images)
    assert difference(interpret(graph, images, torch.float64), wanted) < 1e-5
    return graph


def said(graph):
    """Each operation in a word: its kind, +residual, and its activation."""
    return " ".join(
        op.kind
        + "+" * (op.kind in ("conv", "linear") and len(op.inputs) > 1)
        + f":{op.activation}" * (op.activation != "none")
        for op in graph.ops
    )


def bn(channels):
    return nn.BatchNorm2d(channels)


def conv(before, after, kernel=1, padding=0, **more):
    return nn.Conv2d(before, after, kernel, padding=padding, **more)


S = nn.Sequential
C = (4, 6, 5)
# What a network becomes. In functions, `m` is the module, with its parts.
BECOMES = {
    "norm and relu into conv": (S(conv(4, 3, 3, 1), bn(3), nn.ReLU()), C, "conv:relu"),
    "norm into grouped conv": (S(conv(4, 4, 3, 1, groups=2), bn(4), nn.SiLU()), C, "conv:silu"),
    "norm into linear": (S(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Hardswish()), (4,), "linear:hard_swish"),
    "two norms": (S(conv(4, 3), bn(3), bn(3)), C, "conv"),
    "norm before conv": (S(nn.ReLU(), bn(4), conv(4, 3)), C, "activate:relu conv"),
    "norm before grouped conv": (S(nn.ReLU(), bn(4), conv(4, 6, 3, groups=2)), C, "activate:relu conv"),
    "norm before padded conv": (S(bn(4), conv(4, 3, 3, 1)), C, "affine conv"),
    "scale before padded conv": (Function(lambda m, x: m.c(x / 4), c=conv(4, 3, 3, 1)), C, "conv"),
    "norm of what two read": (
        Function(lambda m, x: m.n(y := m.c(x)) * y, c=conv(4, 4), n=bn(4)),
        C,
        "conv affine mul",
    ),
    "preactivation": (S(bn(4), nn.ReLU(), conv(4, 3)), C, "affine:relu conv"),
    "norm after linear activation": (S(conv(4, 3), nn.ReLU(), bn(3)), C, "conv:relu affine"),
    "residual": (
        Function(lambda m, x: F.relu(m.b(F.relu(m.a(x))) + x), a=conv(4, 4, 3, 1), b=conv(4, 4, 3, 1)),
        C,
        "conv:relu conv+:relu",
    ),
    "residual with a norm": (
        Function(lambda m, x: (x + m.n(m.a(x))).sigmoid(), a=conv(4, 4, 3, 1), n=bn(4)),
        C,
        "conv+:sigmoid",
    ),
    "the later takes the earlier": (
        Function(lambda m, x: m.a(x) + m.b(x.relu()), a=conv(4, 4, 3), b=conv(4, 4, 3)),
        C,
        "conv activate:relu conv+",
    ),
    "the earlier takes the later, if that is no layer": (
        Function(lambda m, x: m.a(x) + F.max_pool2d(x, 3, 1, 1), a=conv(4, 4, 3, 1)),
        C,
        "max_pool conv+",
    ),
    "activated before the sum": (
        Function(lambda m, x: m.a(x).relu() + x, a=conv(4, 4, 3, 1)),
        C,
        "conv:relu add",
    ),
    "one residual only": (
        Function(lambda m, x: m.a(x) + x.relu() + x.tanh(), a=conv(4, 4, 3, 1)),
        C,
        "activate:relu conv+ activate:tanh add",
    ),
    "sum that two read": (
        Function(lambda m, x: (y := m.a(x) + x).relu() * y, a=conv(4, 4, 3, 1)),
        C,
        "conv+ activate:relu mul",
    ),
    "difference": (Function(lambda m, x: x - m.a(x), a=conv(4, 4, 3, 1)), C, "conv+"),
    "sum of the same": (Function(lambda m, x: (y := m.a(x)) + y, a=conv(4, 4)), C, "conv add"),
    "repvgg": (
        Function(
            lambda m, x: F.relu(m.an(m.a(x)) + m.bn(m.b(x)) + m.n(x)),
            a=conv(4, 4, 3, 1), b=conv(4, 4), an=bn(4), bn=bn(4), n=bn(4),
        ),
        C,
        "conv:relu",
    ),
    "repvgg in groups": (
        Function(lambda m, x: m.a(x) + m.b(x) + m.n(x), a=conv(4, 4, 3, 1, groups=2), b=conv(4, 4, groups=2), n=bn(4)),
        C,
        "conv",
    ),
    "layers of different groups": (
        Function(lambda m, x: m.a(x) + m.b(x), a=conv(4, 4, 3, 1), b=conv(4, 4, groups=2)),
        C,
        "conv conv+",
    ),
    "kernels that do not lie inside": (
        Function(lambda m, x: m.a(x) + m.b(x), a=conv(4, 4, (1, 3), (0, 1)), b=conv(4, 4, (3, 1), (1, 0))),
        C,
        "conv conv+",
    ),
    "dilated around a pixel": (
        Function(lambda m, x: m.a(x) + m.b(x), a=conv(4, 4, 3, 2, dilation=2), b=conv(4, 4)),
        C,
        "conv",
    ),
    "linear layers of one vector": (
        Function(lambda m, x: m.a(x) + m.b(x) + x, a=nn.Linear(4, 4), b=nn.Linear(4, 4)),
        (4,),
        "linear+",
    ),
    "relu after max_pool": (S(conv(4, 3, 3), nn.MaxPool2d(2), nn.ReLU()), C, "conv:relu max_pool"),
    "tanh after max_pool": (S(conv(4, 3, 3), nn.MaxPool2d(2), nn.Tanh()), C, "conv max_pool activate:tanh"),
    "falling leaky_relu after max_pool": (
        S(conv(4, 3), nn.MaxPool2d(2), nn.LeakyReLU(-0.5)),
        C,
        "conv max_pool activate:leaky_relu",
    ),
    "relu of the input after max_pool": (S(nn.MaxPool2d(2), nn.ReLU()), C, "max_pool activate:relu"),
    "squeeze and excitation": (
        Function(
            lambda m, x: x * m.b(F.relu(m.a(x.mean((2, 3), keepdim=True)))).sigmoid(), a=conv(4, 2), b=conv(2, 4)
        ),
        C,
        "global_pool linear:relu linear:sigmoid mul",
    ),
    "conv of one pixel": (S(nn.AdaptiveAvgPool2d(1), conv(4, 5, 3, 1)), C, "global_pool linear"),
    "conv of one pixel, in groups": (
        S(nn.AdaptiveAvgPool2d(1), conv(4, 6, 3, 1, groups=2), nn.Flatten()),
        C,
        "global_pool linear",
    ),
    "depthwise conv of one pixel": (
        S(nn.AdaptiveAvgPool2d(1), conv(4, 4, (3, 5), (1, 2), groups=4), nn.ReLU6()),
        C,
        "global_pool affine:relu6",
    ),
    "conv that sees only padding": (
        S(nn.AdaptiveAvgPool2d(1), conv(4, 3, 2, 1, dilation=2)),
        C,
        "global_pool linear",
    ),
    "conv of the whole picture": (S(conv(4, 3, (6, 5)), nn.ReLU()), C, "flatten linear:relu"),
    "mean of the whole picture": (S(conv(4, 3), nn.AvgPool2d((6, 5)), nn.Flatten()), C, "conv global_pool"),
    "pools of one pixel": (
        S(nn.AdaptiveAvgPool2d(1), nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.Flatten()),
        C,
        "global_pool",
    ),
    "a mean with padding of one pixel": (S(nn.AdaptiveAvgPool2d(1), nn.AvgPool2d(3, 2, 1)), C, "global_pool avg_pool"),
    "norm, mean, linear": (
        S(nn.ReLU(), bn(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
        C,
        "activate:relu global_pool linear",
    ),
    "norm, flatten, linear": (S(bn(4), nn.Flatten(), nn.Linear(120, 2)), C, "flatten linear"),
    "norm, avg_pool, conv": (S(bn(4), nn.AvgPool2d(2), conv(4, 3)), C, "avg_pool conv"),
    "norm, avg_pool with padding": (S(bn(4), nn.AvgPool2d(3, 1, 1), conv(4, 3)), C, "affine avg_pool conv"),
    "norm, shuffle, conv": (S(bn(4), nn.ChannelShuffle(2), conv(4, 3)), C, "conv"),
    "shuffle twice": (S(nn.ChannelShuffle(2), nn.ReLU(), nn.ChannelShuffle(2)), C, "gather activate:relu gather"),
    "shuffle there and back": (S(nn.ChannelShuffle(2), nn.ChannelShuffle(2), nn.ReLU()), C, "activate:relu"),
    "part of channels, then conv": (Function(lambda m, x: m.a(x[:, 1:]), a=conv(3, 2)), C, "gather conv"),
    "repeated pixels, then linear": (
        S(nn.AdaptiveAvgPool2d((4, 10)), nn.Flatten(), nn.Linear(160, 3)),
        (4, 2, 5),
        "flatten linear",
    ),
    "uneven pixels, then linear": (
        S(nn.AdaptiveAvgPool2d((7, 7)), nn.Flatten(), nn.Linear(196, 3)),
        (4, 2, 3),
        "flatten linear",
    ),
    "cat of convs, then norm": (
        Function(lambda m, x: m.n(torch.cat([m.a(x), m.b(x)], 1)).relu(), a=conv(4, 3), b=conv(4, 2), n=bn(5)),
        C,
        "conv:relu conv:relu concat",
    ),
    "cat of cats": (
        Function(lambda m, x: torch.cat([x, torch.cat([x.relu(), x.tanh()], 1)], 1)),
        C,
        "activate:relu activate:tanh concat",
    ),
    "cat of one": (Function(lambda m, x: torch.cat([x.relu()], 1)), C, "activate:relu"),
    "channels that are normalised one by one": (
        Function(
            lambda m, x: m.a(torch.cat([x[:, i : i + 1] * (i + 0.5) - i for i in range(4)], 1)), a=conv(4, 3, 3)
        ),
        C,
        "conv",
    ),
    "input normalisation": (S(Function(lambda m, x: (x - 0.5) / 0.25), conv(4, 3, 3)), C, "conv"),
    "mobile hard_swish": (
        Function(lambda m, x: (y := m.a(x)) * F.relu6(y + 3) / 6, a=conv(4, 3)),
        C,
        "conv:hard_swish",
    ),
    "hard_swish, divided first": (
        Function(lambda m, x: (y := m.a(x)) * (F.relu6(y + 3.0) / 6.0), a=conv(4, 3)),
        C,
        "conv:hard_swish",
    ),
    "hard_swish the other way round": (
        Function(lambda m, x: F.relu6(3 + (y := m.a(x))) * y * (1 / 6), a=conv(4, 3)),
        C,
        "conv:hard_swish",
    ),
    "hard_sigmoid": (Function(lambda m, x: F.relu6(m.a(x) + 3) / 6, a=conv(4, 3)), C, "conv:hard_sigmoid"),
    "clamped hard_sigmoid": (Function(lambda m, x: (m.a(x) + 3).clamp(0, 6) / 6, a=conv(4, 3)), C, "conv:hard_sigmoid"),
    "relu6 of another shift": (Function(lambda m, x: F.relu6(m.a(x) + 2) / 6, a=conv(4, 3)), C, "conv:relu6 affine"),
    "silu": (Function(lambda m, x: (y := m.a(x)) * y.sigmoid(), a=conv(4, 3)), C, "conv:silu"),
    "gated by another": (
        Function(lambda m, x: m.a(x) * x.sigmoid(), a=conv(4, 4)),
        C,
        "conv activate:sigmoid mul",
    ),
    "relu6 by hand": (Function(lambda m, x: m.a(x).clamp(0, 6), a=conv(4, 3)), C, "conv:relu6"),
    "relu by hand": (Function(lambda m, x: m.a(x).clamp_min(0), a=conv(4, 3)), C, "conv:relu"),
    "hardtanh between layers": (S(conv(4, 3), nn.Hardtanh(), conv(3, 2)), C, "conv:relu6 conv"),
    "what nobody reads": (Function(lambda m, x: (m.a(x), m.b(x))[1], a=conv(4, 3), b=conv(4, 2)), C, "conv"),
    "nothing": (S(nn.Identity(), nn.Dropout()), C, "activate"),
    "once": (Function(lambda m, x: x * 1.0 + 0.0), C, "affine"),
    "softmax": (S(nn.Linear(4, 3), nn.Softmax(1)), (4,), "linear softmax"),
}  # fmt: skip


@pytest.mark.parametrize("name", BECOMES)
def test_what_a_network_becomes(name):
    network, shape, wanted = BECOMES[name]
    assert said(low(network, *shape)) == wanted


def test_resnet18_is_twenty_convolutions():
    network = build(Model(name="resnet18", input=(3, 16, 16), classes=10), 0)
    block, narrow = "conv:relu conv+:relu", "conv:relu conv conv+:relu"
    stages = [block, block, *[narrow, block] * 3]
    graph = low(network, 3, 16, 16)
    assert said(graph) == " ".join(["conv:relu", *stages, "global_pool linear"])
    assert [op.name for op in graph.ops][-4:] == ["layer4.1.conv1", "layer4.1.conv2", "mean", "linear"]
    assert graph.ops[-3].inputs == [graph.ops[-4].output, graph.ops[-5].output]


KINDS = {
    "lenet5": ((1, 28, 28), "conv:relu max_pool conv:relu max_pool flatten linear:relu linear:relu linear"),
    "lenet_300_100": ((1, 28, 28), "flatten linear:relu linear:relu linear"),
    "conv2": ((3, 8, 8), "conv:relu conv:relu max_pool flatten linear:relu linear:relu linear"),
    "resnet20": ((3, 8, 8), " ".join([
        "conv:relu", *["conv:relu conv+:relu"] * 3, "conv:relu conv conv+:relu", *["conv:relu conv+:relu"] * 2,
        "conv:relu conv conv+:relu", *["conv:relu conv+:relu"] * 2, "global_pool linear",
    ])),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_kinds(name):
    shape, wanted = KINDS[name]
    assert said(low(build(Model(name=name, input=shape, classes=10), 0), *shape)) == wanted


# ---- laws


def some_graph():
    network = settled(
        S(conv(4, 6, 3, 1), bn(6), nn.ReLU(), nn.MaxPool2d(2), conv(6, 6), nn.Flatten(), nn.Linear(36, 3))
    )
    return captured(network, torch.zeros(1, *C))


def test_pruned_weights_stay_pruned():
    network = settled(S(conv(4, 6, 3, 1, bias=False), bn(6), nn.ReLU(), bn(6), conv(6, 5)))
    for layer in (network[0], network[4]):
        layer.weight.data *= torch.rand_like(layer.weight) < 0.3
    kept = [int((layer.weight != 0).sum()) for layer in (network[0], network[4])]
    graph = lowered(network, torch.randn(2, *C))
    assert [int((op.weight != 0).sum()) for op in graph.ops] == kept
    assert not any(np.signbit(op.weight[op.weight == 0]).any() for op in graph.ops)


def test_the_networks_weights_are_not_the_graphs():
    network = S(conv(4, 3), nn.Flatten(), nn.Linear(90, 2))
    graph = lowered(network, torch.randn(2, *C))
    before = [op.weight.copy() for op in graph.ops if op.weight is not None]
    for parameter in network.parameters():
        parameter.data.zero_()
    assert all(
        (a == b.weight).all() for a, b in zip(before, [o for o in graph.ops if o.weight is not None], strict=True)
    )


def test_passes_do_not_change_their_argument():
    graph = some_graph()
    kinds, tensors = said(graph), len(graph.tensors)
    weights = [op.weight.copy() for op in graph.ops if op.weight is not None]
    lower(graph)
    assert (said(graph), len(graph.tensors)) == (kinds, tensors)
    assert all(
        (a == op.weight).all() for a, op in zip(weights, [o for o in graph.ops if o.weight is not None], strict=True)
    )


def test_lowering_twice_changes_nothing():
    once = lower(some_graph())
    twice = lower(once)
    assert said(twice) == said(once)
    for a, b in zip(once.ops, twice.ops, strict=True):
        assert (a.inputs, a.output) == (b.inputs, b.output)
        assert a.weight is b.weight is None or (a.weight == b.weight).all()


def test_tensors_that_are_left_hold_what_they_held():
    plain = some_graph()
    images = torch.randn(2, *C, dtype=torch.float64)
    before, after = every_tensor(plain, images, torch.float64), every_tensor(fused(plain), images, torch.float64)
    assert len(before.keys() & after.keys()) > 3
    assert all(difference(after[t], before[t]) < 1e-5 for t in before.keys() & after.keys())


def test_a_graph_is_written_in_order_and_without_gaps():
    graph = lower(some_graph())
    written = {graph.input}
    for op in graph.ops:
        assert set(op.inputs) <= written
        assert op.output not in written
        written.add(op.output)
    assert written == set(range(len(graph.tensors)))
    assert graph.output in written


def test_what_is_left_over_is_not_kept():
    graph = Graph([Tensor(2), Tensor(2), Tensor(2)], output=2)
    graph.ops = [Op("activate", "a", [0], 1, activation="relu"), Op("activate", "b", [0], 2, activation="tanh")]
    assert [op.name for op in compact(alive(graph)).ops] == ["b"]
    assert compact(alive(graph)).output == 1


def test_rules_without_effect_leave_a_graph():
    graph = single(some_graph())
    assert said(applied(graph, SPELT_OUT)) == said(graph)
    assert applied(Graph([Tensor(1)]), FUSED).ops == []


# ---- places


def picked(places, base):
    """What the convolution of some places makes of the numbers 1, 2, ...: the places, plus one; zero for the fill."""
    found = taps(places, base)
    weight = found.matrix(base[0])
    groups = base[0] * np.prod(found.kernel) // weight.shape[1]
    graph = Graph([Tensor(*base), Tensor(*places.shape)], output=1)
    graph.ops = [
        Op("conv", "", [0], 1, found.kernel, found.stride, padding=found.padding, groups=int(groups), weight=weight)
    ]
    above, left, below, right = found.padding
    assert max(above, below) < found.kernel[0]
    assert max(left, right) < found.kernel[1]
    for axis, (before, after) in enumerate([(above, below), (left, right)]):
        room = base[axis + 1] + before + after - found.kernel[axis]
        assert room // found.stride[axis] + 1 == places.shape[axis + 1]
    return interpret(graph, torch.arange(1.0, np.prod(base) + 1)).reshape(places.shape).numpy()


def test_places_that_a_convolution_picks():
    """Random slices with steps, crops, paddings and choices of channels."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        base = tuple(rng.integers(1, 7, 3))
        places = indexed(Value(0, base))
        widths = rng.integers(0, 4, (3, 2)) * rng.integers(0, 2, (3, 2))
        places = np.pad(places, widths, constant_values=-1)
        first = [rng.integers(0, n) for n in places.shape]
        step = rng.integers(1, 4, 3)
        places = places[tuple(slice(f, None, s) for f, s in zip(first, step, strict=True))]
        places = places[rng.permutation(len(places))]
        np.testing.assert_array_equal(picked(places, base), places + 1)


def test_places_that_no_convolution_picks():
    square = indexed(Value(0, (2, 3, 3)))
    assert taps(square.transpose(0, 2, 1), (2, 3, 3)) is None
    assert taps(square[:, ::-1], (2, 3, 3)) is None
    assert taps(square.repeat(2, axis=1), (2, 3, 3)) is None
    assert taps(square.reshape(1, 6, 3), (2, 3, 3)) is None


def test_padding_is_told_from_other_places():
    base = (2, 3, 4)
    places = indexed(Value(0, base))
    assert surround(np.pad(places, ((0, 0), (1, 0), (2, 3)), constant_values=-1), base) == (1, 2, 0, 3)
    assert surround(places, base) == (0, 0, 0, 0)
    assert surround(places[:, 1:], base) is None
    assert surround(places[::-1], base) is None
    assert surround(np.pad(places, ((0, 1), (0, 0), (0, 0)), constant_values=-1), base) is None
    assert surround(np.full((2, 3, 4), -1), base) is None
