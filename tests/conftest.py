"""What every test may count on: no display, one torch thread per worker, and a home that is not the user's.

All of it is set before torch and matplotlib are first imported, and is inherited by the processes that tests start.
"""

import os
import tempfile
from pathlib import Path

HOME = tempfile.TemporaryDirectory(prefix="prunery-home-")

os.environ["MPLBACKEND"] = "Agg"
# Shared by workers and sessions, because building matplotlib's list of fonts takes seconds.
os.environ["MPLCONFIGDIR"] = str(Path(__file__).parent.parent / ".pytest_cache" / "matplotlib")
os.environ["HOME"] = HOME.name
for name in ("CACHE", "CONFIG", "DATA", "STATE"):
    os.environ[f"XDG_{name}_HOME"] = str(Path(HOME.name) / name.lower())
for name in ("TORCH_HOME", "HF_HOME"):
    os.environ.pop(name, None)

# Workers that each start a thread per core slow one another down.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"


def pytest_unconfigure():
    HOME.cleanup()
