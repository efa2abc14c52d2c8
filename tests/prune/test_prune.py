"""Laws of pruning over every criterion and scope: exact counts, pruned stays pruned, no layer emptied."""

import pytest
import torch
from torch import nn

from prunery.masks import density, kept, prunable, size
from prunery.prune import CRITERIA, SCOPES, prune
from prunery.spec import Prune, Refused, hints


def weights(seed=0):
    rng = torch.Generator().manual_seed(seed)
    shapes = {"a.weight": (6, 3, 3, 3), "b.weight": (10, 7), "c.weight": (1, 5)}
    return {n: torch.randn(s, generator=rng) for n, s in shapes.items()}


def rng():
    return torch.Generator().manual_seed(1)


ALL = [(c, s) for c in CRITERIA for s in SCOPES]


def test_tables_and_specs_name_the_same():
    assert tuple(CRITERIA) == hints(Prune)["criterion"].__args__
    assert tuple(SCOPES) == hints(Prune)["scope"].__args__


@pytest.mark.parametrize(("criterion", "scope"), ALL)
@pytest.mark.parametrize("target", [1.0, 0.9, 0.5, 0.1, 0.02])
def test_counts_are_exact(criterion, scope, target):
    w = weights()
    mask = prune(w, None, target, criterion, scope, rng())
    if scope == "global":
        assert kept(mask) == max(len(w), round(target * size(mask)))
    else:
        assert all(int(m.sum()) == max(1, round(target * m.numel())) for m in mask.values())
    assert all(m.any() for m in mask.values())


@pytest.mark.parametrize(("criterion", "scope"), ALL)
def test_pruned_stays_pruned_and_the_same_density_twice_changes_nothing(criterion, scope):
    w = weights()
    first = prune(w, None, 0.6, criterion, scope, rng())
    second = prune(w, first, 0.3, criterion, scope, rng())
    assert all(not (second[n] & ~first[n]).any() for n in w)
    again = prune(w, second, density(second), criterion, scope, rng())
    assert all(torch.equal(again[n], second[n]) for n in w)


@pytest.mark.parametrize("scope", SCOPES)
def test_ties_do_not_make_it_cut_more(scope):
    """Both well-known lottery code bases drop k + 1 weights, and every tied one."""
    w = {n: torch.ones_like(v) for n, v in weights().items()}
    mask = prune(w, None, 0.5, "magnitude", scope)
    assert kept(mask) == (
        round(0.5 * size(mask)) if scope == "global" else sum(round(0.5 * v.numel()) for v in w.values())
    )


def test_global_magnitude_keeps_the_largest():
    w = weights()
    mask = prune(w, None, 0.25)
    flat, keep = (torch.cat([x.flatten() for x in d.values()]) for d in (w, mask))
    assert flat.abs()[keep].min() >= flat.abs()[~keep].max()


@pytest.mark.parametrize("scope", SCOPES)
def test_permuting_units_permutes_the_mask(scope):
    w = weights()
    order = torch.randperm(10, generator=rng())
    moved = w | {"b.weight": w["b.weight"][order]}
    assert torch.equal(
        prune(w, None, 0.3, "magnitude", scope)["b.weight"][order],
        prune(moved, None, 0.3, "magnitude", scope)["b.weight"],
    )


def test_a_layer_of_tiny_weights_keeps_its_best():
    w = weights() | {"c.weight": torch.tensor([[1e-9, 3e-9, 2e-9, 0.0, 1e-9]])}
    assert prune(w, None, 0.1)["c.weight"].tolist() == [[False, True, False, False, False]]


def test_random_follows_its_seed():
    w = weights()
    masks = [prune(w, None, 0.5, "random", "global", torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert all(torch.equal(masks[0][n], masks[1][n]) for n in w)
    assert any(not torch.equal(masks[0][n], masks[2][n]) for n in w)


@pytest.mark.parametrize("target", [0.0, -0.1, 1.2, float("nan")])
def test_impossible_densities_are_refused(target):
    with pytest.raises(Refused, match="density"):
        prune(weights(), None, target)


def test_weights_are_not_brought_back():
    w = weights()
    with pytest.raises(Refused, match="would bring weights back"):
        prune(w, prune(w, None, 0.2), 0.5)


def test_rounding_does_not_make_the_same_density_look_like_more():
    w = {"w": torch.randn(14, 1)}
    once = prune(w, None, 0.1)
    assert torch.equal(prune(w, once, 0.1)["w"], once["w"])


def test_weights_that_are_no_numbers_are_refused():
    w = weights()
    w["a.weight"][0, 0, 0, 0] = torch.nan
    with pytest.raises(Refused, match=r"a\.weight"):
        prune(w, None, 0.5)


def test_prunable_means_weights_of_layers_and_exclude_takes_patterns():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    assert list(prunable(net)) == ["0.weight", "3.weight"]
    assert list(prunable(net, ("3",))) == ["0.weight"]
    with pytest.raises(Refused, match="meets no layer"):
        prunable(net, ("head*",))
    with pytest.raises(Refused, match="no prunable layer"):
        prune(prunable(nn.ReLU()), None, 0.5)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("target", [0.1, 0.5, 0.9])
def test_the_same_request_twice_changes_nothing_whatever_the_rounding(scope, target):
    """Layers of 14 and 3 weights: a tenth of them rounds down in one and up to the last weight in the other."""
    w = {"a": torch.randn(14, 1), "b": torch.randn(14, 1), "c": torch.randn(3, 1)}
    once = prune(w, None, target, "magnitude", scope)
    twice = prune(w, once, target, "magnitude", scope)
    assert all(torch.equal(once[n], twice[n]) for n in w)


def test_weights_with_two_names_are_left_whole():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    net[1].weight = net[0].weight
    assert list(prunable(net)) == ["2.weight"]
