"""Laws of shrinking: equal outputs, really smaller, nothing left to remove; whatever a dead channel still gives."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunery.masks import apply_, density, prunable
from prunery.pruning import groups, shrink, unit_mask
from prunery.spec import Refused


class Net(nn.Module):
    def __init__(self, run, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.run = run

    def forward(self, x):
        return self.run(self, x)


def chain(n, x):
    return n.head(n.b(F.relu(n.bn(n.a(x)))).mean((2, 3)))


def residual(n, x):
    y = F.relu(n.bn(n.a(x)))
    return n.head((y + n.b2(F.relu(n.bn2(n.b(y))))).mean((2, 3)))


def depthwise(n, x):
    return n.head(n.b(F.relu(n.bn2(n.dw(F.relu(n.bn(n.a(x))))))).mean((2, 3)))


def flat(n, x):
    return n.head(F.relu(n.b(F.max_pool2d(F.relu(n.a(x)), 2).flatten(1))))


def joined(n, x):
    y = F.relu(n.bn(n.a(x)))
    return n.head(n.c(torch.cat([y, F.relu(n.b(y))], 1)).mean((2, 3)))


def conv(i, o, k=3, **more):
    return nn.Conv2d(i, o, k, **({"padding": k // 2} | more))


BN = nn.BatchNorm2d
NETS = {
    "padded": (chain, {"a": conv(3, 8), "bn": BN(8), "b": conv(8, 6), "head": nn.Linear(6, 4)}),
    "unpadded": (
        chain,
        {"a": conv(3, 8), "bn": BN(8), "b": conv(8, 6, bias=False, padding=0), "head": nn.Linear(6, 4)},
    ),
    "reflected": (
        chain,
        {"a": conv(3, 8), "bn": BN(8), "b": conv(8, 6, padding_mode="reflect"), "head": nn.Linear(6, 4)},
    ),
    "transposed": (chain, {"a": conv(3, 8), "bn": BN(8), "b": nn.ConvTranspose2d(8, 6, 3), "head": nn.Linear(6, 4)}),
    "in groups": (chain, {"a": conv(3, 8), "bn": BN(8), "b": conv(8, 6, groups=2), "head": nn.Linear(6, 4)}),
    "residual": (
        residual,
        {"a": conv(3, 8), "bn": BN(8), "b": conv(8, 6), "bn2": BN(6), "b2": conv(6, 8), "head": nn.Linear(8, 4)},
    ),
    "depthwise": (
        depthwise,
        {"a": conv(3, 8, 1), "bn": BN(8), "dw": conv(8, 8, groups=8), "bn2": BN(8), "b": conv(8, 6, 1),
         "head": nn.Linear(6, 4)},
    ),
    "flatten": (flat, {"a": conv(3, 5), "b": nn.Linear(5 * 16, 8), "head": nn.Linear(8, 4)}),
    "concatenation": (
        joined,
        {"a": conv(3, 6), "bn": BN(6), "b": conv(6, 5), "c": conv(11, 6), "head": nn.Linear(6, 4)},
    ),
}  # fmt: skip
EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
UNSEEN = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def made(name):
    run, layers = NETS[name]
    network = Net(run, **copy.deepcopy(layers)).eval()
    rng = torch.Generator().manual_seed(7)
    for p in network.parameters():
        p.data = torch.randn(p.shape, generator=rng) * 0.5
    for b in network.buffers():
        if b.ndim:
            b.copy_(torch.rand(b.shape, generator=rng) + 0.5)
    return network


def grouped(network, wide=True):
    """Half of every free group's units masked: everywhere, or their filters only."""
    shapes = {n: tuple(p.shape) for n, p in network.named_parameters()}
    masks = {}
    for g in groups(network, EXAMPLE):
        if not g.protected:
            for n, m in unit_mask(g, torch.arange(g.units) % 2 == 0, shapes).items():
                if wide or n in g.makers:
                    masks[n] = masks[n] & m if n in masks else m
    if not wide:  # whole filters: what a consumer's columns lost is theirs again
        for n, m in masks.items():
            transposed = isinstance(network.get_submodule(n.rpartition(".")[0]), nn.ConvTranspose2d)
            axis = int(transposed)
            lives = m.movedim(axis, 0).flatten(1).any(1)
            masks[n] = lives.view(*[1] * axis, -1, *[1] * (m.ndim - 1 - axis)).expand(m.shape).clone()
    return masks


def masked(network, masks):
    network = copy.deepcopy(network)
    apply_({n: p.data for n, p in network.named_parameters()}, masks)
    return network


def alike(a, b, x=UNSEEN):
    with torch.no_grad():
        want, got = a(x), b(x)
    return float((want - got).abs().max()) <= 1e-5 * float(want.abs().max())


def size(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("multiple", [1, 3, 4])
@pytest.mark.parametrize("wide", [True, False], ids=["units", "filters"])
@pytest.mark.parametrize("name", NETS)
def test_the_smaller_network_computes_what_the_masked_one_does(name, wide, multiple):
    network = made(name)
    masks = grouped(network, wide)
    smaller, left = shrink(network, masks, EXAMPLE, multiple)
    assert alike(masked(network, masks), smaller)
    assert size(smaller) < size(network) or multiple > 1 or not wide
    assert {n: m.shape for n, m in left.items()} == {n: dict(smaller.named_parameters())[n].shape for n in left}
    for n, p in smaller.named_parameters():
        assert n not in left or not bool(p[~left[n]].any())
    again, _ = shrink(smaller, left, EXAMPLE, multiple)
    assert size(again) == size(smaller)


@pytest.mark.parametrize("name", NETS)
def test_masked_units_are_all_gone(name):
    network = made(name)
    smaller, left = shrink(network, grouped(network), EXAMPLE)
    assert density(left) == 1.0
    for g in groups(network, EXAMPLE):
        for part in g.slices:
            if part.role == "out" and not g.protected:
                assert smaller.get_parameter(part.parameter).shape[part.axis] == -(-g.units // 2) * part.places.shape[1]


@pytest.mark.parametrize("name", ["padded", "unpadded", "reflected", "transposed", "flatten", "residual"])
def test_constants_behind_dead_filters_are_folded(name):
    """Only filters are zero: what normalisation and biases still give moves into a bias, or one channel carries it."""
    network = made(name)
    mask = {"a.weight": torch.ones_like(network.a.weight, dtype=torch.bool)}
    mask["a.weight"][1::2] = False
    if name == "residual":
        mask["b2.weight"] = torch.ones_like(network.b2.weight, dtype=torch.bool)
        mask["b2.weight"][1::2] = False
        network.b2.bias.data.zero_()
    width = len(network.a.weight)
    smaller, _ = shrink(network, mask, EXAMPLE)
    carried = name not in ("unpadded", "flatten")
    assert smaller.a.out_channels == -(-width // 2) + carried
    assert alike(masked(network, mask), smaller)
    assert (smaller.b.bias is not None) or carried


def test_a_constant_of_zero_is_just_removed():
    network = made("padded")
    network.bn.bias.data.fill_(-1).sub_(network.bn.running_mean.abs() * 10)
    network.bn.weight.data.abs_()
    network.a.bias.data.zero_()
    mask = {"a.weight": torch.ones_like(network.a.weight, dtype=torch.bool)}
    mask["a.weight"][:3] = False
    before = network.b.weight.clone()
    smaller, _ = shrink(network, mask, EXAMPLE)
    assert torch.equal(smaller.b.weight, before[:, 3:])


def test_a_unit_that_nobody_reads_goes_and_takes_what_feeds_only_it():
    network = made("residual")
    network.head.weight.data[:, 2] = 0
    network.b.weight.data[:, 2] = 0
    network.b2.weight.data[:, 4] = 0
    smaller, left = shrink(network, None, EXAMPLE)
    assert (smaller.a.out_channels, smaller.b.out_channels, left) == (7, 5, {})
    assert alike(network, smaller)


def test_a_dead_row_kills_what_feeds_it():
    network = made("padded")
    network.b.weight.data[:, 3] = 0
    network.head.weight.data[:, :5] = 0
    smaller, _ = shrink(network, None, EXAMPLE)
    assert (smaller.b.out_channels, smaller.a.out_channels) == (1, 7)
    network.b.weight.data[5, 2] = 0
    smaller, _ = shrink(network, None, EXAMPLE)
    assert (smaller.b.out_channels, smaller.a.out_channels) == (1, 6)


def test_weight_masks_inside_surviving_layers_survive():
    network = made("padded")
    rng = torch.Generator().manual_seed(3)
    masks = {n: torch.rand(w.shape, generator=rng) < 0.5 for n, w in prunable(network).items()}
    masks["a.weight"][2] = False
    masks["b.weight"][:, 2] = False
    smaller, left = shrink(network, masks, EXAMPLE)
    keep = torch.arange(8) != 2
    assert torch.equal(left["a.weight"], masks["a.weight"][keep])
    assert torch.equal(left["b.weight"], masks["b.weight"][:, keep])
    assert alike(masked(network, masks), smaller)


def test_a_layer_never_loses_its_last_unit():
    network = made("padded")
    mask = {
        n: torch.zeros_like(p, dtype=torch.bool) for n, p in network.named_parameters() if n[:2] in ("a.", "b.", "bn")
    }
    smaller, _ = shrink(network, mask, EXAMPLE)
    assert (smaller.a.out_channels, smaller.b.out_channels) == (1, 1)


@pytest.mark.parametrize("multiple", [1, 2, 4, 8, 64])
def test_widths_are_rounded_up(multiple):
    network = made("padded")
    smaller, _ = shrink(network, grouped(network), EXAMPLE, multiple)
    assert smaller.a.out_channels == min(8, -(-4 // multiple) * multiple)
    assert smaller.b.out_channels == min(6, -(-3 // multiple) * multiple)


def test_modules_know_their_new_size_and_keep_their_modes():
    network = made("residual").train()
    network.bn.eval()
    network.head.weight.requires_grad_(False)
    smaller, _ = shrink(network, grouped(network), EXAMPLE)
    assert (smaller.a.out_channels, smaller.b.in_channels, smaller.bn.num_features, smaller.head.in_features) == (
        4,
    ) * 4
    assert (smaller.training, smaller.bn.training, smaller.head.weight.requires_grad) == (True, False, False)
    smaller(UNSEEN).square().mean().backward()
    assert all(p.grad is not None for n, p in smaller.named_parameters() if n != "head.weight")


def test_the_network_itself_is_left_alone():
    network = made("residual")
    before = {n: t.clone() for n, t in network.state_dict().items()}
    masks = grouped(network)
    kept = {n: m.clone() for n, m in masks.items()}
    shrink(network, masks, EXAMPLE)
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())
    assert all(torch.equal(m, kept[n]) for n, m in masks.items())


@pytest.mark.parametrize("kind", [torch.float16, torch.float64])
def test_an_example_of_another_kind_of_number_is_refused_in_one_line(kind):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)).to(kind)
    with pytest.raises(Refused, match=r"^shrink: Sequential cannot take inputs of \[2, 6\] \("):
        shrink(network, {}, torch.randn(2, 6))


def test_nothing_dead_nothing_gone():
    network = made("concatenation")
    smaller, left = shrink(network, None, EXAMPLE)
    assert (size(smaller), left) == (size(network), {})


def test_a_dead_relu_is_no_dead_channel():
    """It gives zero for these inputs; nobody knows for which others it would not."""
    network = made("padded")
    network.bn.bias.data[2] = -1e4
    smaller, _ = shrink(network, None, EXAMPLE)
    assert smaller.a.out_channels == 8


@pytest.mark.parametrize(
    ("name", "shape", "said"), [("c.weight", (2,), "no such weights here"), ("a.weight", (8, 3, 3), "[8, 3, 3, 3]")]
)
def test_masks_of_another_network_are_refused(name, shape, said):
    with pytest.raises(Refused) as refusal:
        shrink(made("padded"), {name: torch.ones(shape, dtype=torch.bool)}, EXAMPLE)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
