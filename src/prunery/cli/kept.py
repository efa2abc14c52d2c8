"""`prunery runs` and `prunery gc`: what lies in a folder of runs, and what of it nothing refers to."""

import json
import re
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from ..listing import Listing, Tracked, Unused, remove, unused
from ..listing.rows import Row
from ..listing.unused import FINISHED, NOTHING, RESUMABLE, Item
from ..spec import Refused, quote

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MOST_NAMED = 12
"""things that are named one by one, and not counted"""


# --- runs -------------------------------------------------------------------------------------------------------------


def rows_table(listed: Listing, rows: list[Row], columns: list[str]) -> list[Any]:
    """The rows as a table, and what is to be said of the others."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        number = any(isinstance(row.get(name), int | float) for row in rows)
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in columns))
    return [table, f"{len(rows)} of {len(listed.rows)} steps", *unread(listed)]


def unread(listed: Listing) -> list[str]:
    """A line for each folder that could not be read."""
    return [f"{name} is left out: {why}" for name, why in listed.unread.items()]


def tracked_words(tracked: Tracked | None) -> list[str]:
    """What MLflow has now; nothing where it was not asked for."""
    if not tracked:
        return []
    there = f", {len(tracked.there)} are there already" if tracked.there else ""
    return [f"{len(tracked.written)} written to experiment {tracked.experiment} of {tracked.uri}{there}"]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)


# --- gc ---------------------------------------------------------------------------------------------------------------


def seconds(text: str) -> float:
    """30m, 12h, 7d as seconds."""
    found = re.fullmatch(r"(\d+\.?\d*)([smhd])", text.strip())
    if not found:
        raise Refused(f"--age = {quote(text)} is not allowed; expected a number with s, m, h or d, such as 12h")
    return float(found[1]) * SECONDS[found[2]]


def size(count: int) -> str:
    """Bytes in words."""
    value, unit = next(((s, u) for s, u in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if count >= s), (1.0, "bytes"))
    return f"{count / value:.1f} {unit}" if unit != "bytes" else f"{count} bytes"


def collected(
    runs: Path, age: str, forget: list[str], dry: bool, yes: bool, checkpoints: bool, as_json: bool
) -> tuple[dict[str, Any], list[str]]:
    """What was removed, or would be, as JSON and in words; asks on the terminal before anything goes."""
    old = seconds(age)
    found = unused(runs, old, forget)
    nothing_lost, resumable = found.of(FINISHED, NOTHING), found.of(RESUMABLE)
    if dry or not found.items:
        return _told(found, []), [*_words(found), "nothing is removed (--dry-run)" if dry else "nothing to remove"]
    if not yes and (as_json or not sys.stdin.isatty()):
        raise Refused("gc asks before it removes anything, and nobody is there to answer; expected --yes or --dry-run")
    chosen = []
    if yes:
        chosen = nothing_lost + (resumable if checkpoints else [])
    else:
        print("\n".join(_words(found)), file=sys.stderr)
        chosen += nothing_lost if nothing_lost and _agreed(nothing_lost, "remove") else []
        chosen += resumable if resumable and _agreed(resumable, "remove checkpoints that could be resumed:") else []
    gone = remove(runs, chosen, old, forget)
    left = (
        f"; {len(resumable)} that can be resumed stay (--checkpoints)" if yes and resumable and not checkpoints else ""
    )
    return _told(found, gone), [*found.notes, f"removed {len(gone)}: {size(sum(i.bytes for i in gone))}{left}"]


def _agreed(items: list[Item], what: str) -> bool:
    print(f"{what} {len(items)}, {size(sum(i.bytes for i in items))}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _words(found: Unused) -> list[str]:
    words = []
    for why, text in (
        (FINISHED, "finished steps that nothing refers to"),
        (NOTHING, "unfinished steps with nothing to resume"),
        (RESUMABLE, "unfinished steps that can be resumed"),
    ):
        items = found.of(why)
        if items:
            names = ", ".join(i.path.name for i in items[:MOST_NAMED]) + (", ..." if len(items) > MOST_NAMED else "")
            words.append(f"{len(items)} {text}, {size(sum(i.bytes for i in items))}: {names}")
    return words + found.notes


def _told(found: Unused, gone: list[Item]) -> dict[str, Any]:
    rows = [{"path": str(i.path), "why": i.why, "bytes": i.bytes, "age": round(i.age)} for i in found.items]
    removed = {"paths": [str(i.path) for i in gone], "bytes": sum(i.bytes for i in gone)}
    return {"unused": rows, "bytes": sum(i.bytes for i in found.items), "notes": found.notes, "removed": removed}
