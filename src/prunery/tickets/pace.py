"""How far a lottery is, and how long it will still take: measured at each level, since steps cost what is kept."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from ..spec import Draw, Lottery


def effort(kept: float, weights: int) -> float:
    """Of a step with this many weights left, looks included, in no unit: LeNet-300-100 takes it in microseconds."""
    return 40 + min(7e-3 * kept, 3.5e-3 * weights)


class Pace:
    """Networks done and to do; may be told and asked by any thread. `heard` is called whenever something changes."""

    def __init__(self, heard: "Callable[[Pace], None]" = lambda pace: None) -> None:
        self.heard = heard
        self.networks, self.threads = 0, 1
        self._done = set[Draw]()
        self.level = 0
        """of the network that was heard of last"""
        self._steps = 0
        self._efforts: Mapping[int, float] = {}
        self._left, self._made = Counter[int](), Counter[int]()
        self._seconds: dict[int, float] = {}
        self._lock = threading.Lock()

    def begin(self, lottery: Lottery, efforts: Mapping[int, float], threads: int) -> None:
        """What there is to do: every network's steps, by level."""
        self._steps, self._efforts, self.threads = lottery.steps, efforts, threads
        levels = [draw.level for draw in lottery.draws()]
        self.networks = len(levels)
        for level in levels:
            self._left[level] += lottery.steps

    def tick(self, event: dict[str, Any]) -> None:
        """Steps that a network made in so many seconds; in none, when they were made before."""
        level = event["draw"].level
        with self._lock:
            self._left[level] -= event["steps"]
            if event["seconds"]:
                self._made[level] += event["steps"]
                self._seconds[level] = self._seconds.get(level, 0.0) + event["seconds"]
            self.level = level
        self.heard(self)

    def finished(self, draw: Draw, before: bool) -> None:
        """A network is done; `before`: in an earlier run, so that none of its steps were heard of."""
        with self._lock:
            if draw not in self._done:
                self._left[draw.level] -= self._steps if before else 0
            self._done.add(draw)
        self.heard(self)

    @property
    def done(self) -> int:
        """Networks, of all `networks`."""
        return len(self._done)

    def seconds_left(self) -> float | None:
        """None before anything was measured; levels that were not are taken to cost in proportion to the nearest."""
        with self._lock:
            if not self._made:
                return None
            work = sum(self._step_seconds(level) * max(0, steps) for level, steps in self._left.items())
            return work / self.threads

    def _step_seconds(self, level: int) -> float:
        near = min(self._made, key=lambda known: abs(known - level))
        return self._seconds[near] / self._made[near] * self._efforts[level] / self._efforts[near]
