"""Early-bird tickets: the dense network is trained until what would be pruned no longer changes (1909.11957).

The distance of two masks is the share of their places that they do not have in common. At low densities, where nearly
all places of both are empty, the paper's own, over all weights, would be small from the start.
"""

from collections import deque
from collections.abc import Callable

from torch import Tensor

from ..masks import Mask, kept
from ..train import Stopped
from .start import Start
from .table import Table

LOOKS, NEAR = 5, 0.1
"""distances in a row, one an epoch, and what none of them exceeds"""


def settled(
    table: Table, theta: dict[str, Tensor], seed: int, prune: Callable[[dict[str, Tensor]], Mask],
    stopping: Callable[[], bool],
) -> tuple[dict[str, Tensor], int]:  # fmt: skip
    """Weights and iteration at which the mask has settled; the last ones if it never does. Done again if stopped."""
    lottery = table.lottery
    epoch = min(-(-len(table.splits.train) // lottery.batch), lottery.steps)
    replica = table.replica(Start(theta), {}, seed)
    masks, iteration = [prune(theta)], 0
    far: deque[float] = deque(maxlen=LOOKS)
    while iteration + epoch < lottery.steps and (len(far) < LOOKS or max(far) > NEAR):
        if stopping():
            raise Stopped("stopped on the way to an early-bird ticket")
        replica.advance(iteration, [lottery.rate(i) for i in range(iteration, iteration + epoch)])
        iteration += epoch
        masks = [masks[-1], prune(replica.snapshot().weights)]
        far.append(distance(*masks))
    return replica.snapshot().weights, iteration


def distance(one: Mask, other: Mask) -> float:
    """0 for equal masks, 1 for masks that share nothing."""
    return sum(int((one[n] ^ other[n]).sum()) for n in one) / max(1, kept(one) + kept(other))
