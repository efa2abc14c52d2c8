"""The contract with Torch-Pruning: the version that is pinned, and what the adapter makes of three known networks."""

from importlib import metadata

import torch
from torch import nn

from prunery.pruning.graph import ties


def kinds(found):
    """(root, module, kind) -> sorted pairs."""
    return {(root, t.module, t.kind): sorted(t.pairs) for root, each in found.items() for t in each}


def test_the_version_is_the_one_that_the_adapter_was_made_for():
    assert metadata.version("torch-pruning") == "1.6.1"


def test_a_chain_ties_rows_scales_and_columns():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1))
    found = kinds(ties(net, torch.randn(1, 1, 6, 6)))
    same = [(0, 0), (1, 1), (2, 2)]
    assert found["0", "0", "out"] == found["0", "1", "norm"] == found["0", "3", "in"] == same


def test_flattened_maps_tie_a_channel_to_all_its_columns():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 4 * 4, 3))
    found = kinds(ties(net, torch.randn(1, 1, 6, 6)))
    assert found["0", "3", "in"] == [(i // 16, i) for i in range(32)]


def test_nothing_is_left_behind_in_the_network():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Conv2d(3, 2, 1)).train()
    net[0].weight.requires_grad_(False)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    ties(net, torch.randn(1, 1, 6, 6))
    assert net.training
    assert not net[0].weight.requires_grad
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
