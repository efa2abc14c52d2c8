"""What a network computes is what its graph computes: operator by operator, and for whole networks."""

import inspect

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from prunery.engine import given
from prunery.engine.capture import captured
from prunery.engine.check import check
from prunery.engine.given import evaluated
from prunery.engine.interpret import Interpreted, interpret
from prunery.engine.lower import lower
from prunery.engine.operators import MOVES, OPERATORS
from prunery.engine.trial import difference, lowered
from prunery.models import build
from prunery.spec import Model, Refused


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


class Function(nn.Module):
    """A function of a tensor as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def settled(network):
    """In evaluation mode, with normalisation that does something."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
    return network.eval()


def graphs(network, shape):
    """The graph as captured and as lowered, both equal to the network on images that they were not made with."""
    network = network if isinstance(network, nn.Module) else Function(network)
    network = evaluated(settled(network))
    plain = captured(network, torch.zeros(1, *shape))
    low = lower(plain)
    check(low)
    images = torch.randn(3, *shape, dtype=torch.float64)
    with torch.no_grad():
        wanted = network.double()(images)
    for graph in (plain, low):
        found = interpret(graph, images, torch.float64)
        assert found.flatten(1).shape == wanted.flatten(1).shape
        assert difference(found, wanted) < 1e-5
    return plain, low


def kinds(graph):
    return [op.kind for op in graph.ops]


C = (6, 9, 7)
SINGLES = {
    "conv": (nn.Conv2d(6, 4, 3), C),
    "conv padded": (nn.Conv2d(6, 4, (3, 5), stride=(2, 1), padding=(1, 2)), C),
    "conv dilated": (nn.Conv2d(6, 4, 3, padding=2, dilation=2, bias=False), C),
    "conv grouped": (nn.Conv2d(6, 9, 3, groups=3), C),
    "conv depthwise": (nn.Conv2d(6, 6, 3, groups=6, padding=1), C),
    "conv same": (nn.Conv2d(6, 4, (4, 3), padding="same", dilation=(1, 2)), C),
    "conv valid": (nn.Conv2d(6, 4, 3, padding="valid"), C),
    "conv padded more than its kernel": (nn.Conv2d(6, 4, 1, padding=2), C),
    "linear": (nn.Linear(5, 3), (5,)),
    "linear without bias": (nn.Linear(5, 3, bias=False), (5,)),
    "linear of a row": (nn.Sequential(nn.Flatten(), nn.Unflatten(1, (1, 6)), nn.Linear(6, 2)), (6, 1, 1)),
    "matmul": (lambda x: x @ torch.arange(10.0).reshape(5, 2).to(x), (5,)),
    "addmm": (lambda x: torch.addmm(x.new_ones(2), x, torch.arange(10.0).view(5, 2).to(x), beta=2, alpha=0.5), (5,)),
    "batch norm": (nn.BatchNorm2d(6), C),
    "batch norm of vectors": (nn.BatchNorm1d(6), (6,)),
    "batch norm of a flattened picture": (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(378)), C),
    "bias of a flattened picture": (lambda x: x.flatten(1) * torch.arange(378.0) - 1, C),
    "batch norm without weights": (nn.BatchNorm2d(6, affine=False), C),
    "relu": (nn.ReLU(), C),
    "relu in place": (nn.Sequential(nn.Conv2d(6, 3, 1), nn.ReLU(inplace=True)), C),
    "relu6": (nn.Sequential(nn.Conv2d(6, 3, 1), nn.ReLU6()), C),
    "hardtanh": (nn.Hardtanh(-0.5, 0.7), C),
    "clamp": (lambda x: x.clamp(-0.3, 0.4), C),
    "clamp below": (lambda x: x.clamp(min=0.1), C),
    "clamp above": (lambda x: x.clamp(max=0.1), C),
    "clamp not": (lambda x: torch.clamp(x, min=-1e9) + 0, C),
    "hardswish": (nn.Hardswish(), C),
    "hardsigmoid": (nn.Hardsigmoid(), C),
    "silu": (nn.SiLU(), C),
    "sigmoid": (nn.Sigmoid(), C),
    "gelu": (nn.GELU(), C),
    "tanh": (nn.Tanh(), C),
    "leaky_relu": (nn.LeakyReLU(0.2), C),
    "leaky_relu of none": (nn.LeakyReLU(0.0), C),
    "elu": (nn.ELU(0.7), C),
    "selu": (nn.SELU(), C),
    "celu": (nn.CELU(0.4), C),
    "prelu": (nn.PReLU(), C),
    "prelu of channels": (lambda x: F.prelu(x, torch.linspace(-0.5, 0.5, 6).to(x)), C),
    "max_pool": (nn.MaxPool2d(3, 2, 1), C),
    "max_pool ceil": (nn.MaxPool2d(2, 2, ceil_mode=True), C),
    "max_pool ceil padded": (nn.MaxPool2d((3, 2), (3, 2), 1, ceil_mode=True), C),
    "max_pool dilated": (nn.MaxPool2d(2, 1, dilation=(2, 3)), C),
    "max_pool behind zeros": (lambda x: F.max_pool2d(F.pad(x, (1, 1, 0, 1)), 2), C),
    "max_pool behind minus infinity": (lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 2), C),
    "avg_pool": (nn.AvgPool2d(3, 2), C),
    "avg_pool padded": (nn.AvgPool2d(3, 2, 1), C),
    "avg_pool of what is there": (nn.AvgPool2d(3, 2, 1, count_include_pad=False), C),
    "avg_pool ceil": (nn.AvgPool2d(2, 2, ceil_mode=True), C),
    "avg_pool ceil padded": (nn.AvgPool2d(3, 2, 1, ceil_mode=True), (6, 8, 6)),
    "avg_pool ceil of what is there": (nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), (6, 8, 6)),
    "avg_pool behind zeros": (lambda x: F.avg_pool2d(F.pad(x, (1, 0, 1, 1)), 3, 2), C),
    "avg_pool behind zeros of what is there": (
        lambda x: F.avg_pool2d(F.pad(x, (1, 0, 1, 1)), 3, 2, 1, count_include_pad=False),
        C,
    ),
    "avg_pool ceil behind zeros": (
        lambda x: F.avg_pool2d(F.pad(x, (0, 0, 0, 1)), 2, 2, ceil_mode=True),
        (2, 4, 4),
    ),
    "avg_pool of all": (nn.AvgPool2d((9, 7)), C),
    "adaptive to one": (nn.AdaptiveAvgPool2d(1), C),
    "adaptive to none": (nn.AdaptiveAvgPool2d((9, 7)), C),
    "adaptive to a part": (nn.AdaptiveAvgPool2d((3, 7)), C),
    "adaptive to more": (nn.Sequential(nn.AdaptiveAvgPool2d((7, 7)), nn.Flatten(), nn.Linear(294, 3)), (6, 2, 3)),
    "adaptive to more, then conv": (nn.Sequential(nn.AdaptiveAvgPool2d((4, 5)), nn.Conv2d(6, 3, (4, 5))), (6, 2, 3)),
    "adaptive from one": (nn.Sequential(nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(294, 3)), (6, 1, 1)),
    "adaptive max": (nn.AdaptiveMaxPool2d((3, 1)), C),
    "mean": (lambda x: x.mean((2, 3)), C),
    "mean kept": (lambda x: x.mean((-1, -2), keepdim=True), C),
    "mean of rows": (lambda x: x.mean(3), C),
    "mean of columns": (lambda x: x.mean(2, keepdim=True), C),
    "mean of channels": (lambda x: x.mean(1, keepdim=True), C),
    "mean of a flattened picture": (lambda x: x.flatten(2).mean(-1), C),
    "mean behind a permutation": (lambda x: x.permute(0, 2, 3, 1).mean((1, 2)), C),
    "sum": (lambda x: x.sum((2, 3)), C),
    "add a number": (lambda x: x + 3, C),
    "add channels": (lambda x: x + torch.arange(6.0).reshape(6, 1, 1), C),
    "subtract from": (lambda x: 1 - x, C),
    "subtract channels": (lambda x: x - torch.arange(6.0).reshape(1, 6, 1, 1), C),
    "normalisation": (lambda x: (x - torch.arange(6.0).view(6, 1, 1)) / torch.arange(1.0, 7).view(6, 1, 1), C),
    "multiply": (lambda x: 0.5 * x, C),
    "divide": (lambda x: x / 3, (6,)),
    "negate": (lambda x: -x, C),
    "square": (lambda x: x**2 + x.square() + x * x, C),
    "add": (lambda x: x.relu() + x.sigmoid(), C),
    "add times": (lambda x: torch.add(x.relu(), x.sigmoid(), alpha=-2), C),
    "subtract": (lambda x: x.relu() - x.sigmoid(), C),
    "add to itself": (lambda x: x + x, C),
    "gate of channels": (lambda x: x.mean((2, 3), keepdim=True).sigmoid() * x, C),
    "gate of channels expanded": (lambda x: x * x.mean((2, 3), keepdim=True).sigmoid().expand_as(x), C),
    "gate of pixels": (lambda x: x * x.mean(1, keepdim=True).sigmoid(), C),
    "gate of images": (lambda x: x * x.mean((1, 2, 3), keepdim=True), (1, 4, 4)),
    "add to channels": (lambda x: x + x.mean((2, 3), keepdim=True), C),
    "cat": (lambda x: torch.cat([x.relu(), x.sigmoid(), x], 1), C),
    "cat of vectors": (lambda x: torch.cat([x.relu(), x.sigmoid()], -1), (6,)),
    "cat of parts": (lambda x: torch.cat([x[:, 4:], x[:, :4]], 1), C),
    "cat with zeros like it": (lambda x: torch.cat([x, torch.zeros_like(x)], 1), C),
    "cat with zeros": (lambda x: torch.cat([x, torch.zeros(x.shape[0], 2, *x.shape[2:])], 1), C),
    "cat of pixels": (
        lambda x: torch.cat([x[..., a::2, b::2] for a in (0, 1) for b in (0, 1)], 1),
        (3, 8, 6),
    ),
    "chunk": (lambda x: x.chunk(2, 1)[1].relu() + x.chunk(2, 1)[0], C),
    "split": (lambda x: x.split([1, 5], 1)[1], C),
    "slice of channels": (lambda x: x[:, 1::2], C),
    "slice of pixels": (lambda x: x[:, :, 1:8:2, 2:], C),
    "one pixel": (lambda x: x[:, :, 3, 2], C),
    "index": (lambda x: x[:, torch.tensor([3, 3, 0])], C),
    "flip of channels": (lambda x: x.flip(1), C),
    "shuffle": (nn.ChannelShuffle(3), C),
    "shuffle by views": (lambda x: x.view(x.shape[0], 3, 2, 9, 7).transpose(1, 2).reshape(x.shape), C),
    "relu of a shuffled view": (
        lambda x: x.view(x.shape[0], 3, 2, 9, 7).relu().transpose(1, 2).flatten(1, 2),
        C,
    ),
    "pixel unshuffle": (nn.PixelUnshuffle(2), (3, 4, 6)),
    "option A": (lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)), C),
    "flatten": (lambda x: x.flatten(1), C),
    "view": (lambda x: x.view(x.size(0), -1).relu(), C),
    "permuted flatten": (nn.Sequential(Function(lambda x: x.permute(0, 2, 3, 1).flatten(1)), nn.Linear(378, 2)), C),
    "squeeze": (lambda x: x.mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1).unsqueeze(2).unsqueeze(3).flatten(1), C),
    "dropout": (nn.Sequential(nn.Dropout(), nn.Dropout2d(), nn.Identity(), nn.ReLU()), C),
    "dropout in place": (nn.Sequential(nn.Conv2d(6, 2, 1), nn.Dropout(inplace=True), nn.ReLU(inplace=True)), C),
    "clone": (lambda x: x.clone().contiguous().detach().relu(), C),
    "softmax": (nn.Softmax(dim=1), (5,)),
    "softmax of pixels that are one": (lambda x: x.softmax(1), (5, 1, 1)),
    "pad": (nn.ZeroPad2d((1, 2, 3, 0)), C),
    "pad before conv": (nn.Sequential(nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(6, 3, 3, padding=(1, 0))), C),
    "pad twice before conv": (nn.Sequential(nn.ZeroPad2d(1), nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(6, 3, 5)), C),
    "pad more than the kernel": (nn.Sequential(nn.ZeroPad2d(3), nn.Conv2d(6, 3, 3)), C),
    "pad then relu": (nn.Sequential(nn.ZeroPad2d(1), nn.ReLU(), nn.Conv2d(6, 3, 3)), C),
    "crop": (nn.ZeroPad2d(-1), C),
    "half precision inside": (lambda x: x.double().float().relu(), C),
    "nothing": (nn.Identity(), C),
    "a constant that is computed": (lambda x: x * (torch.arange(6.0) + 1).sqrt().view(-1, 1, 1), C),
}


@pytest.mark.parametrize("name", SINGLES)
def test_single_operators(name):
    graphs(*SINGLES[name])


FREE = {
    "dropout": ["activate"], "clone": ["activate"], "squeeze": ["global_pool"], "cat of parts": ["gather"],
    "chunk": ["gather", "activate", "gather", "add"], "shuffle": ["gather"], "view": ["activate", "flatten"],
    "shuffle by views": ["gather"], "pad before conv": ["conv"], "pad twice before conv": ["conv"],
    "avg_pool behind zeros": ["avg_pool"], "max_pool behind minus infinity": ["max_pool"], "crop": ["conv"],
    "adaptive to none": ["activate"], "pad more than the kernel": ["conv", "conv"], "option A": ["conv"],
    "cat of pixels": ["conv"], "one pixel": ["flatten", "gather"], "index": ["gather"],
    "mean behind a permutation": ["global_pool"], "mean of a flattened picture": ["global_pool"],
}  # fmt: skip


@pytest.mark.parametrize("name", FREE)
def test_what_only_moves_numbers_costs_little(name):
    network, shape = SINGLES[name]
    network = network if isinstance(network, nn.Module) else Function(network)
    assert kinds(captured(network.eval(), torch.zeros(1, *shape))) == FREE[name]


# ---- the table of operators


def overloads(name):
    packet = getattr(torch.ops.aten, name, None) or getattr(torch.ops.prunery, name, None)
    return [getattr(packet, o) for o in packet.overloads()] if packet else []


@pytest.mark.parametrize("name", OPERATORS)
def test_functions_take_what_torch_gives(name):
    found = [o for o in overloads(name) if not any(a.is_out for a in o._schema.arguments)]
    assert found
    for overload in found:
        arguments = overload._schema.arguments
        given = {"x" if a.name in ("self", "input") else a.name: None for a in arguments}
        if "generator" in given or not {"Tensor", "List[Tensor]"} & {str(a.type) for a in arguments}:
            continue
        inspect.signature(OPERATORS[name]).bind(None, **given)


@pytest.mark.parametrize("name", MOVES)
def test_moves_are_torchs(name):
    assert overloads(name)


# ---- networks


class Own(nn.Module):
    """What people write: functions, sums before and after, parts that are called twice, branches, a stem in place."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Buffer(torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1))
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.narrow = nn.Conv2d(16, 6, 1)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = (x - self.mean) / 0.25
        x = self.relu(self.stem(x))
        x = x + self.norm(self.shared(x))
        x = F.relu(x)
        y = self.norm(self.shared(F.relu(self.norm(x))))
        x = torch.cat([x, y + x], dim=1)
        x = F.max_pool2d(self.relu(self.narrow(x)), 2)
        x *= self.scale
        x = F.adaptive_avg_pool2d(x, (1, 1))
        x = torch.flatten(x, 1)
        return self.head(F.dropout(x, training=self.training))


def test_a_network_of_ones_own():
    plain, low = graphs(Own(), (3, 12, 12))
    assert {op.name for op in low.ops} >= {"stem", "shared", "narrow", "head"}
    assert "affine" not in kinds(low)[2:] or len(low.ops) < len(plain.ops)


class WritesOver(nn.Module):
    """The same tensor before and after something has written over it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        y = self.conv(x)
        z = y.view(y.shape[0], -1)
        y.relu_()
        return z.view(x.shape) + self.conv(y)


def half_in_place(x):
    y = x.sigmoid()
    y.chunk(2, 1)[1].sub_(1)
    return y.relu() * x


def assigned(x):
    y = x.clone()
    y[:, 1:3] = x[:, :2].relu()
    return y


def zeroed(x):
    y = x.clone()
    y[:, 2:] = 0
    return y


OVER = {
    "zeroed": (zeroed, (4, 3, 3)),
    "whole": (WritesOver(), (3, 4, 4)),
    "half": (half_in_place, (6, 4, 4)),
    "assigned": (assigned, (4, 3, 3)),
}


@pytest.mark.parametrize("name", OVER)
def test_what_is_written_over_is_read_as_it_is_then(name):
    graphs(*OVER[name])


NETWORKS = {
    "lenet_300_100": (1, 28, 28), "lenet5": (1, 28, 28), "conv2": (3, 32, 32), "conv6": (3, 32, 32),
    "resnet20": (3, 32, 32), "resnet18": (3, 16, 16), "vgg19": (3, 16, 16),
    "torchvision:resnet18": (3, 40, 48), "torchvision:densenet121": (3, 32, 32), "mobilenet_v2": (3, 32, 32),
    "torchvision:mobilenet_v3_small": (3, 40, 40), "efficientnet_b0": (3, 32, 32),
    "torchvision:squeezenet1_1": (3, 40, 40), "torchvision:shufflenet_v2_x0_5": (3, 32, 32),
    "torchvision:regnet_y_400mf": (3, 32, 32), "torchvision:mnasnet0_5": (3, 32, 32),
    "torchvision:googlenet": (3, 32, 32), "timm:lcnet_035": (3, 32, 32),
    "timm:tf_mobilenetv3_small_minimal_100": (3, 33, 33),
}  # fmt: skip


def tiny(name):
    """A network, at an input at which it is quick."""
    return build(Model(name=name, input=NETWORKS[name], classes=10), 0)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    plain, low = graphs(tiny(name), NETWORKS[name])
    assert len(low.ops) < len(plain.ops)
    assert all(op.weight is None or op.weight.dtype == "float32" for op in low.ops)
    pictures = {op.kind for op in low.ops if not low.tensors[op.output].is_vector}
    assert not {"affine", "add", "activate"} & pictures or name in BETWEEN


BETWEEN = ("torchvision:densenet121",)
"""normalisation between a concat that others read too, and a convolution"""


def test_interpreted_is_the_network_again():
    network = tiny("lenet5").eval()
    images = torch.randn(2, 1, 28, 28)
    again = Interpreted(lowered(network, images))
    assert difference(again(images), network(images)) < 1e-5
    assert sum(b.numel() for b in again.buffers()) == sum(p.numel() for p in network.parameters())


def test_float16_networks_and_training_mode_are_taken_as_they_are():
    network = tiny("lenet5").half().train()
    graph = lowered(network, torch.randn(2, 1, 28, 28))
    assert kinds(graph).count("conv") == 2
    assert network.training
    assert next(network.parameters()).dtype == torch.float16


# ---- what is refused


class At(nn.Module):
    """A module at a path, between others."""

    def __init__(self, inner):
        super().__init__()
        self.first = nn.Conv2d(4, 4, 1)
        self.body = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Identity(), inner))

    def forward(self, x):
        return self.body(self.first(x))


P = "body.1.1"
REFUSED = {
    "layer_norm": (nn.LayerNorm((4, 6, 6)), f"{P} (LayerNorm): layer_norm"),
    "group_norm": (nn.GroupNorm(2, 4), f"{P} (GroupNorm): group_norm"),
    "instance_norm": (nn.InstanceNorm2d(4), f"{P} (InstanceNorm2d): instance_norm"),
    "batch norm without statistics": (nn.BatchNorm2d(4, track_running_stats=False), f"{P} (BatchNorm2d): batch_norm"),
    "upsample": (nn.Upsample(scale_factor=2), f"{P} (Upsample): upsample_nearest2d"),
    "transposed": (nn.ConvTranspose2d(4, 2, 2), f"{P} (ConvTranspose2d): conv_transpose2d"),
    "gelu": (nn.GELU("tanh"), f"{P} (GELU): gelu"),
    "mish": (nn.Mish(), f"{P} (Mish): mish"),
    "exp": (Function(torch.exp), f"{P} (Function): exp"),
    "log_softmax": (nn.Sequential(nn.Flatten(), nn.LogSoftmax(1)), f"{P}.1 (LogSoftmax): log_softmax"),
    "softmax of channels": (nn.Softmax2d(), f"{P} (Softmax2d): softmax"),
    "reflection": (nn.ReflectionPad2d(1), f"{P} (ReflectionPad2d): "),
    "padding with ones": (nn.ConstantPad2d(1, 1.0), f"{P} (ConstantPad2d): pad"),
    "reflecting conv": (nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect"), f"{P} (Conv2d): pad"),
    "attention": (Function(lambda x: x.flatten(2) @ x.flatten(2).transpose(1, 2)), f"{P} (Function): matmul"),
    "tokens": (nn.Sequential(nn.Flatten(2), nn.Linear(36, 3)), f"{P}.1 (Linear): linear"),
    "transposed picture": (Function(lambda x: x.transpose(2, 3).relu()), f"{P} (Function): relu reads"),
    "cat of rows": (Function(lambda x: torch.cat([x.relu(), x], 2)), f"{P} (Function): cat"),
    "cat of ones": (Function(lambda x: torch.cat([x, torch.ones_like(x)], 1)), f"{P} (Function): cat"),
    "cat of images": (Function(lambda x: torch.cat([x, x], 0)), f"{P} (Function): cat"),
    "mean of images": (Function(lambda x: x - x.mean(0, keepdim=True)), f"{P} (Function): mean"),
    "mean of everything": (Function(lambda x: x / 2 * x.mean()), f"{P} (Function): mean"),
    "shuffled images": (Function(lambda x: x.flip(0)), f"{P} (Function): flip"),
    "images as channels": (Function(lambda x: x.reshape(1, -1, 6, 6)), f"{P} (Function): "),
    "images among channels": (Function(lambda x: x.transpose(0, 1)), f"{P} (Function): transpose"),
    "dividing": (Function(lambda x: x / x.mean((2, 3), keepdim=True)), f"{P} (Function): div"),
    "comparing": (Function(lambda x: x * (x > 0)), f"{P} (Function): gt"),
    "positions": (Function(lambda x: x + torch.arange(36.0).reshape(6, 6)), f"{P} (Function): add"),
    "larger by a constant": (Function(lambda x: x[:, :1] * torch.ones(3, 1, 1)), f"{P} (Function): mul"),
    "uneven pool": (nn.AdaptiveAvgPool2d(4), f"{P} (AdaptiveAvgPool2d): adaptive_avg_pool2d"),
    "uneven pool, then conv": (
        nn.Sequential(nn.AdaptiveAvgPool2d(9), nn.Conv2d(4, 2, 3)),
        f"{P}.1 (Conv2d): conv2d",
    ),
    "indices": (nn.MaxPool2d(2, return_indices=True), f"{P} (MaxPool2d): max_pool2d_with_indices has no result 1"),
    "two results": (Function(lambda x: (x, x + 1)), "the network returns 2 results"),
    "max_pool whose last windows begin in the padding": (
        Function(lambda x: F.max_pool2d(F.pad(x, (0, 0, 0, 1), value=-torch.inf), 2, 2, ceil_mode=True)),
        f"{P} (Function): max_pool2d",
    ),
    "a constant": (Function(lambda x: torch.ones(2, 3)), "the network returns 1 results"),
    "dropout that stays": (Function(lambda x: F.dropout(x, training=True)), f"{P} (Function): dropout"),
    "weights from images": (
        Function(lambda x: F.conv2d(torch.ones(1, 4, 8, 8), x)),
        f"{P} (Function): conv2d computes its weights",
    ),
    "parts written": (Function(lambda x: x.index_fill(1, torch.tensor([1]), 0.0)), f"{P} (Function): index_fill"),
    "course that depends on values": (Function(lambda x: x if x.sum() > 0 else -x), "torch.export cannot follow At"),
    "large kernel": (nn.Sequential(nn.ZeroPad2d(150), nn.MaxPool2d(300)), f"{P}.1 (MaxPool2d): max_pool2d has a"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_operator_and_the_module(name):
    inner, words = REFUSED[name]
    with pytest.raises(Refused) as refused:
        captured(At(inner).eval(), torch.zeros(1, 4, 6, 6))
    said = str(refused.value)
    assert words in said
    assert "\n" not in said
    assert len(said) < 400
    assert "; " in said, "what can be done is missing"


@pytest.mark.parametrize("example", [None, torch.zeros(3), torch.zeros(0, 3, 4, 4), torch.zeros(1, 2, 3)])
def test_examples_are_batches(example):
    with pytest.raises(Refused, match=r"pack: example .*expected a batch of"):
        given.a_batch(example, "pack")


class Lucky(nn.Module):
    def forward(self, x):
        return x * torch.rand(1)


def test_networks_that_torch_has_pruned_are_taken_as_they_are():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2))
    for layer in (network[0], network[3]):
        prune.l1_unstructured(layer, "weight", 0.75)
    graph = lowered(network, torch.randn(2, 3, 5, 5))
    assert [np.mean(op.weight != 0) for op in graph.ops if op.weight is not None] == [0.25, 0.25]
    assert prune.is_pruned(network)


def test_chance_is_refused():
    with pytest.raises(Refused, match="each time"):
        lowered(Lucky(), torch.randn(2, 3))


def test_results_that_are_not_numbers_are_refused():
    network = nn.Sequential(nn.Linear(3, 2))
    network[0].weight.data[0, 0] = torch.nan
    with pytest.raises(Refused, match="not finite"):
        lowered(network, torch.randn(2, 3))


@pytest.mark.parametrize("where", ["captured", "lowered"])
def test_the_first_module_that_differs_is_named(where, monkeypatch):
    """An engine that is wrong says where."""
    from prunery.engine import operators, rules

    if where == "captured":
        monkeypatch.setitem(OPERATORS, "sigmoid", lambda net, x: operators.pointwise(net, x, "tanh"))
    else:
        monkeypatch.setattr(rules, "bias_of", lambda op: 0.1 + 0 * rules.numbers(op.weight)[:, 0].astype("float64"))
    layers = [nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.Sigmoid(), nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)]
    with pytest.raises(Refused, match=r"^3: the engine's" if where == "captured" else r"^4: the engine's"):
        lowered(settled(nn.Sequential(*layers)), torch.randn(1, 3, 5, 5))


class Chaos(nn.Module):
    """The logistic map, whose results in float32 and in float64 have nothing to do with each other."""

    def forward(self, x):
        x = x.sigmoid()
        for _ in range(60):
            x = 4 * x * (1 - x)
        return x


def test_rounding_that_a_network_magnifies_is_no_error_of_the_engine():
    with pytest.raises(Refused, match="magnifies rounding: its own results"):
        lowered(settled(nn.Sequential(nn.Linear(50, 9), nn.BatchNorm1d(9), Chaos())), torch.randn(2, 50))
