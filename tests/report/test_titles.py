"""What steps are called, and what the page says of them: branches told apart, controls never praised."""

import json
from dataclasses import replace

import pytest

from prunery.report.headline import headline
from prunery.report.page import page
from prunery.report.records import gather
from prunery.runs import Runs, Step, asked
from prunery.spec import Data, Factorise, Init, Node, Prune, Shrink, Train


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


def called(root, source, made, *labels):
    """A recipe that asked for these steps, by these labels."""
    with asked(root, "recipe", source, dict(zip(labels, (s.name for s in made), strict=True))):
        pass


def test_labels_are_those_that_the_folder_recalls(tmp_path, fake):
    made = fake.tree(tmp_path)
    called(tmp_path, "old.toml", [made[2], made[6], made[7]], "older", "random", "finetune_random")
    called(tmp_path, "new.toml", [made[1], made[2], made[3]], "train", "thin", "prune2")
    found = named(made)
    names = [found[made[i].name] for i in (1, 2, 6, 7)]
    assert names == ["train", "thin", "random", "finetune_random"], "the latest recipe's word, where it is one"
    assert {r.label for r in gather(made).records} == {"", "thin", "random", "finetune_random", "prune2"}
    assert named(made, {made[6].name: "mine"})[made[6].name] == "mine"


def test_labels_that_only_count_are_none(tmp_path, fake):
    made = fake.tree(tmp_path)
    plain = named(made)
    called(tmp_path, "a.toml", made, "init", "train", "prune", "train2", "prune2", "train3", "prune3", "train4",
           "quantize", "pack")  # fmt: skip
    assert named(made) == plain


def test_steps_of_one_label_are_told_apart(tmp_path, fake):
    made = fake.tree(tmp_path)
    for i, source in ((2, "a.toml"), (4, "b.toml")):
        called(tmp_path, source, [made[i]], "thin")
    found = named(made)
    assert [found[made[i].name] for i in (2, 4)] == ["thin (density 0.3)", "thin (density 0.1, magnitude)"]


def test_records_elsewhere_give_no_labels(tmp_path, fake):
    made = fake.tree(tmp_path / "runs")
    called(tmp_path / "runs", "a.toml", [made[2]], "thin")
    here = gather(made, allowed=lambda path: path.suffix != ".json")
    assert "thin" not in [r.title for r in here.records]


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


def layers(prunable):
    return [{"name": "fc", "parameters": prunable + 10, "prunable": prunable, "kept": prunable}]


def cut_down(runs, fake, surgery):
    """Pruned, made smaller by three quarters, pruned to two fifths of what was left."""
    init = Node(Init())
    half = Node(Prune(density=0.5, structure="coupled"), Node(Train(epochs=1), init))
    small = Node(surgery, half)
    thin = Node(Prune(density=0.4), Node(Train(epochs=1, lr=0.2), small))
    rows = [(init, 0.1, 1, 1000), (half.parent, 0.96, 1, 1000), (half, 0.5, 0.25, 1000), (small, 0.5, 1, 250)]
    rows += [(thin.parent, 0.97, 1, 250), (thin, 0.97, 0.4, 250)]
    return [fake.make(runs, node, fake.numbers(a, d), layers=layers(n)) for node, a, d, n in rows]


@pytest.mark.parametrize("surgery", [Shrink(), Factorise()], ids=lambda s: s.kind)
def test_the_headline_speaks_of_the_first_networks_weights(surgery, tmp_path, fake):
    album = gather(cut_down(Runs(tmp_path), fake, surgery))
    assert [r.of_first for r in album.records] == [1, 1, 0.25, 0.25, 0.25, 0.1]
    assert [r.density for r in album.records] == [1, 1, 0.25, 1, 1, 0.4], "the step's own stays"
    found = headline(album)
    assert "With 10.0\u202f% of its weights" in found.sentences[0]
    assert "with all of them, 96.00\u202f%" in found.sentences[0], "the shrunk network is not all of them"
    told = {r.label: (r.value, r.detail) for r in found.readings}
    assert told["Least density that keeps up"][0] == "10.0\u202f%"
    assert "of the first network's weights" in told["Least density that keeps up"][1]
    assert told["Best accuracy"][1].endswith("10.0\u202f% of the first network's weights")
    assert found.current == album.records[-1].name


def test_without_the_layers_the_density_is_told(tmp_path, fake):
    runs, dense = Runs(tmp_path), Node(Train(epochs=1), Node(Init()))
    thin = Node(Prune(density=0.4), Node(Shrink(), dense))
    made = [fake.make(runs, node, fake.numbers(0.9, d), layers=[]) for node, d in ((dense, 1), (thin, 0.4))]
    assert [r.of_first for r in gather(made).records] == [1, 0.4]


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
