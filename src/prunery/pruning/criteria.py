"""Criteria: (weight, what was seen of it, generator) -> a score of the same shape; what scores high is kept.

A criterion also says what it must have seen (`evidence.collect` finds it) and how the scores of a unit's weights become
the unit's own: single weights are units of one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..spec import Refused

Seen = Mapping[str, Tensor]
"""What is known of one weight beside itself: initial, grad, inputs, ... (see `evidence`)."""
Score = Callable[[Tensor, Seen, torch.Generator], Tensor]
Reduce = Callable[[Tensor, Tensor], Tensor]


def mean(scores: Tensor, sizes: Tensor) -> Tensor:
    """Per weight, so that large units and small ones can be ranked together."""
    return scores.sum(1) / sizes


def norm(scores: Tensor, sizes: Tensor) -> Tensor:
    """The Euclidean length per weight."""
    return (scores.square().sum(1) / sizes).sqrt()


def drawn(scores: Tensor, sizes: Tensor) -> Tensor:
    """One random number a unit, whatever its size: means of many are all about a half, and no match for those of few.

    Units of one size are in the order of their means, so which of a single layer win does not depend on this.
    """
    numbers = scores[:, 0]
    if len(sizes) == 0 or bool(sizes.min() < sizes.max()):
        return numbers
    order = mean(scores, sizes).argsort(descending=True, stable=True)
    return torch.empty_like(numbers).index_copy_(0, order, numbers.sort(descending=True).values)


def squared_sum(scores: Tensor, _: Tensor) -> Tensor:
    """What the loss does when all go together: signs may cancel (Molchanov et al., 1906.10771, eq. 8)."""
    return scores.sum(1).square()


@dataclass(frozen=True)
class Criterion:
    """A score, what it needs to have seen, and how a unit's scores are put together."""

    score: Score
    needs: tuple[str, ...] = ()
    reduce: Reduce = mean


def magnitude(weight: Tensor, seen: Seen, rng: torch.Generator) -> Tensor:
    """Small weights matter least (Han et al., 1506.02626); of a filter, its L1 norm (Li et al., 1608.08710)."""
    return weight.abs()


def random(weight: Tensor, seen: Seen, rng: torch.Generator) -> Tensor:
    """The control that every other criterion has to beat."""
    return torch.rand(weight.shape, generator=rng)


def snip(weight: Tensor, seen: Seen, rng: torch.Generator) -> Tensor:
    """How strongly the loss reacts to the connection (Lee et al., 1810.02340)."""
    return (weight * seen["grad"]).abs()


def taylor(weight: Tensor, seen: Seen, rng: torch.Generator) -> Tensor:
    """The loss's first-order change without the weight, signed (Molchanov et al., 1906.10771)."""
    return weight * seen["grad"]


def grasp(weight: Tensor, seen: Seen, rng: torch.Generator) -> Tensor:
    """Keeps the gradient flowing: removes weights with the largest -w Hg (Wang et al., 2002.07376)."""
    return weight * seen["curved"]


def synflow(weight: Tensor, seen: Seen, rng: torch.Generator) -> Tensor:
    """The synaptic flow through the weight, without data (Tanaka et al., 2006.05467)."""
    return weight.abs() * seen["flow"]


def movement(weight: Tensor, seen: Seen, rng: torch.Generator) -> Tensor:
    """Weights that training moves away from zero (Sanh et al., 2005.07683): the sum of -w dL/dw over steps."""
    return seen["movement"]


def wanda(weight: Tensor, seen: Seen, rng: torch.Generator) -> Tensor:
    """Weight times the length of what comes in (Sun et al., 2306.11695)."""
    return weight.abs() * along(seen["inputs"], weight, 1)


def activation(weight: Tensor, seen: Seen, rng: torch.Generator) -> Tensor:
    """The mean size of the feature map that the filter makes: ThiNet by norms, a simplification of it."""
    return along(seen["outputs"], weight, 0).expand_as(weight)


def apoz(weight: Tensor, seen: Seen, rng: torch.Generator) -> Tensor:
    """The share of the feature map that is not zero behind a ReLU (Hu et al., 1607.03250)."""
    return 1 - along(seen["zeros"], weight, 0).expand_as(weight)


def bn_scale(weight: Tensor, seen: Seen, rng: torch.Generator) -> Tensor:
    """The scale of the batch normalisation behind the filter (Liu et al., 1708.06519)."""
    return along(seen["scale"], weight, 0).abs().expand_as(weight)


def along(values: Tensor, weight: Tensor, axis: int) -> Tensor:
    """One value for each place on an axis of a weight, ready to broadcast; what was seen of a layer is so already."""
    if values.ndim == weight.ndim:
        return values
    shape = [1] * weight.ndim
    shape[axis] = -1
    return values.view(shape)


def thinet(weight: Tensor, seen: Seen, rng: torch.Generator) -> Tensor:
    """Greedy removal by the next layers' reconstruction (Luo et al., 1707.06342): a rank of channels."""
    raise Refused('prune.criterion = "thinet" judges channels that others read; expected structure = "coupled"')


# The masks of Zhou et al. (1905.01067), from a weight's first and last values.


def small_final(weight: Tensor, seen: Seen, rng: torch.Generator) -> Tensor:
    return -weight.abs()


def large_init(weight: Tensor, seen: Seen, rng: torch.Generator) -> Tensor:
    return seen["initial"].abs()


def small_init(weight: Tensor, seen: Seen, rng: torch.Generator) -> Tensor:
    return -seen["initial"].abs()


def large_init_large_final(weight: Tensor, seen: Seen, rng: torch.Generator) -> Tensor:
    """Large at both ends; the first values are scaled up to the last ones' size."""
    return torch.minimum(_alpha(weight, seen["initial"]) * seen["initial"].abs(), weight.abs())


def small_init_small_final(weight: Tensor, seen: Seen, rng: torch.Generator) -> Tensor:
    return -torch.maximum(_alpha(weight, seen["initial"]) * seen["initial"].abs(), weight.abs())


def magnitude_increase(weight: Tensor, seen: Seen, rng: torch.Generator) -> Tensor:
    return weight.abs() - seen["initial"].abs()


def distance(weight: Tensor, seen: Seen, rng: torch.Generator) -> Tensor:
    """How far the weight went from where it began (Zhou et al. call it movement)."""
    return (weight - seen["initial"]).abs()


def large_final_same_sign(weight: Tensor, seen: Seen, rng: torch.Generator) -> Tensor:
    """Large weights whose sign training did not turn."""
    return weight * seen["initial"].sign()


def _alpha(weight: Tensor, initial: Tensor) -> Tensor:
    return weight.abs().mean() / initial.abs().mean().clamp_min(1e-12)


BY_LAYER = ("removal",)
FROM_START = ("initial",)
CRITERIA: dict[str, Criterion] = {
    "magnitude": Criterion(magnitude),
    "random": Criterion(random, reduce=drawn),
    "l1": Criterion(magnitude),
    "l2": Criterion(magnitude, reduce=norm),
    "snip": Criterion(snip, ("grad",)),
    "taylor": Criterion(taylor, ("grad",), squared_sum),
    "movement": Criterion(movement, ("movement",)),
    "grasp": Criterion(grasp, ("curved",)),
    "synflow": Criterion(synflow, ("flow",)),
    "activation": Criterion(activation, ("outputs",)),
    "apoz": Criterion(apoz, ("zeros",)),
    "wanda": Criterion(wanda, ("inputs",)),
    "bn_scale": Criterion(bn_scale, ("scale",)),
    "thinet": Criterion(thinet, BY_LAYER),
    "large_final": Criterion(magnitude),
    "small_final": Criterion(small_final),
    "large_init": Criterion(large_init, FROM_START),
    "small_init": Criterion(small_init, FROM_START),
    "large_init_large_final": Criterion(large_init_large_final, FROM_START),
    "small_init_small_final": Criterion(small_init_small_final, FROM_START),
    "magnitude_increase": Criterion(magnitude_increase, FROM_START),
    "distance": Criterion(distance, FROM_START),
    "large_final_same_sign": Criterion(large_final_same_sign, FROM_START),
}
