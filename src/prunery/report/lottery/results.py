"""The networks of a lottery as their records tell: by arm and level, seed by seed."""

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...spec import LOTTERIES, Lottery
from ..comparison import half_width

Record = dict[str, Any]
Metric = Callable[[Record], float]
NEAR = 0.04
"""A level is the paper's 21.1 % when its own share is no further from it than this part of it."""


def stop_iteration(stop: str) -> Metric:
    """Iterations to the early stop; `stop` is raw or smoothed."""
    return lambda record: record["early_stop"][stop]["iteration"]


def stop_accuracy(stop: str) -> Metric:
    """Test accuracy there, in percent."""
    return lambda record: 100 * record["early_stop"][stop]["test_accuracy"]


def end_accuracy(record: Record) -> float:
    """Test accuracy after the last iteration, in percent."""
    return 100 * record["end"]["test_accuracy"]


def end_train_accuracy(record: Record) -> float:
    """Training accuracy after the last iteration, in percent."""
    return 100 * record["end"]["train_accuracy"]


def stop_val_accuracy(stop: str) -> Metric:
    """Validation accuracy at the early stop, in percent."""

    def metric(record: Record) -> float:
        curve = record["curve"]
        at = curve["iteration"].index(record["early_stop"][stop]["iteration"])
        return 100 * curve["val_hits"][at] / record["images"]["validation"]

    return metric


def barrier_height(record: Record) -> float:
    """How far the worst point between two twins is above their mean error, in percent of the test images."""
    return 100 * record["barrier"]["height"]


def followed(record: Record) -> dict[int, float]:
    """Test accuracy, in percent, at every iteration at which the test images were looked at."""
    curve, images = record["curve"], record["images"]["test"]
    return {i: 100 * hits / images for i, hits in zip(curve["test_iteration"], curve["test_hits"], strict=True)}


def accuracy_at(iteration: int) -> Metric:
    """Test accuracy, in percent, at one of them."""
    return lambda record: followed(record)[iteration]


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval, by Student's t over seeds; the same number three times where there is one seed."""

    mean: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Interval":
        found = list(values)
        mean, half = statistics.fmean(found), half_width(found) or 0.0
        return cls(mean, mean - half, mean + half, len(found))

    def mapped(self, change: Callable[[float], float]) -> "Interval":
        """Through a function that rises or falls throughout."""
        low, high = sorted((change(self.low), change(self.high)))
        return Interval(change(self.mean), low, high, self.n)


@dataclass(frozen=True)
class Results:
    """All records of one lottery."""

    lottery: Lottery
    records: tuple[Record, ...]

    @cached_property
    def groups(self) -> dict[tuple[str, int], list[Record]]:
        """By arm and level; level 0 is every arm's."""
        found: dict[tuple[str, int], list[Record]] = {}
        for record in self.records:
            dense = record["level"] == 0 and record["arm"] == "ticket"
            arms = [a for a in self.arms if self.has_dense(a)] if dense else [record["arm"]]
            for arm in arms:
                found.setdefault((arm, record["level"]), []).append(record)
        return found

    @cached_property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(r["arm"] for r in self.records))

    @staticmethod
    def has_dense(arm: str) -> bool:
        """Whether the dense network is its level 0: twins have their own, and what is not trained has none."""
        return arm not in ("twin", "untrained", "untrained_same_sign", "supermask")

    def barred(self, level: int) -> list[Record]:
        """The twins of a level that know how far it is to the other."""
        return [r for r in self.groups.get(("twin", level), []) if "barrier" in r]

    @cached_property
    def percents(self) -> dict[int, float]:
        """The paper's P_m of each level."""
        tickets = sorted((r["level"], 100 * r["density"]) for r in self.records if r["arm"] == "ticket")
        return dict(tickets)

    def levels(self, arm: str = "ticket", least: float = 0.0, most: float = 100.0) -> list[int]:
        """Levels of an arm with a share of the weights within bounds."""
        return [v for v, p in self.percents.items() if least <= p <= most and (arm, v) in self.groups]

    def level(self, percent: float) -> int | None:
        """The level that the paper calls by this share of the weights."""
        near = [v for v, p in self.percents.items() if abs(p / percent - 1) <= NEAR]
        return near[0] if near else None

    def looked_at(self, arm: str, level: int, iteration: int) -> bool:
        """Whether all networks of a group saw the test images at an iteration."""
        return all(iteration in r["curve"]["test_iteration"] for r in self.groups[arm, level])

    def by_seed(self, arm: str, level: int, metric: Metric) -> dict[int, float]:
        """The mean of each seed's networks."""
        found: dict[int, list[float]] = {}
        for record in self.groups[arm, level]:
            found.setdefault(record["seed"], []).append(metric(record))
        return {seed: statistics.fmean(values) for seed, values in sorted(found.items())}

    def every(self, arm: str, level: int, metric: Metric) -> list[float]:
        """Of every network by itself."""
        return [metric(r) for r in self.groups[arm, level]]

    def differences(self, one: tuple[str, int], other: tuple[str, int], metric: Metric) -> Interval:
        """How much more the first has than the second, seed by seed."""
        a, b = (self.by_seed(*which, metric) for which in (one, other))
        return Interval.of(a[seed] - b[seed] for seed in a.keys() & b.keys())

    def ratios(self, one: tuple[str, int], other: tuple[str, int], metric: Metric) -> Interval:
        """The geometric mean of how many times as much the first has, seed by seed."""
        return self.differences(one, other, lambda record: math.log(metric(record))).mapped(math.exp)

    def without(self, seed: int) -> "Results":
        """As if a seed had not been there."""
        return Results(self.lottery, tuple(r for r in self.records if r["seed"] != seed))

    @property
    def network(self) -> str:
        """Its name, where the paper has figures of it on these images."""
        name, data = self.lottery.model.name, self.lottery.data.name
        return name if name in LOTTERIES and LOTTERIES[name].data.name == data else ""

    @property
    def seeds(self) -> list[int]:
        return sorted({r["seed"] for r in self.records})
