"""Networks with quantisers of their own in the engine: their steps are kept, and evaluation's numbers come out."""

import numpy as np
import pytest
import torch
from torch import nn

from prunery import native
from prunery.engine import graph_of, is_quantised, pack
from prunery.engine.graph import Op, Rounding
from prunery.engine.learned import matrix
from prunery.engine.spelt import spelt_
from prunery.models.deep import ResNet
from prunery.quantize import Bits, planned, quantised_, quantised_layers
from prunery.spec import Quantize, Refused

if not native.available():
    pytest.skip("the compiled library is missing", allow_module_level=True)

X = torch.randn(48, 3, 12, 12, generator=torch.Generator().manual_seed(1)) * 2 + 1


def chain():
    """Layers one behind the other: each writes what the next one reads, so that every step is a learned one."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.Conv2d(8, 12, 1), nn.BatchNorm2d(12),
        nn.Conv2d(12, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


def residual():
    return ResNet((8, 16), 1, (3, 12, 12), 10)


def vectors():
    return nn.Sequential(nn.Flatten(), nn.Linear(432, 30), nn.ReLU(), nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 10))


NETWORKS = {"chain": chain, "residual": residual, "vectors": vectors}
BITS = [(8, 8), (4, 4), (1, 2)]


def made(kind, weight, input, density=0.6, **more):
    """Pruned at random, with statistics that are not those of a fresh network, a turned normalisation, quantisers."""
    torch.manual_seed(0)
    net = NETWORKS[kind]().train()
    for _ in range(3):
        net(X)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.weight.data[::3] *= -1
        if isinstance(m, nn.Conv2d | nn.Linear):
            m.weight.data *= torch.rand(m.weight.shape) < density
    names = [n for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    quantised_(net.eval(), {n: Bits(weight, input, **more) for n in names}, [X])
    return net.eval()


def far(packed, net):
    """Of each image the largest difference, as a share of the largest result of all."""
    with torch.no_grad():
        wanted = net(X)
    return (packed(X) - wanted).abs().amax(1) / wanted.abs().max()


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(("weight", "input"), BITS)
@pytest.mark.parametrize("per", ["channel", "tensor"])
def test_layers_spelt_out_give_the_same_bits(kind, weight, input, per):
    net = made(kind, weight, input, per=per)
    with torch.no_grad():
        wanted = net(X)
        assert torch.equal(spelt_(net)(X), wanted)
    assert not quantised_layers(net)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(("weight", "input"), BITS)
def test_packed_results_are_those_of_evaluation(kind, weight, input):
    net = made(kind, weight, input)
    packed = pack(net, X[:2], [X])
    assert is_quantised(packed)
    near = {8: 0.01, 4: 0.06, 2: 0.2} if kind == "residual" else {8: 0.02, 4: 0.02, 2: 0.05}
    assert float(far(packed, net).median()) < near[input]


def test_what_nobody_has_a_step_for_needs_images():
    """Of the chain that is the mean at its end; everything in front of it is written at the step of who reads it."""
    net = made("chain", 4, 4)
    with pytest.raises(Refused, match=r"the results of 9 have no step .* calibration=\[images\]") as refused:
        pack(net, X[:2])
    assert "\n" not in str(refused.value)
    assert float(far(pack(net, X[:2], [X]), net).median()) < 0.05


def test_the_steps_in_the_file_are_the_learned_ones_and_zeros_are_zeros():
    net = made("chain", 4, 4)
    layers = quantised_layers(net)
    graph = graph_of(pack(net, X[:2], [X]))
    seen = {}
    for op in graph.ops:
        if op.weight is None:
            continue
        layer, x = layers[op.name], graph.tensors[op.inputs[0]]
        assert x.type == "u8"
        assert x.scale == float(layer.input_quantiser.step.detach())
        assert x.zero == (8 if layer.bits.signed else 240)
        assert op.weight.dtype == np.int8
        assert np.abs(op.weight).max() <= 8
        assert not op.weight[(layer.weight == 0).flatten(1).numpy()].any()
        seen[op.name] = np.count_nonzero(op.weight)
    assert seen.keys() == layers.keys()
    assert all(seen.values())


def test_weights_alone_are_computed_in_floats():
    for how in ({"bits": 2, "ternary": True, "learned": True}, {"bits": 3, "clusters": True, "learned": True}):
        net = residual().eval()
        quantised_(net, planned(net, Quantize(**how)), [X])
        packed = pack(net.eval(), X[:2])
        assert not is_quantised(packed)
        assert float(far(packed, net).max()) < 1e-4


def test_clusters_read_bytes_and_compute_in_floats():
    net = residual().eval()
    quantised_(net, planned(net, Quantize(bits=3, activations=8, clusters=True)), [X])
    packed = pack(net.eval(), X[:2], [X])
    assert is_quantised(packed)
    assert float(far(packed, net).median()) < 0.01


def test_signs_are_refused_in_a_line():
    net = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    quantised_(net, {"0": Bits(1, 1)}, [X])
    with pytest.raises(Refused, match="0 reads one bit with a sign") as refused:
        pack(net.eval(), X[:2])
    assert "\n" not in str(refused.value)


def test_rows_that_bytes_cannot_hold_as_they_are():
    weight = np.array([[-128, 127], [-128, 3], [5, 0], [7, 1]], np.float32)
    scales, bias = np.array([0.5, -0.5, 0.0, 1e-30]), np.array([1.0, 2.0, 3.0, 0.0])
    found = matrix(Op("linear", "x", [0], 1, weight=weight, scales=scales, bias=bias), Rounding(0.25, 0, 255))
    assert found["weight"].tolist() == [[-128, 127], [127, -3], [0, 0], [0, 0]]
    assert found["scales"][:2].tolist() == [2.0, 2.0]
    assert (found["scales"] > 0).all()
    assert found["bias"].tolist() == bias.tolist()
    assert abs(round(3.0 / (found["scales"][2] * 0.25)) * found["scales"][2] * 0.25 - 3.0) < 1e-5
