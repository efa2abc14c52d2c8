"""The paper's figures 1, 3, 4 and 5 from records: means, bands from smallest to largest, and the paper's points."""

import statistics
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..figures import STYLE, save
from ..palette import LIGHT
from . import deeper, drawing, paper
from .results import Results, end_accuracy, followed, stop_accuracy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = (("ticket", 100.0), ("ticket", 51.3), ("ticket", 21.1), ("ticket", 7.0), ("ticket", 3.6), ("ticket", 1.9))
BLIND = (("ticket", 100.0), ("ticket", 51.3), ("ticket", 21.1), ("reinit", 51.3), ("reinit", 21.1))
PANELS = {"iterative": ("ticket", "reinit"), "one-shot": ("oneshot", "oneshot_reinit", "ticket")}


def write_figures(results: Results, figure: str, folder: Path) -> list[Path]:
    """The figure, or all that the paper has of such a network, in a folder that is there.

    One whose networks were not trained is left out.
    """
    from matplotlib import rc_context, style

    paths: list[Path] = []
    with style.context("default"), rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        for name, draw in FIGURES.items():
            all_ = figure == "all" and name in (*papers_figures(results), *OURS)
            drawn = draw(results) if all_ or figure == name else None
            paths += save(drawn, folder, f"figure{name}" if name not in OURS else name) if drawn else []
    return paths


def papers_figures(results: Results) -> tuple[str, ...]:
    """Those that the paper has of such a network."""
    return PAPERS.get(results.network, FULLY_CONNECTED)


# --- over the share of the weights ------------------------------------------------------------------------------------


def _first(results: Results) -> "Figure | None":
    """Early stop and accuracy there, of tickets and of random sparse networks."""
    arms = drawing.there(results, ("ticket", "random"))
    if not arms:
        return None
    figure, (left, right) = drawing.figure(drawing.title(results, "1"), 1, 2, 4.2)
    drawing.stops(left, results, arms)
    drawing.accuracies(right, results, arms, stop_accuracy("raw"), "test accuracy at early stop, %")
    drawing.crosses(right, paper.STOP_ACCURACY.get(results.network, {}), drawing.LOOKS["ticket"]["color"])
    drawing.legend(figure)
    return figure


def _fifth(results: Results) -> "Figure | None":
    """Tickets and reinitialised ones: early stop, accuracy there, accuracy at the end."""
    arms = drawing.there(results, ("ticket", "reinit"))
    if not arms:
        return None
    figure, (stops, early, late) = drawing.figure(f"{results.lottery.model.name}, {drawing.title(results, '5')}", 1, 3)
    drawing.stops(stops, results, arms)
    for axes, points in ((early, paper.STOP_ACCURACY), (late, paper.END_ACCURACY)):
        drawing.crosses(axes, points.get(results.network, {}), drawing.LOOKS["ticket"]["color"])
    drawing.accuracies(early, results, arms, stop_accuracy("raw"), "test accuracy at early stop, %")
    drawing.accuracies(late, results, arms, end_accuracy, f"test accuracy at iteration {results.lottery.steps:,}, %")
    drawing.legend(figure)
    return figure


def _fourth(results: Results) -> "Figure | None":
    """Iterative and one-shot pruning: early stop, accuracy there, accuracy at the end."""
    rows = {name: drawing.there(results, arms) for name, arms in PANELS.items()}
    rows = {name: arms for name, arms in rows.items() if arms and arms[0] == PANELS[name][0]}
    if not rows:
        return None
    figure, axes = drawing.figure(drawing.title(results, "4"), len(rows), 3)
    for i, (name, arms) in enumerate(rows.items()):
        stops, early, late = axes[3 * i : 3 * i + 3]
        drawing.stops(stops, results, arms)
        stops.set_title(f"{name} pruning")
        drawing.accuracies(early, results, arms, stop_accuracy("raw"), "test accuracy at early stop, %")
        last = f"test accuracy at iteration {results.lottery.steps:,}, %"
        drawing.accuracies(late, results, arms, end_accuracy, last)
    drawing.legend(figure)
    return figure


# --- over iterations --------------------------------------------------------------------------------------------------


def _third(results: Results) -> "Figure | None":
    """Test accuracy while networks train."""
    panels = [found for curves in (SHOWN[:3], SHOWN, BLIND) if (found := _curves(results, curves))]
    if not panels or len(panels[0]) < 2:
        return None
    figure, axes = drawing.figure(drawing.title(results, "3"), 1, len(panels))
    for axis, curves in zip(axes, panels, strict=True):
        for i, (which, curve) in enumerate(curves.items()):
            _curve(axis, which, curve, LIGHT[i % len(LIGHT)], results.network == "lenet_300_100")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}")
        axis.set_xlabel("thousands of training iterations")
        axis.set_ylabel("test accuracy, %")
        axis.set_ylim(*_range(panels))
        axis.legend(title="% of weights", title_fontsize=7)
    return figure


Which = tuple[str, float]
Followed = dict[int, list[float]]
"""Test accuracies of all networks of a group, by iteration."""


def _curves(results: Results, wanted: Iterable[Which]) -> dict[Which, Followed]:
    """Those of the paper's curves whose test accuracy was followed."""
    found = {which: results.level(which[1]) for which in wanted}
    levels = results.lottery.curve_levels
    there = {w: v for w, v in found.items() if v is not None and v in levels and (w[0], v) in results.groups}
    each = {which: _group(results, which[0], level) for which, level in there.items()}
    return {which: curve for which, curve in each.items() if curve}


def _group(results: Results, arm: str, level: int) -> Followed:
    """At looks that every network of the group had at the test images."""
    each = [followed(record) for record in results.groups[arm, level]]
    last = min(results.lottery.curve_steps, results.lottery.steps)
    looks = sorted(i for i in set.intersection(*map(set, each)) if i <= last)
    return {i: [accuracies[i] for accuracies in each] for i in looks}


def _curve(axes: "Axes", which: Which, curve: Followed, color: str, is_papers: bool) -> None:
    arm, percent = which
    x, each = list(curve), list(curve.values())
    line = "--" if arm == "reinit" else "-"
    label = f"{percent:g}" + (" reinitialised" if arm == "reinit" else "")
    axes.plot(x, [statistics.fmean(e) for e in each], color=color, linestyle=line, label=label, linewidth=0.9)
    axes.fill_between(x, [min(e) for e in each], [max(e) for e in each], color=color, alpha=0.1, linewidth=0)
    if is_papers:
        points = dict(zip(paper.CURVE_ITERATIONS, paper.CURVES[which], strict=True))
        drawing.crosses(axes, {i: a for i, a in points.items() if i <= x[-1]}, color)


def _range(panels: list[dict[Which, Followed]]) -> tuple[float, float]:
    """From where the worst curve is after a twentieth of the iterations to a little above the best."""
    found = [list(curve.values()) for curves in panels for curve in curves.values()]
    means = [statistics.fmean(each) for curve in found for each in curve[len(curve) // 20 :]]
    return min(means) - 0.3, max(means) + 0.4


FIGURES: "dict[str, Callable[[Results], Figure | None]]" = {
    "1": _first, "3": _third, "4": _fourth, "5": _fifth, "6": deeper.sixth, "7": deeper.seventh, "8": deeper.eighth,
    "stability": deeper.stability, "arms": deeper.arms,
}  # fmt: skip
OURS = ("stability", "arms")
"""What the paper has nothing like; drawn with all figures where their arms were trained."""
FULLY_CONNECTED = ("1", "3", "4")
PAPERS = {"lenet_300_100": FULLY_CONNECTED, "vgg19": ("7",), "resnet20": ("8",)}
PAPERS |= {f"conv{n}": ("5",) for n in (2, 4, 6)} | {f"conv{n}_dropout": ("6",) for n in (2, 4, 6)}
"""What the paper shows of which network; of others, what it shows of fully connected ones."""
