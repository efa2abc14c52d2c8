"""Profiles: rows add up to the network's own sums, and each part's time is its own."""

import time

import pytest
import torch
from torch import nn

from prunery.masks import prunable
from prunery.measure import count, packed_profile, profile, totals
from prunery.measure.profile import BETWEEN
from prunery.models import build
from prunery.pruning import prune
from prunery.spec import Model, Prune, Refused

NETWORKS = {"lenet5": (1, 28, 28), "resnet20": (3, 32, 32), "lenet_300_100": (1, 28, 28)}
SUMS = ("multiply_adds", "kept_multiply_adds", "parameters")


def network(name):
    return build(Model(name=name, input=NETWORKS[name], classes=10), 0)


class Sleepy(nn.Module):
    """A part that takes as long as it is told."""

    def __init__(self, seconds):
        super().__init__()
        self.inner, self.seconds = nn.Linear(4, 4), seconds

    def forward(self, x):
        time.sleep(self.seconds)
        return self.inner(x)


class Chain(nn.Module):
    """The second part twice, the third never, and a nap that is nobody's."""

    def __init__(self):
        super().__init__()
        self.flat, self.quick, self.slow, self.idle = nn.Flatten(), Sleepy(0.002), Sleepy(0.006), nn.Linear(4, 3)

    def forward(self, x):
        x = self.slow(self.slow(self.quick(self.flat(x))))
        time.sleep(0.004)
        return x


@pytest.mark.parametrize("layers", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_rows_add_up_to_the_networks_own_sums(name, layers):
    net = network(name)
    masks = prune(prunable(net), None, Prune(density=0.3))
    found = profile(net, NETWORKS[name], batch=2, masks=masks, repeats=1, layers=layers)
    sums = totals(count(net, NETWORKS[name], 2, masks))
    assert {k: sum(getattr(p, k) for p in found.parts) for k in SUMS} == {k: sums[k] for k in SUMS}
    assert sum(p.kept for p in found.parts) == sums["kept_parameters"]
    assert len({p.name for p in found.parts}) == len(found.parts)
    assert found.parts[-1].name == BETWEEN


def test_each_parts_time_is_its_own():
    found = profile(Chain(), (1, 2, 2), repeats=3)
    ms = {p.name: p.ms for p in found.parts}
    assert list(ms) == ["flat", "quick", "slow", "idle", BETWEEN]
    assert ms["idle"] == 0
    assert 2 <= ms["quick"] < 6 <= 12 <= ms["slow"]
    assert 4 <= ms[BETWEEN] < ms["slow"]
    assert found.sum_ms == pytest.approx(sum(ms.values()))
    assert found.whole_ms >= 18


def test_the_network_is_left_as_it_was():
    net = network("resnet20").train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    profile(net, (3, 32, 32), repeats=1)
    assert all(m.training for m in net.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(Refused, match=r"cannot take inputs of 3x28x28 .*choose another --input"):
        profile(network("lenet5"), (3, 28, 28), repeats=1)


def test_a_packed_file_by_its_own_steps():
    from prunery.engine import pack

    net = network("resnet20").eval()
    packed = pack(net, torch.zeros(1, 3, 32, 32))
    blocks = packed_profile(packed, net, repeats=2)
    steps = packed_profile(packed, None, repeats=2)
    assert {"conv1", "layer1.0", "layer3.2", "linear"} <= {p.name for p in blocks.parts}
    made = totals(count(net, (3, 32, 32)))["multiply_adds"]
    assert sum(p.kept_multiply_adds for p in steps.parts) == sum(p.kept_multiply_adds for p in blocks.parts) == made
    assert all(p.multiply_adds is p.parameters is None for p in steps.parts)
    assert blocks.whole_ms > 0 < blocks.sum_ms
    with pytest.raises(Refused, match=r"--batch = 7: this file computes 1 or \d+ images at a time"):
        packed_profile(packed, net, batch=7, repeats=2)
