import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests import `small_sweeps` by name

from small_sweeps import RECIPE


@pytest.fixture
def folder(tmp_path):
    """A recipe, and a way to write a sweep over it."""
    (tmp_path / "r.toml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def sweep(folder):
    from prunery.sweep import read_sweep

    def written(text, *settings):
        (folder / "s.toml").write_text('recipe = "r.toml"\n' + text)
        return read_sweep(folder / "s.toml", list(settings))

    return written
