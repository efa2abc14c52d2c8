"""The table of claims: read strictly, printed plainly."""

import json
from pathlib import Path

import pytest

from prunery.report import as_text, claims, results_table
from prunery.spec import Refused

GOOD = {
    "claim": "lenet5 in two epochs", "value": 98.85, "unit": "%", "spread": 0.09, "n": 20, "target": ">= 98.8",
    "holds": True, "machine": {"cpu": "a processor", "cores": 2, "arch": "x86_64", "system": "Linux"},
    "versions": {"torch": "2.13.0", "timm": None},
}  # fmt: skip


def lay(folder: Path, *rows: dict, **more) -> Path:
    """A result.json with these claims."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "result.json"
    path.write_text(json.dumps({"claims": list(rows), "spec": "recipes/lenet5.toml", "commit": "0123456789ab"} | more))
    return path


def test_all_folders_in_one_table(tmp_path):
    lay(tmp_path / "b", GOOD | {"claim": "second", "holds": False, "target": None, "spread": None})
    lay(tmp_path / "a", GOOD, GOOD | {"claim": "other", "machine": "a phone"})
    (tmp_path / "notes").mkdir()
    rows = results_table(tmp_path)
    assert [(r.folder, r.claim) for r in rows] == [("a", GOOD["claim"]), ("a", "other"), ("b", "second")]
    header, first, *_, last = as_text(rows).splitlines()
    assert header.split() == ["result", "claim", "value", "spread", "n", "target", "holds", "machine", "commit"]
    assert first.index("98.85 %") == header.index("value")
    assert "PASS" in first
    assert "a processor, 2 cores" in first
    assert "MISS" in last


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_the_terminal(width, tmp_path):
    long = " ".join(["a claim that goes on"] * 9)
    lay(tmp_path / "a_folder_of_results", GOOD | {"claim": long, "spread": "95 % interval 0.09 to 0.63"}, GOOD)
    rows = results_table(tmp_path)
    text = as_text(rows, width)
    assert max(map(len, text.splitlines())) <= width
    for part in (*long.split(), "a processor, 2 cores", "98.85 %", "PASS", "interval", "0.63"):
        assert part in text
    assert text.count("0123456789ab") == 1  # once for the two claims that share it


def test_a_table_that_fits_is_left_as_it_is(tmp_path):
    lay(tmp_path / "a", GOOD)
    assert as_text(results_table(tmp_path), 300) == as_text(results_table(tmp_path))


@pytest.mark.parametrize("terminal", [True, False])
def test_the_table_is_shortened_for_terminals_only(terminal, tmp_path, monkeypatch):
    lay(tmp_path / "a", GOOD | {"claim": "long " * 40})
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    assert (max(map(len, as_text(results_table(tmp_path)).splitlines())) <= 90) == terminal


def test_no_results_is_an_empty_table(tmp_path):
    assert results_table(tmp_path) == []


WRONG = {
    "value": [
        ("98", "expected a number"),
        (True, "expected a number"),
        (None, "value is missing"),
        (float("nan"), "missing"),
    ],
    "claim": [("", "not empty"), (3, "expected a text")],
    "unit": [(1, "expected a text")],
    "spread": [([], "expected a number, a text or null")],
    "n": [(0, "1 or more"), (2.5, "a whole number"), ("20", "a whole number")],
    "target": [({}, "expected a number, a text or null"), (float("inf"), "expected a number")],
    "holds": [(1, "true or false"), ("yes", "true or false")],
    "machine": [(3, "a text or a table"), ({}, "a text or a table")],
    "versions": [([], "a table"), ({"torch": 2}, "expected a text"), ({}, "a table")],
}


@pytest.mark.parametrize(("field", "value", "words"), [(f, v, w) for f, rows in WRONG.items() for v, w in rows])
def test_a_wrong_field_is_refused_by_name(field, value, words, tmp_path):
    path = lay(tmp_path / "x", GOOD, GOOD | {field: value})
    with pytest.raises(Refused, match=words) as refusal:
        claims(path)
    assert str(path) in str(refusal.value)
    assert f"claims[1].{field}" in str(refusal.value)


@pytest.mark.parametrize("field", GOOD)
def test_a_missing_field_is_refused_by_name(field, tmp_path):
    path = lay(tmp_path / "x", {k: v for k, v in GOOD.items() if k != field})
    with pytest.raises(Refused, match=rf"claims\[0\]\.{field} is missing"):
        claims(path)


FILES = {
    "not JSON": ("{", "is not JSON"),
    "a list": ("[]", "expected a table"),
    "no claims": ('{"claims": [], "spec": "x", "commit": "x"}', "missing or empty"),
    "no commit": ('{"claims": [], "spec": "x"}', "commit is missing"),
    "an unknown key": (
        '{"claims": [], "spec": "x", "commit": "x", "comit": "x"}',
        '"comit" is unknown.*did you mean commit',
    ),
    "a number for the spec": ('{"claims": [], "spec": 1, "commit": "x"}', "spec = 1 is not allowed"),
    "claims that are none": ('{"claims": ["x"], "spec": "x", "commit": "x"}', r"claims\[0\]"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_file_is_refused(name, tmp_path):
    content, words = FILES[name]
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(Refused, match=words) as refusal:
        claims(tmp_path / "result.json")
    assert "result.json" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_no_folder_and_no_file_are_refused(tmp_path):
    with pytest.raises(Refused, match="is not a folder"):
        results_table(tmp_path / "none")
    with pytest.raises(Refused, match="does not exist"):
        claims(tmp_path / "result.json")
