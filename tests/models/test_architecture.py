"""Laws of descriptions: what surgery made comes back in a fresh network, the rest is left alone or refused."""

import copy
import json

import pytest
import torch
from torch import nn

from prunery.models import MODELS, build, default_input, describe, reshape_
from prunery.models.blocks import ConvReLUPool
from prunery.pruning import factorise, fold_batchnorm, groups, shrink, unit_mask
from prunery.spec import Model, Refused

OURS = [n for n in MODELS if n not in ("vgg16_bn", "efficientnet_b0")]
LIBRARIES = ["torchvision:shufflenet_v2_x0_5", "timm:tf_mobilenetv3_small_minimal_100", "timm:resnet10t"]
SMALL = {"vgg19": 32, "mobilenet_v2": 32} | dict.fromkeys(LIBRARIES, 32)


def made(name, seed=0):
    shape, _ = default_input(name)
    side = SMALL.get(name, shape[1])
    return build(Model(name=name, input=(shape[0], side, side), classes=10), seed).eval()


def through_json(network):
    return json.loads(json.dumps(describe(network)))


def rebuilt(network, fresh):
    """The fresh network with the other's layers and tensors."""
    reshape_(fresh, through_json(network))
    with torch.no_grad():
        own, given = fresh.state_dict(), network.state_dict()
        assert {n: t.shape for n, t in own.items()} == {n: t.shape for n, t in given.items()}
        for n, t in own.items():
            t.copy_(given[n])
    return fresh


def equal(a, b, x):
    with torch.no_grad():
        return torch.equal(a(x), b(x))


@pytest.mark.parametrize("name", OURS + LIBRARIES)
def test_a_network_that_fits_is_not_touched(name):
    network, fresh = made(name), made(name, 1)
    before = {n: (id(m), type(m)) for n, m in fresh.named_modules()}, [id(p) for p in fresh.parameters()]
    reshape_(fresh, through_json(network))
    assert ({n: (id(m), type(m)) for n, m in fresh.named_modules()}, [id(p) for p in fresh.parameters()]) == before


def narrow(name):
    """The network with a third of each group's units gone, by masks and `shrink`."""
    network = made(name)
    x = torch.randn(2, *(default_input(name)[0][0], *(SMALL.get(name, default_input(name)[0][1]),) * 2))
    shapes = {n: tuple(p.shape) for n, p in network.named_parameters()}
    masks = {}
    for group in groups(network, x):
        if not group.protected:
            for n, m in unit_mask(group, torch.arange(group.units) % 3 > 0, shapes).items():
                masks[n] = masks[n] & m if n in masks else m
    return shrink(network, masks, x)[0], x


def halved(told):
    """A layer with half of its channels, groups and all."""
    return {k: -(-v // 2) if k in ("in", "out", "groups", "features") and v > 1 else v for k, v in told.items()}


@pytest.mark.parametrize("name", OURS + LIBRARIES)
def test_any_sizes_come_back_and_classes_stay(name):
    fresh = made(name)
    types = {n: type(m) for n, m in fresh.named_modules()}
    wanted = {n: halved(told) for n, told in describe(fresh).items()}
    reshape_(fresh, wanted)
    assert describe(fresh) == wanted
    assert {n: type(m) for n, m in fresh.named_modules()} == types
    for n, told in wanted.items():
        if told["kind"] == "Linear":
            assert fresh.get_submodule(n).weight.shape == (told["out"], told["in"])


@pytest.mark.parametrize("name", ["lenet5", "lenet_300_100", "convnet"])
def test_a_smaller_network_comes_back(name):
    smaller, x = narrow(name)
    again = rebuilt(smaller, made(name, 3))
    assert equal(smaller, again, x)
    assert describe(again) == describe(smaller) != describe(made(name))


@pytest.mark.parametrize("name", ["lenet_300_100", "convnet"])
def test_surgery_upon_surgery_comes_back(name):
    """Shrunk, normalisation folded away, and made of low rank twice: rows within rows."""
    smaller, x = narrow(name)
    last = factorise(factorise(fold_batchnorm(smaller, x), x, rank=0.4), x, rank=0.4)
    assert any(n.count(".") == 2 for n in describe(last))
    assert equal(last, rebuilt(last, made(name, 3)), x)


class Odd(nn.Conv2d):
    """A subclass of the user's."""


def every_kind(small=0):
    """One of each kind of layer, some `small` channels narrower."""
    w = 8 - small
    return nn.ModuleDict(
        {
            "c1": nn.Conv1d(w, 8, 3, stride=2, padding=1, dilation=2),
            "c2": Odd(4, w, (3, 5), padding="same", bias=False),
            "c3": nn.Conv3d(w, w, 3, groups=w, padding_mode="circular", padding=1), "t1": nn.ConvTranspose1d(w, 6, 2),
            "t2": nn.ConvTranspose2d(8, w * 2, 2, stride=2, groups=2), "t3": nn.ConvTranspose3d(w, 4, 2, bias=False),
            "block": ConvReLUPool(w, 4, 3), "fc": nn.Linear(w, 4, bias=small == 0), "n1": nn.BatchNorm1d(w),
            "n2": nn.BatchNorm2d(w, affine=False), "n3": nn.BatchNorm3d(w, track_running_stats=False),
            "sync": nn.SyncBatchNorm(w), "none": nn.Identity(), "layer": nn.LayerNorm(8), "relu": nn.ReLU(),
            "i1": nn.InstanceNorm1d(w, affine=True), "i3": nn.InstanceNorm3d(w, affine=True, track_running_stats=True),
            "i2": nn.InstanceNorm2d(8), "slopes": nn.PReLU(w), "slope": nn.PReLU(),
        }
    )  # fmt: skip


def test_every_kind_of_layer_takes_its_size_and_keeps_its_class():
    wanted, fresh = every_kind(2), every_kind()
    reshape_(fresh, through_json(wanted))
    sides = {n: (type(m), repr(m)) for n, m in wanted.named_modules() if n}
    assert {n: (type(m), repr(m)) for n, m in fresh.named_modules() if n} == sides
    assert {n: t.shape for n, t in fresh.state_dict().items()} == {n: t.shape for n, t in wanted.state_dict().items()}
    assert describe(fresh).keys() == set(wanted.keys()) - {"layer", "relu", "i2"}


def test_every_kind_of_layer_may_stand_in_a_row():
    row = nn.ModuleDict({"fc": nn.Sequential(*every_kind(2).values())})
    told = {n: facts for n, facts in through_json(row).items() if n.count(".") == 1 and int(n[3:]) < 8}
    fresh = nn.ModuleDict({"fc": nn.Linear(4, 4)})
    reshape_(fresh, told)
    assert describe(fresh) == told
    for norm in (nn.InstanceNorm2d(4, affine=True), nn.BatchNorm2d(4, affine=False), nn.PReLU(4)):
        fresh = nn.Sequential(nn.Linear(4, 4))
        reshape_(fresh, through_json(nn.Sequential(nn.Sequential(norm))))
        assert str(fresh[0][0]) == str(norm)


def test_only_normalisation_over_batches_can_be_folded_away():
    fresh = nn.Sequential(nn.InstanceNorm2d(4, affine=True))
    with pytest.raises(Refused, match='kind = "Identity" there and "InstanceNorm2d"'):
        reshape_(fresh, through_json(nn.Sequential(nn.Identity())))


def test_a_bias_can_come_and_normalisation_go():
    fresh = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)).requires_grad_(False).double()
    reshape_(fresh, through_json(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Identity())))
    assert isinstance(fresh[1], nn.Identity)
    assert fresh[0].bias.shape == (4,)
    assert fresh[0].bias.dtype == torch.float64
    assert not fresh[0].bias.requires_grad


def test_nobodys_random_numbers_are_drawn():
    network = nn.Sequential(nn.Linear(8, 8))
    row = nn.Sequential(nn.Sequential(nn.Linear(8, 2, bias=False), nn.Linear(2, 8)))
    before = torch.get_rng_state()
    reshape_(network, through_json(row))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(bool((p == 0).all()) for p in network.parameters())


BASE = {
    "0": {"kind": "Conv2d", "in": 3, "out": 4, "groups": 1, "bias": True, "kernel_size": [3, 3], "stride": [1, 1],
          "padding": [0, 0], "dilation": [1, 1]},
    "1": {"kind": "BatchNorm2d", "features": 4},
    "2": {"kind": "Linear", "in": 4, "out": 2, "bias": True},
}  # fmt: skip


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def conv(**more):
    return BASE | {"0": BASE["0"] | more}


def linear(**more):
    return BASE | {"2": BASE["2"] | more}


def row(*names):
    """Linear layers of these names below the last layer's."""
    rest = {k: v for k, v in BASE.items() if k != "2"}
    return rest | {f"2.{name}": BASE["2"] for name in names}


BAD = {
    "no table": ([], "list; expected a table of layers"),
    "no such layer": (BASE | {"9": BASE["2"]}, '"9", which this network has not'),
    "below no layer": (BASE | {"1.0": BASE["2"]}, '"1.0", which this network has not'),
    "no kind": (BASE | {"2": {"in": 4}}, '"2" has no kind'),
    "no layer told": (BASE | {"2": None}, '"2" has no kind'),
    "a kind of its own": (BASE | {"2": {"kind": "os.system"}}, '"os.system", which is no layer'),
    "a kind that is no text": (BASE | {"2": {"kind": ["Linear"]}}, "has no kind"),
    "too few keys": (BASE | {"2": {"kind": "Linear", "in": 4}}, "has the keys in, kind"),
    "too many keys": (conv(code="1"), "has the keys bias, code"),
    "a key of another kind": (BASE | {"1": BASE["1"] | {"padding_mode": "circular"}}, "has the keys features"),
    "nothing left": (conv(out=0), "out = 0"),
    "less than nothing": (conv(out=-4), "out = -4"),
    "a fraction": (conv(out=4.0), "out = 4.0"),
    "a truth": (conv(out=True), "out = true"),
    "a text": (conv(out="4"), 'out = "4"'),
    "too wide": (conv(out=2**40), f"out = {2**40}"),
    "a terabyte": (conv(out=2**20, **{"in": 2**18}), "asks for 2.47e+12 weights"),
    "two layers that are too much together": (
        conv(out=2**14, **{"in": 2**13}) | {"2": BASE["2"] | {"in": 2**15, "out": 2**15}}, "asks for 2.28e+09 weights"),
    "uneven groups": (conv(groups=2), "2 groups for 3 inputs and 4 outputs"),
    "sides of another kernel": (conv(kernel_size=[3]), "kernel_size = [3]"),
    "no kernel": (conv(kernel_size=[0, 3]), "kernel_size = [0, 3]"),
    "padding of a kind": (conv(padding="none"), 'padding = "none"'),
    "same and strided": (conv(padding="same", stride=[2, 2]), "stride = [2, 2] with same padding"),
    "another kernel": (conv(kernel_size=[5, 5]), '"0" has kernel_size = [5, 5] there and [3, 3] in the network'),
    "another padding": (conv(padding_mode="circular"), 'padding_mode = "circular" there and "zeros" in the network'),
    "another kind of layer": (BASE | {"0": BASE["2"]}, '"0" has kind = "Linear" there and "Conv2d" in the network'),
    "no scales": (BASE | {"1": BASE["1"] | {"affine": False}}, "affine = false there and true in the network"),
    "a layer made nothing": (BASE | {"2": {"kind": "Identity"}}, 'kind = "Identity" there and "Linear"'),
    "a row with a gap": (row("0", "2"), "not numbered from 0"),
    "a row too long": (row(*map(str, range(9))), "not numbered from 0 to at most 7"),
    "a row too deep": (row("0.0.0.0.0"), "not numbered from 0"),
    "a row far too deep": (row(".".join(["0"] * 5000)), "not numbered from 0"),
    "a row by another number": (row("00"), "not numbered from 0"),
    "a layer and a row": (row("0", "0.0"), "not numbered from 0"),
}  # fmt: skip


@pytest.mark.parametrize(("description", "said"), BAD.values(), ids=BAD.keys())
def test_what_does_not_fit_is_refused_in_one_line_and_changes_nothing(description, said):
    fresh = network()
    state = {n: t.clone() for n, t in fresh.state_dict().items()}
    with pytest.raises(Refused) as refused:
        reshape_(fresh, description, "x.safetensors")
    assert said in str(refused.value)
    assert str(refused.value).startswith("x.safetensors")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400
    assert state.keys() == fresh.state_dict().keys()
    assert all(torch.equal(state[n], t) for n, t in fresh.state_dict().items())


def test_layers_before_the_one_that_does_not_fit_are_left_alone():
    fresh = network()
    with pytest.raises(Refused, match="kernel_size"):
        reshape_(fresh, {"1": {"kind": "BatchNorm2d", "features": 3}} | conv(kernel_size=[5, 5]))
    assert describe(fresh) == BASE


def test_layers_without_a_size_and_layers_that_pytorch_masks_are_refused():
    with pytest.raises(Refused, match="0 has no size yet"):
        describe(nn.Sequential(nn.LazyLinear(4)))
    masked = network()
    nn.utils.prune.random_unstructured(masked[2], "weight", 0.5)
    with pytest.raises(Refused, match='weight of "2" is masked or parametrised'):
        reshape_(masked, linear(out=1))


def test_a_description_survives_copies_of_the_network():
    smaller, _ = narrow("lenet_300_100")
    assert describe(copy.deepcopy(smaller)) == describe(smaller)
