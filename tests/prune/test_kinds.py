"""Kinds of layers: the same words for torchvision's and timm's networks, in every setting that takes names."""

import pytest
import torch
from torch import nn

from prunery.masks import prunable
from prunery.models import build
from prunery.pruning import KINDS, Known, eligible, kinds, pruned
from prunery.spec import Model, Prune, Refused


class SqueezeExcitation(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, x):
        return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Fire(nn.Module):
    """SqueezeNet's: its squeeze is an ordinary pointwise convolution."""

    def __init__(self):
        super().__init__()
        self.squeeze = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.squeeze(x)


def network():
    layers = [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), SqueezeExcitation(8), nn.Conv2d(8, 8, 1), Fire()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


FOUND = {"stem": ["0"], "head": ["7"], "depthwise": ["1"], "pointwise": ["3", "4.squeeze"],
         "squeeze": ["2.fc1", "2.fc2"]}  # fmt: skip


def known():
    return Known([(torch.randn(2, 3, 12, 12), torch.zeros(2, dtype=torch.int64))])


def mask_of(**settings):
    return pruned(network(), {}, Prune(density=0.5, **settings), known(), torch.Generator())[0]


def test_kinds_of_a_small_network():
    assert kinds(network()) == FOUND
    assert set(FOUND) == set(KINDS)


@pytest.mark.parametrize("name", ["efficientnet_b0", "timm:efficientnet_b0"])
def test_kinds_of_efficientnet(name):
    net = build(Model(name=name, input=(3, 32, 32), classes=10), 0)
    found = kinds(net)
    assert {k: len(v) for k, v in found.items()} == {
        "stem": 1, "head": 1, "depthwise": 16, "pointwise": 32, "squeeze": 32,
    }  # fmt: skip
    assert len({n for names in found.values() for n in names}) == len(prunable(net)) == 82


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_left_whole(kind):
    left = {n.removesuffix(".weight") for n in eligible(network(), Prune(exclude=(f"kind:{kind}",)))}
    assert left == {n.removesuffix(".weight") for n in prunable(network())} - set(FOUND[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_alone_is_pruned_now(kind):
    mask = mask_of(layers=(f"kind:{kind}",), scope="layer")
    assert {n.removesuffix(".weight") for n, m in mask.items() if not m.all()} == set(FOUND[kind])


def test_a_kind_has_a_density_of_its_own():
    mask = mask_of(scope="table", table=("kind:pointwise=0.25", "kind:depthwise=0.5", "2.fc1=0.125"))
    shares = {n.removesuffix(".weight"): float(m.float().mean()) for n, m in mask.items()}
    assert shares == {"0": 1, "1": pytest.approx(0.5), "2.fc1": 0.125, "2.fc2": 1, "3": 0.25, "4.squeeze": 0.25, "7": 1}


def test_unknown_and_missing_kinds_are_refused():
    with pytest.raises(Refused, match=r'prune\.exclude: a kind of layer = "deepwise" is unknown; .*did you mean dep'):
        mask_of(exclude=("kind:deepwise",))
    with pytest.raises(Refused, match=r'prune\.layers = "kind:depthwise" meets no layer here'):
        eligible(nn.Sequential(nn.Linear(2, 2)), Prune(layers=("kind:depthwise",)))
