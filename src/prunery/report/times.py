"""Milliseconds that were measured of steps, each reading with its conditions: numbers of two readings never mix."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..runs import TIMES
from .facts import Facts, read_json

READINGS = 8
"""the newest that a page takes along"""


def readings(
    folders: Iterable[Path], names: Iterable[str], allowed: Callable[[Path], bool] = lambda path: True
) -> list[dict[str, Any]]:
    """The newest readings in folders of runs that tell of any of these steps, newest first."""
    files = sorted((p for f in folders for p in (f / TIMES).glob("*.json") if allowed(p)), key=lambda p: p.name)
    wanted, found = set(names), list[dict[str, Any]]()
    for path in reversed(files):
        reading = _reading(read_json(path), wanted)
        found += [reading] if reading["steps"] and len(found) < READINGS else []
    return found


def _reading(facts: Facts, wanted: set[str]) -> dict[str, Any]:
    steps = facts.table("steps")
    return {
        "about": _about(facts),
        "at": _at(facts),
        "repeats": facts.needed(facts.whole, "repeats"),
        "images": facts.needed(facts.whole, "batch"),
        "threads": facts.needed(facts.whole, "threads"),
        "steps": {name: _step(steps.table(name)) for name in steps.values if name in wanted},
    }


def _about(facts: Facts) -> str:
    """The conditions in a line: what a reader must know before comparing."""
    machine, versions = facts.table("machine"), facts.table("versions")
    words = [
        _count(facts.needed(facts.whole, "batch"), "image"), _count(facts.needed(facts.whole, "threads"), "thread"),
        machine.text("cpu"), facts.text("isa"), f"medians of {_count(facts.needed(facts.whole, 'turns'), 'turn')}",
        f"prunery {versions.text('prunery')}", facts.text("commit") and f"commit {facts.text('commit')}",
        _at(facts),
    ]  # fmt: skip
    return ", ".join(w for w in words if w)


def _at(facts: Facts) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(facts.needed(facts.number, "started")))


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'s' * (n != 1)}"


def _step(row: Facts) -> dict[str, Any]:
    return {
        "ms": row.needed(row.number, "median_ms"), "low": row.needed(row.number, "low_ms"),
        "high": row.needed(row.number, "high_ms"), "bytes": row.whole("bytes"), "same": row.number("same_answer"),
        "same_of": row.whole("same_of"),
        "images": row.whole("layer_images"), "layers": [_layer(layer) for layer in row.tables("layers")],
    }  # fmt: skip


def _layer(row: Facts) -> dict[str, Any]:
    """What the engine says of one operation: which kernel runs it, and why that one."""
    return {
        "name": row.needed(row.text, "name"), "kernel": row.text("kernel") or "", "why": row.text("why") or "",
        "bytes": row.whole("bytes"),
        **{key: row.number(key) for key in ("density", "multiply_adds", "predicted_us", "measured_us")},
    }  # fmt: skip
