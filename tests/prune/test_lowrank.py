"""Low rank on awkward layers: ranks that a window cannot hold, weights that others read, modes, and refusals."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunery.measure import count, totals
from prunery.pruning import factorise
from prunery.pruning.lowrank import Layer, _row
from prunery.spec import Refused

RNG = torch.Generator().manual_seed(0)
NARROW = {
    "more outputs than the window can tell apart": (nn.Conv2d(1, 16, 3), (9, 1)),
    "more inputs than the window can tell apart": (nn.Conv2d(32, 2, 3), (2, 18)),
    "one place high": (nn.Conv2d(2, 9, (3, 1)), (6, 2)),
}


@pytest.mark.parametrize(("module", "full"), NARROW.values(), ids=NARROW.keys())
def test_ranks_are_no_higher_than_the_other_sides_allow(module, full):
    layer, x = Layer("x", module, 1.0, 1.0), torch.randn(2, module.in_channels, 6, 6, generator=RNG)
    assert layer.full == full
    for ranks in (layer.ranks_by_share(1.0), layer.ranks_by_number(100), layer.ranks_by_energy(1.0)):
        assert ranks == full
    with torch.no_grad():
        torch.testing.assert_close(_row(layer, full)(x), module(x), rtol=1e-5, atol=1e-5)
    for energy in (0.1, 0.5, 0.9):
        row = _row(layer, layer.ranks_by_energy(energy))
        assert [tuple(m.weight.shape[:2]) for m in row][1] == layer.ranks_by_energy(energy)


class Net(nn.Module):
    """What low rank must do or leave alone: windows, 1x1, depthwise, tied and uncalled weights, a layer used twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.deep = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.mix = nn.Conv2d(16, 32, 1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.down = nn.Conv2d(32, 32, 3, stride=2, padding=1)
        self.again = nn.Linear(32, 32)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.tied, self.tied_too = nn.Linear(32, 32), nn.Linear(32, 32)
        self.tied_too.weight = self.tied.weight
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = self.down(F.relu(self.norm(self.mix(self.deep(self.stem(x)))))).flatten(2).transpose(1, 2)
        x = self.again(F.relu(self.again(x)))
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.tied_too(self.tied(x)).mean(1))


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def work(network):
    return totals(count(network, (3, 8, 8)))["multiply_adds"]


def rows(network):
    return {n for n, m in network.named_modules() if type(m) is nn.Sequential}


@pytest.mark.parametrize("how", [{"rank": 0.3}, {"rank": 2}, {"energy": 0.7}, {"multiply_adds": 0.5}], ids=str)
def test_weights_that_somebody_else_reads_stay(how):
    smaller = factorise(Net(), X, **how)
    assert {"mix", "down", "again"} & rows(smaller)
    assert rows(smaller) <= {"stem", "mix", "down", "again", "head"}
    assert work(smaller) < work(Net())
    smaller(X).sum().backward()
    assert all(p.grad is not None for p in smaller.parameters())


class Often(nn.Module):
    """Three quarters of the work are one layer's."""

    def __init__(self):
        super().__init__()
        self.again, self.once = nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, x):
        return self.once(self.again(F.relu(self.again(F.relu(self.again(x))))))


def test_a_layer_counts_as_often_as_it_is_used():
    smaller = factorise(Often(), torch.randn(2, 32), multiply_adds=0.6, layers=("again",))
    rank = len(smaller.again[0].weight)
    assert 3 * rank * 64 + 1024 <= 0.6 * 4096 < 3 * (rank + 1) * 64 + 1024


def test_modes_and_what_trains_stay():
    network = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20)).train()
    network[1].eval().requires_grad_(False)
    smaller = factorise(network, torch.randn(2, 20), rank=3)
    assert [m.training for m in smaller] == [True, False]
    assert [p.requires_grad for p in smaller[0].parameters()] == [True] * 3
    assert [p.requires_grad for p in smaller[1].parameters()] == [False] * 3


def spoilt():
    network = Net()
    with torch.no_grad():
        network.mix.weight[0, 0] = torch.nan
    return network


REFUSED = {
    "a text": (Net, {"rank": "half"}, 'factorise.rank = "half" is not allowed'),
    "layers that cannot": (Net, {"rank": 1, "layers": ("deep",)}, "saves nothing in any layer; expected less"),
    "weights that diverged": (spoilt, {"rank": 2}, "mix.weight holds NaN or infinity"),
    "a network of one layer": (lambda: nn.Conv2d(3, 8, 3), {"rank": 1}, "the network is itself a layer, Conv2d"),
    "an example of another shape": (lambda: nn.Sequential(nn.Linear(9, 9)), {"rank": 1}, "cannot take the example, [2"),
}


@pytest.mark.parametrize(("make", "how", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_is_refused_in_one_line(make, how, said):
    with pytest.raises(Refused) as refused:
        factorise(make(), X, **how)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
