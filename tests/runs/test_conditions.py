"""The commit that a result names is that of the whole package."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import prunery

PACKAGE = Path(prunery.__file__).parent
ASK = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "Redirecting" not in type(f).__name__]  # of an editable installation
sys.path.insert(0, "src")
from prunery.runs.conditions import commit
print(commit())
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout of the rooms that the question needs, committed."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    for room in ("runs", "spec", "native"):
        shutil.copytree(PACKAGE / room, tmp_path / "src/prunery" / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PACKAGE / "refused.py", tmp_path / "src/prunery")
    (tmp_path / "src/prunery/__init__.py").touch()
    (tmp_path / "README.md").touch()
    (tmp_path / ".gitignore").write_text("__pycache__\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "all")
    return tmp_path


def git(folder, *words):
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def asked(folder):
    done = subprocess.run([sys.executable, "-c", ASK], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_clean_package_is_its_commit(checkout):
    (checkout / "README.md").write_text("words are not code")
    assert asked(checkout) == git(checkout, "rev-parse", "--short=12", "HEAD")


@pytest.mark.parametrize("file", ["__init__.py", "spec/steps.py", "runs/files.py", "new.py"])
def test_a_change_in_any_room_shows(checkout, file):
    with open(checkout / "src/prunery" / file, "a") as out:
        out.write("# changed\n")
    assert asked(checkout) == git(checkout, "rev-parse", "--short=12", "HEAD") + "+"
