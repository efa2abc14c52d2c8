import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # processes that tests start import `makers` by name


@pytest.fixture
def runs(tmp_path):
    from prunery.runs import Runs

    return Runs(tmp_path / "runs")
