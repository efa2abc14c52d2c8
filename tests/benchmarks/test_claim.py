"""The benchmarks' contract: what they keep is what `prunery results` reads, and they fail when a claim does."""

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from prunery.report import claims as read_claims

ROOT = Path(__file__).parents[2]
BENCHMARKS = sorted(
    p for p in (ROOT / "benchmarks").glob("*.py") if p.stem not in ("claim", "contest", "paper", "stages")
)


@pytest.fixture(scope="module")
def contract():
    spec = importlib.util.spec_from_file_location("claim", ROOT / "benchmarks" / "claim.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def asked(keep=None, only_json=False):
    return argparse.Namespace(keep=keep, json=only_json, quick=True)


@pytest.mark.parametrize("holds", [True, False])
def test_the_last_line_is_json_and_the_exit_code_says_whether_all_claims_hold(contract, holds, capsys):
    made = [
        contract.claim("a", 2.0, "times", "1 to 3", 5, 1.5, True),
        contract.claim("b", 1, "share", None, 5, 2, holds),
    ]
    with pytest.raises(SystemExit) as stop:
        contract.finish(made, "table", asked())
    assert stop.value.code == (0 if holds else 1)
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["holds"] is holds
    assert {"claim", "value", "unit", "spread", "n", "target", "machine", "versions"} <= last.keys()


def test_what_is_kept_is_what_results_reads(contract, tmp_path, capsys):
    made = [contract.claim("speed", 5.2, "times", "5.1 to 5.3", 7, 5.0, True)]
    with pytest.raises(SystemExit):
        contract.finish(made, "a table", asked(tmp_path / "kept"), "lr = 1", "more words")
    (found,) = read_claims(tmp_path / "kept" / "result.json")
    assert (found.claim, found.value, found.holds, found.spec) == ("speed", 5.2, True, "lr = 1")
    page = (tmp_path / "kept" / "README.md").read_text()
    assert all(text in page for text in ("a table", "holds: speed", "more words", "at commit"))


def test_the_command_that_is_kept_has_what_changes_the_result(contract):
    words = [
        "--recipe",
        "short",
        "--keep",
        "results/x",
        "--runs=/somewhere/runs",
        "--json",
        "--quick",
        "--data-dir",
        "d",
    ]
    assert contract.chosen(words) == ["--recipe", "short", "--quick"]
    assert contract.chosen([]) == []


def test_turns_interleave_and_ratios_are_turn_by_turn(contract):
    order = []
    contestants = {name: lambda name=name: order.append(name) or float(len(order)) for name in "ab"}
    found = contract.turns(contestants, 3)
    assert order == ["a", "b"] * 3
    assert found == {"a": [1, 3, 5], "b": [2, 4, 6]}
    assert contract.ratios(found["b"], found["a"]) == (pytest.approx(4 / 3), "1.2 to 2")


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda p: p.stem)
def test_every_benchmark_knows_its_options(path):
    done = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert all(option in done.stdout for option in ("--quick", "--json", "--keep"))


def test_every_kept_result_is_whole():
    found = [c for path in sorted((ROOT / "results").glob("*/result.json")) for c in read_claims(path)]
    assert found
    assert all((ROOT / "results" / c.folder / "README.md").exists() and not c.commit.endswith("+") for c in found)
