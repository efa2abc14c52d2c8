"""Readings of milliseconds: each with its conditions, the newest first, and refused where they are not whole."""

import json

import pytest

from prunery.report import More, Site, readings, write_report
from prunery.runs import TIMES, WEIGHTS, keep_times
from prunery.spec import Refused

LAYER = {
    "name": "conv1", "kernel": "sparse 2x2 tiles, 4 outputs", "density": 0.1, "multiply_adds": 1800.0,
    "predicted_us": 1.5, "measured_us": 1.25, "bytes": 420, "why": "predicted 1.5 us sparse, 4.0 us dense",
}  # fmt: skip


def row(ms):
    more = {"best_ms": ms, "bytes": 999, "same_answer": None, "same_of": None, "layer_images": 1, "layers": [LAYER]}
    return {"median_ms": ms, "low_ms": 0.9 * ms, "high_ms": 1.1 * ms, **more}


def reading(steps, started=1.7e9, **more):
    """What `prunery time` keeps."""
    about = {"started": started, "batch": 1, "threads": 1, "turns": 9, "repeats": 20, "isa": "v3", "commit": "0a1b"}
    machine = {"machine": {"cpu": "A Processor"}, "versions": {"prunery": "0.1.0"}}
    return about | machine | {"steps": {s.name: row(0.5 + i) for i, s in enumerate(steps)}} | more


@pytest.fixture
def made(tmp_path, fake):
    return fake.tree(tmp_path / "runs")


def found(steps):
    return readings([steps[0].folder.parent], [s.name for s in steps])


def test_a_reading_says_under_which_conditions(made):
    keep_times(made[0].folder.parent, reading(made[1:3], batch=8, threads=2))
    (one,) = found(made)
    assert one["about"] == (
        "8 images, 2 threads, A Processor, v3, medians of 9 turns, prunery 0.1.0, commit 0a1b, 2023-11-14 22:13 UTC"
    )
    assert (one["images"], one["threads"]) == (8, 2)
    first = one["steps"][made[1].name]
    assert (first["ms"], first["low"], first["high"], first["layers"]) == (0.5, 0.45, pytest.approx(0.55), [LAYER])
    assert one["steps"][made[2].name]["ms"] == 1.5


def test_the_newest_comes_first_and_few_are_taken(made):
    for i in range(11):
        keep_times(made[0].folder.parent, reading(made, started=1.7e9 + 60 * i))
    assert [one["at"][-9:-4] for one in found(made)] == [f"22:{23 - i}" for i in range(8)]


def test_readings_of_other_steps_are_left_out(made):
    keep_times(made[0].folder.parent, reading(made[1:3]))
    assert readings([made[0].folder.parent], [made[5].name]) == []
    (one,) = readings([made[0].folder.parent], [made[2].name])
    assert list(one["steps"]) == [made[2].name]


BROKEN = {
    "no batch": ({"batch": None}, "batch is missing"),
    "no repeats": ({"repeats": None}, "repeats is missing"),
    "a text for a number": ({"threads": "two"}, 'threads = "two" is not allowed; expected a whole number'),
    "steps that are a list": ({"steps": []}, r"steps = \[\] is not allowed"),
    "a layer without a name": ({}, r"layers\[0\].name is missing"),
    "no milliseconds": ({}, "median_ms is missing"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_whole_is_refused(made, name):
    changes, words = BROKEN[name]
    value = reading(made[1:2]) | changes
    if "layer" in name:
        value["steps"][made[1].name]["layers"] = [{}]
    if "milliseconds" in name:
        del value["steps"][made[1].name]["median_ms"]
    path = keep_times(made[0].folder.parent, value)
    with pytest.raises(Refused, match=words) as refusal:
        found(made)
    assert path.name in str(refusal.value)
    path.write_text("{")
    with pytest.raises(Refused, match="cannot be read"):
        found(made)


def test_a_served_page_takes_a_new_reading_along_but_none_from_elsewhere(made, tmp_path):
    runs = made[0].folder.parent
    site = Site(runs)
    before, text = site.version(), site.text()[1]
    path = keep_times(runs, reading(made[1:3]))
    assert site.version() != before
    assert text.count("A Processor") == 0
    assert "A Processor" in site.text()[1]
    path.rename(tmp_path / "outside.json")
    (runs / TIMES / path.name).symlink_to(tmp_path / "outside.json")
    assert "A Processor" not in Site(runs).text()[1]


def test_a_served_page_draws_the_steps_whose_weights_are_its_own(made, tmp_path):
    runs = made[0].folder.parent
    for step in made:
        (step.folder / WEIGHTS).write_bytes(b"")
    (made[3].folder / WEIGHTS).unlink()
    (tmp_path / "elsewhere").write_bytes(b"")
    (made[3].folder / WEIGHTS).symlink_to(tmp_path / "elsewhere")
    asked = []
    site = Site(runs, look=lambda steps: asked.extend(s.name for s in steps) or [])
    assert '"steps":{},"images":{}' in site.text()[1]
    assert set(asked) == {s.name for s in made} - {made[3].name}
    site.text()
    assert len(asked) == len(made) - 1  # once for each version


def test_a_page_holds_its_readings(made, tmp_path):
    keep_times(made[0].folder.parent, reading(made[1:3]))
    text = write_report(made, tmp_path / "page.html", more=More(times=found(made))).read_text()
    block = text.partition('id="times-data">')[2].partition("</script>")[0]
    assert json.loads(block) == found(made)
