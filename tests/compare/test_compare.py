"""A comparison of all methods on a tiny task: every row is exact, nothing is made twice, what cannot be is refused."""

import statistics

import pytest

from prunery import chain
from prunery.chain import Place
from prunery.compare import Wanted, compare, tree
from prunery.pruning.methods import FROM_DENSE, METHODS, STRUCTURED, _part
from prunery.report.comparison import T975, half_width
from prunery.runs import Runs
from prunery.spec import Refused, Train, recipe
from prunery.train import Ways

DENSITIES = (0.5, 0.3)
DENSE = {"kind": "train", "steps": 4, "batch": 64, "lr": 0.05}
RETRAIN = {"kind": "train", "label": "retrain", "steps": 3, "batch": 64, "lr": 0.02}


def asked(*steps, model="convnet"):
    values = {"data": {"name": "digits"}, "model": {"name": model}}
    return recipe(values | {"step": list(steps or (DENSE, RETRAIN))})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("compare")
    return Place(Runs(root / "runs"), root / "data", Ways(threads=1))


@pytest.fixture(scope="module")
def rows(place):
    return list(compare(asked(), Wanted(tuple(METHODS), DENSITIES, parts=2), place, 0))


def test_there_is_a_row_for_the_dense_network_and_for_each_method_and_density(rows):
    assert [(r["method"], r["density"]) for r in rows] == [
        ("dense", 1.0),
        *((m, d) for m in METHODS for d in DENSITIES),
    ]
    assert {r["method"] for r in rows if r["structured"]} == set(STRUCTURED)
    assert all(0 <= r["accuracy"] <= 1 and r["seed"] == 0 for r in rows)


def test_rows_hold_exactly_what_was_asked_for(rows, place):
    dense = rows[0]
    assert dense["parameters_share"] == dense["multiply_adds_share"] == 1
    for r in rows[1:]:
        step = place.runs.find(r["step"])
        result, masks = step.result, step.state().masks
        assert r["accuracy"] == result["test"]["accuracy"]
        assert (r["parameters"], r["multiply_adds"]) == (result["kept_parameters"], result["kept_multiply_adds"])
        if r["method"] in STRUCTURED:
            # One channel of the widest layer, where it is made and read, is what the target is met to.
            assert r["density"] - 0.05 < r["multiply_adds_share"] <= r["density"], r
        elif r["method"] == "flops":
            assert r["density"] - 0.01 < r["multiply_adds_share"] <= r["density"]
        else:
            sizes = {n: m.numel() for n, m in masks.items()}
            assert sum(int(m.sum()) for m in masks.values()) == round(r["density"] * sum(sizes.values())), r


def test_each_density_goes_on_from_the_one_before_where_the_method_says_so(rows, place):
    for method in METHODS:
        large, small = (place.runs.find(r["step"]) for r in rows if r["method"] == method)
        above = {s.name for s in small.chain()}
        assert (large.name in above) == (method not in FROM_DENSE), method


def test_methods_share_the_dense_network(rows, place):
    chains = [place.runs.find(r["step"]).chain() for r in rows]
    assert len({c[1].name for c in chains}) == 1
    assert chains[0][1].spec.kind == "train"


def test_every_method_may_spend_the_same_on_a_density(place):
    """The steps of training between two densities; the methods that reset train in them too."""
    plan, ends = tree(asked(DENSE, RETRAIN | {"steps": 41}), Wanted(tuple(METHODS), DENSITIES, parts=3), place, 0)
    stages = {s.label: s for s in plan.stages}
    for (method, density), label in ends.items():
        spent, at = 0, label
        while at != "dense" and (at == label or at not in ends.values()):
            spent += getattr(stages[at].spec, "steps", None) or 0
            at = stages[at].after
        assert spent == (0 if method == "global" else 41), (method, density)


@pytest.mark.parametrize("schedule", [{"warmup": 0.4}, {"schedule": "multistep", "milestones": (1.0, 2.0)},
                                      {"schedule": "step", "step_epochs": 1.5}])  # fmt: skip
@pytest.mark.parametrize("length", [{"epochs": 3.0}, {"steps": 7}])
def test_parts_of_a_retraining_are_the_whole_in_small(length, schedule):
    whole = Train(**schedule, **length)
    parts = [_part(whole, i, 4) for i in range(4)]
    assert sum(p.steps or 0 for p in parts) == (whole.steps or 0)
    assert whole.steps or sum(p.epochs for p in parts) == whole.epochs
    assert {p.warmup for p in parts} == {whole.warmup / 4}
    assert {p.milestones for p in parts} == {tuple(m / 4 for m in whole.milestones)}
    assert {p.step_epochs for p in parts} == {whole.step_epochs / (4 if whole.schedule == "step" else 1)}


def test_a_second_run_makes_nothing_and_says_the_same(rows, place, monkeypatch):
    monkeypatch.setattr(chain, "make", lambda *_: pytest.fail("made again"))
    assert list(compare(asked(), Wanted(tuple(METHODS), DENSITIES, parts=2), place, 0)) == rows


def test_more_methods_make_only_what_is_missing(rows, place, monkeypatch):
    before = {p.name for p in place.runs.root.glob("*-*")}
    again = list(compare(asked(), Wanted(("han", "lamp"), (0.5,)), place, 0))
    assert {p.name for p in place.runs.root.glob("*-*")} == before
    assert [r for r in again if r in rows] == again


REFUSED = [
    (("nope",), (0.5,), (), "did you mean|choose one of"),
    ((), (0.5,), (), "nothing to compare"),
    (("han",), (), (), "nothing to compare"),
    (("han",), (1.0,), (), "density 1 is not allowed"),
    (("han",), (0.0,), (), "density 0 is not allowed"),
    (("han",), (0.5,), (DENSE,), 'expected a train step with label = "retrain"'),
    (("han",), (0.5,), (DENSE, RETRAIN, {"kind": "quantize"}), 'expected a train step with label = "retrain"'),
]


@pytest.mark.parametrize(("methods", "densities", "steps", "text"), REFUSED)
def test_what_cannot_be_compared_is_refused_in_one_line(methods, densities, steps, text, place):
    with pytest.raises(Refused, match=text) as refusal:
        list(compare(asked(*steps), Wanted(methods, densities), place, 0))
    assert "\n" not in str(refusal.value)


STUDENT = {2: 12.7062, 4: 3.1824, 16: 2.1314, 17: 2.1199, 20: 2.0930, 31: 2.0423, 32: 2.0395, 41: 2.0211, 121: 1.9799}


@pytest.mark.parametrize(("seeds", "t"), STUDENT.items())
def test_intervals_are_students_however_many_seeds_there_are(seeds, t):
    values = [float(v) for v in range(seeds)]
    assert half_width(values) == pytest.approx(t * statistics.stdev(values) / seeds**0.5, rel=3e-4)
    assert half_width([1.0]) is None


def test_students_table_falls_into_the_expansion_behind_it():
    widths = [half_width([0.0, 1.0] * (n // 2)) * (n - 1) ** 0.5 for n in range(28, 40, 2)]
    assert widths == sorted(widths, reverse=True)
    assert len(T975) == 30
