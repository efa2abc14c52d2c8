"""The paper's figures 1, 3, 4 and 5 from records: means, bands from smallest to largest, and the paper's points."""

import statistics
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runs import writing
from ..figures import STYLE, save
from ..palette import LIGHT
from . import paper
from .results import Metric, Results, end_accuracy, followed, stop_accuracy, stop_iteration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS: dict[str, dict[str, Any]] = {
    "ticket": {"color": LIGHT[0]},
    "reinit": {"color": LIGHT[1], "linestyle": "--"},
    "random": {"color": LIGHT[4], "linestyle": "--"},
    "oneshot": {"color": LIGHT[2]},
    "oneshot_reinit": {"color": LIGHT[3], "linestyle": "--"},
}
WORDS = {
    "ticket": "ticket", "reinit": "reinitialised", "random": "random sparse", "oneshot": "one-shot",
    "oneshot_reinit": "one-shot, reinitialised",
}  # fmt: skip
TICKS = (100, 41.1, 16.9, 7.0, 2.9, 1.2, 0.5, 0.2)
SHOWN = (("ticket", 100.0), ("ticket", 51.3), ("ticket", 21.1), ("ticket", 7.0), ("ticket", 3.6), ("ticket", 1.9))
BLIND = (("ticket", 100.0), ("ticket", 51.3), ("ticket", 21.1), ("reinit", 51.3), ("reinit", 21.1))
PANELS = {"iterative": ("ticket", "reinit"), "one-shot": ("oneshot", "oneshot_reinit", "ticket")}


def write_figures(results: Results, figure: str, folder: Path) -> list[Path]:
    """The figure, or all that the paper has of such a network; one whose networks were not trained is left out."""
    from matplotlib import rc_context, style

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    with style.context("default"), rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        for name, draw in FIGURES.items():
            wanted = figure == name or (figure == "all" and name in PAPERS.get(results.network, FULLY_CONNECTED))
            drawn = draw(results) if wanted else None
            paths += save(drawn, folder, f"figure{name}") if drawn else []
    return paths


def _figure(title: str, rows: int, columns: int, width: float = 3.4) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, 2.7 * rows), layout="constrained")
    figure.suptitle(title, fontsize=8, x=0.01, ha="left")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _title(results: Results, name: str) -> str:
    points = "; crosses: the paper's points" if results.network else ""
    count = len(results.seeds)
    return f"Figure {name}: means and, as bands, smallest to largest of {count} seed{'s' * (count > 1)}{points}"


# --- over the share of the weights ------------------------------------------------------------------------------------


def _ladder(axes: "Axes", results: Results, arm: str, metric: Metric, **look: Any) -> None:
    """An arm's mean at every level it was trained at, and its band."""
    levels = results.levels(arm)
    each = [results.every(arm, v, metric) for v in levels]
    x = [results.percents[v] for v in levels]
    look = LOOKS[arm] | look
    axes.plot(x, [statistics.fmean(e) for e in each], marker=".", markersize=3, label=WORDS[arm], **look)
    axes.fill_between(x, [min(e) for e in each], [max(e) for e in each], color=look["color"], alpha=0.15, linewidth=0)


def _smoothed(axes: "Axes", results: Results, arm: str) -> None:
    """The same early stops, found in smoothed curves."""
    levels = results.levels(arm)
    means = [statistics.fmean(results.every(arm, v, stop_iteration("smoothed"))) for v in levels]
    x = [results.percents[v] for v in levels]
    axes.plot(x, means, color=LOOKS[arm]["color"], linestyle=":", linewidth=0.9, label=f"{WORDS[arm]}, smoothed")


def _crosses(axes: "Axes", points: dict[float, float], color: str) -> None:
    axes.plot(list(points), list(points.values()), "x", color=color, markersize=4, markeredgewidth=0.9)


def _percent_axis(axes: "Axes", label: str) -> None:
    axes.set_xscale("log")
    axes.set_xticks(TICKS, [f"{t:g}" for t in TICKS])
    axes.minorticks_off()
    axes.invert_xaxis()
    axes.set_xlabel("percent of weights remaining")
    axes.set_ylabel(label)


def _stops(axes: "Axes", results: Results, arms: Iterable[str]) -> None:
    """Early-stopping iterations; the smoothed ones dotted."""
    for arm in arms:
        _ladder(axes, results, arm, stop_iteration("raw"))
        _smoothed(axes, results, arm)
        points = paper.STOPS.get(results.network, {}).get(arm, {})
        _crosses(axes, {p: 1000 * k for p, k in points.items()}, LOOKS[arm]["color"])
    _percent_axis(axes, "early-stop iteration (validation loss)")
    axes.legend()


def _accuracies(axes: "Axes", results: Results, arms: Iterable[str], metric: Metric, label: str) -> None:
    for arm in arms:
        _ladder(axes, results, arm, metric)
    _percent_axis(axes, label)
    dense = statistics.fmean(results.every("ticket", 0, metric))
    lowest = min(statistics.fmean(results.every(a, v, metric)) for a in arms for v in results.levels(a))
    axes.set_ylim(max(dense - 6, lowest - 1), None)  # below, all that is seen is that it is bad


def _there(results: Results, arms: Iterable[str]) -> list[str]:
    """Arms with more than the dense network."""
    return [arm for arm in arms if len(results.levels(arm)) > 1]


def _first(results: Results) -> "Figure | None":
    """Early stop and accuracy there, of tickets and of random sparse networks."""
    arms = _there(results, ("ticket", "random"))
    if not arms:
        return None
    figure, (left, right) = _figure(_title(results, "1"), 1, 2, 4.2)
    _stops(left, results, arms)
    _accuracies(right, results, arms, stop_accuracy("raw"), "test accuracy at early stop, %")
    _crosses(right, paper.STOP_ACCURACY.get(results.network, {}), LOOKS["ticket"]["color"])
    return figure


def _fifth(results: Results) -> "Figure | None":
    """Tickets and reinitialised ones: early stop, accuracy there, accuracy at the end."""
    arms = _there(results, ("ticket", "reinit"))
    if not arms:
        return None
    figure, (stops, early, late) = _figure(f"{results.lottery.model.name}, {_title(results, '5')}", 1, 3)
    _stops(stops, results, arms)
    for axes, points in ((early, paper.STOP_ACCURACY), (late, paper.END_ACCURACY)):
        _crosses(axes, points.get(results.network, {}), LOOKS["ticket"]["color"])
    _accuracies(early, results, arms, stop_accuracy("raw"), "test accuracy at early stop, %")
    _accuracies(late, results, arms, end_accuracy, f"test accuracy at iteration {results.lottery.steps:,}, %")
    return figure


def _fourth(results: Results) -> "Figure | None":
    """Iterative and one-shot pruning: early stop, accuracy there, accuracy at the end."""
    rows = {name: _there(results, arms) for name, arms in PANELS.items()}
    rows = {name: arms for name, arms in rows.items() if arms and arms[0] == PANELS[name][0]}
    if not rows:
        return None
    figure, axes = _figure(_title(results, "4"), len(rows), 3)
    for i, (name, arms) in enumerate(rows.items()):
        stops, early, late = axes[3 * i : 3 * i + 3]
        _stops(stops, results, arms)
        stops.set_title(f"{name} pruning")
        _accuracies(early, results, arms, stop_accuracy("raw"), "test accuracy at early stop, %")
        last = f"test accuracy at iteration {results.lottery.steps:,}, %"
        _accuracies(late, results, arms, end_accuracy, last)
    return figure


# --- over iterations --------------------------------------------------------------------------------------------------


def _third(results: Results) -> "Figure | None":
    """Test accuracy while networks train."""
    panels = [found for curves in (SHOWN[:3], SHOWN, BLIND) if (found := _curves(results, curves))]
    if not panels or len(panels[0]) < 2:
        return None
    figure, axes = _figure(_title(results, "3"), 1, len(panels))
    for axis, curves in zip(axes, panels, strict=True):
        for i, (which, curve) in enumerate(curves.items()):
            _curve(axis, which, curve, LIGHT[i % len(LIGHT)], results.network == "lenet_300_100")
        axis.set_xlabel("training iterations")
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
    return {which: _group(results, which[0], level) for which, level in there.items()}


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
        _crosses(axes, {i: a for i, a in points.items() if i <= x[-1]}, color)


def _range(panels: list[dict[Which, Followed]]) -> tuple[float, float]:
    """From where the worst curve is after a twentieth of the iterations to a little above the best."""
    found = [list(curve.values()) for curves in panels for curve in curves.values()]
    means = [statistics.fmean(each) for curve in found for each in curve[len(curve) // 20 :]]
    return min(means) - 0.3, max(means) + 0.4


FIGURES: "dict[str, Callable[[Results], Figure | None]]" = {"1": _first, "3": _third, "4": _fourth, "5": _fifth}
FULLY_CONNECTED = ("1", "3", "4")
PAPERS = {"lenet_300_100": FULLY_CONNECTED} | dict.fromkeys(("conv2", "conv4", "conv6"), ("5",))
"""What the paper shows of which network; of others, what it shows of fully connected ones."""
