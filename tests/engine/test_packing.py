"""What is packed is the network: what it computes, alone and among many, and the shape of what it gives."""

import numpy as np
import pytest
import torch
from torch import nn

from prunery import native
from prunery.engine import packing
from prunery.engine.packing import pack
from prunery.runtime import loads
from prunery.spec import Refused

if not native.available():
    pytest.skip("the compiled library is missing", allow_module_level=True)

X = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))


class Of(nn.Module):
    """A network that is one function of its input and its layers."""

    def __init__(self, forward, *layers):
        super().__init__()
        torch.manual_seed(0)
        self.layers, self.function = nn.ModuleList(layer() for layer in layers), forward

    def forward(self, x):
        return self.function(x, *self.layers)


def linear(a, b):
    return lambda: nn.Linear(a, b)


def conv(*sizes, **more):
    return lambda: nn.Conv2d(*sizes, **more)


FLATTENED = {
    "gated": Of(lambda x, gate, fc: fc((v := x.flatten(1)) * gate(v).sigmoid()), linear(48, 48), linear(48, 5)),
    "softmax": Of(lambda x: x.flatten(1).softmax(1)),
    "convolution": Of(lambda x, c: c(x.flatten(1)[:, :, None, None]), conv(48, 6, 3, padding=2)),
    "linear": Of(lambda x, fc: fc(x.flatten(1)), linear(48, 5)),
    "itself": Of(lambda x: x.flatten(1)),
}


@pytest.mark.parametrize("network", FLATTENED.values(), ids=list(FLATTENED))
def test_networks_that_flatten_their_input(network):
    packed, x = pack(network, X), torch.cat([X] * 9)
    for n in (1, 3, 36):
        wanted = network(x[:n]).detach()
        torch.testing.assert_close(packed(x[:n]), wanted, rtol=0, atol=1e-5)


SHAPES = {
    "[B]": (Of(lambda x, fc: fc(x.flatten(1)).squeeze(-1), linear(48, 1)), ()),
    "[B] of many": (Of(lambda x, fc: fc(x.flatten(1))[:, 0], linear(48, 5)), ()),
    "[B, 5, 1, 1]": (Of(lambda x, c: c(x.mean((2, 3), keepdim=True)), conv(3, 5, 1)), (5, 1, 1)),
    "[B, C, L]": (Of(lambda x, c: c(x).flatten(2), conv(3, 5, 3)), (5, 4)),
    "[B, 1, 5]": (Of(lambda x, fc: fc(x.flatten(1))[:, None], linear(48, 5)), (1, 5)),
    "[B, 5]": (Of(lambda x, fc: fc(x.flatten(1)), linear(48, 5)), (5,)),
    "[B, C, H, W]": (Of(lambda x, c: c(x), conv(3, 5, 3)), (5, 2, 2)),
}


@pytest.mark.parametrize("calibration", [None, [X]], ids=["floats", "bytes"])
@pytest.mark.parametrize(("network", "shape"), SHAPES.values(), ids=list(SHAPES))
def test_results_have_the_shape_of_the_network_s(network, shape, calibration):
    packed, wanted = pack(network, X, calibration, about={"classes": 5}), network(X).detach()
    assert (packed(X).shape, packed.output_shape) == (wanted.shape, shape)
    assert packed(X[:1]).shape == network(X[:1]).shape
    assert packed(X[0]).shape == shape
    assert float((packed(X) - wanted).abs().max()) < (0.1 if calibration else 1e-5)
    again = loads(packed.data)
    assert again(X).shape == wanted.shape
    plain = shape in ((5,), (5, 2, 2))
    assert again.about == {"classes": 5} | ({} if plain else {"result_shape": [*shape]})


def test_about_is_a_table_without_the_key_that_is_taken():
    network = FLATTENED["linear"]
    with pytest.raises(Refused, match=r'about has the key "result_shape", which the engine writes itself; choose'):
        pack(network, X, about={"result_shape": [5]})
    with pytest.raises(Refused, match="about is a list; expected a table"):
        pack(network, X, about=["result_shape"])


@pytest.mark.parametrize("count", [1, 3, 4])
def test_kernels_of_many_images_are_tried_as_well(count, monkeypatch):
    """A fault of ours that only batches larger than a vector's lanes show."""

    class Faulty:
        def __init__(self, packed):
            self.packed = packed

        def __call__(self, x):
            return self.packed(x) + np.float32(1e-3 * (len(x) > 16) * (np.arange(len(x)) == 15)[:, None])

    network = FLATTENED["linear"]
    pack(network, X[:count])
    monkeypatch.setattr(packing, "loads", lambda data: Faulty(loads(data)))
    with pytest.raises(Refused, match=r"the packed network differs from the network .* please report the network"):
        pack(network, X[:count])
