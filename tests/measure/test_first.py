"""The first layer: the one that reads the images, its masked weights, and exactly the maps that it makes."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from prunery.measure import first_layer
from prunery.models import build
from prunery.spec import Model

X = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Backwards(nn.Module):
    """Layers that run in another order than they are declared in."""

    def __init__(self):
        super().__init__()
        self.last, self.first = nn.Linear(5, 2), nn.Conv2d(3, 5, 3)

    def forward(self, x):
        return self.last(self.first(x).mean((2, 3)))


def test_it_is_the_layer_that_runs_first():
    network = Backwards()
    found = first_layer(network, {}, X)
    assert (found.name, found.filters.shape, found.kept.all()) == ("first", (5, 3, 3, 3), True)
    with torch.no_grad():
        np.testing.assert_array_equal(found.maps, network.first(X).numpy())


def test_pruned_weights_are_zero_and_known():
    network = Backwards()
    mask = torch.rand(5, 3, 3, 3, generator=torch.Generator().manual_seed(2)) > 0.5
    found = first_layer(network, {"first.weight": mask}, X)
    np.testing.assert_array_equal(found.kept, mask.numpy())
    assert (found.filters[~mask.numpy()] == 0).all()
    assert (found.filters[mask.numpy()] == network.first.weight.detach().numpy()[mask.numpy()]).all()


def test_large_maps_are_averaged_down():
    network, x = Backwards(), torch.randn(1, 3, 80, 20)
    found = first_layer(network, {}, x)
    assert found.maps.shape == (1, 5, 32, 18)
    with torch.no_grad():
        np.testing.assert_allclose(found.maps, adaptive_avg_pool2d(network.first(x), (32, 18)).numpy(), atol=1e-6)


def test_a_linear_layers_weights_are_laid_out_as_the_images():
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    found = first_layer(network, {}, X)
    assert (found.filters.shape, found.maps.shape) == ((4, 3, 8, 8), (3, 0, 0, 0))
    np.testing.assert_array_equal(found.filters[2].ravel(), network[1].weight[2].detach().numpy())


@pytest.mark.parametrize(
    "network", [nn.Sequential(nn.Flatten(), nn.ReLU()), nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(48, 4))]
)
def test_without_such_a_layer_there_is_nothing(network):
    assert first_layer(network, {}, X) is None


class Keyword(Backwards):
    def forward(self, x):
        return self.last(input=self.first(input=x).mean((2, 3)))


def test_layers_that_are_called_by_keyword_are_passed_over():
    assert first_layer(Keyword(), {}, X) is None


def test_the_network_stays_as_it_was():
    network = build(Model(name="resnet20", input=(3, 32, 32), classes=10), 0).train()
    before = {n: t.clone() for n, t in network.state_dict().items()}
    assert first_layer(network, {}, torch.randn(2, 3, 32, 32)).maps.shape == (2, 16, 32, 32)
    assert network.training
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())
    assert not any(m._forward_hooks for m in network.modules())
