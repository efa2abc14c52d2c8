"""The compact file: what it gives back is exactly what it stored."""

import pytest
import torch
from torch import nn

from prunery.masks import Mask
from prunery.models import fit
from prunery.quantize import quantize
from prunery.runs import State, pack, read_state, unpack, write_tensors
from prunery.spec import Refused

SHAPES = [(), (0,), (1,), (7,), (8,), (9,), (3, 5), (1, 1, 3, 3), (4, 3, 5, 5), (0, 4)]
DENSITIES = [0.0, 0.1, 0.5, 1.0]


def made(shape, density):
    """A weight that is zero where its mask is, a buffer, and a count."""
    rng = torch.Generator().manual_seed(len(shape))
    mask: Mask = {"w": torch.rand(shape, generator=rng) < density}
    weight = torch.randn(shape, generator=rng) * mask["w"]
    return State({"w": weight, "bias": torch.randn(5, generator=rng), "count": torch.tensor(2**40)}, mask)


def through_a_file(packed, path):
    write_tensors(path, packed, {"model": {}})
    return read_state(path)[0]


def same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_single_precision_is_exact(shape, density, tmp_path):
    state = made(shape, density)
    again = through_a_file(pack(state, half=False), tmp_path / "x.safetensors")
    same(again.weights, state.weights)
    same(again.masks, state.masks)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_half_precision_is_the_nearest_half(shape, density, tmp_path):
    state = made(shape, density)
    again = through_a_file(pack(state), tmp_path / "x.safetensors")
    same(again.weights, {k: v.half().float() if v.is_floating_point() else v for k, v in state.weights.items()})
    same(again.masks, state.masks)
    same(unpack(pack(again)).weights, again.weights)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("per", ["channel", "tensor"])
@pytest.mark.parametrize("shape", [(7,), (3, 5), (4, 3, 5, 5)], ids=str)
def test_integers_are_exact(shape, per, bits, tmp_path):
    state = made(shape, 0.3)
    rounded, scales = quantize({"w": state.weights["w"]}, bits, per)
    state = State(state.weights | rounded, state.masks, scales)
    packed = pack(state)
    again = through_a_file(packed, tmp_path / "x.safetensors")
    if bits == 8:
        assert packed["values:w"].dtype == torch.int8
    else:
        assert packed["values:w"].numel() <= -(-int(state.masks["w"].sum()) * bits // 8)
    assert torch.equal(again.weights["w"], rounded["w"])
    same(again.scales, scales)
    same(again.masks, state.masks)


@pytest.mark.parametrize("about", [[9, 0, 10], [0, 0, 10], [2, 200, 10], [2, -1, -10], [2], [2, -1, 9000]])
def test_damaged_low_bits_are_refused(about, tmp_path):
    weight = torch.tensor([-1.0, 0, 1, 1, 0, -1, 0, 0, 1, 0])
    packed = pack(State({"w": weight}, {}, {"w": torch.ones(1)}))
    packed["low:w"] = torch.tensor(about)
    with pytest.raises(Refused, match="is damaged"):
        through_a_file(packed, tmp_path / "x.safetensors")


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("density", [1.0, 0.3])
def test_whole_numbers_without_their_scales_are_refused(bits, density, tmp_path):
    network = nn.Linear(30, 40)
    rounded, scales = quantize({"weight": network.weight.detach()}, bits, "channel")
    masks = {"weight": torch.rand(40, 30) < density} if density < 1 else {}
    packed = pack(State(network.state_dict() | rounded, masks, scales))
    del packed["scale:weight"]
    with pytest.raises(Refused, match=r"x\.safetensors .*\bscales of\b.*make or copy it again"):
        fit(network, through_a_file(packed, tmp_path / "x.safetensors").weights, "x.safetensors")


def test_small_whole_numbers_that_are_no_weights_stay_what_they_are(tmp_path):
    state = State({"table": torch.tensor([-3, 0, 100], dtype=torch.int8)})
    same(through_a_file(pack(state), tmp_path / "x.safetensors").weights, state.weights)


def test_bfloat16_is_kept_where_it_is_exact(tmp_path):
    small = (torch.tensor([1e-6, 3e-5, 1.0]) * 1.1).bfloat16().float()
    again = through_a_file(pack(State({"w": small})), tmp_path / "x.safetensors")
    same(again.weights, {"w": small})
    assert pack(State({"w": small}))["values:w"].element_size() == 2


def test_what_half_precision_cannot_hold_stays_as_it_is(tmp_path):
    """The running variance behind unscaled pixels is in the millions; half precision ends at 65504."""
    state = State({"var": torch.tensor([1e6, 0.1]), "inf": torch.tensor([torch.inf, 0.5])})
    again = through_a_file(pack(state), tmp_path / "x.safetensors")
    same(again.weights, state.weights)


def test_kept_weights_alone_take_space():
    state = State({"w": torch.zeros(8000)}, {"w": torch.arange(8000) < 80})
    assert sum(t.numel() * t.element_size() for t in pack(state).values()) == 80 * 2 + 1000 + 8


def spoilt(**changes):
    packed = pack(made((4, 6), 0.5)) | {"scale:w": torch.ones(4, 1)}
    packed |= {k.replace("__", ":"): v for k, v in changes.items()}
    return {k: v for k, v in packed.items() if v is not None}


SPOILT = [
    spoilt(shape__w=None), spoilt(shape__w=torch.tensor([4, 60])), spoilt(shape__w=torch.tensor([-4, -6])),
    spoilt(shape__w=torch.tensor([4.0, 6.0])), spoilt(bits__w=torch.zeros(1, dtype=torch.uint8)),
    spoilt(bits__w=torch.zeros(3)), spoilt(values__w=torch.ones(3)), spoilt(values__w=torch.ones(24)),
    spoilt(scale__w=torch.ones(5, 1)), spoilt(scale__w=torch.ones(1, 4, 1)),
]  # fmt: skip


@pytest.mark.parametrize("packed", SPOILT, ids=range(len(SPOILT)))
def test_a_file_that_contradicts_itself_is_refused(packed, tmp_path):
    with pytest.raises(Refused, match=r"x\.safetensors is damaged: .*\bw\b.*make or copy it again"):
        through_a_file(packed, tmp_path / "x.safetensors")
