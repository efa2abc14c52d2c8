"""Laws of coupled channels over small networks that each couple in their own way: a partition, and free means free."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunery.masks import apply_, prunable
from prunery.pruning import groups, shrink, unit_mask
from prunery.pruning.graph import ties
from prunery.pruning.surgery import without
from prunery.spec import Refused
from prunery.workbench import load, save


class Net(nn.Module):
    """Named layers and what is done with them."""

    def __init__(self, run, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.run = run

    def forward(self, x):
        return self.run(self, x)


def conv(i, o, k=3, **more):
    return nn.Conv2d(i, o, k, **({"padding": k // 2} | more))


def pooled(x):
    return x.mean((2, 3))


def plain(n, x):
    return n.head(pooled(n.b(F.relu(n.bn(n.a(x))))))


def residual(n, x):
    y = F.relu(n.bn(n.a(x)))
    return n.head(pooled(y + n.b(y)))


def joined(n, x):
    y, z = n.a(x), n.b(x)
    return n.head(pooled(n.c(torch.cat([F.relu(y), z], 1))))


def dense(n, x):
    y = n.a(x)
    y = torch.cat([y, n.b(F.relu(y))], 1)
    y = torch.cat([y, n.c(F.relu(n.bn(y)))], 1)
    return n.head(pooled(y))


def flat(n, x):
    return n.head(F.relu(n.b(F.max_pool2d(F.relu(n.a(x)), 2).flatten(1))))


def squeezed(n, x):
    y = F.silu(n.bn(n.dw(n.a(x))))
    return n.head(pooled(n.b(y * n.up(F.relu(n.down(y.mean((2, 3), keepdim=True)))).sigmoid())))


def twice(n, x):
    y = F.relu(n.a(x))
    return n.head(pooled(n.b(y) + n.c(y)))


def normed(n, x):
    y = n.a(x).mean((2, 3))
    return n.head(n.b(n.norm(y)))


def grouped_norm(n, x):
    return n.head(pooled(F.relu(n.norm(n.a(x)))))


def scaled(n, x):
    return n.head(pooled(n.scale(n.a(x))))


class Scale(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(channels, 1, 1) + 0.5)

    def forward(self, x):
        return x * self.gamma


def fixed(n, x):
    y = n.a(x)
    return n.head(pooled(y.reshape(len(x), 6, *x.shape[2:])))


def gated(n, x):
    y, gate = n.a(x).chunk(2, 1)
    return n.head(pooled(y * gate.sigmoid()))


def attended(n, x):
    q, k, v = n.qkv(n.a(x).flatten(2).transpose(1, 2)).chunk(3, -1)
    return n.head(n.out(F.scaled_dot_product_attention(q, k, v)).mean(1))


def softened(n, x):
    return n.head(pooled(n.a(x).softmax(1)))


def shuffled(n, x):
    y = n.a(x)
    y = y.view(len(x), 2, -1, *x.shape[2:]).transpose(1, 2).flatten(1, 2)
    return n.head(pooled(n.b(y)))


def broadcast(n, x):
    y = n.a(x)
    return n.head(pooled(n.b(y))) * n.c(pooled(y)).sigmoid()


def again(n, x):
    return n.head(pooled(n.b(n.b(n.a(x)))))


def channels_last(n, x):
    y = F.gelu(n.b(n.a(x).permute(0, 2, 3, 1)))
    return n.head(n.c(y).mean((1, 2)))


BN = nn.BatchNorm2d
NETS = {
    "plain": (plain, {"a": conv(3, 6), "bn": BN(6), "b": conv(6, 5), "head": nn.Linear(5, 4)}),
    "residual": (residual, {"a": conv(3, 6), "bn": BN(6), "b": conv(6, 6), "head": nn.Linear(6, 4)}),
    "concatenation": (joined, {"a": conv(3, 4), "b": conv(3, 6), "c": conv(10, 5), "head": nn.Linear(5, 4)}),
    "dense": (dense, {"a": conv(3, 4), "b": conv(4, 3), "bn": BN(7), "c": conv(7, 3), "head": nn.Linear(10, 4)}),
    "flatten": (flat, {"a": conv(3, 5), "b": nn.Linear(5 * 16, 6), "head": nn.Linear(6, 4)}),
    "depthwise": (
        squeezed,
        {"a": conv(3, 6, 1), "dw": conv(6, 6, groups=6), "bn": BN(6), "down": conv(6, 3, 1), "up": conv(3, 6, 1),
         "b": conv(6, 5, 1), "head": nn.Linear(5, 4)},
    ),
    "in groups": (plain, {"a": conv(3, 8), "bn": BN(8), "b": conv(8, 12, groups=2), "head": nn.Linear(12, 4)}),
    "two readers": (twice, {"a": conv(3, 6), "b": conv(6, 5), "c": conv(6, 5), "head": nn.Linear(5, 4)}),
    "transposed": (plain, {"a": conv(3, 6), "bn": BN(6), "b": nn.ConvTranspose2d(6, 5, 2), "head": nn.Linear(5, 4)}),
    "layer norm": (normed, {"a": conv(3, 6), "norm": nn.LayerNorm(6), "b": nn.Linear(6, 5), "head": nn.Linear(5, 4)}),
    "group norm": (grouped_norm, {"a": conv(3, 6), "norm": nn.GroupNorm(2, 6), "head": nn.Linear(6, 4)}),
    "bare parameter": (scaled, {"a": conv(3, 6), "scale": Scale(6), "head": nn.Linear(6, 4)}),
    "fixed shape": (fixed, {"a": conv(3, 6), "head": nn.Linear(6, 4)}),
    "gate": (gated, {"a": conv(3, 12), "head": nn.Linear(6, 4)}),
    "attention": (
        attended,
        {"a": conv(3, 6), "qkv": nn.Linear(6, 18), "out": nn.Linear(6, 5), "head": nn.Linear(5, 4)},
    ),
    "softmax": (softened, {"a": conv(3, 6), "head": nn.Linear(6, 4)}),
    "shuffle": (shuffled, {"a": conv(3, 8), "b": conv(8, 5), "head": nn.Linear(5, 4)}),
    "broadcast": (broadcast, {"a": conv(3, 6), "b": conv(6, 5), "c": nn.Linear(6, 1), "head": nn.Linear(5, 4)}),
    "used twice": (again, {"a": conv(3, 6), "b": conv(6, 6), "head": nn.Linear(6, 4)}),
    "channels last": (
        channels_last,
        {"a": conv(3, 6), "b": nn.Linear(6, 8), "c": nn.Linear(8, 5), "head": nn.Linear(5, 4)},
    ),
    "prelu": (plain, {"a": conv(3, 6), "bn": nn.PReLU(6), "b": conv(6, 5), "head": nn.Linear(5, 4)}),
    "instance norm": (
        plain,
        {"a": conv(3, 6), "bn": nn.InstanceNorm2d(6, affine=True), "b": conv(6, 5), "head": nn.Linear(5, 4)},
    ),
    "no scales": (plain, {"a": conv(3, 6), "bn": BN(6, affine=False), "b": conv(6, 5), "head": nn.Linear(5, 4)}),
    "transposed in groups": (
        plain,
        {"a": conv(3, 8), "bn": BN(8), "b": nn.ConvTranspose2d(8, 12, 2, groups=2), "head": nn.Linear(12, 4)},
    ),
    "transposed depthwise": (
        plain,
        {"a": conv(3, 8), "bn": BN(8), "b": nn.ConvTranspose2d(8, 8, 2, groups=8), "head": nn.Linear(8, 4)},
    ),
    "one filter a group": (plain, {"a": conv(3, 8), "bn": BN(8), "b": conv(8, 4, groups=4), "head": nn.Linear(4, 4)}),
    "two filters a group": (plain, {"a": conv(3, 4), "bn": BN(4), "b": conv(4, 8, groups=4), "head": nn.Linear(8, 4)}),
}  # fmt: skip
FOUND = {
    "plain": ["a", "b"],
    "residual": ["a"],
    "concatenation": ["a", "b", "c"],
    "dense": ["a", "b", "c"],
    "flatten": ["a", "b"],
    "depthwise": ["a", "b", "down"],
    "in groups": ["a", "b"],
    "two readers": ["a", "b"],
    "transposed": ["a", "b"],
    "layer norm": ["b"],
    "group norm": [],
    "bare parameter": [],
    "fixed shape": [],
    "gate": ["a"],
    "attention": ["a", "out"],
    "softmax": [],
    "shuffle": ["b"],
    "broadcast": ["a", "b"],
    "used twice": ["a"],
    "channels last": ["a", "b", "c"],
    "prelu": ["a", "b"],
    "instance norm": ["a", "b"],
    "no scales": ["a", "b"],
    "transposed in groups": ["a", "b"],
    "transposed depthwise": ["a"],
    "one filter a group": [],
    "two filters a group": ["b"],
}
EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def made(name):
    """A network with normalisation that does something."""
    run, layers = NETS[name]
    network = Net(run, **copy.deepcopy(layers)).eval()
    rng = torch.Generator().manual_seed(7)
    for p in network.parameters():
        p.data = torch.randn(p.shape, generator=rng)
    for b in network.buffers():
        if b.ndim:
            b.copy_(torch.rand(b.shape, generator=rng) + 0.5)
    return network


def shapes(network):
    return {n: tuple(p.shape) for n, p in network.named_parameters()}


@pytest.mark.parametrize("name", NETS)
def test_every_output_channel_is_in_exactly_one_unit(name):
    network = made(name)
    found = groups(network, EXAMPLE)
    for weight, w in prunable(network).items():
        layer = network.get_submodule(weight.removesuffix(".weight"))
        axis = int(isinstance(layer, nn.ConvTranspose2d) and layer.groups < layer.in_channels)
        parts = [s for g in found for s in g.slices if s.parameter == weight and s.role == "out"]
        if parts or not any(g.protected and not g.slices for g in found):  # those without slices lie unevenly
            places = torch.cat([p.places.flatten() for p in parts]).sort().values
            assert torch.equal(places, torch.arange(w.shape[axis])), weight
            assert all(p.axis == axis for p in parts)


@pytest.mark.parametrize("name", NETS)
def test_what_may_go_and_what_may_not(name):
    found = groups(made(name), EXAMPLE)
    assert sorted(g.name for g in found if not g.protected) == FOUND[name]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", [n for n in NETS if FOUND[n]])
def test_any_units_of_free_groups_can_be_zeroed_and_removed(name, seed):
    network = made(name)
    rng = torch.Generator().manual_seed(seed)
    free = [g for g in groups(network, EXAMPLE) if not g.protected]
    keeps = {g.name: torch.rand(g.units, generator=rng) < 0.5 for g in free}
    for keep in keeps.values():
        keep[0], keep[-1] = True, False
    masked = copy.deepcopy(network)
    for g in free:
        mask = unit_mask(g, keeps[g.name], shapes(network))
        apply_({n: p.data for n, p in masked.named_parameters()}, mask)
    smaller = without(masked, free, keeps)
    with torch.no_grad():
        torch.testing.assert_close(smaller(EXAMPLE), masked(EXAMPLE), rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", [n for n in NETS if FOUND[n]])
def test_a_shrunk_network_is_saved_and_opens_again(name, tmp_path):
    network = made(name)
    masks = {}
    for g in groups(network, EXAMPLE):
        if not g.protected:
            for n, m in unit_mask(g, torch.arange(g.units) % 3 > 0, shapes(network)).items():
                masks[n] = masks[n] & m if n in masks else m
    smaller, left = shrink(network, masks, EXAMPLE)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in network.parameters())
    save(smaller, tmp_path / "small.safetensors", left)
    again = load(tmp_path / "small.safetensors", into=made(name)).eval()
    with torch.no_grad():
        assert torch.equal(again(EXAMPLE), smaller(EXAMPLE))


@pytest.mark.parametrize("name", NETS)
def test_the_network_is_left_as_it_was(name):
    network = made(name).train()
    network.head.weight.requires_grad_(False)
    before = {n: t.clone() for n, t in network.state_dict().items()}
    rng = torch.random.get_rng_state()
    groups(network, EXAMPLE)
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), rng)
    assert all(m.training and not m._forward_hooks and not m._forward_pre_hooks for m in network.modules())
    assert [n for n, p in network.named_parameters() if not p.requires_grad] == ["head.weight"]
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("name", NETS)
def test_groups_do_not_depend_on_weights_or_batch(name):
    network, zeroed = made(name), made(name)
    for p in zeroed.parameters():
        p.data.zero_()
    for other in (groups(zeroed, EXAMPLE), groups(network, EXAMPLE[:1])):
        assert [(g.name, g.units, g.protected) for g in other] == [
            (g.name, g.units, g.protected) for g in groups(network, EXAMPLE)
        ]


def test_a_channel_before_flatten_is_a_block_of_columns():
    found = {g.name: g for g in groups(made("flatten"), EXAMPLE)}
    part = next(s for s in found["a"].slices if s.parameter == "b.weight")
    assert torch.equal(part.places, torch.arange(80).view(5, 16))
    assert (part.axis, part.role) == (1, "in")


def test_a_unit_of_a_convolution_in_groups_is_the_same_place_in_each():
    found = {g.name: g for g in groups(made("in groups"), EXAMPLE)}
    assert (found["a"].units, found["b"].units) == (4, 6)
    part = next(s for s in found["b"].slices if s.role == "out")
    assert torch.equal(part.places, torch.stack([torch.arange(6), torch.arange(6) + 6], 1))


def test_a_mask_covers_rows_biases_normalisation_and_columns_but_no_buffers():
    network = made("residual")
    group = next(g for g in groups(network, EXAMPLE) if g.name == "a")
    mask = unit_mask(group, torch.arange(6) != 2, shapes(network))
    assert set(mask) == {"a.weight", "a.bias", "bn.weight", "bn.bias", "b.weight", "b.bias", "head.weight"}
    assert {n: int((~m).sum()) for n, m in mask.items()} == {
        "a.weight": 27, "a.bias": 1, "bn.weight": 1, "bn.bias": 1, "b.weight": 108 - 9, "b.bias": 1, "head.weight": 4,
    }  # fmt: skip


def test_a_network_that_cannot_be_traced_is_refused_in_one_line():
    def broken(n, x):
        raise RuntimeError("a shape\nthat is wrong")

    with pytest.raises(Refused) as refusal:
        groups(Net(broken, a=conv(3, 4)), EXAMPLE)
    assert "Net" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_network_may_give_several_outputs():
    def both(n, x):
        y = n.a(x)
        return {"scores": n.head(pooled(n.b(y))), "more": (n.c(pooled(y)),)}

    network = Net(both, a=conv(3, 6), b=conv(6, 5), c=nn.Linear(6, 3), head=nn.Linear(5, 4)).eval()
    assert [g.name for g in groups(network, EXAMPLE) if not g.protected] == ["a", "b"]


def test_layers_that_share_a_weight_are_left_alone():
    network = Net(
        lambda n, x: n.head(pooled(n.c(n.b(n.a(x))))), a=conv(3, 6), b=conv(6, 6), c=conv(6, 6), head=nn.Linear(6, 4)
    )
    network.c.weight = network.b.weight
    assert {g.name: g.protected for g in groups(network, EXAMPLE)}["a"] == "b shares its weight"


def test_ties_name_layers_channel_by_channel():
    """What we rely on in the dependency graph: indices that lead back to the root, through concatenation."""
    found = ties(made("concatenation"), EXAMPLE)
    read = next(t for t in found["b"] if t.module == "c" and t.kind == "in")
    assert sorted(read.pairs) == [(i, i + 4) for i in range(6)]
    norm = next(t for t in ties(made("plain"), EXAMPLE)["a"] if t.kind == "norm")
    assert (norm.module, sorted(norm.pairs)) == ("bn", [(i, i) for i in range(6)])


class Auxiliary(nn.Module):
    """A head that works in training mode only, and reads channels that the trace ties to other layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 16)
        self.head, self.aux = nn.Linear(16, 10), nn.Linear(16, 10)

    def forward(self, x):
        h = torch.relu(self.first(x))
        answer = self.head(torch.relu(self.second(h)))
        return answer + self.aux(h) if self.training else answer


class Branching(nn.Module):
    """A layer that other images would be answered by."""

    def __init__(self):
        super().__init__()
        self.first, self.small, self.large = nn.Linear(8, 16), nn.Linear(16, 10), nn.Linear(16, 10)

    def forward(self, x):
        h = torch.relu(self.first(x))
        return self.small(h) if x.mean() < 100 else self.large(h)


@pytest.mark.parametrize(("network", "layer"), [(Auxiliary(), "aux"), (Branching(), "large")])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_layer_that_has_no_part_in_the_outputs_is_refused_by_name(network, layer, frozen):
    network.requires_grad_(not frozen)
    with pytest.raises(Refused, match=f"^{layer} has no part in what the network computes"):
        groups(network, torch.randn(2, 8))
    setattr(network, layer, nn.Identity())
    assert any(not g.protected for g in groups(network, torch.randn(2, 8)))
    setattr(network, layer, nn.Linear(16, 10))
