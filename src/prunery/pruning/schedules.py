"""Schedules: from one density to another in a number of rounds; the last round always ends exactly at the target."""

from collections.abc import Callable

Schedule = Callable[[float, float, int], list[float]]


def oneshot(start: float, end: float, rounds: int) -> list[float]:
    return [end]


def geometric(start: float, end: float, rounds: int) -> list[float]:
    """The same share of what is left goes each time, as the lottery ticket papers prune."""
    return [*(start * (end / start) ** (i / rounds) for i in range(1, rounds)), end]


def cubic(start: float, end: float, rounds: int) -> list[float]:
    """Fast at first, slower as fewer are left (Zhu and Gupta, 1710.01878, eq. 1)."""
    return [*(end + (start - end) * (1 - i / rounds) ** 3 for i in range(1, rounds)), end]


def linear(start: float, end: float, rounds: int) -> list[float]:
    return [*(start + (end - start) * i / rounds for i in range(1, rounds)), end]


SCHEDULES: dict[str, Schedule] = {"oneshot": oneshot, "geometric": geometric, "cubic": cubic, "linear": linear}
