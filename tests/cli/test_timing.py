"""`prunery time` and `--pictures`: finished steps measured afterwards, and shown by the report."""

import json
import shutil
from pathlib import Path

import pytest

from prunery.cli import timing
from prunery.cli.looking import Looker
from prunery.report import readings, with_parents
from prunery.runs import TIMES, Runs
from prunery.spec import Refused

RECIPE = """
[[step]]
kind = "train"
steps = 1
[[step]]
kind = "quantize"
activations = 8
batches = 1
"""


@pytest.fixture
def mine(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "runs")


def test_steps_take_turns_and_the_reading_is_kept(mine, prunery, tmp_path):
    done = prunery("time", "--runs", str(mine), "--turns", "3")
    assert done.code == 0, done.err
    assert done.err.splitlines()[-1] == "3 steps take turns"
    (path,) = (mine / TIMES).iterdir()
    assert str(path) in done.out
    kept = json.loads(path.read_text())
    assert (kept["batch"], kept["threads"], kept["turns"]) == (1, 1, 3)
    assert kept["machine"]["cpu"]
    assert {n.partition("-")[0] for n in kept["steps"]} == {"train", "prune", "pack"}
    for name, row in kept["steps"].items():
        assert 0 < row["best_ms"] <= row["low_ms"] <= row["median_ms"] <= row["high_ms"], name
        assert row["same_answer"] is None
        convs = [layer for layer in row["layers"] if layer["multiply_adds"]]
        assert [layer["name"] for layer in convs] == ["conv1", "conv2", "conv3", "fc1"]
        assert all(layer["measured_us"] > 0 and layer["kernel"] for layer in convs)
    dense, sparse = (next(r for n, r in kept["steps"].items() if n.startswith(k)) for k in ("train", "prune"))
    assert sparse["bytes"] < dense["bytes"]
    page = tmp_path / "page.html"
    assert prunery("report", "--runs", str(mine), "--out", str(page)).code == 0
    assert kept["machine"]["cpu"] in page.read_text().partition('id="times-data">')[2].partition("</script>")[0]
    (one,) = readings([mine], kept["steps"])
    assert one["steps"].keys() == kept["steps"].keys()


def test_a_network_in_bytes_tells_how_often_it_answers_alike(tmp_path, prunery):
    file, runs = tmp_path / "r.toml", tmp_path / "runs"
    file.write_text(RECIPE)
    assert prunery("run", str(file), "--runs", str(runs), "--threads", "1", "--quiet").code == 0
    done = prunery("time", "quantize", "--runs", str(runs), "--turns", "1", "--quiet", "--json")
    (row,) = json.loads(done.out)["steps"].values()
    assert row["same_of"] == 512
    assert 0.9 < row["same_answer"] <= 1


def test_what_cannot_be_packed_is_left_out_and_said_or_refused_by_name(mine, monkeypatch, tmp_path):
    pack, whole = timing.engine.pack, []

    def some(network, example):
        whole.append(network)
        if len(whole) == 1:
            raise Refused("the engine has no such layer")
        return pack(network, example)

    monkeypatch.setattr(timing.engine, "pack", some)
    found = timing.timed([], timing.Asked(turns=1), mine, tmp_path, lambda _: None)
    assert list(found["left_out"].values()) == ["the engine has no such layer"]
    assert len(found["steps"]) == 2
    assert any("is left out: the engine has no such layer" in line for line in timing.told(found))
    whole.clear()
    with pytest.raises(Refused, match=r"train-\w+ cannot be timed: the engine has no such layer"):
        timing.timed(["train"], timing.Asked(turns=1), mine, tmp_path, lambda _: None)


def test_too_many_steps_are_refused(mine, monkeypatch, tmp_path):
    monkeypatch.setattr(timing, "STEPS", 2)
    with pytest.raises(Refused, match="3 steps are too many to take turns; name 2 of them at most"):
        timing.timed([], timing.Asked(), mine, tmp_path, lambda _: None)


def test_pictures_are_made_once_of_every_step_and_its_parents(trained, tmp_path, monkeypatch):
    last = Runs(trained).find("pack")
    steps = with_parents([last])
    assert {s.name for s in steps} == {s.name for s in last.chain()}
    said = []
    looker = Looker(tmp_path, said.append)
    drawn = dict(looker(steps))
    assert drawn.keys() == {s.name for s in steps}
    assert said == []
    assert all(len(d["maps"]) == 4 and d["labels"] == ["0", "1", "2", "3"] for d in drawn.values())
    assert drawn[last.name]["kept"] < drawn[last.name]["of"] == 288
    monkeypatch.setattr("prunery.cli.looking.look_at", lambda *_: pytest.fail("looked again"))
    assert dict(looker(steps)) == drawn


def test_why_there_are_no_pictures_is_said(trained, tmp_path, monkeypatch):
    def lost(*_):
        raise Refused("the images are gone")

    monkeypatch.setattr("prunery.cli.looking.look_at", lost)
    said = []
    assert list(Looker(tmp_path, said.append)([Runs(trained).find("pack")])) == []
    assert len(said) == 1
    assert said[0].endswith(": the images are gone")


def test_a_step_that_knows_no_images_is_one_line():
    class Bare:
        name, spec = "init-0123456789ab", object()

    with pytest.raises(Refused, match="init-0123456789ab has quantisers and no images"):
        timing._typical(Bare(), Path("nowhere"))
