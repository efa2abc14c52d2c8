"""Milliseconds of finished steps, as a machine took them: kept beside the steps, whose folders are written once."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

from .files import write_json, writing

TIMES = ".times"
"""the folder of readings: each is of one machine, batch and number of threads, its steps timed in turns"""


def keep_times(root: Path, reading: dict[str, Any]) -> Path:
    """A reading as a file of its own; the newest is the last by name."""
    at = time.strftime("%Y%m%dT%H%M%S", time.gmtime(reading["started"]))
    digest = hashlib.sha256(json.dumps(reading, sort_keys=True).encode()).hexdigest()[:8]
    path = root / TIMES / f"{at}-{digest}.json"
    with writing(path):
        path.parent.mkdir(exist_ok=True)
    write_json(path, reading)
    return path
