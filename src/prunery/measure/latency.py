"""How long calls take. Machines are shared and noisy: contestants take turns; ratios are of neighbouring turns."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

STRETCH_MS = 60.0


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a call: the median of each turn, and the fastest call of all."""

    turns_ms: tuple[float, ...]
    best_ms: float

    @property
    def median_ms(self) -> float:
        return statistics.median(self.turns_ms)

    def times_faster(self, other: "Latency") -> tuple[float, float, float]:
        """The other's time over this one's: median, lowest and highest of the turns."""
        each = sorted(b / a for a, b in zip(self.turns_ms, other.turns_ms, strict=True))
        return statistics.median(each), each[0], each[-1]


def latencies(
    contestants: dict[str, Callable[[], Any]], turns: int = 9, stretch_ms: float = STRETCH_MS
) -> dict[str, Latency]:
    """Each contestant's latency, over `turns` turns of about `stretch_ms` each, after one turn to warm up."""
    found: dict[str, list[list[float]]] = {name: [] for name in contestants}
    for turn in range(turns + 1):
        for name, call in contestants.items():
            calls = _stretch(call, stretch_ms)
            if turn:
                found[name].append(calls)
    return {n: Latency(tuple(statistics.median(c) for c in t), min(min(c) for c in t)) for n, t in found.items()}


def _stretch(call: Callable[[], Any], stretch_ms: float) -> list[float]:
    each: list[float] = []
    while len(each) < 3 or sum(each) < stretch_ms:
        start = time.perf_counter()
        call()
        each.append(1e3 * (time.perf_counter() - start))
    return each
