"""What was measured as a table, sentences, a CSV and a figure."""

import csv
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prunery.report.comparison import MARKS
from prunery.report.figures import STYLE, front, save
from prunery.report.palette import LIGHT

from .measured import BATCHES, Found, Row, idle

POINT = 0.01
"""what a way may cost: one point of accuracy below the dense network"""
HEAD = ["way", "accuracy %", "MB", "Mmult-adds", "made", "ms, 1 image", "times torch", "of peak"]
HEAD += ["ms, 60 images", "times torch", "of peak"]


def rows_of(found: Found) -> list[list[Any]]:
    return [HEAD, *(cells(row, found) for row in found.rows)]


def cells(row: Row, found: Found) -> list[Any]:
    made = f"{row.made(BATCHES[0]) / 1e6:.1f}"
    line = [row.name, f"{100 * row.accuracy:.2f}", f"{row.bytes / 1e6:.2f}", f"{row.net.multiply_adds / 1e6:.1f}", made]
    for batch in BATCHES:
        line += [row.ms(batch), f"{row.faster(found.base, batch)[0]:.2f}", f"{row.of_peak(batch, found.peak):.0%}"]
    return line


# ---- sentences


class Nothing:
    """A way that was not run: its figures are no numbers."""

    def __getattr__(self, name: str) -> float:
        return float("nan")


class Others(dict[str, Any]):
    def __missing__(self, name: str) -> Nothing:
        return Nothing()


def sentences(found: Found) -> list[str]:
    others = Others({row.name: SimpleNamespace(**figures(row, found)) for row in found.rows})
    return [f"- **{row.name}**: {sentence(row, others, found)}." for row in found.rows]


def sentence(row: Row, others: Others, found: Found) -> str:
    there = "dense in torch, ReLU fused" if row.name == "dense in torch.compile" else f"dense in {row.way.run_time}"
    dense, other = others[f"dense in {row.way.run_time}"], found.by_name.get(there)
    more = {"less": found.base.net.multiply_adds / row.net.multiply_adds, "dense1": dense.p1, "dense60": dense.p60}
    more |= {f"ratio{batch}": row.faster(other, batch)[0] if other else float("nan") for batch in BATCHES}
    return row.way.why.format(**found.shares, **vars(others[row.name]), **more)


def figures(row: Row, found: Found) -> dict[str, float]:
    known = {"adds": row.net.multiply_adds / 1e6}
    for batch in BATCHES:
        share = row.of_peak(batch, found.peak)
        known |= {f"x{batch}": row.faster(found.base, batch)[0], f"p{batch}": share, f"room{batch}": 1 / share}
        known[f"made{batch}"] = row.made(batch) / 1e6
        known[f"idle{batch}"] = idle(row.packed, batch > 1) if row.packed else 0.0
    return known


# ---- files

FIELDS = ["network", "run_time", "accuracy", "standard_error", "bytes", "multiply_adds", "made", "batch", "median_ms"]
FIELDS += ["best_ms", "times_torch", "spread", "of_peak", "difference", "step"]


def as_csv(found: Found) -> str:
    out = io.StringIO(newline="")
    table = csv.writer(out, lineterminator="\n")
    table.writerow(FIELDS)
    for row in found.rows:
        for batch, t in row.times.items():
            ratio, spread = row.faster(found.base, batch)
            line = [row.way.network, row.way.run_time, row.accuracy, round(row.standard_error, 5), row.bytes]
            line += [round(row.net.multiply_adds), round(row.made(batch)), batch, round(t.median_ms, 4)]
            line += [round(t.best_ms, 4), round(ratio, 4), spread, round(row.of_peak(batch, found.peak), 4)]
            table.writerow([*line, f"{row.difference[batch]:.1e}", row.net.step])
    return out.getvalue()


def drawn(found: Found, folder: Path) -> None:
    """Accuracy over milliseconds, a panel for each size of batch: a colour for a network, a mark for a run time."""
    from matplotlib import rc_context, style
    from matplotlib.figure import Figure

    with style.context("default"), rc_context(STYLE):
        figure = Figure(figsize=(11, 8.4), layout="constrained")
        for panel, batch in zip(figure.subplots(len(BATCHES), 1, sharey=True), BATCHES, strict=True):
            points_of(panel, found, batch)
        figure.legend(*legend(found), loc="outside right center")
        save(figure, folder, "ways")


def look(row: Row, found: Found) -> dict[str, Any]:
    networks = list(dict.fromkeys(r.way.network for r in found.rows))
    run_times = list(dict.fromkeys(r.way.run_time for r in found.rows))
    n, r = networks.index(row.way.network), run_times.index(row.way.run_time)
    dark = "#5a6066"  # a seventh network
    return {"color": LIGHT[n] if n < len(LIGHT) else dark, "marker": MARKS[r % len(MARKS)], "filled": r < len(MARKS)}


def points_of(panel: Any, found: Found, batch: int) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    for row in found.rows:
        style = look(row, found)
        face = style["color"] if style.pop("filled") else "none"
        at = row.ms(batch), 100 * row.accuracy
        panel.plot(*at, ls="", ms=5, mfc=face, **style)
    best = front([(row.ms(batch), row.accuracy) for row in found.rows])
    panel.step(*zip(*[(ms, 100 * a) for ms, a in best], strict=True), where="post", color="#5a6066", lw=0.8, zorder=1)
    for row in found.rows:
        if (row.ms(batch), row.accuracy) in best or row is found.base:
            at = row.ms(batch), 100 * row.accuracy
            panel.annotate(row.name, at, xytext=(4, -9), textcoords="offset points", fontsize=6)
    panel.axhline(100 * (found.base.accuracy - POINT), color="#5a6066", lw=0.8, ls=(0, (1, 2)))
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(lambda ms, _: f"{ms:g}")
    panel.set_xlabel(f"milliseconds for {batch} image{'s' * (batch > 1)}, one thread")
    panel.set_ylabel("test accuracy, %")


def legend(found: Found) -> tuple[list[Any], list[str]]:
    """Colours say the network, marks the run time."""
    from matplotlib.lines import Line2D

    looks = {row: look(row, found) for row in found.rows}
    networks = {row.way.network.replace("_", " "): Line2D([], [], ls="", marker="s", ms=5, color=seen["color"])
                for row, seen in looks.items()}  # fmt: skip
    run_times = {}
    for row, seen in looks.items():
        face = "#1a1c1f" if seen["filled"] else "none"
        run_times[row.way.run_time] = Line2D([], [], ls="", marker=seen["marker"], ms=5, color="#1a1c1f", mfc=face)
    both = networks | run_times
    return list(both.values()), list(both)
