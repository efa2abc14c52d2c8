"""Who asked for which steps: a record of every recipe that was carried out, so that what nobody asks for is known."""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import write_json, writing
from .step import ENV

ASKED, BEFORE = ".asked", "before"
"""the folder of records; the record of what was there before there were any"""


@dataclass(frozen=True)
class Asked:
    """A recipe, a sweep or a trial, and the steps that it names."""

    file: Path
    name: str
    source: str
    """the file that it came from and the settings that changed it; empty where there is none"""
    steps: dict[str, str]
    """names by label"""


@contextmanager
def asked(root: Path, name: str, source: str, steps: dict[str, str]) -> Iterator[None]:
    """Writes down what is asked for while it is carried out, and after.

    The same source once more takes the place of its earlier record; while it is being carried out, both count.
    """
    if root.is_dir() and not os.access(root, os.W_OK):
        yield  # a folder to read from: what is not there is refused where it would be written
        return
    key = hashlib.sha256((source or json.dumps([name, sorted(steps.values())])).encode()).hexdigest()[:12]
    file = root / ASKED / f"{key}.json"
    before = read(file)
    with writing(root), guarded(root):
        _before(root)
        _write(file, name, source, (_marked(before.steps) if before else {}) | steps)
    yield
    with guarded(root):
        _write(file, name, source, steps)


def _marked(steps: dict[str, str]) -> dict[str, str]:
    """Of the former record, under their own names, as labels may come again."""
    return {name: name for name in steps.values()}


def _write(file: Path, name: str, source: str, steps: dict[str, str]) -> None:
    write_json(file, {"name": name, "source": source, "at": time.time(), "steps": steps})


def _before(root: Path) -> None:
    """Steps from before there were records are nobody's to remove: they are written down as asked for."""
    file = root / ASKED / f"{BEFORE}.json"
    if not file.exists():
        _write(file, BEFORE, "", {p.parent.name: p.parent.name for p in root.glob(f"*-*/{ENV}")})


@contextmanager
def guarded(root: Path, alone: bool = False) -> Iterator[None]:
    """While records change, nothing is removed; and while something is removed (`alone`), no record changes."""
    folder = root / ASKED
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def read(file: Path) -> Asked | None:
    """A record; nothing where there is none that can be read."""
    try:
        told: Any = json.loads(file.read_text(encoding="utf-8"))
        steps = {str(k): str(v) for k, v in told["steps"].items()}
        return Asked(file, str(told["name"]), str(told["source"]), steps)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def records(root: Path) -> "tuple[list[Asked], list[Path]]":
    """All that can be read, the oldest first, and the files of those that cannot."""
    files = sorted((root / ASKED).glob("*.json"), key=lambda p: p.stat().st_mtime)
    found = {file: read(file) for file in files}
    return [a for a in found.values() if a], [f for f, a in found.items() if a is None]


def labels(root: Path) -> dict[str, str]:
    """What recipes call their steps, by the steps' names; the latest recipe's word counts."""
    return {name: label for a in records(root)[0] for label, name in a.steps.items() if label != name}
