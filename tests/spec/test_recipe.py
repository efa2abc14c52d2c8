"""Recipes: from text to a tree of nodes, and what `--set` changes in it."""

import re
from importlib.resources import files
from pathlib import Path

import pytest

from prunery.spec import Init, Prune, Refused, Train, read_recipe, recipe

ROOT = Path(__file__).parent.parent.parent
OTHERS = ("lottery_", "search_", "sweep_")
RECIPES = [p for p in sorted((ROOT / "recipes").rglob("*.toml")) if not p.stem.startswith(OTHERS)]
SHIPPED = [*RECIPES, Path(str(files("prunery.cli").joinpath("demo.toml")))]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_what_is_shipped_loads(path):
    found = read_recipe(path)
    nodes = found.nodes()
    assert found.about
    assert next(iter(nodes)) == "init"
    assert len({n.name for n in nodes.values()}) == len(nodes)
    assert all(n.chain()[0] is nodes["init"] for n in nodes.values())


TREE = {
    "seed": 5,
    "data": {"name": "mnist", "flip": True},
    "model": {"name": "lenet5"},
    "step": [
        {"kind": "train", "epochs": 2},
        {"kind": "prune", "density": 0.5},
        {"kind": "train", "label": "tuned", "lr": 0.01, "teacher": "train"},
        {"kind": "prune", "label": "control", "after": "train", "criterion": "random", "seed": 9},
        {"kind": "train"},
        {"kind": "train", "after": "init", "data": {"flip": False, "crop": 2}},
    ],
}


def tree(*settings):
    return recipe(TREE, settings)


def specs(*settings):
    return {label: node.spec for label, node in tree(*settings).nodes().items()}


def test_labels_parents_and_branches():
    nodes = tree().nodes()
    parents = {label: next((k for k, v in nodes.items() if v is node.parent), None) for label, node in nodes.items()}
    assert parents == {
        "init": None, "train": "init", "prune": "train", "tuned": "prune", "control": "train", "train3": "control",
        "train4": "init",
    }  # fmt: skip


def test_what_stands_at_the_top_is_every_steps_default():
    found = specs()
    assert {k: s.seed for k, s in found.items() if hasattr(s, "seed")} == {
        "init": 5, "train": 5, "prune": 5, "tuned": 5, "control": 9, "train3": 5, "train4": 5,
    }  # fmt: skip
    assert (found["train"].data.flip, found["train4"].data.flip, found["train4"].data.crop) == (True, False, 2)
    assert found["train4"].data.name == "mnist"


def test_a_teachers_label_becomes_its_name():
    nodes = tree().nodes()
    assert nodes["tuned"].spec.teacher == nodes["train"].name
    assert nodes["tuned"].parent.spec.kind == "prune"


def test_a_teacher_that_is_no_label_stays_as_it_is():
    values = {"step": [{"kind": "train", "teacher": "some/file.safetensors"}]}
    assert recipe(values).nodes()["train"].spec.teacher == "some/file.safetensors"


def test_equal_chains_have_equal_names_whatever_the_recipe_calls_them():
    one = recipe({"step": [{"kind": "train"}, {"kind": "prune"}]}).nodes()
    two = recipe({"name": "x", "step": [{"kind": "train", "label": "a"}, {"kind": "prune", "label": "b"}]}).nodes()
    assert [n.name for n in one.values()] == [n.name for n in two.values()]


def test_a_branch_shares_what_lies_above_it():
    nodes = tree().nodes()
    assert nodes["control"].parent is nodes["prune"].parent is nodes["train"]


def test_the_recipe_is_not_changed_by_reading_it():
    before = repr(TREE)
    tree("train.lr=3", "data.crop=1", "tuned.data.crop=4", "train4.data.crop=5")
    assert repr(TREE) == before


SETTINGS = [
    ("train.lr=0.25", "train", "lr", 0.25),
    (" train.lr = 1e-3 ", "train", "lr", 1e-3),
    ("tuned.lr=2", "tuned", "lr", 2.0),
    ("train3.batch=7", "train3", "batch", 7),
    ("train.optimizer=adam", "train", "optimizer", "adam"),
    ('train.optimizer="adam"', "train", "optimizer", "adam"),
    ("train.optimizer='adam'", "train", "optimizer", "adam"),
    ("train.nesterov=true", "train", "nesterov", True),
    ("train.milestones=[1, 2]", "train", "milestones", (1.0, 2.0)),
    ("train.milestones=[]", "train", "milestones", ()),
    ('prune.exclude=["fc*"]', "prune", "exclude", ("fc*",)),
    ("seed=3", "train", "seed", 3),
    ("seed=3", "init", "seed", 3),
    ("control.seed=3", "control", "seed", 3),
    ("train.teacher=a=b", "train", "teacher", "a=b"),
    ("train.teacher=a b.pth", "train", "teacher", "a b.pth"),
    ("train.teacher=", "train", "teacher", ""),
    ("train.steps=1_000", "train", "steps", 1000),
]


@pytest.mark.parametrize(("setting", "label", "field", "value"), SETTINGS)
def test_set_changes_what_it_names(setting, label, field, value):
    assert getattr(specs(setting)[label], field) == value


def test_a_kind_means_all_its_steps_and_a_label_one():
    assert [s.lr for s in specs("train.lr=7").values() if isinstance(s, Train)] == [7, 7, 7, 7]
    assert [s.lr for s in specs("tuned.lr=7").values() if isinstance(s, Train)].count(7) == 1
    values = {"step": [{"kind": "train", "label": "a"}, {"kind": "train", "label": "b"}, {"kind": "prune"}]}
    found = recipe(values, ["train.lr=7"]).nodes()
    assert [found[k].spec.lr for k in "ab"] == [7, 7]
    assert isinstance(found["prune"].spec, Prune)


def test_data_and_model_and_nested_data():
    everywhere = specs("data.crop=3", "data.name=fashion_mnist")
    assert {s.data.crop for s in everywhere.values() if hasattr(s, "data")} == {3}
    assert {s.data.name for s in everywhere.values() if hasattr(s, "data")} == {"fashion_mnist"}
    one = specs("tuned.data.crop=3")
    assert [k for k, s in one.items() if hasattr(s, "data") and s.data.crop == 3] == ["tuned"]
    assert specs("model.init=orthogonal")["init"].model.init == "orthogonal"


def test_the_last_setting_wins():
    assert specs("train.lr=1", "train.lr=2")["train"].lr == 2


WRONG = [
    ("train.lr", "KEY=VALUE"), ("", "KEY=VALUE"), ("=", "KEY=VALUE"), ("train.=1", "KEY=VALUE"), (".lr=1", "KEY=VALUE"),
    ("train..lr=1", "KEY=VALUE"), ("a.b.c.d=1", "KEY=VALUE"), ("lr=1", "choose one of seed"),
    ("tunned.lr=1", "did you mean tuned?"), ("train.lr.x=1", "choose one of data"), ("data.name.x=1", "data.KEY=VALUE"),
    ("seed.x=1", "seed.KEY=VALUE"), ("train.lrr=1", "did you mean lr?"), ("data.crops=1", "did you mean crop?"),
    ("model.x=1", "a key of model"), ("train.lr=fast", "expected a number"), ("train.milestones=80", "[80]"),
    ("seed=one", "a whole number"),
]  # fmt: skip


@pytest.mark.parametrize(("setting", "text"), WRONG)
def test_a_wrong_setting_is_refused(setting, text):
    with pytest.raises(Refused, match=re.escape(text)):
        tree(setting)


REFUSED = [
    ([{"kind": "train", "after": "later"}, {"kind": "train", "label": "later"}], 'after = "later"'),
    ([{"kind": "train", "after": 3}], "after = 3"),
    ([{"kind": "train", "label": "a"}, {"kind": "prune", "label": "a"}], 'label = "a" is taken'),
    ([{"kind": "train", "label": "init"}], 'label = "init" is taken'),
    ([{"kind": "train", "label": "a b"}], 'label = "a b" is not allowed'),
    ([{"kind": "train", "label": 3}], "label = 3 is not allowed"),
    ([{"kind": "train", "teacher": "train"}], "no earlier"),
    ([{"kind": ["train"]}], "kind = ['train'] is unknown"),
    ([{"kind": "train", "model": {}}], "model"),
]


@pytest.mark.parametrize(("steps", "text"), REFUSED)
def test_a_recipe_that_makes_no_tree_is_refused(steps, text):
    with pytest.raises(Refused, match=re.escape(text)):
        recipe({"step": steps})


def test_refusals_name_the_file_once(tmp_path):
    path = tmp_path / "r.toml"
    for text in ("[[step]]\nkind = 'x'", "[", "x = 1"):
        path.write_text(text)
        with pytest.raises(Refused) as refusal:
            read_recipe(path)
        assert str(refusal.value).count(str(path)) == 1


def test_name_and_about(tmp_path):
    path = tmp_path / "my recipe.toml"
    path.write_text("[[step]]\nkind = 'train'\n")
    assert (read_recipe(path).name, read_recipe(path).about) == ("my recipe", "")
    assert isinstance(read_recipe(path).init, Init)


def test_a_lottery_is_no_recipe_of_steps(tmp_path):
    file = tmp_path / "l.toml"
    file.write_text("levels = 3\nseeds = 2\n")
    with pytest.raises(Refused, match=r"l.toml: this is a lottery \(levels, seeds\).*prunery lottery FILE"):
        read_recipe(file)
