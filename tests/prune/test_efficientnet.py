"""Where other pruners fail: depthwise filters, squeeze-and-excitation and SiLU, through every way to make them less."""

import copy
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnets import small

import prunery
from prunery.engine import pack
from prunery.pruning import kinds
from prunery.runtime import loads
from prunery.spec import Data, Model, Pack, Prune, Quantize, Shrink, Train, in_a_row

WHOLE = ("kind:stem", "kind:head", "kind:depthwise", "kind:squeeze")
SPARSE = {
    "global": {"density": 0.2},
    "erk": {"density": 0.2, "scope": "erk"},
    "flops": {"density": 0.2, "scope": "flops"},
    "multiply-adds": {"density": 0.2, "budget": "multiply_adds"},
    "pointwise alone": {"density": 0.2, "exclude": WHOLE},
    "by kind": {"scope": "table", "table": ("kind:pointwise=0.1", "kind:depthwise=0.5", "kind:squeeze=0.3")},
    "blocks": {"density": 0.2, "scope": "layer", "structure": "1x4", "exclude": WHOLE},
    "channels": {"density": 0.5, "scope": "layer", "structure": "coupled"},
    "channels by taylor": {"density": 0.5, "budget": "multiply_adds", "structure": "coupled", "criterion": "taylor"},
}
SHAPE = (3, 32, 32)


@cache
def dense():
    """Normalisations that fit the weights, so that outputs are numbers of ordinary size."""
    torch.manual_seed(0)
    network = small(SHAPE, 10)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    with torch.no_grad():
        network.train()(images(32))
    return network.eval()


def images(number, seed=1):
    return torch.randn(number, *SHAPE, generator=torch.Generator().manual_seed(seed))


def outputs(network, x):
    with torch.no_grad():
        return network(x)


def near(a, b, share):
    return float((torch.as_tensor(a) - torch.as_tensor(b)).abs().max()) <= share * float(torch.as_tensor(b).abs().max())


@cache
def pruned(name):
    """The masked network and its masks; tests only look at them."""
    network = copy.deepcopy(dense())
    data = [(images(8, 5), torch.arange(8) % 10)]
    return network, prunery.prune(network, data=data, **{"density": 0.5, **SPARSE[name]})


@cache
def shrunk(name, multiple=1):
    """The masked network, the smaller one, and the masks that are left."""
    network, masks = pruned(name)
    return network, *prunery.shrink(network, masks, images(2), multiple)


CHANNELS = [n for n in SPARSE if n.startswith("channels")]
OTHERS = [n for n in SPARSE if n not in CHANNELS]


@pytest.mark.parametrize("name", OTHERS)
def test_single_weights_and_blocks_in_the_engine(name):
    network, masks = pruned(name)
    weights = dict(network.named_parameters())
    assert all(not weights[n].detach()[~m].any() for n, m in masks.items())
    if "density" in SPARSE[name] and "budget" not in SPARSE[name]:
        kept, all_ = sum(int(m.sum()) for m in masks.values()), sum(m.numel() for m in masks.values())
        assert kept / all_ == pytest.approx(0.2, abs=0.02 if name == "blocks" else 1e-3)
    x = images(3)
    packed = pack(network, x[:1])
    assert near(loads(packed.data)(x.numpy()), outputs(network, x), 1e-4)


def test_what_is_to_stay_whole_does():
    network, masks = pruned("pointwise alone")
    whole = {n for kind, names in kinds(network).items() if kind != "pointwise" for n in names}
    assert all(f"{n}.weight" not in masks or masks[f"{n}.weight"].all() for n in whole)
    assert all(not masks[f"{n}.weight"].all() for n in kinds(network)["pointwise"])


@pytest.mark.parametrize(("name", "multiple"), [("channels", 1), ("channels", 8), ("channels by taylor", 1)])
def test_a_network_of_fewer_channels_equals_its_masked_self(name, multiple, tmp_path):
    masked, less, left = shrunk(name, multiple)
    x = images(5)
    assert near(outputs(less, x), outputs(masked, x), 1e-5)
    assert sum(p.numel() for p in less.parameters()) < 0.8 * sum(p.numel() for p in masked.parameters())
    prunery.save(less, tmp_path / "less.safetensors", left)
    again = prunery.load(tmp_path / "less.safetensors", into=small(SHAPE, 10))
    assert torch.equal(outputs(again, x), outputs(less, x))
    assert near(loads(pack(less, x[:1]).data)(x.numpy()), outputs(less, x), 1e-4)


def test_expansion_depthwise_and_squeeze_lose_the_same_channels():
    _, less, _ = shrunk("channels")
    expand, depthwise, squeeze, project = less.features[3][1].block
    widths = {expand[0].out_channels, depthwise[0].out_channels, depthwise[0].groups, squeeze.fc1.in_channels,
              squeeze.fc2.out_channels, project[0].in_channels}  # fmt: skip
    assert widths == {72}
    assert dense().features[3][1].block[0][0].out_channels == 144
    assert squeeze.fc1.out_channels == squeeze.fc2.in_channels == 3


@pytest.mark.parametrize("name", ["global", "blocks", "channels"])
def test_bytes_in_the_engine(name):
    """Outputs stay near. Single zeros and small layers are left as floats where that is faster."""
    network = shrunk(name)[1] if name in CHANNELS else pruned(name)[0]
    x = images(32)
    packed = pack(network, x[:1], [x])
    assert near(packed(x.numpy()), outputs(network, x), 0.1)
    floats = len(pack(network, x[:1]).data)
    assert len(packed.data) < floats if name == "blocks" else len(packed.data) <= floats


@pytest.mark.skipif(not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))), reason="onnx is not installed")
@pytest.mark.parametrize("name", ["global", "channels"])
def test_onnx_computes_the_same(name, tmp_path):
    import onnxruntime

    network = shrunk(name)[1] if name in CHANNELS else pruned(name)[0]
    x = images(3)
    path = prunery.to_onnx(network, x, tmp_path / "b0.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert near(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0], outputs(network, x), 1e-5)


OWN = Path(__file__).with_name("efficientnets.py")
DATA = Data(resize=32)


def step(**more):
    return Train(data=DATA, steps=2, batch=16, lr=0.01, measure=False, **more)


CHAINS = {
    "weights": [Prune(data=DATA, density=0.2, scope="erk", measure=False), step(), Pack(data=DATA)],
    "channels": [Prune(data=DATA, density=0.5, structure="coupled", scope="layer", measure=False),
                 Shrink(data=DATA, multiple=4, measure=False), step(),
                 Prune(data=DATA, density=0.5, exclude=WHOLE, measure=False), step(), Pack(data=DATA)],
    "bytes": [Prune(data=DATA, density=0.5, measure=False),
              Quantize(data=DATA, activations=8, batches=1, batch=32, measure=False), step(), Pack(data=DATA)],
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_from_dense_to_packed(name, tmp_path):
    """Frozen at first, then sparse; every step in its folder, opened again by the next."""
    frozen = step(freeze=("features",))
    recipe = in_a_row(Model(name=f"{OWN}:small"), frozen, *CHAINS[name])
    place = prunery.Place(prunery.Runs(tmp_path), Path("nowhere"))
    done = prunery.run(recipe, place)
    result = list(done.values())[-1].result
    assert result["kept_parameters"] < result["parameters"] or name == "channels"
    assert 0 <= result["test"]["accuracy"] <= 1
    network, state, _ = prunery.network_of(list(done.values())[-1])
    x = torch.randn(2, 1, 32, 32)
    found = outputs(network.eval(), x)
    assert torch.isfinite(found).all()
    if name != "bytes":  # whole numbers inside are rounded anew
        assert near(pack(network, x[:1])(x.numpy()), found, 1e-4)
    weights = dict(network.named_parameters())
    assert state.masks
    assert all(not weights[n].detach()[~m].any() for n, m in state.masks.items())
    assert np.isfinite(result["multiply_adds"])
