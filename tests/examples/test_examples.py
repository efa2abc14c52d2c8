"""The README's programs run as they stand, and the README shows them as they are."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def printed(path, folder):
    done = subprocess.run([sys.executable, "-W", "error", str(path)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_an_example_runs_and_prints_what_the_readme_shows(path, tmp_path):
    lines = printed(path, tmp_path)
    assert lines
    if path.name == "prune_your_own.py":
        assert rounded(lines) in rounded((ROOT / "README.md").read_text())


def rounded(text):
    """Accuracies left out: another processor adds in another order."""
    return re.sub(r"accuracy +\d+\.\d%", "accuracy", text)


def test_the_readme_shows_the_example_that_runs():
    body = (ROOT / "examples" / "first_recipe.py").read_text().split('"""', 2)[2].strip()
    assert body in (ROOT / "README.md").read_text()


def test_the_readme_shows_the_second_half_of_the_example_with_an_own_network():
    _, start, half = (ROOT / "examples" / "prune_your_own.py").read_text().partition("network = Small()")
    assert start + half.rstrip() in (ROOT / "README.md").read_text()


def test_the_readmes_recipe_is_one(tmp_path):
    from prunery.spec import read_recipe

    text = (ROOT / "README.md").read_text().split("```toml\n")[1].split("```")[0]
    (tmp_path / "recipe.toml").write_text(text)
    nodes = read_recipe(tmp_path / "recipe.toml").nodes()
    assert list(nodes) == ["init", "train", "prune", "finetune", "random"]
    assert nodes["random"].parent == nodes["train"]
