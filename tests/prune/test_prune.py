"""Laws of pruning over every criterion x structure x scope: exact counts, pruned stays pruned, ties stable."""

import pytest
import torch
from torch import nn

from prunery.masks import density, kept, prunable, size
from prunery.pruning import CRITERIA, SCOPES, STRUCTURES, prune
from prunery.pruning.scopes import NEEDS
from prunery.pruning.structures import sizes
from prunery.spec import Prune, Refused, hints


def weights(seed=0):
    rng = torch.Generator().manual_seed(seed)
    shapes = {"a.weight": (6, 3, 3, 3), "b.weight": (10, 7), "c.weight": (1, 5)}
    return {n: torch.randn(s, generator=rng) for n, s in shapes.items()}


def rng():
    return torch.Generator().manual_seed(1)


def evidence(w):
    """Something to have been seen of every weight, for every criterion and scope."""
    g = torch.Generator().manual_seed(5)
    same = ("initial", "grad", "curved", "flow", "movement")
    seen = {need: {n: torch.randn(v.shape, generator=g) for n, v in w.items()} for need in same}
    seen["inputs"] = {n: torch.rand(v.shape[1], generator=g) for n, v in w.items()}
    for need in ("outputs", "zeros", "scale"):
        seen[need] = {n: torch.rand(v.shape[0], generator=g) for n, v in w.items()}
    seen["places"] = {n: torch.tensor(float(i + 1)) for i, n in enumerate(w)}
    seen["shapes"] = {n: torch.tensor(v.shape) for n, v in w.items()}
    seen["sensitivity"] = {n: torch.tensor([[0.5, 0.1 * (i + 1)], [0.2, 1.0]]) for i, n in enumerate(w)}
    return seen


def asked(target, criterion="magnitude", scope="global", structure="weight", **more):
    if scope == "table":
        more["table"] = (f"*={target}",)
    return Prune(density=target, criterion=criterion, scope=scope, structure=structure, **more)


LAYOUTS = [c for c in CRITERIA if c != "thinet"]
ALL = [
    (c, st, sc) for c in LAYOUTS for st in STRUCTURES for sc in SCOPES if not (sc == "lamp" and st != "weight")
]  # fmt: skip
FREE = ["global", "lamp", "flops", "sensitivity", "erk"]


def units(mask, w, structure):
    """Kept and all units, by layer."""
    split = STRUCTURES[structure].split
    found = {n: split(m).float() for n, m in mask.items()}
    return {n: (int((u.sum(1) > 0).sum()), len(u)) for n, u in found.items()}


def test_tables_and_specs_name_the_same():
    assert tuple(CRITERIA) == hints(Prune)["criterion"].__args__
    assert tuple(SCOPES) == hints(Prune)["scope"].__args__
    assert {*STRUCTURES, "coupled"} == {s for s in hints(Prune)["structure"].__args__ if ":" not in s}
    assert set(NEEDS) <= set(SCOPES)


@pytest.mark.parametrize(("criterion", "structure", "scope"), ALL)
@pytest.mark.parametrize("target", [1.0, 0.5, 0.25])
def test_counts_are_exact_and_no_unit_is_cut(criterion, structure, scope, target):
    w = weights()
    if scope == "uniform" and ((target < 1 and structure != "weight") or target < 0.8):
        target = 0.9
    mask = prune(w, None, asked(target, criterion, scope, structure), evidence(w), rng=rng())
    found = units(mask, w, structure)
    if scope in FREE or scope == "uniform":
        total = sum(all_ for _, all_ in found.values())
        assert sum(k for k, _ in found.values()) == max(len(w), round(target * total))
    else:
        assert all(k == max(1, round(target * all_)) for k, all_ in found.values())
    for n, m in mask.items():
        whole = STRUCTURES[structure].split(m).float().sum(1)
        assert all(
            s in (0, z) for s, z in zip(whole.tolist(), sizes(STRUCTURES[structure], w[n]).tolist(), strict=True)
        )
    assert all(m.any() for m in mask.values())


@pytest.mark.parametrize(("criterion", "structure", "scope"), ALL)
def test_pruned_stays_pruned_and_the_same_density_twice_changes_nothing(criterion, structure, scope):
    w, seen = weights(), evidence(weights())
    high, low = (0.98, 0.9) if scope == "uniform" else (0.7, 0.4)
    first = prune(w, None, asked(high, criterion, scope, structure), seen, rng=rng())
    second = prune(w, first, asked(low, criterion, scope, structure), seen, rng=rng())
    assert all(not (second[n] & ~first[n]).any() for n in w)
    again = prune(w, second, asked(low, criterion, scope, structure), seen, rng=rng())
    assert all(torch.equal(again[n], second[n]) for n in w)


@pytest.mark.parametrize("scope", [s for s in SCOPES if s not in ("table", "uniform")])
def test_ties_do_not_make_it_cut_more(scope):
    """The lottery papers' off-by-one: both well-known code bases drop k + 1 weights, and every tied one."""
    w = {n: torch.ones_like(v) for n, v in weights().items()}
    mask = prune(w, None, asked(0.5, scope=scope), evidence(w))
    total = round(0.5 * size(mask))
    assert kept(mask) == (total if scope != "layer" else sum(round(0.5 * v.numel()) for v in w.values()))
    for m in mask.values():  # the earlier ones stay
        assert m.flatten()[: int(m.sum())].all()


def test_k_weights_go_and_not_one_more():
    """Google's lottery code rounds k and then cuts at `<=`: 20 % of 10 different weights took 3 of them."""
    w = {"w": torch.arange(1.0, 11.0).view(1, 10)}
    assert prune(w, None, asked(0.8))["w"].tolist() == [[False] * 2 + [True] * 8]
    assert prune(w, None, asked(0.8, scope="layer"))["w"].sum() == 8


def test_global_magnitude_keeps_the_largest():
    w = weights()
    mask = prune(w, None, asked(0.25))
    flat, keep = (torch.cat([x.flatten() for x in d.values()]) for d in (w, mask))
    assert flat.abs()[keep].min() >= flat.abs()[~keep].max()


@pytest.mark.parametrize("structure", ["weight", "filter", "1x4"])
@pytest.mark.parametrize("scope", ["global", "layer", "erk", "lamp"])
def test_permuting_units_permutes_the_mask(scope, structure):
    if scope == "lamp" and structure != "weight":
        return
    w = weights()
    order = torch.randperm(10, generator=rng())
    moved = w | {"b.weight": w["b.weight"][order]}
    how = asked(0.3, scope=scope, structure=structure)
    assert torch.equal(prune(w, None, how)["b.weight"][order], prune(moved, None, how)["b.weight"])


def test_a_layer_of_tiny_weights_keeps_its_best_unless_it_may_be_emptied():
    w = weights() | {"c.weight": torch.tensor([[1e-9, 3e-9, 2e-9, 0.0, 1e-9]])}
    assert prune(w, None, asked(0.1))["c.weight"].tolist() == [[False, True, False, False, False]]
    emptied = prune(w, None, asked(0.1, allow_empty=True))
    assert not emptied["c.weight"].any()
    assert kept(emptied) == round(0.1 * size(emptied))


def test_random_follows_its_seed():
    w = weights()
    masks = [prune(w, None, asked(0.5, "random"), rng=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert all(torch.equal(masks[0][n], masks[1][n]) for n in w)
    assert any(not torch.equal(masks[0][n], masks[2][n]) for n in w)


@pytest.mark.parametrize("target", [0.0, -0.1, 1.2, float("nan")])
def test_impossible_densities_are_refused(target):
    with pytest.raises(Refused, match="density"):
        asked(target)


@pytest.mark.parametrize("scope", ["global", "layer", "erk", "lamp", "flops"])
def test_weights_are_not_brought_back(scope):
    w = weights()
    with pytest.raises(Refused, match="would bring weights back"):
        prune(w, prune(w, None, asked(0.2, scope=scope), evidence(w)), asked(0.5, scope=scope), evidence(w))


def test_weights_that_are_no_numbers_are_refused():
    w = weights()
    w["a.weight"][0, 0, 0, 0] = torch.nan
    with pytest.raises(Refused, match=r"a\.weight"):
        prune(w, None, asked(0.5))


def test_prunable_means_weights_of_layers_and_exclude_takes_patterns():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    assert list(prunable(net)) == ["0.weight", "3.weight"]
    assert list(prunable(net, ("3",))) == ["0.weight"]
    with pytest.raises(Refused, match="meets no layer"):
        prunable(net, ("head*",))
    with pytest.raises(Refused, match="no prunable layer"):
        prune(prunable(nn.ReLU()), None, asked(0.5))


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("target", [0.1, 0.5, 0.9])
def test_the_same_request_twice_changes_nothing_whatever_the_rounding(scope, target):
    """Layers of 14 and 3 weights: a tenth of them rounds down in one and up to the last weight in the other."""
    w = {"a": torch.randn(14, 1), "b": torch.randn(14, 1), "c": torch.randn(3, 1)}
    once = prune(w, None, asked(target, scope=scope))
    twice = prune(w, once, asked(target, scope=scope))
    assert all(torch.equal(once[n], twice[n]) for n in w)


def test_weights_with_two_names_are_left_whole():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    net[1].weight = net[0].weight
    assert list(prunable(net)) == ["2.weight"]


@pytest.mark.parametrize("structure", ["2:4", "1:4", "4:8", "1:2"])
@pytest.mark.parametrize("shape", [(4, 8), (3, 8, 3, 3), (2, 6), (5, 3, 1, 1)])
def test_n_of_every_m_input_channels_stay(structure, shape):
    n, m = map(int, structure.split(":"))
    w = {"w": torch.randn(shape, generator=rng())}
    mask = prune(w, None, Prune(structure=structure))["w"].movedim(1, -1).reshape(-1, shape[1])
    for start in range(0, shape[1], m):
        run = mask[:, start : start + m]
        assert (run.sum(1) == min(n, run.shape[1])).all()
    score = w["w"].abs().movedim(1, -1).reshape(-1, shape[1])
    first = mask[:, :m]
    assert (
        score[:, :m].masked_fill(~first, 9).min(1).values >= score[:, :m].masked_fill(first, -1).max(1).values
    ).all()


@pytest.mark.parametrize("budget", [0.8, 0.3, 0.1])
@pytest.mark.parametrize("scope", ["flops", "global", "layer", "erk"])
def test_a_budget_of_multiply_adds_is_met_from_below_to_one_weight(budget, scope):
    w = {"early": torch.randn(8, 3, 3, 3, generator=rng()), "late": torch.randn(64, 32, generator=rng())}
    seen = {"places": {"early": torch.tensor(256.0), "late": torch.tensor(1.0)}}
    seen["shapes"] = {n: torch.tensor(v.shape) for n, v in w.items()}
    mask = prune(w, None, asked(budget, scope=scope, budget="multiply_adds"), seen)
    full = 216 * 256 + 2048
    spent = int(mask["early"].sum()) * 256 + int(mask["late"].sum())
    step = 256 if scope != "layer" else 257
    assert budget * full - 2 * step < spent <= budget * full


def test_flops_spares_where_weights_work_little():
    w = {"early": torch.randn(8, 3, 3, 3, generator=rng()), "late": torch.randn(64, 32, generator=rng())}
    seen = {"places": {"early": torch.tensor(1024.0), "late": torch.tensor(1.0)}}
    by_cost = prune(w, None, asked(0.3, scope="flops"), seen)
    assert density({"early": by_cost["early"]}) < 0.1 < density({"late": by_cost["late"]})


def test_uniform_says_when_the_first_layer_is_too_much():
    with pytest.raises(Refused, match=r"keeps a\.weight whole: expected 0\.\d+ or more"):
        prune(weights(), None, asked(0.3, scope="uniform"))


def test_erk_gives_small_layers_more():
    w = {"big": torch.randn(300, 784), "small": torch.randn(10, 100)}
    mask = prune(w, None, asked(0.1, scope="erk"))
    big, small = (density({n: mask[n]}) for n in w)
    assert big < 0.1 < small
    ratio = (310 + 774) / (300 * 784) / ((10 + 100) / 1000)
    assert big / small == pytest.approx(ratio, rel=0.01) or small == 1.0


def test_a_table_prunes_what_it_names():
    w = weights()
    mask = prune(w, None, Prune(scope="table", table=("a=0.5", "b*=0.1")))
    assert [int(m.sum()) for m in mask.values()] == [81, 7, 5]
    with pytest.raises(Refused, match='"nope" meets no layer'):
        prune(w, None, Prune(scope="table", table=("nope=0.5",)))


def test_layers_prunes_those_now_and_counts_the_others():
    w = weights()
    mask = prune(w, None, asked(0.3, layers=("b",)))
    whole = prune(w, None, asked(0.3))
    assert torch.equal(mask["b.weight"], whole["b.weight"])
    assert mask["a.weight"].all()


BAD = [
    ({"density": 0.3, "structure": "2:4"}, "contradicts structure 2:4"),
    ({"scope": "table"}, "prune.table and scope"),
    ({"table": ("a=0.5",)}, "prune.table and scope"),
    ({"scope": "table", "table": ("a",)}, "expected LAYER=DENSITY"),
    ({"scope": "table", "table": ("a=1.5",)}, "expected LAYER=DENSITY"),
    ({"rounds": 3}, "needs a schedule"),
    ({"criterion": "thinet"}, 'expected structure = "coupled"'),
    ({"scope": "lamp", "structure": "filter"}, "ranks single weights"),
    ({"criterion": "magnitud"}, "did you mean magnitude"),
    ({"structure": "rows"}, "choose one of weight"),
]


@pytest.mark.parametrize(("values", "text"), BAD)
def test_bad_requests_are_one_line(values, text):
    with pytest.raises(Refused, match=text) as error:
        Prune(**values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("structure", ["weight", "filter", "1x4", "2:4"])
def test_scores_that_are_no_numbers_are_refused(structure):
    w, seen = weights(), evidence(weights())
    seen["grad"]["b.weight"][0, 0] = float("nan")
    with pytest.raises(Refused, match="prune: snip is no number for b; use other data"):
        prune(w, None, Prune(density=0.5, criterion="snip", structure=structure), seen)


@pytest.mark.parametrize(
    ("criterion", "text"), [("snip", "no gradient"), ("wanda", "no inputs"), ("bn_scale", "no batch normalisation")]
)
def test_what_was_not_seen_is_named(criterion, text):
    with pytest.raises(Refused, match=f"a shows {text}"):
        prune(weights(), None, asked(0.5, criterion), {})
