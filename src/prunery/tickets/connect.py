"""Linear mode connectivity: what lies between two networks that began alike and saw their images in another order.

The error along the straight line between them rises above its ends where they have gone to different minima; a network
is stable where it does not (Frankle et al. 1912.05671).
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..masks import Mask
from .start import Start
from .table import Table

POINTS = 11
"""from one network to the other, both included"""


def barrier(table: Table, mask: Mask, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Any]:
    """The share of test images that is wrong at each point, and how far the worst is above the mean of both ends."""
    errors = [_error(table, mask, mixed(one, other, i / (POINTS - 1))) for i in range(POINTS)]
    return {"error": errors, "height": max(errors) - (errors[0] + errors[-1]) / 2}


def mixed(one: Mapping[str, Tensor], other: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """A point between two networks; counters are the first one's."""
    return {n: w.lerp(other[n], share) if w.is_floating_point() else w for n, w in one.items()}


def _error(table: Table, mask: Mask, weights: dict[str, Tensor]) -> float:
    found = table.replica(Start(weights), mask, 0).evaluate(table.splits.test)
    return 1 - found.accuracy if found else 0.0
