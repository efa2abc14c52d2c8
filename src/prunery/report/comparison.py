"""A comparison's rows as a table with intervals, a CSV and a figure."""

import csv
import io
import statistics
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runs import write_file, write_json, writing
from .figures import STYLE, save
from .palette import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]
DENSE = "dense"
T975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Student's t at 97.5 % for 1, 2, 3, ... degrees of freedom"""


@dataclass(frozen=True)
class Cell:
    """A method at a density: mean accuracy over seeds with its 95 % interval, and what is left."""

    method: str
    density: float
    accuracy: float
    interval: float | None
    """half the width; None for a single seed"""
    n: int
    parameters: float
    multiply_adds: float
    parameters_share: float
    multiply_adds_share: float
    epochs: float


def cells(rows: Iterable[Row]) -> list[Cell]:
    """Rows of several seeds put together, in the order of the first one."""
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["density"]), []).append(row)
    return [_cell(method, density, group) for (method, density), group in groups.items()]


def _cell(method: str, density: float, rows: list[Row]) -> Cell:
    values = [r["accuracy"] for r in rows]
    mean = {k: statistics.mean(r[k] for r in rows) for k in ("parameters", "multiply_adds", "epochs")}
    shares = {k: statistics.mean(r[k] for r in rows) for k in ("parameters_share", "multiply_adds_share")}
    return Cell(method, density, statistics.mean(values), half_width(values), len(values), **mean, **shares)


def half_width(values: list[float]) -> float | None:
    """Of the 95 % interval of the mean, by Student's t."""
    if len(values) < 2:
        return None
    return student(len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5


def student(freedom: int) -> float:
    """Student's t at 97.5 %: from the table, and beyond it by the Cornish-Fisher expansion about the normal's."""
    if freedom <= len(T975):
        return T975[freedom - 1]
    z = statistics.NormalDist().inv_cdf(0.975)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def as_markdown(found: list[Cell]) -> str:
    """One row a method and density."""
    head = [
        "method",
        "density",
        "test accuracy, %",
        "seeds",
        "parameters",
        "multiply-adds",
        "share of them",
        "epochs spent",
    ]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for c in found:
        spread = f" ± {100 * c.interval:.2f}" if c.interval is not None else ""
        numbers = [f"{c.density:g}", f"{100 * c.accuracy:.2f}{spread}", str(c.n), f"{c.parameters:,.0f}"]
        numbers += [f"{c.multiply_adds:,.0f}", f"{100 * c.multiply_adds_share:.1f} %", f"{c.epochs:g}"]
        lines.append("| " + " | ".join([c.method, *numbers]) + " |")
    return "\n".join(lines)


def write_comparison(rows: list[Row], folder: Path) -> list[Path]:
    """comparison.csv and .json with every run, table.md, and the figure as SVG and PNG."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_file(folder / "comparison.csv", text.getvalue().encode())
    write_json(folder / "comparison.json", {"rows": rows})
    write_file(folder / "table.md", (as_markdown(cells(rows)) + "\n").encode())
    return [*(folder / f for f in ("comparison.csv", "comparison.json", "table.md")), *_draw(cells(rows), folder)]


def _draw(found: list[Cell], folder: Path) -> list[Path]:
    """Accuracy against density and against multiply-adds, side by side, with error bars."""
    from matplotlib import rc_context, style
    from matplotlib.figure import Figure

    with style.context("default"), rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure = Figure(figsize=(9.2, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        _panel(left, found, "parameters_share", "parameters kept")
        _panel(right, found, "multiply_adds_share", "multiply-adds kept")
        left.set_ylabel("test accuracy, %")
        right.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return save(figure, folder, "comparison")


DASHES = ("-", "--", ":")
MARKS = "osv^DPX<>*hp"


def _panel(axes: "Axes", found: list[Cell], share: str, label: str) -> None:
    methods = list(dict.fromkeys(c.method for c in found if c.method != DENSE))
    for i, method in enumerate(methods):
        points = sorted((c for c in found if c.method == method), key=lambda c: -getattr(c, share))
        x = [100 * getattr(c, share) for c in points]
        y, bars = [100 * c.accuracy for c in points], [100 * (c.interval or 0) for c in points]
        look: Any = {
            "color": LIGHT[i % len(LIGHT)],
            "linestyle": DASHES[i // len(LIGHT) % 3],
            "marker": MARKS[i % len(MARKS)],
        }
        axes.errorbar(x, y, bars, label=method, markersize=3.5, capsize=2, **look)
    for c in found:
        if c.method == DENSE:
            axes.axhline(100 * c.accuracy, color="#5a6066", linewidth=0.8, linestyle=(0, (1, 2)), label="dense")
    axes.set_xscale("log")
    axes.invert_xaxis()
    ticks = [100, 50, 20, 10, 5, 2, 1]
    axes.set_xticks(ticks, [f"{t} %" for t in ticks])
    axes.minorticks_off()
    axes.set_xlabel(label)


def write_sensitivity(found: dict[str, dict[str, dict[str, float]]], folder: Path) -> list[Path]:
    """A line a layer: accuracy over the density that it alone is pruned to."""
    from matplotlib import rc_context, style
    from matplotlib.figure import Figure

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with style.context("default"), rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        axes = figure.subplots()
        whole = 100 * found[""]["1"]["accuracy"]
        for i, (name, values) in enumerate((n, v) for n, v in found.items() if n):
            densities = sorted(map(float, values), reverse=True)
            y = [whole, *(100 * values[f"{d:g}"]["accuracy"] for d in densities)]
            look: Any = {"color": LIGHT[i % len(LIGHT)], "linestyle": DASHES[i // len(LIGHT) % 3]}
            axes.plot([100, *(100 * d for d in densities)], y, label=name.removesuffix(".weight"), marker=".", **look)
        axes.invert_xaxis()
        axes.set_xlabel("density of the one layer that is pruned, %")
        axes.set_ylabel("accuracy on validation images, %")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), ncols=1 + len(found) // 24)
        return save(figure, folder, "sensitivity")
