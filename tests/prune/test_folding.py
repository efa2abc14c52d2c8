"""Laws of folding normalisation into layers: the same outputs, and nothing left to fold."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunery.models import build
from prunery.pruning import fold_batchnorm
from prunery.spec import Model


class Net(nn.Module):
    def __init__(self, run, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.run = run

    def forward(self, x):
        return self.run(self, x)


def chain(n, x):
    return F.relu(n.bn(n.a(x)))


def also_read(n, x):
    y = n.a(x)
    return n.bn(y) + y


def read_later(n, x):
    y = n.a(x)
    z = n.bn(y)
    return torch.cat([z, y], 1)


def twice(n, x):
    return n.bn(n.b(n.bn(n.a(x))))


def layer_twice(n, x):
    return n.bn(n.a(n.a(x)))


def between(n, x):
    return n.bn(F.relu(n.a(x)))


def looked_at(n, x):
    y = n.a(x)
    return n.bn(y) if y.shape[1] == 4 and y.dim() == 4 else y


def flat(n, x):
    return n.bn(n.a(x.flatten(1)))


def rows(n, x):
    return n.bn(n.a(x.flatten(2)))


def conv(i, o, **more):
    return nn.Conv2d(i, o, 3, **({"padding": 1} | more))


BN = nn.BatchNorm2d
NETS = {
    "biased": (chain, {"a": conv(3, 4), "bn": BN(4)}, 1),
    "without bias": (chain, {"a": conv(3, 4, bias=False), "bn": BN(4)}, 1),
    "in groups": (chain, {"a": conv(3, 6, groups=3), "bn": BN(6)}, 1),
    "reflected": (chain, {"a": conv(3, 4, padding_mode="reflect"), "bn": BN(4)}, 1),
    "without scales": (chain, {"a": conv(3, 4), "bn": BN(4, affine=False)}, 1),
    "linear": (flat, {"a": nn.Linear(192, 5), "bn": nn.BatchNorm1d(5)}, 1),
    "its shape is asked": (looked_at, {"a": conv(3, 4), "bn": BN(4)}, 1),
    "of a batch": (chain, {"a": conv(3, 4), "bn": BN(4, track_running_stats=False)}, 0),
    "read by another": (also_read, {"a": conv(3, 4), "bn": BN(4)}, 0),
    "read later": (read_later, {"a": conv(3, 4), "bn": BN(4)}, 0),
    "normalisation used twice": (twice, {"a": conv(3, 4), "b": conv(4, 4), "bn": BN(4)}, 0),
    "layer used twice": (layer_twice, {"a": conv(3, 3), "bn": BN(3)}, 0),
    "an activation between": (between, {"a": conv(3, 4), "bn": BN(4)}, 0),
    "over rows of a linear layer": (rows, {"a": nn.Linear(64, 3), "bn": nn.BatchNorm1d(3)}, 0),
    "transposed": (chain, {"a": nn.ConvTranspose2d(3, 4, 3), "bn": BN(4)}, 0),
}  # fmt: skip
EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def randomised(network):
    rng = torch.Generator().manual_seed(7)
    for m in network.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            for t in (m.weight, m.bias, m.running_mean, m.running_var):
                if t is not None:
                    t.data.copy_(torch.rand(t.shape, generator=rng) + 0.5)
    return network.eval()


def made(name):
    run, layers, _ = NETS[name]
    return randomised(Net(run, **copy.deepcopy(layers)))


def alike(a, b, x):
    with torch.no_grad():
        want, got = a(x), b(x)
    return float((want - got).abs().max()) <= 1e-5 * float(want.abs().max())


def norms(network):
    return sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())


@pytest.mark.parametrize("name", NETS)
def test_folded_where_it_may_be_and_the_same_outputs_everywhere(name):
    network = made(name)
    folded = fold_batchnorm(network, EXAMPLE)
    assert norms(network) - norms(folded) == NETS[name][2]
    assert alike(network, folded, EXAMPLE + 1)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in (*network.modules(), *folded.modules()))


@pytest.mark.parametrize(
    ("name", "side", "left"),
    [("resnet20", 32, 0), ("vgg16_bn", 32, 0), ("mobilenet_v2", 32, 0), ("torchvision:densenet121", 32, 62)],
)
def test_networks_lose_all_normalisation_that_follows_a_layer(name, side, left):
    """DenseNet's stands before the convolutions, but for the first and the second of each layer."""
    network = randomised(build(Model(name=name, input=(3, side, side), classes=10), 0))
    folded = fold_batchnorm(network, torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1)))
    assert norms(folded) == left
    assert alike(network, folded, torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(2)))


def test_the_network_itself_is_left_alone():
    network = made("biased").train()
    before = {n: t.clone() for n, t in network.state_dict().items()}
    fold_batchnorm(network, EXAMPLE)
    assert network.training
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())
