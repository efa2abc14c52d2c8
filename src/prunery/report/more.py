"""What a page can show beside steps: claims with PASS or MISS, lotteries with the paper's points, times, pictures."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..spec import Refused, quote
from .claims import FILE, HEADER, Claim, cells, claims, results_table
from .facts import Facts, read_json
from .lottery import NOT_RUN
from .lottery.paper import END_ACCURACY, STOP_ACCURACY, STOPS, Points
from .lottery.statements import CLAIMS

LEVELS, VERDICTS = "levels.csv", "claims.json"
METRICS = {
    "stop_raw": ("Early stop, raw", "iterations"),
    "stop_smoothed": ("Early stop, smoothed", "iterations"),
    "accuracy_at_stop_raw": ("Test accuracy at the raw early stop", "%"),
    "accuracy_at_end": ("Test accuracy at the end", "%"),
    "train_accuracy_at_end": ("Training accuracy at the end", "%"),
}
PAPERS: dict[str, tuple[dict[str, dict[str, Points]], int]] = {
    "stop_raw": (STOPS, 1000),
    "accuracy_at_stop_raw": ({network: {"ticket": points} for network, points in STOP_ACCURACY.items()}, 1),
    "accuracy_at_end": ({network: {"ticket": points} for network, points in END_ACCURACY.items()}, 1),
}
"""the paper's points of each network's arms, and how much one of their numbers is"""
EDGES, INTERVAL = ("mean", "min", "max"), ("low95", "high95")


@dataclass(frozen=True)
class More:
    """Plain data that the page takes along."""

    claims: list[dict[str, Any]] = field(default_factory=list)
    lotteries: list[dict[str, Any]] = field(default_factory=list)
    times: list[dict[str, Any]] = field(default_factory=list)
    pictures: dict[str, Any] = field(default_factory=dict)


def measured(results: Path | None, lotteries: Iterable[Path]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Claims of a folder of results, and the lotteries in it and in folders of their own."""
    rows = [claim_row(c) for c in results_table(results)] if results else []
    inside = sorted(p.parent for p in results.glob(f"*/{LEVELS}")) if results else []
    return rows, [lottery(folder) for folder in dict.fromkeys([*inside, *lotteries])]


def claim_row(claim: Claim) -> dict[str, Any]:
    """As the table of results has it, and whether it holds."""
    versions = ", ".join(f"{k} {v}" for k, v in claim.versions.items() if v)
    return dict(zip(HEADER, cells(claim), strict=True)) | {"passes": claim.holds, "versions": versions}


def lottery(folder: Path) -> dict[str, Any]:
    """What `prunery lottery` left in a folder: a row for each arm and level, verdicts, and the paper's points."""
    if not (folder / LEVELS).is_file():
        raise Refused(f"{folder} holds no {LEVELS}; expected a folder that prunery lottery wrote with --out")
    file = read_json(folder / VERDICTS)
    verdicts = [_verdict(row) for row in file.tables("claims")]
    network = _network(verdicts)
    return {
        "name": folder.name, "network": network, "metrics": METRICS, "levels": _levels(folder / LEVELS),
        "verdicts": [v for v in verdicts if v["verdict"] != NOT_RUN],
        "not_run": list(dict.fromkeys(v["name"] for v in verdicts if v["verdict"] == NOT_RUN)),
        "differs": {k: str(v) for k, v in file.table("differs").values.items()},
        "conditions": _conditions(folder),
        "paper": {k: _points(of.get(network, {}), by) for k, (of, by) in PAPERS.items()},
    }  # fmt: skip


def _verdict(row: Facts) -> dict[str, Any]:
    texts = ("name", "figure", "text", "stop", "unit", "paper", "expected", "verdict", "note", "spread")
    return (
        {k: row.text(k) or "" for k in texts}
        | {k: row.number(k) for k in ("value", "low", "high")}
        | {"n": row.whole("n")}
    )


def _network(verdicts: list[dict[str, Any]]) -> str:
    """The paper's network that was trained: claims are decided for that one only."""
    decided = {(v["name"], v["text"]) for v in verdicts if v["verdict"] != NOT_RUN}  # names are shared by networks
    found = {c.network for c in CLAIMS if (c.name, c.text) in decided}
    return found.pop() if len(found) == 1 else ""


def _points(arms: Mapping[str, Points], by: int) -> dict[str, list[list[float]]]:
    return {arm: [[percent, value * by] for percent, value in points.items()] for arm, points in arms.items()}


def _levels(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read ({error}); expected the rows that prunery lottery wrote") from None
    rows = csv.DictReader(io.StringIO(text))
    return [_level(row, f"{path}, line {line}") for line, row in enumerate(rows, 2)]


def _level(row: dict[str, str], where: str) -> dict[str, Any]:
    plain = {"percent": _number(row, "percent", where), "networks": _number(row, "networks", where)}
    bands = {name: [*(_number(row, f"{name}_{edge}", where) for edge in EDGES)] for name in METRICS}
    intervals = {name: _interval(row, name, where) if plain["networks"] > 1 else [None, None] for name in METRICS}
    return {"arm": row.get("arm") or "", **plain, **{name: [*bands[name], *intervals[name]] for name in METRICS}}


def _interval(row: dict[str, str], name: str, where: str) -> list[float | None]:
    """Both ends; nothing of one seed, whose columns are empty."""
    keys = [f"{name}_{edge}" for edge in INTERVAL]
    return [None if row.get(key) == "" else _number(row, key, where) for key in keys]


def _number(row: dict[str, str], key: str, where: str) -> float:
    text = row.get(key)
    try:
        return float(text or "")
    except ValueError:
        raise Refused(f"{where}: {key} = {quote(text)} is not allowed; expected a number") from None


def _conditions(folder: Path) -> str:
    """Machine and commit, where a result beside it tells them."""
    if not (folder / FILE).is_file():
        return ""
    row = claim_row(claims(folder / FILE)[0])
    return "; ".join(t for t in (row["machine"], row["versions"], f"commit {row['commit']}") if t)
