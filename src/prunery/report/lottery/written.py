"""What a lottery leaves to read: its figures, the claims, a row for every network, a row for every arm and level."""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...runs import write_file, write_json, writing
from ...spec import LOTTERIES, SOURCE, Lottery, plain
from .claims import Verdict, as_markdown, scored
from .figures import write_figures
from .results import Interval, Results, end_accuracy, end_train_accuracy, stop_accuracy, stop_iteration

METRICS = {
    "stop_raw": stop_iteration("raw"), "stop_smoothed": stop_iteration("smoothed"),
    "accuracy_at_stop_raw": stop_accuracy("raw"), "accuracy_at_stop_smoothed": stop_accuracy("smoothed"),
    "accuracy_at_end": end_accuracy, "train_accuracy_at_end": end_train_accuracy,
}  # fmt: skip
FREE = ("model", "data", "arms", "curve_levels", "curve_steps", "marks", *SOURCE)
"""what may be chosen freely, or is compared setting by setting"""
FILLED = ("input", "classes", "sha256", "weights_sha256", "code_sha256")
"""what the images and files say, not the user"""
HELD_OUT = 5000
"""validation images of the paper: as many as its sets hold out when no number is given"""


def write_lottery(results: Results, figure: str, folder: Path) -> tuple[list[Verdict], list[Path]]:
    """All of it in a folder, claims and rows before anything is drawn; the verdicts and the files, figures first."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    verdicts = scored(results)
    write_json(folder / "claims.json", {"claims": [asdict(v) for v in verdicts], "differs": differs(results.lottery)})
    write_file(folder / "claims.md", (as_markdown(verdicts) + "\n").encode())
    write_file(folder / "networks.csv", table(map(network, results.records)).encode())
    write_file(folder / "levels.csv", table(level_rows(results)).encode())
    paths = write_figures(results, figure, folder)
    return verdicts, [*paths, *(folder / name for name in ("claims.json", "claims.md", "networks.csv", "levels.csv"))]


def network(record: dict[str, Any]) -> dict[str, Any]:
    """One network as a row."""
    named = {k: record[k] for k in ("name", "arm", "level", "seed", "number")}
    seconds = sum(record["env"]["cpu_seconds"].values())
    values = {k: round(metric(record), 4) for k, metric in METRICS.items()}
    return named | {"percent": round(100 * record["density"], 4), **values, "core_seconds": round(seconds, 2)}


def level_rows(results: Results) -> Iterable[dict[str, Any]]:
    """An arm at a level as a row: each metric's mean, smallest and largest, and its interval over seeds.

    One seed has no interval: those columns are empty.
    """
    for (arm, level), records in results.groups.items():
        row: dict[str, Any] = {"arm": arm, "level": level, "percent": round(results.percents[level], 4)}
        row["networks"] = len(records)
        for name, metric in METRICS.items():
            each = results.every(arm, level, metric)
            over = Interval.of(results.by_seed(arm, level, metric).values())
            found = {"mean": over.mean, "min": min(each), "max": max(each)}
            row |= {f"{name}_{k}": round(v, 4) for k, v in found.items()}
            interval = {"low95": over.low, "high95": over.high}
            row |= {f"{name}_{k}": round(v, 4) if over.n > 1 else "" for k, v in interval.items()}
        yield row


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as CSV."""
    found, text = list(rows), io.StringIO(newline="")
    writer = csv.DictWriter(text, list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()


def differs(lottery: Lottery) -> dict[str, Any]:
    """Settings that are not the paper's, so that nobody takes a shorter run for the whole experiment."""
    papers = [papers for papers in LOTTERIES.values() if papers.model.name == lottery.model.name] or [Lottery()]
    return min((_differs(lottery, p) for p in papers), key=len)  # some networks it trains in several ways


def _differs(lottery: Lottery, papers_: Lottery) -> dict[str, Any]:
    ours, papers = _settings(lottery), _settings(papers_)
    found = {k: ours.get(k) for k in papers | ours if ours.get(k) != papers.get(k)}
    return json.loads(json.dumps(found))


def _settings(lottery: Lottery) -> dict[str, Any]:
    """What a lottery can differ in, by the names that --set knows; network and images by their own names alone."""
    values = plain(lottery)
    found = {k: v for k, v in values.items() if k not in FREE}
    for part in ("model", "data"):
        inner = {k: v for k, v in values[part].items() if k not in FILLED}
        found |= {part if k == "name" else f"{part}.{k}": v for k, v in inner.items()}
    if found.get("data.validation") == HELD_OUT:
        del found["data.validation"]
    return found
