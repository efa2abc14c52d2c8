"""The measured results that we stand behind: every claim of results/*/result.json, checked field by field."""

import json
import math
import shutil
import sys
from dataclasses import dataclass
from itertools import groupby, zip_longest
from pathlib import Path
from textwrap import wrap
from typing import Any

from ..spec import Refused, choose, quote
from .facts import Facts, as_facts

FILE = "result.json"
TOP = ("claims", "spec", "commit")
MORE = ("files", "points")
"""what a file may have: what `prunery score --verify` holds kept files against, and points of the figure of all"""
FIELDS = ("claim", "value", "unit", "spread", "n", "target", "holds", "machine", "versions")


@dataclass(frozen=True)
class Claim:
    """A measured value with its conditions, and whether it holds what was promised."""

    folder: str
    claim: str
    value: float
    unit: str
    spread: float | str | None
    n: int
    target: float | str | None
    holds: bool
    machine: dict[str, Any] | str
    versions: dict[str, str | None]
    spec: str | dict[str, Any]
    commit: str


def results_table(folder: Path) -> list[Claim]:
    """The claims of every folder in `folder`, in the order of their names."""
    if not folder.is_dir():
        raise Refused(f"{folder} is not a folder; expected one with a {FILE} in each of its folders, such as results")
    return [claim for path in sorted(folder.glob(f"*/{FILE}")) for claim in claims(path)]


def claims(path: Path) -> list[Claim]:
    """The claims of one file: `{"claims": [...], "spec": ..., "commit": "..."}`."""
    file = as_facts(_load(path), path)
    _known(file, TOP, MORE)
    spec, commit = _one_of(file, "spec", str | dict, "a TOML text, a path or a table"), file.needed(file.text, "commit")
    rows = file.tables("claims")
    if not rows:
        raise Refused(f"{path}: claims is missing or empty; expected a list with at least one claim")
    return [_claim(row, path.parent.name, spec, commit) for row in rows]


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refused(f"{path} does not exist; expected a {FILE}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Refused(f"{path} is not JSON ({error}); expected what a benchmark prints") from None


def _claim(row: Facts, folder: str, spec: Any, commit: str) -> Claim:
    _known(row, FIELDS)
    return Claim(
        folder=folder, spec=spec, commit=commit,
        claim=_filled(row, "claim"), value=row.needed(row.number, "value"), unit=row.needed(row.text, "unit"),
        spread=_optional(row, "spread"), n=_count(row), target=_optional(row, "target"),
        holds=row.needed(row.flag, "holds"), machine=_one_of(row, "machine", str | dict, "a text or a table"),
        versions=_versions(row),
    )  # fmt: skip


def _known(facts: Facts, names: tuple[str, ...], more: tuple[str, ...] = ()) -> None:
    """Nothing missing, nothing unknown."""
    for key in facts.values:
        choose(key, (*names, *more), f"{facts.where}: a key of {facts.inside.rstrip('.') or 'the file'}")
    for key in names:
        if key not in facts.values:
            raise Refused(f"{facts.where}: {facts.inside}{key} is missing; expected {', '.join(names)}")


def _filled(row: Facts, key: str) -> str:
    return row.needed(row.text, key).strip() or _refuse(row, key, "a text that is not empty")


def _count(row: Facts) -> int:
    n = row.needed(row.whole, "n")
    return n if n >= 1 else _refuse(row, "n", "1 or more")


def _optional(row: Facts, key: str) -> float | str | None:
    """A finite number, words for one such as ">= 98.8", or null."""
    value = row.values[key]
    words = "a number, a text or null"
    if value is None or isinstance(value, str):
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if number else _refuse(row, key, words)


def _one_of(row: Facts, key: str, kinds: Any, words: str) -> Any:
    value = row.values[key]
    return value if isinstance(value, kinds) and value else _refuse(row, key, words)


def _versions(row: Facts) -> dict[str, str | None]:
    _one_of(row, "versions", dict, "a table of packages and their versions")
    table = row.table("versions")
    return {name: table.text(name) for name in table.values}


def _refuse(row: Facts, key: str, words: str) -> Any:
    raise Refused(f"{row.where}: {row.inside}{key} = {quote(row.values[key])} is not allowed; expected {words}")


# --- as text ----------------------------------------------------------------------------------------------------------

HEADER: tuple[str, ...] = ("result", "claim", "value", "spread", "n", "target", "holds", "machine", "commit")


def cells(claim: Claim) -> tuple[str, ...]:
    """A claim as one row under `HEADER`."""
    machine = claim.machine if isinstance(claim.machine, str) else _machine(claim.machine)
    value = f"{claim.value:,.6g} {claim.unit}".strip()
    verdict = "PASS" if claim.holds else "MISS"
    texts = (_short(claim.spread), str(claim.n), _short(claim.target), verdict, machine, claim.commit)
    return (claim.folder, claim.claim, value, *texts)


def as_text(rows: list[Claim], width: int | None = None) -> str:
    """All claims as an aligned table, no wider than `width`; when not given, than the terminal, if there is one."""
    table = [HEADER, *map(cells, rows)]
    if width is None and sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
    whole = _aligned(table, _widths(table))
    if width is None or max(map(len, whole)) <= width:
        return "\n".join(whole)
    return "\n".join(_narrow(table[1:], max(width, NARROWEST)))


OWN = slice(1, 7)
"""Columns that differ from claim to claim; in a narrow table, the others stand above the claims that share them."""
GAP, NARROWEST = "  ", 60


def _narrow(rows: list[tuple[str, ...]], width: int) -> list[str]:
    """The claims of each folder below its name, its machine and its commit; long cells in several lines."""
    table = [HEADER[OWN], *(row[OWN] for row in rows)]
    widths = _fitted(_widths(table), width - 2)
    lines = _indented(table[:1], widths)
    for (folder, machine, commit), group in groupby(rows, key=lambda row: (row[0], *row[7:])):
        about = f"{folder} ({', '.join(filter(None, [machine, commit]))})"
        lines += ["", *wrap(about, width, subsequent_indent=GAP), *_indented([row[OWN] for row in group], widths)]
    return lines


def _indented(rows: list[tuple[str, ...]], widths: list[int]) -> list[str]:
    return [GAP + line for row in rows for line in _aligned(_wrapped(row, widths), widths)]


def _wrapped(row: tuple[str, ...], widths: list[int]) -> list[tuple[str, ...]]:
    """A row as the lines that it takes."""
    parts = [wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)]
    return list(zip_longest(*parts, fillvalue=""))


def _fitted(widths: list[int], room: int) -> list[int]:
    """Widths that fit, the widest made narrower."""
    widths = list(widths)
    while sum(widths) + len(GAP) * (len(widths) - 1) > room:
        widths[widths.index(max(widths))] -= 1
    return widths


def _widths(table: list[tuple[str, ...]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*table, strict=True)]


def _aligned(table: list[tuple[str, ...]], widths: list[int]) -> list[str]:
    return [GAP.join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in table]


def _machine(table: dict[str, Any]) -> str:
    cores = table.get("cores")
    return f"{table.get('cpu', '')}{f', {cores} cores' if cores else ''}".strip(", ")


def _short(value: float | str | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:,.6g}"
