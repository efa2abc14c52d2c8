"""A step's folder: written once, read back as it was, and refused in one line where it is damaged."""

import json
import math
import re

import pytest
import torch
from makers import full, node

from prunery.runs import (
    CHECKPOINT,
    ENV,
    METRICS,
    RESULT,
    SPEC,
    WEIGHTS,
    Runs,
    State,
    Step,
    Work,
    read_lines,
    read_tensors,
    write_json,
    write_tensors,
)  # fmt: skip
from prunery.spec import Node, Prune, Refused


def nothing(work):
    raise AssertionError("made a second time")


def test_a_step_is_made_once_and_holds_what_it_was_given(runs):
    parent = runs.once(node(), full)
    step = runs.once(Node(Prune(density=0.5), node()), full)
    assert runs.once(node(), nothing).folder == parent.folder
    assert {p.name for p in step.folder.iterdir()} == {SPEC, METRICS, WEIGHTS, ENV, RESULT}
    assert step.spec == Prune(density=0.5)
    assert (step.parent.name, [s.name for s in step.chain()]) == (parent.name, [parent.name, step.name])
    assert [r["step"] for r in step.metrics()] == [0, 1, 2]
    assert torch.equal(step.state().weights["w"], torch.arange(30_000.0))
    assert step.result == {"density": 1.0}
    assert step.env["parts"] == 1
    assert step.env["seconds"] > 0
    assert {"versions", "machine", "threads", "commit", "started", "name", "parent"} <= set(step.env)
    assert [s.name for s in runs.steps()] == [parent.name, step.name]
    assert not list((runs.root / ".work").iterdir())


def test_a_step_that_fails_is_no_step_and_is_tried_again(runs):
    def fail(work):
        work.log({"step": 1})
        raise Refused("no")

    with pytest.raises(Refused, match="no"):
        runs.once(node(), fail)
    assert runs.steps() == []
    assert runs.once(node(), full).name == node().name


def test_what_a_killed_writer_left_does_not_enter_the_step(runs):
    folder = runs.root / ".work" / node().name
    folder.mkdir(parents=True)
    (folder / f".{WEIGHTS}.123.tmp").write_bytes(b"half")
    assert not list(runs.once(node(), full).folder.glob(".*"))


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path):
    work = Work(tmp_path)
    work.log({"step": 1})
    work.checkpoint({"w": torch.ones(3)}, {"step": 1})
    work.log({"step": 2})
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 3, "lo')
    again = Work(tmp_path)
    tensors, about = again.restore()
    assert torch.equal(tensors["w"], torch.ones(3))
    assert (about["step"], again.parts, again.metrics()) == (1, 2, [{"step": 1}])
    again.log({"step": 2})
    assert again.metrics() == [{"step": 1}, {"step": 2}]
    assert again.seconds() >= about["seconds"] > 0


def test_without_a_checkpoint_everything_starts_again(tmp_path):
    Work(tmp_path).log({"step": 1})
    assert Work(tmp_path).restore() is None
    assert Work(tmp_path).metrics() == []


def test_a_checkpoint_before_the_first_row(tmp_path):
    Work(tmp_path).checkpoint({}, {"step": 0})
    work = Work(tmp_path)
    work.log({"step": 1})
    assert work.restore()[1]["step"] == 0
    assert work.metrics() == []


@pytest.mark.parametrize(
    "tail", ["", '{"step": 2', '{"step": 2}', "\x00\x00", '{"a": "ü'.encode()[:-1].decode("latin1")]
)
def test_a_torn_last_line_is_left_out(tmp_path, tail):
    (tmp_path / METRICS).write_bytes(b'{"step": 1}\n' + tail.encode("latin1"))
    assert read_lines(tmp_path / METRICS) == [{"step": 1}]


def test_no_metrics_are_no_rows(tmp_path):
    assert read_lines(tmp_path / METRICS) == []


def refuse_constant(name):
    raise AssertionError(f"{name} is not JSON")


NUMBERS = {"a": math.nan, "b": [math.inf, {"c": -math.inf}], "d": (1.5, "NaN"), "e": None, "f": True}


def test_json_never_holds_what_json_does_not_know(tmp_path):
    expected = {"a": None, "b": [None, {"c": None}], "d": [1.5, "NaN"], "e": None, "f": True}
    work = Work(tmp_path)
    work.log(NUMBERS)
    work.result(NUMBERS)
    write_json(tmp_path / "x.json", NUMBERS)
    for name in (METRICS, RESULT, "x.json"):
        assert json.loads((tmp_path / name).read_text(), parse_constant=refuse_constant) == expected


DAMAGED = [
    (ENV, b"{", lambda s: s.env), (ENV, b"[]", lambda s: s.env), (RESULT, b"\xff", lambda s: s.result),
    (SPEC, b"[", lambda s: s.spec), (SPEC, b"kind = 'trian'", lambda s: s.spec), (WEIGHTS, b"", lambda s: s.state()),
    (WEIGHTS, b"12345678901234567890", lambda s: s.state()), (ENV, None, lambda s: s.env),
    (SPEC, None, lambda s: s.spec), (WEIGHTS, None, lambda s: s.state()),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "read"), DAMAGED)
def test_a_damaged_file_is_refused_by_name(runs, name, content, read):
    step = runs.once(node(), full)
    (step.folder / name).unlink() if content is None else (step.folder / name).write_bytes(content)
    with pytest.raises(Refused) as refusal:
        read(Step(step.folder))
    assert str(step.folder / name) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_truncated_weights_are_refused_at_any_length(tmp_path, share):
    path = tmp_path / "w.safetensors"
    write_tensors(path, {"w": torch.arange(1000.0)}, {"a": 1})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(
        Refused, match=f"{re.escape(str(path))} is not a whole safetensors file .*make or copy it again"
    ):
        read_tensors(path)


@pytest.mark.parametrize("spoil", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:100] + b"\xff" + b[101:]])
def test_a_damaged_checkpoint_says_which_folder_to_delete(tmp_path, spoil):
    Work(tmp_path).checkpoint({"w": torch.ones(99)}, {"step": 1})
    path = tmp_path / CHECKPOINT
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(
        Refused, match=f"{re.escape(str(path))} .*delete the folder {re.escape(str(tmp_path))} to start"
    ):
        Work(tmp_path).restore()


def test_a_strangers_checkpoint_is_refused(tmp_path):
    write_tensors(tmp_path / CHECKPOINT, {"w": torch.ones(3)}, {"step": 1})
    with pytest.raises(Refused, match=r"is no checkpoint of prunery .*delete the folder"):
        Work(tmp_path).restore()


@pytest.mark.parametrize("about", ["[]", "3", "not json"])
def test_a_header_that_is_no_table_is_refused(tmp_path, about):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(3)}, tmp_path / "x.safetensors", {"prunery": about})
    with pytest.raises(Refused, match=r"x\.safetensors is not a whole safetensors file"):
        read_tensors(tmp_path / "x.safetensors")


def test_a_step_is_found_by_name_beginning_or_folder(runs):
    first, second = runs.once(node(0), full), runs.once(node(1), full)
    assert first.name != second.name
    assert runs.find(first.name).name == first.name
    assert runs.find(first.name[:9]).name == first.name
    assert Runs("elsewhere").find(str(first.folder)).name == first.name
    with pytest.raises(Refused, match=f"could be {first.name}, {second.name}; give more"):
        runs.find("init-")
    with pytest.raises(Refused, match=f'"x" is not in .*; the newest there: {first.name}, {second.name}'):
        runs.find("x")
    with pytest.raises(Refused, match="none yet: start one with prunery run RECIPE"):
        Runs(runs.root / "none").find("x")


def test_a_state_is_one_dict_of_tensors():
    state = State({"a": torch.ones(2)}, {"a": torch.ones(2, dtype=torch.bool)}, {"a": torch.ones(1)})
    again = State.of(state.tensors())
    assert set(state.tensors()) == {"a", "mask:a", "scale:a"}
    assert torch.equal(again.masks["a"], state.masks["a"])
    assert torch.equal(again.scales["a"], state.scales["a"])
