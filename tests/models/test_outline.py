"""Blocks: one level above layers, in order, disjoint, and all of the network's parameters."""

import pytest
from torch import nn

from prunery.models import block_names, build
from prunery.spec import Model

KNOWN = {
    "lenet_300_100": ((1, 28, 28), {"fc1", "fc2", "fc3"}),
    "resnet20": ((3, 32, 32), {"conv1", "layer1.0", "layer2.2", "layer3.1", "linear"}),
    "efficientnet_b0": ((3, 32, 32), {"features.0", "features.1.0", "features.6.3", "features.8", "classifier"}),
    "timm:mobilenetv3_small_050": ((3, 32, 32), {"conv_stem", "blocks.0.0", "classifier"}),
}


@pytest.mark.parametrize("name", KNOWN)
def test_they_hold_every_parameter_once(name):
    input, known = KNOWN[name]
    network = build(Model(name=name, input=input, classes=10), 0)
    found = block_names(network)
    assert known <= set(found)
    held = [id(p) for b in found for p in network.get_submodule(b).parameters()]
    assert sorted(held) == sorted(map(id, network.parameters()))
    assert not any(a != b and b.startswith(f"{a}.") for a in found for b in found)


def test_plain_stacks_and_trunks_are_looked_into():
    stack = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    assert block_names(stack) == ["0", "1", "2"]

    class Trunk(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.TransformerEncoderLayer(8, 2, 16), nn.TransformerEncoderLayer(8, 2, 16)])

    network = nn.Module()
    network.trunk, network.head = Trunk(), nn.Linear(8, 2)
    assert block_names(network) == ["trunk.layers.0", "trunk.layers.1", "head"]
    assert block_names(nn.Linear(2, 2)) == [""]
