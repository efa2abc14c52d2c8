"""What steps are called, and what the page says of them: branches told apart, controls never praised."""

import json
from dataclasses import replace

import pytest

from prunery.report.headline import headline
from prunery.report.page import page
from prunery.report.records import gather
from prunery.runs import Runs, Step
from prunery.spec import Data, Init, Node, Prune, Shrink, Train


def named(steps, labels=None):
    return {r.name: r.title for r in gather(steps, labels).records}


def test_branches_are_told_apart_by_what_differs(steps):
    assert sorted(named(steps).values()) == [
        "finetune after prune (density 0.1, magnitude)", "finetune after prune (density 0.3)",
        "finetune after prune (random)", "init", "pack", "prune (density 0.1, magnitude)", "prune (density 0.3)",
        "prune (random)", "quantize", "train",
    ]  # fmt: skip


def test_a_recipes_labels_come_first(steps):
    labels = {steps[-3].name: "blind_again"}
    found = named(steps, labels)
    assert found[steps[-3].name] == "blind_again"
    assert "init" in found.values()


def test_rounds_are_told_apart_by_their_density(tmp_path, fake):
    runs, at = Runs(tmp_path), Node(Init())
    made = []
    for density in (0.5, 0.25):
        at = Node(Prune(density=density), at)
        made.append(fake.make(runs, at, fake.numbers(0.5, density)))
    assert list(named(made).values()) == ["prune, density 0.5", "prune, density 0.25"]


@pytest.mark.parametrize(("other", "words"), [
    (Train(epochs=1, lr=0.2), "train (lr 0.2)"),
    (Train(epochs=1, schedule="cosine"), "train (cosine)"),
    (Train(epochs=1, seed=3), "train (seed 3)"),
    (Train(epochs=1, data=Data(flip=True)), "train (data.flip true)"),
])  # fmt: skip
def test_any_setting_can_tell_steps_apart(other, words, tmp_path, fake):
    runs, init = Runs(tmp_path), Node(Init())
    made = [fake.make(runs, Node(spec, init), fake.numbers(0.9)) for spec in (Train(epochs=1), other)]
    assert named(made)[made[1].name] == words


def test_other_data_and_networks_need_no_other_names(tmp_path, fake):
    made = fake.tree(tmp_path) + fake.tree(tmp_path, Data(name="mnist"), "lenet5")
    assert set(named(made).values()) == set(named(made[:10]).values())


# --- the headline -----------------------------------------------------------------------------------------------------


def with_a_lucky_control(folder, fake):
    """A blind choice that is best in everything."""
    runs, init = Runs(folder), Node(Init())
    dense = Node(Train(epochs=1), init)
    made = [fake.make(runs, dense, fake.numbers(0.95))]
    for criterion, accuracy, density in (("magnitude", 0.94, 0.2), ("random", 0.99, 0.1)):
        prune = Node(Prune(density=density, criterion=criterion), dense)
        made.append(fake.make(runs, prune, fake.numbers(accuracy, density)))
    return made


def test_a_control_is_never_praised(tmp_path, fake):
    made = with_a_lucky_control(tmp_path, fake)
    found = headline(gather(made))
    assert "99.00" not in " ".join(found.sentences)
    assert {r.label for r in found.readings} > {"Best accuracy", "Fewest multiply-adds", "Smallest file"}
    assert not [r for r in found.readings if "random" in r.detail or "99.00" in r.detail]
    assert found.current != made[2].name


def test_the_fewest_multiply_adds_are_of_the_smaller_network(tmp_path, fake):
    """A shrunk network has fewer than the pruned one whose dead channels it lost, though it keeps all of its own."""
    runs, dense = Runs(tmp_path), Node(Train(epochs=1), Node(Init()))
    pruned = Node(Prune(density=0.5), dense)
    work = ((dense, 1000, 1000), (pruned, 400, 1000), (Node(Shrink(), pruned), 300, 300))
    album = gather([fake.make(runs, node, fake.numbers(0.9)) for node, *_ in work])
    pairs = zip(album.records, work, strict=True)
    counted = [replace(r, kept_multiply_adds=kept, multiply_adds=of) for r, (_, kept, of) in pairs]
    (found,) = [r for r in headline(replace(album, records=counted)).readings if r.label == "Fewest multiply-adds"]
    assert (found.value, found.detail[:11]) == ("30.0\u202f%", "300 of 1.00")
    assert "shrunk" in found.detail or "shrink" in found.detail


def test_where_there_are_controls_only_it_is_said(tmp_path, fake):
    runs, at = Runs(tmp_path), Node(Prune(criterion="random"), Node(Init()))
    found = headline(gather([fake.make(runs, at, fake.numbers(0.5, 0.1))]))
    assert "chosen blindly" in found.sentences[0]
    assert found.readings == []


def test_a_file_of_the_same_size_is_not_called_smaller(tmp_path, fake):
    made = fake.make(Runs(tmp_path), Node(Train(epochs=1), Node(Init())), fake.numbers(0.9))
    text = " ".join(r.detail for r in headline(gather([made])).readings)
    assert "smaller" not in text


@pytest.mark.parametrize(("threads", "words"), [(1, "1 thread,"), (2, "2 threads,")])
def test_one_thread_is_one(threads, words, tmp_path, fake):
    made = fake.make(Runs(tmp_path), Node(Init()), fake.numbers(0.9))
    (made.folder / "env.json").write_text(json.dumps(made.env | {"threads": threads}))
    assert f" {words}" in page(gather([Step(made.folder)]), "t")
