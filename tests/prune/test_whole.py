"""Laws of pruning a whole network that is really looked at: every criterion, structure, scope and schedule, on data."""

import copy
import warnings
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.nn.utils.parametrize import remove_parametrizations

from prunery.masks import apply_, computed, prunable
from prunery.measure import count, totals
from prunery.models import describe
from prunery.pruning import CRITERIA, SCHEDULES, SCOPES, STRUCTURES, Known, alone, groups, prune, pruned, shrink
from prunery.pruning.thinet import kept_units
from prunery.pruning.whole import eligible
from prunery.spec import Prune, Refused


def rng(seed=1):
    return torch.Generator().manual_seed(seed)


class Net(nn.Module):
    """Two normalised convolutions, one with a way around it, and two linear layers."""

    def __init__(self):
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.b, self.norm_b = nn.Conv2d(6, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6)
        self.c, self.norm_c = nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(4))
        self.fc, self.head = nn.Linear(8, 7), nn.Linear(7, 4)

    def forward(self, x):
        x = self.relus[0](self.norm_a(self.a(x)))
        x = self.relus[1](self.norm_b(self.b(x)) + x[..., ::2, ::2])
        x = self.relus[2](self.norm_c(self.c(x)))
        return self.head(self.relus[3](self.fc(x.mean((2, 3)))))


def made(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Net().eval()
        for norm in (network.norm_a, network.norm_b, network.norm_c):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.2)
            norm.running_var.uniform_(0.3, 1.0)
        return network


BATCHES = [(torch.randn(16, 3, 8, 8, generator=rng(s)), torch.arange(16) % 4) for s in (1, 2)]
FIRST = {n: w + 0.3 * torch.randn(w.shape, generator=rng(4)) for n, w in prunable(made()).items()}
KNOWN = Known(BATCHES, FIRST)
COUPLED = groups(made(), BATCHES[0][0])
PLAIN = tuple(STRUCTURES)
NORMED = ("fc", "head")
"""layers that no normalisation reads"""


def asked(density, criterion="magnitude", structure="weight", scope="global", **more):
    if criterion == "bn_scale":
        more["exclude"] = NORMED
    if scope == "table":
        more["table"] = (f"*={density}",)
    return Prune(density=density, criterion=criterion, structure=structure, scope=scope, **more)


def counts(mask, how):
    """Kept and all units of each layer (or group) that may be pruned; and no unit is cut through."""
    weights = eligible(made(), how)
    if how.structure == "coupled":
        free = [g for g in COUPLED if not g.protected and set(g.makers) <= set(weights)]
        for g in free:
            for part in g.slices:
                if part.role in ("out", "bias", "norm") and part.parameter in mask:
                    rows = mask[part.parameter].movedim(part.axis, 0)[part.places.flatten()].reshape(g.units, -1)
                    assert torch.equal(rows.any(1), kept_units(g, mask)), part
        return {g.name: (int(kept_units(g, mask).sum()), g.units) for g in free}
    split = STRUCTURES[how.structure].split
    return {n: (int((split(mask[n]).float().sum(1) > 0).sum()), len(split(mask[n]))) for n in weights}


def exact(mask, how):
    """Whether a mask keeps what was asked for, to the unit."""
    found = counts(mask, how)
    if how.scope in ("layer", "table"):
        return all(k == max(1, round(how.density * n)) for k, n in found.values())
    total = sum(n for _, n in found.values())
    return sum(k for k, _ in found.values()) == max(len(found), round(how.density * total))


def result(how, network=None, mask=None):
    return pruned(network or made(), mask or {}, how, KNOWN, rng())


BY_CRITERION = [(c, s, "global") for c in CRITERIA if c != "thinet" for s in (*PLAIN, "coupled")]
BY_CRITERION += [("thinet", "coupled", "layer"), ("thinet", "coupled", "sensitivity"), ("thinet", "coupled", "table")]
BY_SCOPE = [(c, st, sc) for c in ("taylor", "l2") for st in (*PLAIN, "coupled") for sc in SCOPES
            if sc != "global" and (sc != "lamp" or st == "weight")]  # fmt: skip


@pytest.mark.parametrize(("criterion", "structure", "scope"), BY_CRITERION + BY_SCOPE)
def test_counts_are_exact_and_pruned_stays_pruned(criterion, structure, scope):
    high, low = (0.95, 0.8) if scope == "uniform" else (0.7, 0.4)
    first, changed = result(asked(high, criterion, structure, scope))
    assert exact(first, asked(high, criterion, structure, scope))
    network = made()
    named = dict(network.named_parameters())
    for n, w in changed.items():
        named[n].data.copy_(w)
    apply_({n: named[n].data for n in first}, first)
    second, _ = result(asked(low, criterion, structure, scope), network, first)
    assert exact(second, asked(low, criterion, structure, scope))
    assert all(not (second[n] & ~first[n]).any() for n in first)
    assert bool(changed) == (criterion == "thinet")


@pytest.mark.parametrize("structure", ["2:4", "1:4", "4:8", "1:2"])
@pytest.mark.parametrize("criterion", ["magnitude", "snip", "wanda"])
def test_n_of_m_of_a_network(criterion, structure):
    mask, _ = result(Prune(criterion=criterion, structure=structure))
    n, m = map(int, structure.split(":"))
    for name in prunable(made()):
        rows = mask[name].movedim(1, -1).reshape(-1, mask[name].shape[1])
        for start in range(0, rows.shape[1], m):
            run = rows[:, start : start + m]
            assert (run.sum(1) == min(n, run.shape[1])).all()


@pytest.mark.parametrize("structure", ["weight", "filter", "1x4", "coupled"])
@pytest.mark.parametrize("schedule", [s for s in SCHEDULES if s != "oneshot"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_rounds_end_exactly_at_the_target(structure, schedule, scope):
    how = asked(0.3, "snip", structure, scope, schedule=schedule, rounds=4)
    mask, _ = result(how)
    assert exact(mask, how)
    again, _ = result(asked(0.2, "snip", structure, scope, schedule=schedule, rounds=3), mask=mask)
    assert exact(again, asked(0.2, "snip", structure, scope))
    assert all(not (again[n] & ~mask[n]).any() for n in mask)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("start", "end"), [(1.0, 0.1), (0.5, 0.5), (0.3, 1e-4)])
def test_schedules_fall_and_end_where_they_must(schedule, start, end):
    for rounds in (1, 2, 7, 100):
        densities = SCHEDULES[schedule](start, end, rounds)
        assert densities[-1] == end
        assert len(densities) == (1 if schedule == "oneshot" else rounds)
        assert all(end <= later <= earlier <= start for earlier, later in pairwise(densities))


@pytest.mark.parametrize("scope", ["global", "layer", "erk"])
@pytest.mark.parametrize("structure", ["filter", "channel", "weight", "coupled"])
def test_rounds_begin_at_what_is_left_of_the_units_themselves(scope, structure):
    """Most filters are gone, most weights are not: a first round in shares of the weights would bring filters back."""
    first, _ = result(Prune(structure=structure, scope="table", table=("a*=0.1", "fc=0.2")))
    left = counts(first, asked(0.5, structure=structure))
    share = sum(k for k, _ in left.values()) / sum(n for _, n in left.values())
    how = asked(min(k / n for k, n in left.values()) if scope == "layer" else share * 0.9,
                structure=structure, scope=scope, schedule="geometric", rounds=6)  # fmt: skip
    mask, _ = result(how, mask=first)
    assert exact(mask, how)


def test_rounds_look_anew():
    """Synaptic flow prunes whole layers when it looks but once (Tanaka et al., figure 3), not so in many rounds."""
    mask, _ = result(asked(0.1, "synflow", schedule="geometric", rounds=30))
    once, _ = result(asked(0.1, "synflow"))
    assert any(not torch.equal(mask[n], once[n]) for n in mask)
    network = made()
    apply_({n: p.data for n, p in network.named_parameters()}, mask)
    assert all(p.abs().sum() > 0 for n, p in network.named_parameters() if n in mask)


def multiply_adds(mask, network=None):
    return totals(count(network or made(), (3, 8, 8), masks=mask))


@pytest.mark.parametrize("scope", ["global", "layer", "erk", "flops", "sensitivity"])
@pytest.mark.parametrize("structure", ["weight", "filter", "coupled"])
def test_a_budget_of_multiply_adds_is_met_from_below(structure, scope):
    how = asked(0.5, structure=structure, scope=scope, budget="multiply_adds")
    mask, _ = result(how)
    found = multiply_adds(mask)
    most = max(p.numel() // len(p) for p in prunable(made()).values()) * 64 * (3 if structure == "coupled" else 1)
    step = 64 if structure == "weight" else most
    more = step * (len(counts(mask, how)) if scope == "layer" else 1)
    assert 0.5 * found["multiply_adds"] - more <= found["kept_multiply_adds"] <= 0.5 * found["multiply_adds"]


def test_a_budget_is_a_share_of_the_work_that_there_was_at_first():
    full = multiply_adds({})["multiply_adds"]
    how = asked(0.25, budget="multiply_adds")
    mask, _ = pruned(made(), {}, how, Known(BATCHES, full=2.0 * full), rng())
    assert 0.49 * full < multiply_adds(mask)["kept_multiply_adds"] <= 0.5 * full
    rounds, _ = pruned(made(), {}, asked(0.25, budget="multiply_adds", schedule="linear", rounds=3),
                       Known(BATCHES, full=2.0 * full), rng())  # fmt: skip
    assert 0.49 * full < multiply_adds(rounds)["kept_multiply_adds"] <= 0.5 * full


@pytest.mark.parametrize("structure", ["weight", "coupled"])
def test_the_first_and_the_last_layer_stay_whole_when_asked(structure):
    mask, _ = result(asked(0.4, structure=structure, keep_first=True, keep_last=True))
    assert mask.get("a.weight", torch.ones(1)).all()
    if structure == "weight":
        assert set(mask) == {"b.weight", "c.weight", "fc.weight"}
    assert exact(mask, asked(0.4, structure=structure, keep_first=True, keep_last=True))


def test_the_channels_of_the_last_layer_are_the_answers_and_stay():
    mask, _ = result(asked(0.3, structure="coupled"))
    assert mask["head.weight"].any(1).all()
    assert mask.get("head.bias", torch.ones(4)).all()


def test_the_network_that_is_judged_stays_as_it_was():
    network = made().train()
    before = {n: t.clone() for n, t in network.state_dict().items()}
    result(asked(0.3, "snip", "coupled", schedule="geometric", rounds=2), network)
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())
    assert all(m.training for m in network.modules())


def test_the_same_seed_gives_the_same_mask():
    masks = [pruned(made(), {}, asked(0.5, "random"), KNOWN, rng(s))[0] for s in (1, 1, 2)]
    assert all(torch.equal(masks[0][n], masks[1][n]) for n in masks[0])
    assert any(not torch.equal(masks[0][n], masks[2][n]) for n in masks[0])


@pytest.mark.parametrize("structure", ["weight", "filter", "coupled"])
@pytest.mark.parametrize("scope", ["global", "table"])
def test_alone_prunes_one_layer_at_a_time(structure, scope):
    how = asked(0.5, structure=structure, scope=scope)
    found = alone(made(), {}, how, KNOWN, (0.5, 0.25), rng())
    assert set(found) - {""} == set(counts(result(asked(1.0, structure=structure))[0], how))
    network = made()
    mask, _ = result(Prune(structure=structure, scope="table", table=("c*=0.5",)))
    apply_({n: p.data for n, p in network.named_parameters()}, mask)
    name = "c" if structure == "coupled" else "c.weight"
    x, y = (torch.cat(parts) for parts in zip(*BATCHES, strict=True))
    with torch.no_grad():
        assert found[name][0.5][0] == pytest.approx(float(F.cross_entropy(network(x), y)), rel=1e-5)
        assert found[""][1.0][0] == pytest.approx(float(F.cross_entropy(made()(x), y)), rel=1e-5)


class Idle(Net):
    def __init__(self):
        super().__init__()
        self.idle = nn.Linear(5, 5)


class Upward(nn.Module):
    """A transposed convolution: its axes are the other way round."""

    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.up, self.norm_up = nn.ConvTranspose2d(6, 4, 2, stride=2), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 4)

    def forward(self, x):
        return self.head(F.relu(self.norm_up(self.up(F.relu(self.norm(self.a(x)))))).mean((2, 3)))


@pytest.mark.parametrize("structure", ["weight", "filter", "coupled"])
@pytest.mark.parametrize("criterion", [c for c in CRITERIA if c != "thinet"])
def test_transposed_convolutions_are_judged_by_every_criterion(criterion, structure):
    network = Upward().eval()
    exclude = ("head",) if criterion == "bn_scale" else ()
    first = {n: torch.randn(w.shape) for n, w in prunable(network).items()}
    how = Prune(criterion=criterion, structure=structure, density=0.5, exclude=exclude)
    mask, _ = pruned(network, {}, how, Known(BATCHES, first), rng())
    if structure == "coupled":
        kept = [kept_units(g, mask) for g in groups(network, BATCHES[0][0]) if not g.protected]
        assert sum(int(k.sum()) for k in kept) == 5


@pytest.mark.parametrize(("groups_", "axis"), [(1, 1), (2, None)])
@pytest.mark.parametrize("structure", ["filter", "channel", "1x4", "2:4"])
def test_structures_know_where_a_transposed_convolution_has_its_outputs(structure, groups_, axis):
    """The same layer as a linear map: units of its weight are those of the plain convolution's that goes back."""
    torch.manual_seed(0)
    up = nn.ConvTranspose2d(8, 6, 2, groups=groups_)
    network = nn.Sequential(up, nn.Conv2d(6, 4, 1)).eval()
    how = Prune(structure=structure, layers=("0",), **({} if ":" in structure else {"scope": "layer", "density": 0.5}))
    mask, _ = pruned(network, {}, how, Known([(torch.randn(2, 8, 4, 4), torch.arange(2))]), rng())
    parts = [w.transpose(0, 1) for w in up.weight.detach().chunk(groups_)]  # each group's [out, in]
    plain = {"0.weight": torch.cat(parts)}
    wanted = prune(plain, None, how)["0.weight"].chunk(groups_)
    assert torch.equal(mask["0.weight"], torch.cat([w.transpose(0, 1) for w in wanted]))
    if structure == "filter" and axis is not None:
        gone = ~mask["0.weight"].transpose(0, axis).flatten(1).any(1)
        apply_({"0.weight": up.weight}, {"0.weight": mask["0.weight"]})
        with torch.no_grad():
            y = up(torch.randn(1, 8, 4, 4)) - up.bias.view(1, -1, 1, 1)
        assert (int(gone.sum()), bool((y[:, gone] == 0).all()), bool((y[:, ~gone] != 0).any())) == (3, True, True)
    rounds = how if ":" in structure else replace(how, schedule="linear", rounds=2)
    again, _ = pruned(network, {}, rounds, Known([(torch.randn(2, 8, 4, 4), torch.arange(2))]), rng())
    assert int(again["0.weight"].sum()) == int(mask["0.weight"].sum())


class Wide(nn.Module):
    """Three layers beside each other: what goes in one changes nothing of what the others read."""

    def __init__(self, sides=(1, 3, 7), width=32):
        super().__init__()
        for name, side in zip("abc", sides, strict=True):
            self.add_module(name, nn.Conv2d(3, width, side, padding=side // 2))
        self.head = nn.Linear(3 * width, 4)

    def forward(self, x):
        return self.head(torch.cat([self.a(x), self.b(x), self.c(x)], 1).relu().mean((2, 3)))


@pytest.mark.parametrize("structure", ["filter", "coupled"])
def test_chance_does_not_mind_how_wide_a_layer_is(structure):
    """The mean of many random numbers is a half: under one ranking wide layers would all be kept or all go."""
    torch.manual_seed(0)
    network, width = Wide(width=200).eval(), 200
    how = Prune(density=0.25, criterion="random", structure=structure, exclude=("head",))
    mask, _ = pruned(network, {}, how, Known(BATCHES), rng())
    kept = [int(mask[f"{n}.weight"].flatten(1).any(1).sum()) for n in "abc"]
    assert sum(kept) == 150
    spread = (0.25 * 0.75 * width) ** 0.5
    assert all(abs(k - 50) < 3.5 * spread for k in kept)


@pytest.mark.parametrize("criterion", ["magnitude", "l2"])
@pytest.mark.parametrize("rounds", [2, 10])
def test_rounds_of_coupled_channels_end_where_one_does(rounds, criterion):
    """Relative to the channels that are left, the last of a group would always be middling."""
    torch.manual_seed(0)
    network = Wide().eval()
    with torch.no_grad():
        for layer, power in ((network.a, 3), (network.b, 1), (network.c, 0.3)):  # few large ones, or all alike
            layer.weight.copy_(layer.weight.sign() * layer.weight.abs() ** power)
    how = Prune(density=0.25, criterion=criterion, structure="coupled", exclude=("head",))
    once, _ = pruned(network, {}, how, Known(BATCHES), rng())
    mask, _ = pruned(network, {}, replace(how, schedule="geometric", rounds=rounds), Known(BATCHES), rng())
    assert all(torch.equal(mask[n], once[n]) for n in once)


@pytest.mark.parametrize("schedule", ["geometric", "linear"])
def test_layers_in_a_row_keep_about_the_same_in_rounds(schedule):
    """What a layer reads goes as well: rows that are shorter are no smaller by weight. The first, whose sums are the
    shortest, has the largest channels and the smallest."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3)]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4)).eval()
    for rounds in (1, 8):
        more = {"schedule": schedule, "rounds": rounds} if rounds > 1 else {}
        mask, _ = pruned(network, {}, Prune(density=0.25, structure="coupled", **more), Known(BATCHES), rng())
        first, *others = (int(mask[f"{n}.weight"].flatten(1).any(1).sum()) for n in (0, 2, 4))
        assert first + sum(others) == 24
        assert first > max(others) + 2


LATER = [
    ({"layers": ("b",)}, {"a.weight": 3}),
    ({"scope": "table", "table": ("b=0.5",)}, {"a.weight": 3}),
    ({"scope": "table", "table": ("b=0.5", "c=0.25")}, {"a.weight": 3, "c.weight": 2}),
    ({"layers": ("c",)}, {"c.weight": 4}),
]


@pytest.mark.parametrize(("more", "left"), LATER)
def test_any_layer_of_a_group_names_it(more, left):
    mask, _ = result(Prune(density=0.5, structure="coupled", **({"scope": "layer"} | more)))
    for name in ("a.weight", "b.weight", "c.weight", "fc.weight"):
        rows = int(mask[name].flatten(1).any(1).sum()) if name in mask else len(getattr(made(), name[:-7]).weight)
        assert rows == left.get("a.weight" if name == "b.weight" else name, {"c": 8, "f": 7}.get(name[0], 6))


class Depthwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.each, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, groups=6), nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.each(self.a(x).relu()).mean((2, 3)))


def test_a_kind_names_the_groups_of_its_layers():
    how = Prune(structure="coupled", scope="table", table=("kind:depthwise=0.5",))
    mask, _ = pruned(Depthwise(), {}, how, Known(BATCHES), rng())
    assert int(mask["a.weight"].flatten(1).any(1).sum()) == 3


def parametrised():
    return nn.Sequential(weight_norm(nn.Linear(8, 64)), nn.ReLU(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))


def hook_normed():
    network = parametrised()
    remove_parametrizations(network[0], "weight")
    with warnings.catch_warnings(action="ignore"):
        nn.utils.weight_norm(network[0])
    return network


@pytest.mark.parametrize("structure", ["weight", "filter", "coupled"])
@pytest.mark.parametrize("make", [parametrised, hook_normed])
def test_layers_whose_weights_are_computed_are_excluded_or_refused(make, structure):
    known = Known([(torch.randn(2, 8), torch.arange(2))])
    with pytest.raises(Refused, match=r"^prune: the weight of 0 is parametrised.* first, or exclude it$"):
        pruned(make(), {}, Prune(density=0.5, structure=structure), known, rng())
    mask, _ = pruned(make(), {}, Prune(density=0.5, structure=structure, exclude=("0",)), known, rng())
    assert {"2.weight", "4.weight"} <= mask.keys()
    assert not mask["2.weight"].all()
    assert not any(n.startswith("0.") and not m.all() for n, m in mask.items() if m.shape[0] == 64)


def test_looking_for_weights_computes_none():
    network = nn.Sequential(spectral_norm(nn.Linear(8, 8)), nn.Linear(8, 4)).train()
    before = {n: t.clone() for n, t in network.state_dict().items()}
    assert list(prunable(network)) == ["1.weight"]
    assert computed(network) == ["0.weight"]
    assert computed(network, ("0",)) == []
    describe(network)
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())


class Counted(Net):
    """With a whole number for a parameter, and a layer that is called by keyword."""

    def __init__(self):
        super().__init__()
        self.calls = nn.Parameter(torch.tensor([3]), requires_grad=False)

    def forward(self, x):
        x = self.relus[0](self.norm_a(self.a(input=x)))
        x = self.relus[2](self.norm_c(self.c(input=self.relus[1](self.norm_b(self.b(x))))))
        return self.head(input=self.relus[3](self.fc(input=x.mean((2, 3))))) * self.calls


@pytest.mark.parametrize(
    "how",
    [
        asked(0.5, "snip"), asked(0.5, "wanda"), asked(0.5, "synflow"), asked(0.5, budget="multiply_adds"),
        asked(0.5, structure="coupled"), asked(0.5, "thinet", "coupled", "layer"), asked(0.5, scope="sensitivity"),
    ],
)  # fmt: skip
def test_whole_numbers_and_keywords_are_no_obstacle(how):
    network = Counted().eval()
    mask, changed = pruned(network, {}, how, KNOWN, rng())
    assert sum(int((~m).sum()) for m in mask.values()) > 0
    assert torch.equal(network.calls, torch.tensor([3]))
    if how.structure == "coupled":
        named = dict(network.named_parameters())
        for n, w in changed.items():
            named[n].data.copy_(w)
        apply_(named, mask)
        smaller, _ = shrink(network, mask, BATCHES[0][0])
        assert smaller.a.out_channels == int(mask["a.weight"].flatten(1).any(1).sum())


@pytest.mark.parametrize("how", [asked(0.5, budget="multiply_adds"), asked(0.5, "synflow"), asked(0.5, "bn_scale")])
def test_an_example_that_does_not_fit_is_refused_in_one_line(how):
    with pytest.raises(Refused, match=r"^prune: Net cannot take inputs of \[\d, 5, 8, 8\]"):
        pruned(made(), {}, how, Known([(torch.randn(2, 5, 8, 8), torch.arange(2))]), rng())


REFUSED = [
    ("a layer whose channels are the answers", Net, asked(0.5, structure="coupled", layers=("head",)), BATCHES,
     '"head" meets no channels that can go .*; expected one of a, c, fc, or layers that go along'),
    ("a table of a layer whose channels are the answers", Net,
     Prune(structure="coupled", scope="table", table=("head=0.5",)), BATCHES, '"head" meets no channels that can go'),
    ("a layer that goes along with an excluded one", Net,
     asked(0.5, structure="coupled", layers=("b",), exclude=("a",)), BATCHES, "a layer that goes along is excluded"),
    ("two densities for what goes together", Net,
     Prune(structure="coupled", scope="table", table=("b=0.5", "a=0.3")), BATCHES,
     "prune.table: a = 0.3 and b = 0.5, whose channels go together; expected one density for both"),
    ("no data for gradients", Net, asked(0.5, "snip"), [], "grad must be seen on data"),
    ("no data for coupled channels", Net, asked(0.5, structure="coupled"), [], "expected data, or an example"),
    ("no data for sensitivity", Net, asked(0.5, scope="sensitivity"), [], "sensitivity must be seen on data"),
    ("no data for thinet", Net, asked(0.5, "thinet", "coupled", "layer"), [], "expected data, or an example"),
    ("no data for a budget", Net, asked(0.5, budget="multiply_adds"), [], "places must be seen on data"),
    ("a layer that never runs", Idle, asked(0.5, "snip"), BATCHES, "idle shows no gradient; exclude it"),
    ("a layer that never reads", Idle, asked(0.5, "wanda"), BATCHES, "idle shows no inputs; exclude it"),
    ("no coupled channels", lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), asked(0.5, structure="coupled"),
     BATCHES, "no channels of this network can go"),
    ("no coupled channels for thinet", lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4)),
     asked(0.5, "thinet", "coupled", "layer"), BATCHES, "no channels of this network can go"),
    ("no prunable layer", lambda: nn.Sequential(nn.Flatten(), nn.ReLU()), asked(0.5), BATCHES, "no prunable layer"),
    ("no prunable layer in rounds", lambda: nn.Sequential(nn.Flatten(), nn.ReLU()),
     asked(0.5, schedule="linear", rounds=2), BATCHES, "no prunable layer"),
    ("no prunable layer, coupled", lambda: nn.Sequential(nn.Flatten(), nn.ReLU()), asked(0.5, structure="coupled"),
     BATCHES, "no prunable layer"),
    ("only a first layer", lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), asked(0.5, keep_first=True), BATCHES,
     "leave no layer to prune"),
    ("no normalisation", Net, Prune(criterion="bn_scale", density=0.5), BATCHES, "no batch normalisation behind it"),
    ("no first weights", Net, asked(0.5, "distance"), BATCHES, "first weights"),
    ("an order within layers", Net, asked(0.5, "thinet", "coupled", "global"), BATCHES, "compares layers"),
    ("too little work", Net, asked(0.001, structure="coupled", budget="multiply_adds"), BATCHES, "cannot be reached"),
    ("a pattern that means nothing", Net, asked(0.5, layers=("nope",)), BATCHES, '"nope" meets no layer'),
]  # fmt: skip


@pytest.mark.parametrize(("make", "how", "batches", "text"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_cannot_be_is_refused_in_one_line(make, how, batches, text):
    with pytest.raises(Refused, match=text) as refusal:
        pruned(copy.deepcopy(make()).eval(), {}, how, Known(batches), rng())
    assert "\n" not in str(refusal.value)
