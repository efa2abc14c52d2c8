"""The steps of a folder as flat rows: what was asked, what came of it, where and with what."""

import functools
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runs import ENV, RESULT, SPEC, labels
from ..spec import STEPS, Refused, choose, loads, plain, quote
from .expression import Expression, Row

FIRST = ("name", "kind", "label", "parent", "depth", "accuracy", "density", "score", "seconds")
"""columns that come before the others"""
SHOWN = ("name", "label", "accuracy", "density", "kept_parameters", "kept_multiply_adds", "bytes", "score", "seconds")
"""columns of a terminal, where none are chosen"""
SHORT = {"test.accuracy": "accuracy", "test.standard_error": "standard_error", "validation.accuracy": "validation"}
"""figures that deserve a short name"""
EDITION = "2.8e8"
"""of the score game's rules: the current one; the others stand in result.json"""


@dataclass(frozen=True)
class Listing:
    """Rows, all columns that any of them has, and the folders that could not be read, with the reason."""

    rows: list[Row]
    columns: list[str]
    unread: dict[str, str]

    def where(self, text: str) -> "Listing":
        """Rows for which an expression holds."""
        holds = Expression(text, self.columns)
        return Listing([row for row in self.rows if holds(row)], self.columns, self.unread)

    def sorted(self, text: str) -> "Listing":
        """By expressions with commas, each from the smallest, or from the largest with - before it; None comes last."""
        rows = self.rows
        for part in reversed([p.strip() for p in text.split(",") if p.strip()]):
            back = part.startswith("-")
            value = Expression(part.removeprefix("-"), self.columns)
            keyed = [(value(row), row) for row in rows]
            there = sorted((k for k in keyed if k[0] is not None), key=lambda k: _rank(k[0]), reverse=back)
            rows = [row for _, row in there] + [row for key, row in keyed if key is None]
        return Listing(rows, self.columns, self.unread)

    def chosen(self, text: str) -> list[str]:
        """The columns of a text with commas; all for `all`, the usual ones that there are where it is empty."""
        if text == "all":
            return self.columns
        wanted = [p.strip() for p in text.split(",") if p.strip()]
        for name in wanted:
            if name not in self.columns:
                raise Refused(f"--columns: {quote(name)} is no column; columns: all, {', '.join(self.columns)}")
        return wanted or [c for c in SHOWN if any(row.get(c) is not None for row in self.rows)] or ["name"]


def _rank(value: Any) -> tuple[int, Any]:
    """Numbers before texts, so that both can stand in one column."""
    number = isinstance(value, int | float)
    return (0, value) if number else (1, value if isinstance(value, str) else json.dumps(value))


def listing(root: Path) -> Listing:
    """Every finished step of a folder, oldest first; one that cannot be read is named, and does not stop the others."""
    if not root.is_dir():
        raise Refused(f"{root} is no folder; expected the folder of runs (--runs): start one with prunery run RECIPE")
    named, rows, unread = labels(root), [], {}
    for entry in os.scandir(root):
        if "-" in entry.name and entry.is_dir() and os.path.exists(os.path.join(entry.path, ENV)):
            try:
                rows.append(_row(entry.path, entry.name, named.get(entry.name)))
            except (OSError, ValueError, RecursionError) as error:
                unread[entry.name] = " ".join(str(error).split())
    rows.sort(key=lambda row: (row["started"] or 0, row["name"]))
    _depths(rows)
    columns = dict.fromkeys(name for row in rows for name in row)
    first = [c for c in FIRST if c in columns]
    return Listing(rows, [*first, *sorted(columns.keys() - set(first))], unread)


def _row(folder: str, name: str, label: str | None) -> Row:
    env, result = table(folder, ENV), table(folder, RESULT, missing=True)
    kind, spec = settings(folder)
    machine = _inner(env, "machine")
    return {
        "name": name, "kind": kind, "label": label, "parent": env.get("parent"), "depth": 0,
        "seconds": env.get("seconds"), "parts": env.get("parts"), "started": env.get("started"),
        "commit": env.get("commit"), "threads": env.get("threads"), "isa": env.get("isa"),
        "machine": machine.get("cpu"), "cores": machine.get("cores"), "torch": _inner(env, "versions").get("torch"),
        **figures(result), **spec,
    }  # fmt: skip


def table(folder: str, file: str, missing: bool = False) -> Row:
    """The JSON table in a file; empty where it may be missing."""
    path = os.path.join(folder, file)
    if missing and not os.path.exists(path):
        return {}
    with open(path, "rb") as opened:
        try:
            found = json.loads(opened.read())
        except ValueError as error:
            raise ValueError(f"{file} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file} holds a {type(found).__name__} where a table is expected")
    return found


def _inner(table: Row, key: str) -> Row:
    found = table.get(key)
    return found if isinstance(found, dict) else {}


def figures(result: Row) -> Row:
    """Every number, at any depth but in the list of layers; the usual ones under short names."""
    rest = {k: v for k, v in result.items() if k != "score"}
    found = {SHORT.get(k, k): v for k, v in _flat(rest) if isinstance(v, int | float)}
    score = _inner(_inner(result, "score"), EDITION).get("score")
    return found | ({"score": score} if isinstance(score, int | float) else {})


def _flat(table: Row, prefix: str = "") -> list[tuple[str, Any]]:
    """Tables within tables as names with dots."""
    pairs: list[tuple[str, Any]] = []
    for key, value in table.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{key}.")
        elif not (isinstance(value, float) and not math.isfinite(value)):
            pairs.append((prefix + key, value))
    return pairs


def settings(folder: str) -> tuple[str, Row]:
    """The kind, and every field of the spec under its kind's name; the data and the network under their own."""
    with open(os.path.join(folder, SPEC), encoding="utf-8") as file:
        kind, pairs = _fields(file.read())
    return kind, dict(pairs)


@functools.cache
def _fields(text: str) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """As `dumps` wrote them. Steps are many and alike, so a text is read once; a newer version's kind is refused."""
    try:
        found = _quick(text)
    except (ValueError, AttributeError, TypeError):
        spec = loads(text)  # says what is wrong, or reads what others wrote
        found = {"kind": spec.kind, **plain(spec)}
    kind = choose(found.pop("kind", ""), [*STEPS, "lottery", "draw"], "kind (a newer version's?)")
    pairs = []
    for key, value in _flat(found):
        pairs.append((key if "." in key else f"{kind}.{key}", value))
    return kind, tuple(pairs)


def _quick(text: str) -> Row:
    """What `dumps` writes is a line a field with a JSON value, and tables: twenty times faster than any TOML."""
    top: Row = {}
    table = top
    for line in text.split("\n"):
        if not line:
            continue
        if line[0] == "[" and line[-1] == "]":
            table = top
            for part in line[1:-1].split("."):
                table = table.setdefault(part, {})
            continue
        key, equals, value = line.partition(" = ")
        if not equals or not key.isidentifier():
            raise ValueError(line)
        table[key] = _value(value)
    return top


_value = functools.cache(json.loads)
"""most values are defaults, the same in every spec"""


def _depths(rows: list[Row]) -> None:
    """How many steps lie before each; a parent that is gone counts as one."""
    parents = {row["name"]: row["parent"] for row in rows}
    known: dict[str, int] = {}
    for row in rows:
        way, at = [], row["name"]
        while at in parents and at not in known and at not in way:
            way.append(at)
            at = parents[at]
        depth = known.get(at, 0 if at else -1)
        for name in reversed(way):
            depth += 1
            known[name] = depth
        row["depth"] = known.get(row["name"], 0)
