"""Pieces of the lottery's figures: an arm over the share of the weights, axes, the paper's points."""

import statistics
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..palette import LIGHT
from . import paper
from .results import Metric, Results, stop_iteration

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS: dict[str, dict[str, Any]] = {
    "ticket": {"color": LIGHT[0]},
    "reinit": {"color": LIGHT[1], "linestyle": "--"},
    "random": {"color": LIGHT[4], "linestyle": "--"},
    "oneshot": {"color": LIGHT[2]},
    "oneshot_reinit": {"color": LIGHT[3], "linestyle": "--"},
}
"""others take the colours of no ticket, one after the other"""
KINDS = {
    "other weights": (
        "reinit", "signs", "constant", "resampled", "noise_0.5", "noise_1", "noise_2", "noise_3",
    ),
    "other masks": ("random", "shuffled", "oneshot", "oneshot_reinit", "transferred", "earlybird"),
    "going on": ("continued", "finetuned"),
    "without training": ("supermask", "untrained", "untrained_same_sign"),
}  # fmt: skip
"""What arms are about"""
WORDS = {
    "ticket": "ticket", "reinit": "reinitialised", "random": "random sparse", "oneshot": "one-shot",
    "oneshot_reinit": "one-shot, reinitialised",
    "continued": "continued (learning-rate rewinding)", "untrained": "ticket, untrained",
    "untrained_same_sign": "large and of the same sign, untrained", "supermask": "learned mask, untrained weights",
    "earlybird": "early bird", "resampled": "ticket's weights in another order",
    "constant": "constant, signs drawn anew", "signs": "constant, the first signs",
}  # fmt: skip
PAPERS = ("ticket", "reinit", "random", "oneshot", "oneshot_reinit")
"""arms that the paper's figures show"""
PAPERS_NAMES = ("1", "3", "4", "5")
"""figures of which points were read off"""
FEW, COLUMNS = 2, 6
STRIP = 0.3
"""inches that a legend below the panels takes"""
TICKS = (100, 41.1, 16.9, 7.0, 2.9, 1.2, 0.5, 0.2)


def figure(title: str, rows: int, columns: int, width: float = 3.4) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    made = Figure(figsize=(width * columns, 2.7 * rows), layout="constrained")
    made.suptitle(title, fontsize=8, x=0.01, ha="left")
    return made, list(made.subplots(rows, columns, squeeze=False).flat)


def title(results: Results, name: str) -> str:
    points = "; crosses: the paper's points" if results.network in paper.STOPS and name in PAPERS_NAMES else ""
    count = len(results.seeds)
    named = f"Figure {name}" if name.isdigit() else name
    each = f"means and, as bands, smallest to largest of {count} seeds" if count > 1 else "one seed"
    return f"{named}: {each}{points}"


def look_of(arm: str) -> dict[str, Any]:
    """The colour and line of an arm, the same in every figure."""
    others = [a for arms in KINDS.values() for a in arms if a not in LOOKS]
    return LOOKS.get(arm) or {"color": LIGHT[1 + others.index(arm) % (len(LIGHT) - 1)], "linestyle": "-."}


def word(arm: str) -> str:
    """What a legend calls it."""
    return WORDS.get(arm, arm.replace("_", " "))


def ladder(axes: "Axes", results: Results, arm: str, metric: Metric, **look: Any) -> None:
    """An arm's mean at every level it was trained at, and its band."""
    levels = results.levels(arm)
    each = [results.every(arm, v, metric) for v in levels]
    x = [results.percents[v] for v in levels]
    look = look_of(arm) | look
    axes.plot(x, [statistics.fmean(e) for e in each], marker=".", markersize=3, label=word(arm), **look)
    axes.fill_between(x, [min(e) for e in each], [max(e) for e in each], color=look["color"], alpha=0.15, linewidth=0)


def smoothed(axes: "Axes", results: Results, arm: str) -> None:
    """The same early stops, found in smoothed curves."""
    levels = results.levels(arm)
    means = [statistics.fmean(results.every(arm, v, stop_iteration("smoothed"))) for v in levels]
    x = [results.percents[v] for v in levels]
    axes.plot(x, means, color=look_of(arm)["color"], linestyle=":", linewidth=0.9, label=f"{word(arm)}, smoothed")


def crosses(axes: "Axes", points: dict[float, float], color: str) -> None:
    axes.plot(list(points), list(points.values()), "x", color=color, markersize=4, markeredgewidth=0.9)


def percent_axis(axes: "Axes", results: Results, label: str) -> None:
    ticks = [t for t in TICKS if t >= 0.8 * min(results.percents.values())]
    ticks = ticks if len(ticks) > FEW else sorted(results.percents.values(), reverse=True)
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{t:.3g}" for t in ticks])
    axes.minorticks_off()
    axes.invert_xaxis()
    axes.set_xlabel("percent of weights remaining")
    axes.set_ylabel(label)


def stops(axes: "Axes", results: Results, arms: Iterable[str]) -> None:
    """Early-stopping iterations; the smoothed ones dotted, where they tell something."""
    for arm in arms:
        ladder(axes, results, arm, stop_iteration("raw"))
        if results.lottery.smooths:
            smoothed(axes, results, arm)
        points = paper.STOPS.get(results.network, {}).get(arm, {})
        crosses(axes, {p: 1000 * k for p, k in points.items()}, look_of(arm)["color"])
    percent_axis(axes, results, "early-stop iteration (validation loss)")


def legend(figure: "Figure") -> None:
    """Below the panels, where it lies on no curve; what several panels show stands there once."""
    found: dict[str, Artist] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + STRIP)
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=min(len(found), COLUMNS))


def accuracies(
    axes: "Axes", results: Results, arms: Iterable[str], metric: Metric, label: str, whole: bool = False
) -> None:
    for arm in arms:
        ladder(axes, results, arm, metric)
    percent_axis(axes, results, label)
    dense = statistics.fmean(results.every("ticket", 0, metric))
    lowest = min(statistics.fmean(results.every(a, v, metric)) for a in arms for v in results.levels(a))
    if not whole:
        low = max(dense - 6, lowest - 1)  # below, all that is seen is that it is bad
        highest = max(v for a in arms for level in results.levels(a) for v in results.every(a, level, metric))
        axes.set_ylim(low, highest + 0.05 * (highest - low))


def there(results: Results, arms: Iterable[str]) -> list[str]:
    """Arms with more than the dense network."""
    return [arm for arm in arms if len(results.levels(arm)) > 1]
