import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests import `steps_on_disk` by name

from steps_on_disk import INIT, chain, write


@pytest.fixture
def shelf(tmp_path):
    """Three chains that share their first step: accuracies 0.90, 0.92, 0.94, densities 0.1, 0.2, 0.3."""
    root = tmp_path / "runs"
    write(root, INIT, accuracy=None)
    for i in range(3):
        _, train, prune = chain(i, 0.1 * (i + 1))
        write(root, train, 0.95, started=10.0 + i)
        write(root, prune, 0.9 + 0.02 * i, started=20.0 + i, density=0.1 * (i + 1))
    return root
