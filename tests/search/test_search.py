"""Searches: engines on made-up trials, spaces that cannot be, and real ones on digits."""

import importlib.util
import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from prunery.chain import Place
from prunery.runs import Runs
from prunery.search import ENGINES, Found, Objective, Range, Space, Target, Trials, best, front, read_space
from prunery.spec import Refused
from prunery.train import Stopped, Ways

RECIPE = """
[data]
name = "digits"
[model]
name = "lenet_300_100"
[[step]]
kind = "train"
steps = 60
optimizer = "adamw"
lr = 0.01
eval_every = 15
[[step]]
kind = "prune"
density = 0.5
"""
SPACE = """
name = "small"
recipe = "r.toml"
target = "accuracy >= 0.85"
objective = "minimise density"
engine = "{engine}"
trials = {trials}
budget = ["train.steps=45"]
[space]
"prune.density" = {axis}
"""
OPTUNA = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="Optuna is an extra")


def space_of(axes, engine="greedy", **more):
    target, objectives = Target("accuracy", True, 0.9), (Objective("score", True),)
    return Space(Path("x.toml"), Path("r.toml"), axes, target, objectives, **{"engine": engine} | more)


def look_of(space, function, seen=None):
    """A trial without any training: accuracy and cost from a function."""

    def look(point, hopeless=None):
        accuracy, cost = function(**point)
        measures = {"accuracy": accuracy, "score": cost}
        if seen is not None:
            seen.append(point)
        cut = bool(hopeless and any(hopeless(i + 1, accuracy * (i + 1) / 5) for i in range(5)))
        target = space.target
        return Found(point, measures, target.met(measures), target.short(measures), cost, cut=cut)

    return look


def valley(width, bits):
    """More of both is better and dearer; 0.9 needs width x bits of 24."""
    return min(0.99, 0.5 + width * bits / 60), width * bits * 1.0 + 0.01 * bits


AXES = {"width": (2, 4, 6, 8, 10, 12), "bits": (2, 3, 4, 6, 8)}


def run(space, function, seen=None):
    found = ENGINES[space.engine](space, look_of(space, function, seen))
    return list(islice(found, space.trials))


@pytest.mark.parametrize("engine", ["grid", "greedy", pytest.param("optuna", marks=OPTUNA)])
def test_engines_find_what_is_cheapest_of_those_that_meet_the_target(engine):
    space = space_of(AXES, engine, trials=40)
    winner = best(run(space, valley))
    assert winner.met
    everything = [valley(w, b) for w in AXES["width"] for b in AXES["bits"]]
    cheapest = min(cost for accuracy, cost in everything if accuracy >= 0.9)
    assert winner.cost <= cheapest * (1.0 if engine == "grid" else 1.15)


def test_greedy_looks_at_few_and_ends_by_itself():
    space, seen = space_of(AXES, trials=1000), []
    run(space, valley, seen)
    points = {tuple(p.values()) for p in seen}
    assert len(points) < 20
    assert len(points) < len(AXES["width"]) * len(AXES["bits"])


@pytest.mark.parametrize("axis", [Range(0.1, 0.9), Range(0.001, 1, log=True), tuple(i / 40 for i in range(4, 37))])
@pytest.mark.parametrize("edge", [0.13, 0.5, 0.77])
def test_bisection_finds_the_edge(axis, edge):
    space = space_of({"density": axis}, "bisection", trials=30)
    found = run(space, lambda density: (0.95 if density >= edge else 0.5, density))
    winner = best(found)
    assert edge <= winner.point["density"] <= edge + 0.026
    assert len(found) <= 12


def test_bisection_ends_at_once_where_both_ends_are_alike():
    space = space_of({"density": Range(0.1, 0.9)}, "bisection", trials=30)
    assert len(run(space, lambda density: (0.95, density))) == 2


def test_random_is_the_seeds():
    space = space_of({"lr": Range(1e-4, 1, log=True), "n": Range(1, 9, whole=True)}, "random", trials=200)
    one, same, other = (run(replace(space, seed=s), lambda lr, n: (0.95, lr)) for s in (0, 0, 1))
    assert [f.point for f in one] == [f.point for f in same] != [f.point for f in other]
    assert all(1e-4 <= f.point["lr"] <= 1 and f.point["n"] in range(1, 10) for f in one)
    assert 0.4 < sum(f.point["lr"] < 1e-2 for f in one) / 200 < 0.6


@OPTUNA
def test_optuna_cuts_hopeless_trials_short():
    space = space_of({"x": Range(0, 1)}, "optuna", trials=40)
    found = run(space, lambda x: (x, 1 - x))
    assert any(f.cut for f in found)
    assert not best(found).cut


def test_ranges_have_both_ends_and_are_in_order():
    for axis in (Range(0.1, 0.9), Range(1, 100, log=True), Range(2, 5, whole=True)):
        choices = axis.choices()
        assert (choices[0], choices[-1]) == (axis.low, axis.high)
        assert list(choices) == sorted(set(choices))
    assert Range(1, 100, log=True).at(0.5) == pytest.approx(10)


def test_who_misses_by_less_is_better_and_the_front_is_the_front():
    def found(accuracy, cost):
        return Found({}, {"accuracy": accuracy}, accuracy >= 0.9, max(0.0, 0.9 - accuracy), cost)

    near, far, dear, cheap = found(0.89, 9), found(0.5, 1), found(0.95, 5), found(0.91, 3)
    assert near.better(far)
    assert best([far, near, dear, cheap]) is cheap
    assert front([far, near, dear, cheap]) == [far, cheap, dear]


def test_with_several_objectives_the_front_is_who_no_other_beats_in_all():
    def found(accuracy, score, size):
        return Found({}, {"accuracy": accuracy, "score": score, "bytes": size}, True, 0.0, score)

    small, light, beaten, best_of_all = found(0.9, 5, 1), found(0.9, 1, 5), found(0.9, 5, 5), found(0.95, 9, 9)
    objectives = (Objective("score", True), Objective("bytes", True))
    everything = [beaten, small, best_of_all, light]
    assert front(everything, objectives) == [light, small, best_of_all]
    assert front(everything) == [light, best_of_all]


@OPTUNA
def test_optuna_looks_for_several_things_at_once():
    """Width is accuracy and score at once; bits cost score alone: the front has few bits and any width."""
    objectives = (Objective("score", True), Objective("accuracy", False))
    space = replace(space_of(AXES, "optuna", trials=60), objectives=objectives, target=Target("accuracy", True, 0.0))
    seen = []
    found = run(space, lambda width, bits: (0.5 + width / 40, width * bits / 10), seen)
    edge = front(found, objectives)
    assert {f.point["bits"] for f in edge} == {2}
    assert len({f.point["width"] for f in edge}) >= 4
    assert not any(f.cut for f in found)


@OPTUNA
def test_an_optuna_search_that_was_stopped_goes_on_as_if_it_had_not_been(folder, monkeypatch):
    import optuna

    space, told = written(folder, "optuna", 9, "{ low = 0.01, high = 0.9 }"), []
    report = optuna.trial.Trial.report
    monkeypatch.setattr(optuna.trial.Trial, "report", lambda *a: told.append((a[0].number, *a[1:])) or report(*a))
    whole, first = list(Trials(space, place_of(folder)).run()), list(told)
    assert len({number for number, *_ in first}) == 9
    told.clear()
    again = list(Trials(space, place_of(folder)).run())
    assert again == whole
    assert told == first, "whoever decides by what others came to on the way hears it again"


# --- real ones --------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "r.toml").write_text(RECIPE)
    return tmp_path


def written(folder, engine="bisection", trials=6, axis="[0.02, 0.05, 0.1, 0.2, 0.5, 0.9]"):
    file = folder / "s.toml"
    file.write_text(SPACE.format(engine=engine, trials=trials, axis=axis))
    return read_space(file)


def place_of(folder, **ways):
    return Place(Runs(folder / "runs"), folder / "data", Ways(**{"threads": 1} | ways))


def test_trials_are_ordinary_runs_that_share_what_they_can(folder):
    space = written(folder)
    trials = Trials(space, place_of(folder))
    found = list(trials.run())
    assert best(found).met
    assert all(f.measures["density"] == pytest.approx(f.point["prune.density"], abs=1e-3) for f in found)
    runs = [p.name for p in (folder / "runs").glob("*-*")]
    assert sum(name.startswith("train-") for name in runs) == 1
    assert sum(name.startswith("prune-") for name in runs) == len(found)
    assert {f.step for f in found} <= set(runs)


def test_a_search_goes_on_where_it_was(folder, monkeypatch):
    space = written(folder)
    first = list(Trials(space, place_of(folder)).run())
    monkeypatch.setattr("prunery.search.trial.chain.run", lambda *_: pytest.fail("made again"))
    assert list(Trials(space, place_of(folder)).run()) == first
    again = Trials(replace(space, budget=()), place_of(folder))
    with pytest.raises(pytest.fail.Exception, match="made again"):
        again.look(first[0].point)


def test_stopping_leaves_what_was_found(folder):
    space, asked = written(folder, "grid"), iter(range(10**6))
    with pytest.raises(Stopped):
        list(Trials(space, place_of(folder, stopping=lambda: next(asked) >= 60)).run())
    trials = Trials(space, place_of(folder))
    known = len(trials.known)
    assert len(list(trials.run())) == 6 > known


def test_a_hopeless_trial_is_given_up_and_only_who_wants_its_end_tries_again(folder):
    trials = Trials(written(folder), place_of(folder))
    found = trials.look({"prune.density": 0.5}, lambda step, accuracy: step >= 30)
    assert found.cut
    assert not found.met
    assert Trials(written(folder), place_of(folder)).look({"prune.density": 0.5}, lambda *_: False) == found
    whole = Trials(written(folder), place_of(folder)).look({"prune.density": 0.5})
    assert whole.whole
    assert whole.measures["density"] == pytest.approx(0.5, abs=1e-3)
    assert Trials(written(folder), place_of(folder)).look({"prune.density": 0.5}, lambda *_: True) == whole


def test_trials_are_compared_after_as_many_steps_whether_they_share_them_or_not(folder):
    """Training of 60 steps, evaluated every 15, pruned, and 20 more: shared, half done, and all new."""
    more = '[[step]]\nkind = "train"\nlabel = "again"\nsteps = 20\nlr = 0.01\noptimizer = "adamw"\neval_every = 10\n'
    (folder / "r.toml").write_text(RECIPE + more)
    space, told = replace(written(folder), budget=()), []

    def look(density, place=None):
        told.append({})
        note = lambda step, accuracy: told[-1].update({step: accuracy})  # noqa: E731
        return Trials(space, place or place_of(folder)).look({"prune.density": density}, note)

    assert not look(0.5).cut
    assert list(told[0]) == [15, 30, 45, 60, 70, 80]
    look(0.9)
    assert list(told[1]) == list(told[0])
    assert [told[1][n] for n in (15, 30, 45, 60)] == [told[0][n] for n in (15, 30, 45, 60)]
    asked = iter(range(10**6))
    with pytest.raises(Stopped):
        look(0.2, place_of(folder, stopping=lambda: next(asked) >= 15, checkpoint_seconds=0.0))
    assert list(told[2]) == [15, 30, 45, 60, 70]
    look(0.2)
    assert list(told[3]) == list(told[0])


TWICE = RECIPE + '[[step]]\nkind = "prune"\nlabel = "more"\ndensity = 0.1\n'


def test_a_trial_that_cannot_be_is_told_and_the_others_go_on(folder):
    (folder / "r.toml").write_text(TWICE)
    space = replace(written(folder, "grid", 4), axes={"prune.density": (0.3, 0.5), "more.density": (0.2, 0.4)})
    found = list(Trials(space, place_of(folder)).run())
    refused = [f for f in found if f.refused]
    assert [f.point for f in refused] == [{"prune.density": 0.3, "more.density": 0.4}]
    assert "would bring weights back" in refused[0].refused
    assert best(found).whole
    assert len([f for f in found if f.whole]) == 3
    assert not any(f.refused for f in Trials(space, place_of(folder)).known.values()), "worth another try"
    with pytest.raises(Refused, match=r"none of 1 trials could be carried out; the first: .* bring weights back"):
        list(Trials(replace(space, axes={"prune.density": (0.3,), "more.density": (0.4,)}), place_of(folder)).run())


def test_a_loss_that_blows_up_ends_no_search(folder):
    space = replace(written(folder, "grid", 2), axes={"train.lr": (1e30, 0.01)})
    first, second = Trials(space, place_of(folder)).run()
    assert "the loss became" in first.refused
    assert second.whole


def test_what_is_trained_is_known_by_all_that_it_depends_on(folder):
    layers = "nn.Flatten(), nn.Linear(64, {0}), nn.ReLU(), nn.Linear({0}, 10)"
    code = f"from torch import nn\ndef net():\n    return nn.Sequential({layers})\n"
    (folder / "net.py").write_text(code.format(20))
    (folder / "r.toml").write_text(RECIPE.replace("lenet_300_100", f"{folder}/net.py:net"))
    point = {"prune.density": 0.5}
    small = Trials(written(folder), place_of(folder)).look(point)
    (folder / "net.py").write_text(code.format(30))
    large = Trials(written(folder), place_of(folder)).look(point)
    assert large.step != small.step
    assert large.measures["parameters"] > small.measures["parameters"]
    (folder / "net.py").write_text(code.format(20))
    assert Trials(written(folder), place_of(folder)).look(point) == small


def test_milliseconds_and_score_are_measured_where_they_are_asked_for(folder):
    space = replace(
        written(folder), target=Target("milliseconds", False, 1000.0), objectives=(Objective("score", True),)
    )
    found = Trials(space, place_of(folder)).look({"prune.density": 0.1})
    assert 0 < found.measures["milliseconds"] < 1000
    assert 0 < found.measures["score"] < 1


SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("search_*.toml"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda p: p.name)
def test_what_is_shipped_is_a_space(file):
    space = read_space(file)
    assert space.axes
    assert space.made({k: v[0] for k, v in space.choices().items()}).stages


BROKEN = {
    "no recipe": ({"recipe": None}, "recipe is missing"),
    "no such file": ({"recipe": "none.toml"}, "none.toml does not exist"),
    "no target": ({"target": "good"}, 'target = "good" is not allowed'),
    "no such measure": ({"target": "speed >= 1"}, 'the measure = "speed"'),
    "no objective": ({"objective": "score"}, 'objective = "score" is not allowed'),
    "no engine": ({"engine": "magic"}, 'engine = "magic"'),
    "no trials": ({"trials": 0}, "trials = 0 is not allowed"),
    "accuracy in percent": ({"target": "accuracy >= 90.3"}, "accuracy is a share of one, such as 0.903"),
    "an objective that is no text": ({"objective": 3}, "expected such as minimise score, or a list"),
    "twice the same objective": ({"objective": ["minimise score", "minimise score"]}, "each measure once"),
    "two objectives for one": ({"objective": ["minimise score", "minimise bytes"]}, "engine = greedy is for one"),
    "without quotes": ({"space": {"prune": {"density": [0.1, 0.5]}}}, 'in quotes: "prune.density" = [0.1, 0.5]'),
    "the same choice twice": ({"space": {"prune.density": [0.5, 0.5]}}, "two different choices"),
    "no whole numbers": ({"space": {"train.steps": {"low": 5, "high": 30}}}, "says whole = true"),
    "endless": ({"space": {"prune.density": {"low": 0.1, "high": float("inf")}}}, "two different choices"),
    "whole is a text": ({"space": {"train.steps": {"low": 5, "high": 30, "whole": "yes"}}}, "two different choices"),
    "in the budget too": ({"budget": ["prune.density=0.2"]}, '"prune.density" is in budget too'),
    "one choice": ({"space": {"prune.density": [0.5]}}, "two different choices"),
    "upside down": ({"space": {"prune.density": {"low": 0.9, "high": 0.1}}}, "two different choices"),
    "log of nothing": ({"space": {"prune.density": {"low": 0, "high": 0.1, "log": True}}}, "two different choices"),
    "no setting": ({"space": {"prune.densities": [0.1, 0.5]}}, "densities"),
    "out of range": ({"space": {"prune.density": [0.5, 7]}}, "prune.density = 7.0 is not allowed"),
    "out of range between": ({"space": {"prune.density": [0.5, 7, 0.1]}}, "prune.density = 7.0 is not allowed"),
    "empty": ({"space": {}}, "is empty"),
    "two for bisection": (
        {"engine": "bisection", "space": {"prune.density": [0.1, 1], "train.lr": [1, 2]}},
        "for one setting",
    ),
    "a budget that is none": ({"budget": "x"}, "budget"),
    "an unknown key": ({"more": 1}, "more"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_spaces_that_cannot_be_are_refused_before_any_training(folder, what):
    change, text = BROKEN[what]
    values = {"recipe": "r.toml", "target": "accuracy >= 0.8", "objective": "minimise density"}
    values |= {"space": {"prune.density": [0.1, 0.5]}} | change
    lines = [f"{k} = {json.dumps(v)}" for k, v in values.items() if v is not None and k != "space"]
    axes = [f"{json.dumps(k)} = {_toml(v)}" for k, v in values["space"].items()]
    (folder / "s.toml").write_text("\n".join([*lines, "[space]", *axes]))
    with pytest.raises(Refused) as error:
        read_space(folder / "s.toml")
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def _toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    return "inf" if value == float("inf") else json.dumps(value)


def test_without_validation_images_there_is_nothing_to_judge_by(folder):
    (folder / "r.toml").write_text(RECIPE.replace('name = "digits"', 'name = "digits"\nvalidation = 0'))
    with pytest.raises(Refused, match="judges by validation images"):
        Trials(written(folder), place_of(folder)).look({"prune.density": 0.1})
