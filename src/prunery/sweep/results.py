"""What a sweep found: a row for each end of each chain, and the same over seeds."""

from math import sqrt
from statistics import mean, stdev
from typing import Any

from ..runs import Runs, Step
from .tree import Chain, Tree

FIGURES = ("density", "kept_parameters", "kept_multiply_adds", "bytes")
EDITION = "2.8e8"
"""of the score game's rules"""
Row = dict[str, Any]


def rows(tree: Tree, runs: Runs, failed: dict[str, str]) -> list[Row]:
    """Where each chain ended and what that is worth; or why it did not."""
    return [_row(chain, label, runs, failed) for chain in tree.chains for label in chain.ends]


def _row(chain: Chain, label: str, runs: Runs, failed: dict[str, str]) -> Row:
    node = chain.nodes[label]
    row: Row = {"settings": chain.point, "seed": chain.seed, "label": label, "step": node.name}
    if not runs.path(node).exists():
        why = next((failed[n.name] for n in chain.nodes.values() if n.name in failed), "it was not made")
        return row | {"failed": why}
    result = Step(runs.path(node)).result
    test, validation = result.get("test") or {}, result.get("validation") or {}
    figures = {k: result[k] for k in FIGURES if k in result}
    score = result.get("score", {}).get(EDITION, {}).get("score")
    worth = {"accuracy": test.get("accuracy"), "validation": validation.get("accuracy"), **figures, "score": score}
    return row | {k: v for k, v in worth.items() if v is not None}


def table(found: list[Row]) -> list[Row]:
    """Mean over the seeds of each combination, with the standard deviation between seeds where there are several."""
    groups: dict[str, list[Row]] = {}
    for row in found:
        groups.setdefault(repr((row["settings"], row["label"])), []).append(row)
    return [_summed(group) for group in groups.values()]


def _summed(group: list[Row]) -> Row:
    good = [row for row in group if "failed" not in row]
    row: Row = {"settings": group[0]["settings"], "label": group[0]["label"], "n": len(good)}
    for key in ("accuracy", "validation", *FIGURES, "score"):
        values = [r[key] for r in good if key in r]
        if values:
            row[key] = mean(values)
            if len(values) > 1 and key in ("accuracy", "validation", "score"):
                row[f"{key}_sd"] = stdev(values)
                row[f"{key}_standard_error"] = stdev(values) / sqrt(len(values))
    failed = len(group) - len(good)
    return row | ({"failed": failed} if failed else {})
