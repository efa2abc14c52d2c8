"""Laws of low rank: full rank is the layer itself, less rank is less work and more error, counts are what is said."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunery.measure import count, totals
from prunery.models import build
from prunery.pruning import factorise
from prunery.pruning.lowrank import Layer, _row, _svd, _tucker
from prunery.spec import Model, Refused


class Net(nn.Module):
    """A strided and a dilated convolution, one of 1x1, one in groups, and linear layers."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.b = nn.Conv2d(12, 16, 3, padding=2, dilation=2, bias=False)
        self.c = nn.Conv2d(16, 12, 1, stride=2)
        self.d = nn.Conv2d(12, 12, 3, padding=1, groups=2)
        self.fc, self.head = nn.Linear(12, 10), nn.Linear(10, 4, bias=False)

    def forward(self, x):
        x = F.relu(self.c(F.relu(self.b(F.relu(self.a(x))))))
        return self.head(F.relu(self.fc(self.d(x).mean((2, 3)))))


def made():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().eval()


X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
SHAPE = (3, 16, 16)


def outputs(network, x=X):
    with torch.no_grad():
        return network(x)


def work(network, shape=SHAPE):
    return totals(count(network, shape))["multiply_adds"]


def layer_of(module, uses=1.0):
    return Layer("it", module, uses, uses)


LAYERS = {
    "linear": (nn.Linear(9, 6), (5, 9)),
    "wide": (nn.Linear(4, 11, bias=False), (5, 4)),
    "convolution": (nn.Conv2d(5, 7, 3, padding=1), (2, 5, 8, 8)),
    "strided": (nn.Conv2d(5, 7, 3, stride=2), (2, 5, 9, 9)),
    "dilated": (nn.Conv2d(5, 7, (3, 2), dilation=2, padding="same", bias=False), (2, 5, 8, 8)),
    "1x1": (nn.Conv2d(5, 7, 1, stride=(1, 2)), (2, 5, 8, 8)),
    "padded 1x1": (nn.Conv2d(5, 7, 1, padding=1), (2, 5, 8, 8)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_full_rank_is_the_layer_itself(name):
    module, shape = LAYERS[name]
    x, layer = torch.randn(shape, generator=torch.Generator().manual_seed(2)), layer_of(module)
    row = _row(layer, layer.ranks_by_share(1.0))
    torch.testing.assert_close(outputs(row, x), outputs(module, x), rtol=1e-5, atol=1e-5)
    assert len(row) == (3 if layer.tucker else 2)
    assert (row[-1].bias is not None) == (module.bias is not None)


@pytest.mark.parametrize("name", LAYERS)
def test_error_falls_with_rank(name):
    module, _ = LAYERS[name]
    layer, w = layer_of(module), module.weight.detach().double()
    errors = []
    for rank in range(1, max(map(len, layer.spectra)) + 1):
        ranks = layer.ranks_by_number(rank)
        if layer.tucker:
            outer, core, inner = _tucker(layer.weight, *ranks)
            near = torch.einsum("or,rs...,is->oi...", outer, core, inner)
        else:
            left, right = _svd(layer.weight.flatten(1), ranks[0])
            near = (left @ right).view(w.shape)
        errors.append(float((near - w).square().sum()))
    assert all(b <= a * (1 + 1e-6) + 1e-10 for a, b in pairwise(errors))
    assert errors[-1] < 1e-10 < errors[0]


@pytest.mark.parametrize("name", ["linear", "wide", "1x1"])
def test_of_all_matrices_of_a_rank_the_nearest_is_taken(name):
    """Eckart and Young: what is lost is the sum of the other squared singular values."""
    layer = layer_of(LAYERS[name][0])
    matrix = layer.weight.flatten(1)
    for rank in (1, 2, 3):
        left, right = _svd(matrix, rank)
        lost = float((matrix - left @ right).square().sum())
        assert lost == pytest.approx(float(layer.spectra[0][rank:].sum()), rel=1e-6)


def test_tucker_finds_a_weight_that_has_that_rank():
    rng = torch.Generator().manual_seed(3)
    core, outer, inner = (torch.randn(s, generator=rng, dtype=torch.float64) for s in ((2, 3, 3, 3), (8, 2), (6, 3)))
    weight = torch.einsum("or,rs...,is->oi...", outer, core, inner)
    u, g, v = _tucker(weight, 2, 3)
    torch.testing.assert_close(torch.einsum("or,rs...,is->oi...", u, g, v), weight)
    torch.testing.assert_close(u.T @ u, torch.eye(2).double())
    torch.testing.assert_close(v.T @ v, torch.eye(3).double())


def test_iterations_do_not_make_it_worse_than_the_higher_order_svd(monkeypatch):
    weight = torch.randn(10, 8, 3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    errors = []
    for turns in (0, 1, 3):
        monkeypatch.setattr("prunery.pruning.lowrank.ITERATIONS", turns)
        u, g, v = _tucker(weight, 4, 3)
        errors.append(float((torch.einsum("or,rs...,is->oi...", u, g, v) - weight).square().sum()))
    assert errors[0] >= errors[1] >= errors[2]


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999, 1.0])
def test_energy_keeps_the_smallest_ranks_that_hold_it(share):
    layer = layer_of(LAYERS["convolution"][0])
    for squares, rank in zip(layer.spectra, layer.ranks_by_energy(share), strict=True):
        assert float(squares[:rank].sum()) >= share * float(squares.sum()) * (1 - 1e-9)
        assert rank == 1 or float(squares[: rank - 1].sum()) < share * float(squares.sum())


@pytest.mark.parametrize("how", [{"rank": 0.3}, {"rank": 2}, {"energy": 0.6}, {"multiply_adds": 0.5}], ids=str)
def test_a_row_stands_only_where_it_saves_work_as_it_is_counted(how):
    network = made()
    smaller = factorise(network, X, **how)
    assert work(smaller) < work(network)
    rows = {}
    for row in count(smaller, SHAPE):
        name = row.name.split(".")[0]
        rows[name] = rows.get(name, 0) + row.multiply_adds
    before = {row.name: row.multiply_adds for row in count(network, SHAPE) if row.name}
    for name, cost in before.items():
        replaced = isinstance(smaller.get_submodule(name), nn.Sequential)
        assert rows[name] < cost if replaced else rows[name] == cost
    assert isinstance(smaller.d, nn.Conv2d)  # in groups


@pytest.mark.parametrize("target", [0.9, 0.7, 0.5, 0.35])
def test_a_budget_is_met_from_below_and_not_by_far(target):
    network = made()
    share = work(factorise(network, X, multiply_adds=target)) / work(network)
    assert target - 0.1 < share <= target


def test_more_budget_less_error():
    network = made()
    errors = [
        float((outputs(factorise(network, X, multiply_adds=t)) - outputs(network)).square().sum()) for t in (0.35, 0.9)
    ]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("name", ["lenet5", "lenet_300_100", "convnet", "resnet20"])
def test_named_networks_keep_their_shape_and_meet_their_budget(name):
    shape = {"convnet": (1, 8, 8), "resnet20": (3, 16, 16)}.get(name, (1, 28, 28))
    network = build(Model(name=name, input=shape, classes=10), 0).eval()
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    smaller = factorise(network, x, multiply_adds=0.8)
    assert work(smaller, shape) <= 0.8 * work(network, shape)
    assert outputs(smaller, x).isfinite().all()
    assert outputs(smaller, x).shape == (2, 10)


def test_only_the_layers_that_are_meant():
    smaller = factorise(made(), X, rank=1, layers=("b", "f*"))
    kinds = {n: type(m).__name__ for n, m in smaller.named_children()}
    assert kinds == {
        "a": "Conv2d",
        "b": "Sequential",
        "c": "Conv2d",
        "d": "Conv2d",
        "fc": "Sequential",
        "head": "Linear",
    }


def test_the_network_is_left_as_it_was_and_the_copy_has_its_mode_and_trains():
    network = made().train()
    before = {n: t.clone() for n, t in network.state_dict().items()}
    smaller = factorise(network, X, rank=0.3)
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())
    assert smaller.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in [*network.modules(), *smaller.modules()])
    smaller(X).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in smaller.parameters())


def test_doubles_stay_doubles():
    smaller = factorise(made().double(), X.double(), rank=0.3)
    assert {p.dtype for p in smaller.parameters()} == {torch.float64}


REFUSED = [
    ({}, "exactly one"),
    ({"rank": 0.5, "energy": 0.5}, "exactly one"),
    ({"rank": 0}, "rank = 0"),
    ({"rank": -1}, "rank = -1"),
    ({"rank": 1.5}, "rank = 1.5"),
    ({"rank": True}, "rank"),
    ({"rank": float("nan")}, "rank = nan"),
    ({"energy": 2}, "energy = 2"),
    ({"energy": 0.0}, "energy = 0"),
    ({"multiply_adds": 1.01}, "multiply_adds = 1.01"),
    ({"multiply_adds": 0.001}, "cannot be reached: rank 1 everywhere leaves"),
    ({"rank": 1.0}, "saves nothing"),
    ({"rank": 0.5, "layers": ("nope",)}, "nope meets no layer; the layers are a, b, c, d, fc, head"),
]


@pytest.mark.parametrize(("how", "text"), REFUSED)
def test_bad_requests_are_one_line(how, text):
    with pytest.raises(Refused, match=text) as refusal:
        factorise(made(), X, **how)
    assert "\n" not in str(refusal.value)
