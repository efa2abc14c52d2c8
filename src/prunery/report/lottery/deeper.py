"""Figures 6 to 8 of the paper, with dropout and of deep networks; and two of ours: stability, and all arms together."""

import statistics
from typing import TYPE_CHECKING

from . import drawing
from .results import Metric, Results, accuracy_at, barrier_height, end_accuracy, stop_accuracy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STABLE = 2.0
"""percent of the test images: a barrier below is none (1912.05671)"""


def sixth(results: Results) -> "Figure | None":
    """With dropout: early stop, accuracy there."""
    arms = drawing.there(results, ("ticket", "reinit"))
    if not arms:
        return None
    figure, (left, right) = drawing.figure(f"{results.lottery.model.name}, {drawing.title(results, '6')}", 1, 2, 4.2)
    drawing.stops(left, results, arms)
    drawing.accuracies(right, results, arms, stop_accuracy("raw"), "test accuracy at early stop, %")
    drawing.legend(figure)
    return figure


def seventh(results: Results) -> "Figure | None":
    """VGG-19: accuracy on the way."""
    return _marks(results, "7")


def eighth(results: Results) -> "Figure | None":
    """ResNet-20: accuracy on the way."""
    return _marks(results, "8")


def _marks(results: Results, name: str) -> "Figure | None":
    """Tickets and reinitialised ones at the lottery's marks."""
    lottery, arms = results.lottery, drawing.there(results, ("ticket", "reinit"))
    if not arms:
        return None
    marks = {i: accuracy_at(i) for i in lottery.marks if i < lottery.steps}
    panels: dict[int, Metric] = marks | {lottery.steps: end_accuracy}
    warm = f", warm-up over {lottery.warmup:,} iterations" if lottery.warmup else ""
    about = f"{lottery.model.name}, learning rate {lottery.lr:g}{warm}"
    figure, axes = drawing.figure(f"{about}. {drawing.title(results, name)}", 1, len(panels))
    for axis, (iteration, metric) in zip(axes, panels.items(), strict=True):
        drawing.accuracies(axis, results, arms, metric, f"test accuracy at iteration {iteration:,}, %")
    drawing.legend(figure)
    return figure


def stability(results: Results) -> "Figure | None":
    """How high the error rises on the way from one twin to the other."""
    levels = [v for v in results.levels("twin") if results.barred(v)]
    if not levels:
        return None
    figure, (axes,) = drawing.figure(drawing.title(results, "Stability"), 1, 1, 5)
    each = [[barrier_height(r) for r in results.barred(v)] for v in levels]
    x, color = [results.percents[v] for v in levels], drawing.LOOKS["ticket"]["color"]
    axes.plot(x, [statistics.fmean(e) for e in each], marker=".", markersize=3, color=color)
    axes.fill_between(x, [min(e) for e in each], [max(e) for e in each], color=color, alpha=0.15, linewidth=0)
    axes.axhline(STABLE, color=drawing.LOOKS["reinit"]["color"], linestyle="--", linewidth=0.9, label="stable below")
    drawing.percent_axis(axes, results, "barrier between twins, %")
    axes.set_ylim(0, None)
    axes.legend()
    return figure


def arms(results: Results) -> "Figure | None":
    """Accuracy at the early stop of every arm beside the tickets', where there are others than the paper's."""
    panels = {kind: [a for a in arms if a in results.arms] for kind, arms in drawing.KINDS.items()}
    panels = {kind: found for kind, found in panels.items() if found}
    if not {a for found in panels.values() for a in found} - set(drawing.PAPERS):
        return None
    figure, axes = drawing.figure(drawing.title(results, "All arms"), 1, len(panels), 3.6)
    for axis, (kind, found) in zip(axes, panels.items(), strict=True):
        whole = not results.has_dense(found[0])
        drawing.accuracies(
            axis, results, ["ticket", *found], stop_accuracy("raw"), "test accuracy at early stop, %", whole
        )
        axis.set_title(kind)
        axis.legend()
    return figure
