"""What may go and what may not: nothing that a record, a living process or a kept step refers to."""

import json
import os
import time

import pytest
from steps_on_disk import DATA, INIT, chain, write

from prunery.listing import remove, unused
from prunery.runs import asked, labels, lock, records
from prunery.spec import Draw, Init, Model, Node, Refused, Reset, Train


def ask(root, name, source, nodes):
    with asked(root, name, source, {f"step{i}": n.name for i, n in enumerate(nodes)}):
        pass


@pytest.fixture
def recorded(tmp_path):
    """A folder with records from its beginning: one recipe's chain, and one that its edited form asks for no more."""
    root = tmp_path / "runs"
    root.mkdir()
    ask(root, "first", "first.toml", chain(0))
    ask(root, "second", "second.toml", chain(1))
    for node in [*chain(0), *chain(1)[1:]]:
        write(root, node)
    return root


def names(found):
    return {i.path.name for i in found.items}


def test_what_recipes_ask_for_is_kept(recorded):
    assert unused(recorded, 0).items == []


def test_an_edited_recipe_lets_go_of_what_it_asked_for(recorded):
    _, train, prune = chain(1)
    ask(recorded, "second", "second.toml", chain(1, density=0.5))
    assert names(unused(recorded, 0)) == {prune.name}
    ask(recorded, "second", "second.toml", [INIT])
    assert names(unused(recorded, 0)) == {train.name, prune.name}


def test_while_it_is_carried_out_the_former_form_counts_too(recorded):
    with asked(recorded, "second", "second.toml", {"init": INIT.name}):
        assert unused(recorded, 0).items == []
    assert len(unused(recorded, 0).items) == 2


def test_a_recipe_that_did_not_come_to_its_end_is_kept_with_its_former_form(recorded):
    with pytest.raises(KeyError), asked(recorded, "second", "second.toml", {"init": INIT.name}):
        raise KeyError
    assert unused(recorded, 0).items == []


def test_other_settings_are_another_record(recorded):
    ask(recorded, "second", "second.toml prune.density=0.5", [INIT])
    assert unused(recorded, 0).items == []


def test_recipes_without_a_file_are_known_by_what_they_ask(recorded):
    for node in chain(2):
        write(recorded, node)
    ask(recorded, "recipe", "", chain(2))
    ask(recorded, "recipe", "", [INIT])
    assert unused(recorded, 0).items == []


def test_forgetting_a_recipe_lets_go_of_what_only_it_asked_for(recorded):
    found = unused(recorded, 0, ["first"])
    assert names(found) == {n.name for n in chain(0)[1:]}
    gone = remove(recorded, found.items, 0, ["first"])
    assert len(gone) == 2
    assert [a.name for a in records(recorded)[0]] == ["before", "second"]
    assert {p.name for p in recorded.iterdir() if "-" in p.name} == {INIT.name, *(n.name for n in chain(1)[1:])}
    with pytest.raises(Refused, match="expected one of before, second"):
        unused(recorded, 0, ["first"])


REFERENCES = {
    "parent": lambda old: Node(Train(data=DATA, seed=9), old),
    "teacher": lambda old: Node(Train(data=DATA, teacher=old.name), INIT),
    "reset": lambda old: Node(Reset(data=DATA, to=old.name), INIT),
    "weights": lambda old: Node(Init(model=Model(name="lenet5", weights=f"runs/{old.name}/weights.safetensors"))),
    "file": lambda old: Node(Train(data=DATA, teacher=f"runs/{old.name}/weights.safetensors"), INIT),
    "source": lambda old: Node(Draw(source=old.name)),
}


@pytest.mark.parametrize("how", REFERENCES)
def test_what_a_kept_step_refers_to_is_kept_with_all_before_it(how, recorded):
    train = chain(1)[1]
    new = REFERENCES[how](train)
    write(recorded, new)
    ask(recorded, "second", "second.toml", [new])
    assert names(unused(recorded, 0)) == {chain(1)[2].name}


def test_trials_of_a_search_are_kept(recorded):
    prune = chain(1)[2]
    ask(recorded, "second", "second.toml", [INIT])
    (recorded / "search").mkdir()
    (recorded / "search" / "space-1.json").write_text(json.dumps([{"step": prune.name}, {"step": ""}]))
    assert unused(recorded, 0).items == []


def test_steps_from_before_there_were_records_stay(shelf):
    assert unused(shelf, 0).items == []
    assert "no records" in unused(shelf, 0).notes[0]
    ask(shelf, "new", "new.toml", [INIT])
    assert unused(shelf, 0).items == []
    assert labels(shelf) == {INIT.name: "step0"}


def test_a_step_that_cannot_be_read_keeps_all(recorded):
    ask(recorded, "second", "second.toml", [INIT])
    (recorded / chain(0)[1].name / "spec.toml").write_text("kind = ")
    found = unused(recorded, 0)
    assert found.items == []
    assert chain(0)[1].name in found.notes[0]


def test_a_record_that_cannot_be_read_keeps_all(recorded):
    ask(recorded, "second", "second.toml", [INIT])
    (recorded / ".asked" / "zzz.json").write_text("{")
    assert unused(recorded, 0).items == []


def test_what_is_young_stays(recorded):
    ask(recorded, "second", "second.toml", [INIT])
    found = unused(recorded, 60)
    assert found.items == []
    assert "2 more" in found.notes[0]
    for path in (recorded / chain(1)[2].name).iterdir():
        os.utime(path, (time.time() - 90,) * 2)
    os.utime(recorded / chain(1)[2].name, (time.time() - 90,) * 2)
    assert names(unused(recorded, 60)) == {chain(1)[2].name}


def test_what_is_asked_for_again_in_the_meantime_stays(recorded):
    ask(recorded, "second", "second.toml", [INIT])
    found = unused(recorded, 0)
    ask(recorded, "third", "third.toml", chain(1))
    assert remove(recorded, found.items, 0) == []
    assert (recorded / chain(1)[1].name).is_dir()


# --- unfinished -------------------------------------------------------------------------------------------------------


@pytest.fixture
def unfinished(recorded):
    """A step without and one with a checkpoint."""
    for name, file in (("train-empty", "spec.toml"), ("train-kept", "checkpoint.safetensors")):
        (recorded / ".work" / name).mkdir(parents=True)
        (recorded / ".work" / name / file).write_text("12345")
        (recorded / ".work" / f"{name}.lock").touch()
    return recorded


def test_left_overs_of_dead_makers_are_told_apart(unfinished):
    found = unused(unfinished, 0)
    assert {(i.path.name, i.why, i.bytes) for i in found.items} == {
        ("train-empty", "nothing to resume", 5),
        ("train-kept", "can be resumed", 5),
    }
    assert len(remove(unfinished, found.items, 0)) == 2
    assert list((unfinished / ".work").iterdir()) == []


def test_what_a_process_is_making_stays(unfinished):
    found = unused(unfinished, 0)
    with lock(unfinished / ".work" / "train-empty.lock", lambda _: None):
        assert names(unused(unfinished, 0)) == {"train-kept"}
        assert [i.path.name for i in remove(unfinished, found.items, 0)] == ["train-kept"]
    assert (unfinished / ".work" / "train-empty").is_dir()


def test_a_removal_that_was_killed_is_ended_by_the_next(unfinished):
    os.rename(unfinished / ".work" / "train-kept", unfinished / ".work" / ".gone-train-kept")
    found = unused(unfinished, 0)
    remove(unfinished, found.of("nothing to resume"), 0)
    assert not (unfinished / ".work" / ".gone-train-kept").exists()


def test_a_lottery_loses_only_left_overs(unfinished):
    (unfinished / "lottery" / ".work" / "draw-1").mkdir(parents=True)
    write(unfinished / "lottery", Node(Draw(seed=1)))
    assert {i.path.name for i in unused(unfinished, 0).items} == {"train-empty", "train-kept", "draw-1"}
