"""Iterative magnitude pruning (Frankle and Carbin 1803.03635, section 2 and appendix B)."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from ..masks import Mask

Start = TypeVar("Start")
Final = TypeVar("Final")


def imp(
    start: Start,
    mask: Mask,
    train_once: Callable[[Start, Mask, int], Final],
    prune_once: Callable[[Final, Mask, int], Mask],
    again: Callable[[Final], Start],
    levels: int,
) -> Iterator[tuple[int, Mask, Final]]:
    """Train, prune, begin again. `again` is the strategy: back to the first weights (1), or on from the last (2)."""
    for level in range(levels + 1):
        final = train_once(start, mask, level)
        yield level, mask, final
        if level < levels:
            mask = prune_once(final, mask, level + 1)
            start = again(final)
