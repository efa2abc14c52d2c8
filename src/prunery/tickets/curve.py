"""What is seen of a network while it trains, and when it should have been stopped.

The early-stopping iteration is that of the smallest validation loss, found when training is over. It is a noisy
estimate (five dense LeNets of the paper's recipe differ by a third), so there is a second one: the middle of the
`SMOOTH` looks in a row whose mean loss is smallest.
"""

import math
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from ..spec import SMOOTH

WINDOWS = {"raw": 1, "smoothed": SMOOTH}


@dataclass
class Curve:
    """Looks at the validation images, and those of them that saw the test images too."""

    iteration: list[int] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_hits: list[int] = field(default_factory=list)
    test_iteration: list[int] = field(default_factory=list)
    test_hits: list[int] = field(default_factory=list)

    def look(self, iteration: int, loss: float, hits: int) -> None:
        """What is written is what decides: rounded, and infinite where the network has diverged."""
        self.iteration.append(iteration)
        self.val_loss.append(round(loss, 7) if math.isfinite(loss) else math.inf)
        self.val_hits.append(hits)

    def test(self, iteration: int, hits: int) -> None:
        self.test_iteration.append(iteration)
        self.test_hits.append(hits)

    def stop(self, window: int) -> int:
        """When to stop early: the middle of the window with the smallest mean loss, the first of equals."""
        window = min(window, len(self.val_loss))
        means = [mean(self.val_loss[: i + 1], window) for i in range(window - 1, len(self.val_loss))]
        return self.iteration[means.index(min(means)) + window // 2]

    def tested(self, iteration: int) -> int:
        """Hits among the test images at the look nearest to an iteration that saw them; the earlier of two."""
        near = min(range(len(self.test_iteration)), key=lambda i: abs(self.test_iteration[i] - iteration))
        return self.test_hits[near]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Watch:
    """Which looks early stopping may come to: only they need the test images."""

    def __init__(self, losses: list[float]) -> None:
        self.lowest = dict.fromkeys(WINDOWS.values(), math.inf)
        for i in range(len(losses)):
            self.improves(losses[: i + 1])

    def improves(self, losses: list[float]) -> bool:
        """Whether a window that ends with the last loss is better than all before."""
        better = [w for w in self.lowest if len(losses) >= w and mean(losses, w) < self.lowest[w]]
        self.lowest |= {w: mean(losses, w) for w in better}
        return bool(better)


def mean(losses: list[float], window: int) -> float:
    """Of the last `window` losses."""
    return fmean(losses[-window:])
