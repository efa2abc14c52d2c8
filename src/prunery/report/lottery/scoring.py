"""How claims are scored: small functions that make functions of results."""

from collections.abc import Callable
from dataclasses import dataclass

from .results import (
    Interval,
    Metric,
    Results,
    accuracy_at,
    end_accuracy,
    end_train_accuracy,
    stop_accuracy,
    stop_iteration,
)  # fmt: skip

SURE, LEFT_OUT = "95 % interval", "a seed left out"
DENSE = ("ticket", 0)


@dataclass(frozen=True)
class Score:
    """What was measured, and whether that is what was claimed."""

    found: Interval
    holds: bool
    note: str = ""
    spread: str = SURE
    """what the interval is; empty where there is none"""


Scorer = Callable[[Results, str], Score | None]
"""Of the way to stop early, raw or smoothed; nothing where the networks that it takes were not trained."""
Which = tuple[str, float]
"""An arm, and the share of the weights by which the paper calls a level."""


def _place(results: Results, which: Which) -> tuple[str, int] | None:
    """The arm's level, if it was trained."""
    level = results.level(which[1])
    return (which[0], level) if level is not None and (which[0], level) in results.groups else None


def between(low: float, high: float) -> Callable[[Interval], bool]:
    """The mean is within its tolerance."""
    return lambda found: low <= found.mean <= high


def at_least(bound: float) -> Callable[[Interval], bool]:
    return lambda found: found.mean >= bound


def surely_above(bound: float) -> Callable[[Interval], bool]:
    """So is the whole interval."""
    return lambda found: found.low > bound


def dense(metric: Callable[[str], Metric], holds: Callable[[Interval], bool]) -> Scorer:
    """The dense network's mean over seeds."""

    def score(results: Results, stop: str) -> Score | None:
        found = Interval.of(results.by_seed(*DENSE, metric(stop)).values())
        return Score(found, holds(found))

    return score


def dense_after(iteration: int, holds: Callable[[Interval], bool]) -> Scorer:
    """Its test accuracy on the way."""

    def score(results: Results, stop: str) -> Score | None:
        looked = results.looked_at(*DENSE, iteration)
        return dense(lambda stop: accuracy_at(iteration), holds)(results, stop) if looked else None

    return score


def more(one: Which, other: Which, holds: Callable[[Interval], bool]) -> Scorer:
    """Points of accuracy at the early stop that one has over the other."""

    def score(results: Results, stop: str) -> Score | None:
        a, b = _place(results, one), _place(results, other)
        if a is None or b is None:
            return None
        found = results.differences(a, b, stop_accuracy(stop))
        return Score(found, holds(found))

    return score


def times(one: Which, other: Which, holds: Callable[[Interval], bool], as_: Callable[[float], float] = float) -> Scorer:
    """How many times as many iterations one takes to its early stop; `as_` says it in other words."""

    def score(results: Results, stop: str) -> Score | None:
        a, b = _place(results, one), _place(results, other)
        if a is None or b is None:
            return None
        found = results.ratios(a, b, stop_iteration(stop)).mapped(as_)
        return Score(found, holds(found))

    return score


def best_gain(metric: Callable[[str], Metric], least: float, most: float, holds: Callable[[Interval], bool]) -> Scorer:
    """The largest mean gain over the dense network within a part of the ladder, which has to be there as a whole."""

    def score(results: Results, stop: str) -> Score | None:
        levels = [v for v in results.levels("ticket", least, most) if v]
        if not levels or min(results.percents.values()) > least * 1.25:
            return None
        gains = {v: results.differences(("ticket", v), DENSE, metric(stop)) for v in levels}
        level = max(gains, key=lambda v: gains[v].mean)
        return Score(gains[level], holds(gains[level]), f"at {results.percents[level]:.1f} % of the weights")

    return score


def level_of(which: Which, metric: Callable[[str], Metric], holds: Callable[[Interval], bool]) -> Scorer:
    """An arm's mean at a level."""

    def score(results: Results, stop: str) -> Score | None:
        place = _place(results, which)
        if place is None:
            return None
        found = Interval.of(results.by_seed(*place, metric(stop)).values())
        return Score(found, holds(found))

    return score


def best(metric: Callable[[str], Metric], least: float, holds: Callable[[Interval], bool], most: float = 100) -> Scorer:
    """The largest mean of the tickets within a part of the ladder, which has to be there as a whole."""

    def score(results: Results, stop: str) -> Score | None:
        levels = results.levels("ticket", least, most)
        if not levels or min(results.percents.values()) > least * 1.25:
            return None
        means = {v: Interval.of(results.by_seed("ticket", v, metric(stop)).values()) for v in levels}
        level = max(means, key=lambda v: means[v].mean)
        return Score(means[level], holds(means[level]), f"at {results.percents[level]:.1f} % of the weights")

    return score


def lead(least: float, most: float, holds: Callable[[Interval], bool]) -> Scorer:
    """Points at the end that tickets have over reinitialised ones, the mean of a part of the ladder."""

    def score(results: Results, stop: str) -> Score | None:
        levels = [v for v in results.levels("reinit", least, most) if v]
        if not levels or min(results.percents.values()) > least * 1.25:
            return None
        found = Interval.of(_gaps(results, "ticket", "reinit", levels, end_accuracy))
        return Score(found, holds(found), f"mean of {len(levels)} levels")

    return score


def _gaps(results: Results, one: str, other: str, levels: list[int], metric: Metric) -> list[float]:
    """What one arm has over another, the mean over levels, seed by seed."""
    each = [[results.by_seed(arm, v, metric) for v in levels] for arm in (one, other)]
    return [sum(a[s] - b[s] for a, b in zip(*each, strict=True)) / len(levels) for s in results.seeds]


def fall(results: Results, arm: str, metric: Metric, slack: float = 0.0) -> float:
    """The share of the weights from which on an arm is less accurate than the dense network; 0 where it never is."""
    whole = Interval.of(results.by_seed(*DENSE, metric).values()).mean - slack
    fallen = 0.0
    for level in reversed(results.levels(arm)):
        if Interval.of(results.by_seed(arm, level, metric).values()).mean >= whole:
            break
        fallen = results.percents[level]
    return fallen


def falls(
    arm: str, low: float, high: float, reach: float, last_above: bool = False,
    metric: Callable[[str], Metric] = stop_accuracy, slack: float = 0.0,
) -> Scorer:  # fmt: skip
    """Where accuracy falls below the dense network's for good; the range is that of leaving out a seed."""

    def edge(results: Results, stop: str) -> float:
        fallen = fall(results, arm, metric(stop), slack)
        above = [p for p in results.percents.values() if p > fallen]
        return min(above, default=100.0) if last_above else fallen

    def score(results: Results, stop: str) -> Score | None:
        levels = results.levels(arm)
        if not [v for v in levels if v] or results.percents[levels[-1]] > reach:
            return None
        value = edge(results, stop)
        others = [edge(results.without(s), stop) for s in results.seeds] if len(results.seeds) > 1 else [value]
        found = Interval(value, min(value, *others), max(value, *others), len(results.seeds))
        return Score(found, low <= value <= high, spread=LEFT_OUT)

    return score


def worst_fit(arms: Callable[[Results], list[str]], least: float, expected: float = 99.9) -> Scorer:
    """The lowest mean training accuracy after the last iteration, of all levels that keep at least so much."""

    def score(results: Results, stop: str) -> Score | None:
        if min(results.percents.values()) > least * 1.25:
            return None
        places = [(a, v) for a in arms(results) for v in results.levels(a, least)]
        means = {p: Interval.of(results.by_seed(*p, end_train_accuracy).values()) for p in places}
        place = min(means, key=lambda p: means[p].mean)
        note = f"{place[0]} at {results.percents[place[1]]:.1f} % of the weights"
        return Score(means[place], means[place].mean >= expected, note)

    return score


def faster_in_band(results: Results, stop: str) -> Score | None:
    """The share of the levels between 67.5 and 17.6 % at which one-shot tickets stop before the dense network."""
    levels = results.levels("oneshot", 17.6, 67.5)
    if not levels or min(results.percents.values()) > 21.5:
        return None
    ratios = [results.ratios(("oneshot", v), DENSE, stop_iteration(stop)).mean for v in levels]
    share = 100 * sum(r < 1 for r in ratios) / len(ratios)
    return Score(Interval(share, share, share, len(results.seeds)), share > 50, f"of {len(levels)} levels", spread="")


def wins(most: float) -> Scorer:
    """The share of the levels of at most so much of the weights at which tickets beat reinitialised ones."""

    def score(results: Results, stop: str) -> Score | None:
        levels = [v for v in results.levels("reinit", 0, most) if v]
        if not levels:
            return None
        each = [results.differences(("ticket", v), ("reinit", v), stop_accuracy(stop)).mean for v in levels]
        share = 100 * sum(gap > 0 for gap in each) / len(each)
        found = Interval(share, share, share, len(results.seeds))
        return Score(found, share == 100, f"of {len(levels)} levels", spread="")

    return score


def order(results: Results, stop: str) -> Score | None:
    """Which of the relations between figure 3's curves at 5,000 iterations hold."""
    wanted = {"21": ("ticket", 21.1), "51": ("ticket", 51.3), "100": ("ticket", 100.0), "3.6": ("ticket", 3.6)}
    wanted |= {"1.9": ("ticket", 1.9), "21r": ("reinit", 21.1), "51r": ("reinit", 51.3)}
    places = {k: _place(results, w) for k, w in wanted.items()}
    if not all(p and results.looked_at(*p, 5000) for p in places.values()):
        return None
    at = {k: Interval.of(results.by_seed(*p, accuracy_at(5000)).values()).mean for k, p in places.items() if p}
    relations = {
        "21.1 > 51.3": at["21"] > at["51"],
        "51.3 > 100": at["51"] > at["100"],
        "3.6 ~ 100": abs(at["3.6"] - at["100"]) <= 0.3,
        "1.9 lowest": at["1.9"] == min(at.values()),
        "reinit 21.1 < reinit 51.3": at["21r"] < at["51r"],
        "reinit 51.3 <~ 100": at["51r"] <= at["100"] + 0.1,
    }
    broken = [k for k, holds in relations.items() if not holds]
    held = float(len(relations) - len(broken))
    note = f"not: {', '.join(broken)}" if broken else ""
    return Score(Interval(held, held, held, len(results.seeds)), not broken, note, spread="")


def above_random(results: Results, stop: str) -> Score | None:
    """Points that reinitialised tickets have over random sparse networks, the mean of levels from 25 to 2 %."""
    levels = [v for v in results.levels("reinit", 2, 25) if ("random", v) in results.groups]
    if not levels or min(results.percents.values()) > 2.5:
        return None
    found = Interval.of(_gaps(results, "reinit", "random", levels, stop_accuracy(stop)))
    return Score(found, found.mean > 0, f"mean of {len(levels)} levels")
