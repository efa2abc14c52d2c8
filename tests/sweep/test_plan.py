"""What a sweep's file means, and what it must not say."""

from pathlib import Path

import pytest

from prunery.spec import Refused
from prunery.sweep import read_sweep

SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("sweep_*.toml"))


def test_combinations_are_all_of_all(sweep):
    found = sweep('[sweep]\n"prune.density" = [0.5, 0.1]\n"train.lr" = [0.1, 0.2, 0.3]\n')
    assert len(found.points()) == 6
    assert found.points()[0] == {"prune.density": 0.5, "train.lr": 0.1}
    assert found.points()[-1] == {"prune.density": 0.1, "train.lr": 0.3}


def test_what_is_zipped_goes_together(sweep):
    text = '[[zip]]\n"prune.criterion" = ["magnitude", "random"]\n"train.lr" = [0.1, 0.2]\n'
    found = sweep(text + '[sweep]\n"prune.density" = [0.5, 0.1]\n')
    assert len(found.points()) == 4
    assert {(p["prune.criterion"], p["train.lr"]) for p in found.points()} == {("magnitude", 0.1), ("random", 0.2)}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("{ from = 0.1, to = 0.5, steps = 3 }", [0.1, 0.3, 0.5]),
        ("{ from = 0.001, to = 0.1, steps = 3, log = true }", [0.001, 0.01, 0.1]),
        ("{ from = 0.5, to = 0.1, steps = 2 }", [0.5, 0.1]),
        ("{ from = 16, to = 64, steps = 3, log = true, whole = true }", [16, 32, 64]),
        ("{ from = 1, to = 2, steps = 9, whole = true }", [1, 2]),
    ],
)
def test_a_range_is_its_numbers(text, values, sweep):
    key = "train.batch" if "whole" in text else "train.lr"
    assert [p[key] for p in sweep(f'[sweep]\n"{key}" = {text}\n').points()] == values


@pytest.mark.parametrize(("text", "seeds"), [("3", (0, 1, 2)), ("[7, 4]", (7, 4))])
def test_seeds_are_a_number_or_a_list(text, seeds, sweep):
    assert sweep(f"seeds = {text}\n").seeds == seeds


def test_a_chain_is_the_recipe_with_its_settings(sweep):
    found = sweep('seeds = [5]\nsettings = ["train.lr=0.5"]\n[sweep]\n"prune.density" = [0.2]\n', "train.batch=8")
    recipe = found.made(found.points()[0], 5)
    init, train, prune, finetune = (s.spec for s in recipe.stages)
    assert (init.seed, train.seed, train.lr, train.batch, prune.density) == (5, 5, 0.5, 8, 0.2)
    assert finetune.lr == 0.5


REFUSED = [
    ("", "nothing is swept"),
    ("seeds = 0", "seeds = 0"),
    ("seeds = [1, 1]", "has one twice"),
    ("seeds = true", "seeds = true"),
    ('seeds = 2\nsettings = ["train.lr=1", "seed=3"]', "every seed would give the same run"),
    ("retries = -1\nseeds = 1", "retries = -1"),
    ("speed = 1", '"speed" is unknown'),
    ('settings = "train.lr=1"\nseeds = 1', "settings = "),
    ('[sweep]\n"train.lr" = []', "expected values in a list"),
    ('[sweep]\n"train.lr" = 0.1', "expected values in a list"),
    ('[sweep]\n"train.lr" = [0.1, 0.1]', "a value twice"),
    ('[sweep]\n"train.lr" = { from = 1, to = 2 }', "expected values in a list"),
    ('[sweep]\n"train.lr" = { from = 0, to = 2, steps = 3, log = true }', "above 0"),
    ('[sweep]\n"train.lr" = { from = 1, to = 1, steps = 3 }', "that differ"),
    ('[sweep]\n"train.lr" = { from = 1, to = inf, steps = 3 }', "two numbers"),
    ('[sweep]\n"train.lr" = { from = 1, to = 2, steps = 1 }', "steps = 1"),
    ('[sweep]\n"train.lr" = { from = 1, to = 2, steps = 999999999 }', "too many"),
    ('[sweep]\n"seed" = [1, 2]', "expected seeds = 3"),
    ('[sweep]\n"train.lr" = [1]\n[[zip]]\n"train.lr" = [2]', "swept twice"),
    ('[[zip]]\n"train.lr" = [1, 2]\n"prune.density" = [0.1]', "as many values"),
    ("zip = 3", "expected [[zip]]"),
    ("sweep = 3", "[sweep]"),
    ("seeds = 1\n[resources]\ncpu = 1", "did you mean cpus?"),
    ("seeds = 1\n[resources]\ncpus = 0", "resources.cpus = 0"),
    ("seeds = 1\n[resources]\ngpus = 1.5", "resources.gpus = 1.5"),
    ("seeds = 1000\n" + '[sweep]\n"train.lr" = { from = 1, to = 2, steps = 9999 }', "more than 100,000 chains"),
]


@pytest.mark.parametrize(("text", "why"), REFUSED, ids=[w for _, w in REFUSED])
def test_what_cannot_be_is_one_line(text, why, sweep, folder):
    with pytest.raises(Refused) as refused:
        sweep(text)
    assert why in str(refused.value)
    assert str(folder / "s.toml") in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_sweep_needs_its_recipe(folder):
    (folder / "s.toml").write_text("seeds = 2\n")
    with pytest.raises(Refused, match="recipe is missing"):
        read_sweep(folder / "s.toml", [])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_a_shipped_sweep_is_one(path):
    """With chains enough to be worth it, all of which are recipes, and beginnings that are shared."""
    found = read_sweep(path, [])
    recipes = [found.made(point, seed) for point in found.points() for seed in found.seeds]
    nodes = [node.name for recipe in recipes for node in recipe.nodes().values()]
    assert len(recipes) >= 24
    assert len(set(nodes)) < 0.6 * len(nodes)
