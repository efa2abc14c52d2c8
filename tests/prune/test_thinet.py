"""ThiNet's parts against what they stand for: explicit sums, every order tried, least squares on the samples."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunery.masks import apply_
from prunery.pruning import Known, groups, pruned, unit_mask, whole
from prunery.pruning import thinet as room
from prunery.spec import Prune, Refused


def rng(seed=1):
    return torch.Generator().manual_seed(seed)


def random(*shape, seed=0):
    return torch.randn(shape, generator=rng(seed))


class Net(nn.Module):
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


def row(n, x):
    return n.head(pooled(n.b(F.relu(n.a(x)))))


def deep(n, x):
    return n.head(F.relu(n.c(F.relu(n.b(F.relu(n.a(x)))).flatten(1))))


def residual(n, x):
    y = F.relu(n.a(x))
    return n.head(pooled(n.c(F.relu(y + n.b(y)))))


NETS = {
    "convolution": (row, lambda: {"a": conv(3, 6), "b": conv(6, 5), "head": nn.Linear(5, 4)}),
    "strided": (row, lambda: {"a": conv(3, 6), "b": conv(6, 5, stride=2, padding=0), "head": nn.Linear(5, 4)}),
    "dilated": (row, lambda: {"a": conv(3, 6), "b": conv(6, 5, dilation=2, padding="same"), "head": nn.Linear(5, 4)}),
    "even": (row, lambda: {"a": conv(3, 6), "b": conv(6, 5, 2, padding="same"), "head": nn.Linear(5, 4)}),
    "flatten": (
        deep,
        lambda: {"a": conv(3, 6), "b": conv(6, 5), "c": nn.Linear(5 * 64, 7), "head": nn.Linear(7, 4)},
    ),
    "residual": (residual, lambda: {"a": conv(3, 6), "b": conv(6, 6), "c": conv(6, 5), "head": nn.Linear(5, 4)}),
}
BATCHES = [(random(16, 3, 8, 8, seed=s), torch.arange(16) % 4) for s in (1, 2)]


def made(name):
    run, layers = NETS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net(run, **layers()).eval()


def group_of(network, name):
    return next(g for g in groups(network, BATCHES[0][0][:1]) if g.name == name)


def reader(network, group):
    part = next(s for s in group.slices if s.role == "in")
    return part, network.get_submodule(part.parameter.removesuffix(".weight"))


def read(network, layer):
    """What a layer reads on all batches."""
    found = []
    hook = layer.register_forward_pre_hook(lambda m, x: found.append(x[0].detach()))
    with torch.no_grad():
        for x, _ in BATCHES:
            network(x)
    hook.remove()
    return found


CASES = [("convolution", "a"), ("strided", "a"), ("dilated", "a"), ("even", "a"), ("flatten", "a"), ("flatten", "b")]


@pytest.mark.parametrize(("name", "group"), CASES)
def test_shares_add_up_to_numbers_of_the_layers_own_output(name, group):
    """Each row of X sums to one number that the layer gives before its bias; and there are ten an image."""
    network = made(name)
    part, layer = reader(network, group_of(network, group))
    x = read(network, layer)[0]
    shares = room._shares(layer, part, x, rng())
    with torch.no_grad():
        y = layer(x) - layer.bias.view(1, -1, *[1] * (x.ndim - 2))
    assert shares.shape == (len(x) * room.SAMPLES, len(part.places))
    for i, sums in enumerate(shares.sum(1).view(len(x), -1)):
        distances = (sums[:, None] - y[i].flatten()[None]).abs().min(1).values
        assert float(distances.max()) < 1e-5


@pytest.mark.parametrize(("name", "group"), CASES)
def test_a_units_share_is_what_goes_with_it(name, group):
    """Silencing a unit's input channels takes its column from every sum."""
    network = made(name)
    part, layer = reader(network, group_of(network, group))
    x = read(network, layer)[0]
    silent = x.clone()
    silent[:, part.places[2]] = 0
    whole, without = (room._shares(layer, part, t, rng()) for t in (x, silent))
    torch.testing.assert_close(whole.sum(1) - without.sum(1), whole[:, 2], rtol=1e-4, atol=1e-5)
    assert not without[:, 2].any()


@pytest.mark.parametrize(("name", "group"), CASES)
def test_the_gram_matrix_is_the_sum_over_samples(name, group):
    network = made(name)
    which = group_of(network, group)
    part, layer = reader(network, which)
    draw = rng()
    each = torch.cat([room._shares(layer, part, x, draw) for x in read(network, layer)]).double()
    wanted = torch.zeros(which.units, which.units, dtype=torch.float64)
    for sample in each:
        wanted += sample[:, None] * sample[None]
    torch.testing.assert_close(room.grams(network, which, BATCHES, rng())[part.parameter], wanted)


@pytest.mark.parametrize("seed", range(5))
def test_the_greedy_order_takes_the_least_harmful_next(seed):
    """Against the loss itself: |sum of all columns that have gone|^2, for every candidate at every turn."""
    x = random(40, 6, seed=seed).double()
    place = room._order(x.T @ x)
    gone = []
    for turn in range(6):
        harms = {j: float(x[:, [*gone, j]].sum(1).square().sum()) for j in range(6) if j not in gone}
        gone.append(min(harms, key=harms.get))
        assert int(place[gone[-1]]) == turn


@pytest.mark.parametrize("seed", range(5))
def test_with_shares_that_do_not_mix_greedy_is_the_best_subset(seed):
    x = torch.linalg.qr(random(40, 6, seed=seed).double())[0] * torch.arange(1.0, 7.0).double()
    place = room._order(x.T @ x)
    for count in range(1, 6):
        best = min(itertools.combinations(range(6), count), key=lambda t: float(x[:, list(t)].sum(1).square().sum()))
        assert set(best) == set((place < count).nonzero().flatten().tolist())


@pytest.mark.parametrize("seed", range(5))
def test_factors_are_the_least_squares_of_the_samples(seed):
    x = random(60, 7, seed=seed).double()
    keep = torch.tensor([True, False, True, True, False, True, True])
    wanted = torch.linalg.lstsq(x[:, keep], x.sum(1, keepdim=True)).solution.flatten()
    torch.testing.assert_close(room._least_squares(x.T @ x, keep), wanted, rtol=1e-4, atol=1e-4)


def test_channels_that_say_the_same_share_their_work():
    column = random(60, 1).double()
    x = torch.cat([column, column, random(60, 1, seed=4).double()], 1)
    factors = room._least_squares(x.T @ x, torch.tensor([True, True, True]))
    torch.testing.assert_close(factors, torch.ones(3).double(), rtol=1e-3, atol=1e-3)


def asked(density, **more):
    return Prune(criterion="thinet", structure="coupled", scope="layer", density=density, **more)


def thinned(network, how):
    """What ThiNet makes of a network."""
    mask, changed = pruned(network, {}, how, Known(BATCHES), rng())
    smaller = copy.deepcopy(network)
    named = dict(smaller.named_parameters())
    for n, w in changed.items():
        named[n].data.copy_(w)
    apply_({n: named[n].data for n in mask}, mask)
    return smaller, mask, changed


def difference(a, b):
    with torch.no_grad():
        return max(float((a(x) - b(x)).abs().max()) for x, _ in BATCHES)


@pytest.mark.parametrize("name", ["convolution", "strided", "flatten"])
def test_of_two_equal_channels_read_alike_the_ones_weight_doubles(name):
    network = made(name)
    with torch.no_grad():
        for own in (network.a.weight, network.a.bias):
            own[3:] = own[:3]
        network.b.weight[:, 3:] = network.b.weight[:, :3]
    readers = network.b.weight.detach().clone()
    smaller, mask, changed = thinned(network, asked(0.5, layers=("a",)))
    keep = mask["a.weight"].flatten(1).any(1)
    assert (keep[:3] ^ keep[3:]).all()
    torch.testing.assert_close(changed["b.weight"][:, keep], 2 * readers[:, keep], rtol=1e-3, atol=1e-3)
    assert difference(network, smaller) < 1e-3


@pytest.mark.parametrize("name", ["convolution", "flatten"])
def test_what_two_layers_lost_is_made_good_one_after_the_other(name):
    """The second layer's factors are found behind the first one as it now is, without the channels that have gone."""
    network = made(name)
    with torch.no_grad():
        for layer, after in (("a", "b"), ("b", "c" if name == "flatten" else "head")):
            own, reads = network.get_submodule(layer), network.get_submodule(after)
            half = len(own.weight) // 2
            own.weight[half : 2 * half], own.bias[half : 2 * half] = own.weight[:half], own.bias[:half]
            wide = reads.weight.shape[1] // len(own.weight)
            reads.weight[:, half * wide : 2 * half * wide] = reads.weight[:, : half * wide]
    coupled = groups(network, BATCHES[0][0][:1])
    shapes = {n: tuple(p.shape) for n, p in network.named_parameters()}
    mask = {n: torch.ones(s, dtype=torch.bool) for n, s in shapes.items()}
    for group, keep in (("a", [1, 1, 1, 0, 0, 0]), ("b", [1, 1, 0, 0, 1])):
        which = next(g for g in coupled if g.name == group)
        mask |= {n: m & mask[n] for n, m in unit_mask(which, torch.tensor(keep) > 0, shapes).items()}
    smaller = copy.deepcopy(network)
    named = dict(smaller.named_parameters())
    found = whole._reweighted(network, {}, mask, asked(0.5), Known(BATCHES), coupled, rng())
    for n, w in found.items():
        named[n].data.copy_(w)
    apply_({n: p.data for n, p in named.items()}, mask)
    assert len(found) == 2
    assert difference(network, smaller) < 1e-3


@pytest.mark.parametrize("name", ["convolution", "flatten", "residual"])
def test_each_layer_is_judged_behind_those_that_were_pruned_before_it(name):
    """Factors of both layers at once are those of the second after the first was really pruned."""
    network = made(name)
    coupled = [g for g in groups(network, BATCHES[0][0][:1]) if not g.protected]
    shapes = {n: tuple(p.shape) for n, p in network.named_parameters()}
    mask = {n: torch.ones(s, dtype=torch.bool) for n, s in shapes.items()}
    twin, draw, wanted = copy.deepcopy(network), rng(), {}
    named = dict(twin.named_parameters())
    for group in coupled:
        keep = torch.arange(group.units) % 3 != 1
        found = room.reweighted(twin, group, keep, BATCHES, draw)
        for n, w in found.items():
            named[n].data.copy_(w)
        gone = unit_mask(group, keep, shapes)
        apply_({n: named[n].data for n in gone}, gone)
        wanted |= found
        mask |= {n: m & mask[n] for n, m in gone.items()}
    at_once = whole._reweighted(network, {}, mask, asked(0.5), Known(BATCHES), coupled, rng())
    assert len(coupled) > 1
    assert at_once.keys() == wanted.keys()
    for n, w in wanted.items():
        torch.testing.assert_close(at_once[n] * mask[n], w * mask[n])


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("density", [0.7, 0.4])
def test_reweighting_leaves_no_larger_error_where_it_was_fitted(name, density):
    """The sampled outputs of the reading layer, for the first group that may go, with the same channels gone."""
    network = made(name)
    which = group_of(network, "a")
    part, layer = reader(network, which)
    errors = {}
    for reweight in (True, False):
        smaller, *_ = thinned(network, asked(density, layers=("a",), reweight=reweight))
        lost = smaller.get_submodule(part.parameter.removesuffix(".weight"))
        with torch.no_grad():
            errors[reweight] = sum(
                float((layer(x) - lost(y)).square().sum())
                for x, y in zip(read(network, layer), read(smaller, lost), strict=True)
            )
    assert errors[True] <= errors[False] * 1.1  # fitted on some places, judged on all


def test_without_reweighting_no_weight_changes():
    _, _, changed = thinned(made("convolution"), asked(0.5, reweight=False))
    assert changed == {}


def test_nothing_pruned_nothing_changed():
    network = made("flatten")
    smaller, mask, changed = thinned(network, asked(1.0))
    assert all(m.all() for m in mask.values())
    assert changed == {}
    assert difference(network, smaller) == 0


def test_the_network_that_is_judged_stays_as_it_was():
    network = made("residual")
    before = {n: t.clone() for n, t in network.state_dict().items()}
    thinned(network, asked(0.5))
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())


def test_the_seed_decides_the_places():
    network = made("convolution")
    which = group_of(network, "a")
    grams = [room.grams(network, which, BATCHES, rng(s))["b.weight"] for s in (1, 1, 2)]
    assert torch.equal(grams[0], grams[1])
    assert not torch.equal(grams[0], grams[2])


UNFIT = {
    "in groups": {"a": conv(3, 8), "b": conv(8, 6, groups=2), "head": nn.Linear(6, 4)},
    "transposed": {"a": conv(3, 6), "b": nn.ConvTranspose2d(6, 5, 2, stride=2), "head": nn.Linear(5, 4)},
}


@pytest.mark.parametrize("name", UNFIT)
def test_readers_that_it_cannot_judge_are_refused_in_one_line(name):
    with pytest.raises(Refused, match=r"^thinet: b reads a and is a Conv.*: exclude a, or use criterion l1$"):
        thinned(Net(row, **UNFIT[name]).eval(), asked(0.5))


def test_channels_whose_reader_sees_nothing_are_refused():
    network = made("convolution")
    with torch.no_grad():
        network.b.weight.zero_()
    with pytest.raises(Refused, match="no layer that reads a shows inputs"):
        thinned(network, asked(0.5))
