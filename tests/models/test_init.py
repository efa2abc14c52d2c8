"""Laws of every initialisation: its variance, zero biases, untouched normalisation, one generator."""

import math

import pytest
import torch
from torch import nn

from prunery.models import build
from prunery.models.init import INITS, init_seed, initialise_
from prunery.spec import Model

IN, OUT = 200, 300
DEVIATION = {
    "glorot_normal": math.sqrt(2 / (IN + OUT)),
    "glorot_uniform": math.sqrt(2 / (IN + OUT)),
    "kaiming_normal": math.sqrt(2 / IN),
    "kaiming_uniform": math.sqrt(2 / IN),
    "lecun_normal": math.sqrt(1 / IN),
    "orthogonal": math.sqrt(1 / OUT),
}


@pytest.mark.parametrize("init", INITS)
def test_deviation(init):
    layer = nn.Linear(IN, OUT)
    initialise_(layer, init, 0)
    assert layer.weight.mean().item() == pytest.approx(0, abs=4 * DEVIATION[init] / math.sqrt(IN * OUT))
    assert layer.weight.std().item() == pytest.approx(DEVIATION[init], rel=0.02)
    assert not layer.bias.any()


@pytest.mark.parametrize("init", INITS)
def test_convolutions_normalisation_and_seeds(init):
    network = nn.Sequential(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.ConvTranspose2d(16, 4, 2, bias=False))
    nn.init.constant_(network[1].weight, 3.0)
    copies = []
    for seed in (1, 1, 2):
        initialise_(network, init, seed)
        copies.append([p.clone() for p in network.parameters()])
    assert all(map(torch.equal, copies[0], copies[1]))
    assert not torch.equal(copies[0][0], copies[2][0])
    assert (network[1].weight == 3).all()
    assert not network[0].bias.any()


def test_gaussian_glorot_is_gaussian():
    """Not truncated: about one weight in 22,000 lies beyond four deviations."""
    layer = nn.Linear(600, 600)
    initialise_(layer, "glorot_normal", 0)
    far = (layer.weight.abs() > 4 * math.sqrt(2 / 1200)).sum().item()
    assert 10 <= far <= 45


def test_orthogonal():
    layer = nn.Linear(20, 10)
    initialise_(layer, "orthogonal", 0)
    torch.testing.assert_close(layer.weight @ layer.weight.T, torch.eye(10))


@pytest.mark.parametrize("init", INITS)
def test_global_random_state_is_untouched(init):
    before = torch.get_rng_state()
    networks = [build(Model(name="lenet5", input=(1, 28, 28), classes=10, init=init), s) for s in (7, 7)]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, *(n.state_dict().values() for n in networks)))


def test_seeds_are_pinned():
    assert init_seed(0) == 0x63E1A981777FB7AF >> 1
    assert len({init_seed(s) for s in range(1000)}) == 1000
