"""`prunery lottery` from start to end on small images, and what it says on the way."""

import json
from pathlib import Path

import pytest

from prunery.cli.lottery import FIGURES, asked, duration, told
from prunery.spec import SOURCE, Draw, Lottery, Refused, read_lottery
from prunery.tickets import Pace

ROOT = Path(__file__).parents[2]
DATA = str(ROOT / "data")
RECIPE = """
name = "small"
about = "two rounds"
steps = 60
every = 10
levels = 2
seeds = 2
reinits = 1
curve_levels = [0, 1, 2]
[data]
name = "digits"
"""


def test_a_recipe_from_start_to_end(prunery, tmp_path):
    (tmp_path / "small.toml").write_text(RECIPE)
    words = [str(tmp_path / "small.toml"), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    words += ["--data-dir", DATA, "--threads", "1"]
    done = prunery("lottery", *words, "--json", "--quiet")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert {v["verdict"] for v in found["claims"]} == {"NOT RUN"}  # digits are not the paper's images
    assert found["differs"]["data"] == "digits"
    names = {Path(f).name for f in found["files"]}
    assert names >= {"figure1.svg", "figure4.png", "claims.md", "networks.csv", "levels.csv"}
    assert len((tmp_path / "out/networks.csv").read_text().splitlines()) == 1 + 2 * (1 + 2 * 4)
    page = ["report", "--out", str(tmp_path / "page.html"), "--runs"]
    done = prunery(*page, str(tmp_path / "runs"), "--lottery", str(tmp_path / "out"))
    assert done.code == 0, done.err
    assert '"arm":"oneshot"' in (tmp_path / "page.html").read_text()
    assert "the networks of a lottery" in prunery(*page, str(tmp_path / "runs/lottery")).err
    again = prunery("lottery", *words)
    assert again.code == 0, again.err
    assert "NOT RUN: L0, L1" in again.out
    assert "not the paper's: steps = 60" in again.out
    assert "18 networks took" in again.out
    assert "not drawn, as what it shows was not trained or not followed: figure 3" in again.out


def test_a_figure_asks_for_its_arms_only():
    for figure, arms in FIGURES.items():
        assert asked(Lottery(), figure, None, None, None).arms == (arms or Lottery().arms)
    small = asked(Lottery(), "1", 2, 3, 400)
    assert (small.seeds, small.levels, small.steps) == (2, 3, 400)


@pytest.mark.parametrize("figure", ["1", "4", "stability"])
def test_a_figure_takes_no_tickets_from_elsewhere(figure):
    recipe = read_lottery(str(ROOT / "recipes/lottery_arms_mnist.toml"))
    found = asked(recipe, figure, None, None, None)
    assert {getattr(found, name) for name in SOURCE} == {"", None}
    assert asked(recipe, "all", None, None, None) == recipe


def test_only_options_are_called_options():
    with pytest.raises(Refused, match=r"^lottery\.rewind = 500 is not allowed"):
        asked(Lottery(rewind=500), "all", None, None, 400)
    with pytest.raises(Refused, match=r"^--seeds = 0 is not allowed"):
        asked(Lottery(), "all", 0, None, None)


def test_how_far_it_is_in_words():
    pace = Pace()
    pace.begin(Lottery(seeds=1, levels=1, arms=("ticket",)), {0: 2.0, 1: 1.0}, 1)
    assert told(pace) == "level 0, 0 of 2 networks"
    pace.tick({"draw": Draw(), "steps": 25_000, "seconds": 25.0})
    assert told(pace) == "level 0, 0 of 2 networks, 50 s left"
    assert [duration(s) for s in (0.4, 61, 7325)] == ["0 s", "1 min 01 s", "2 h 02 min"]
