"""Structures: which weights live and die together. A weight [out, in, ...] is laid out as units, and put back."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..spec import Refused, choose

BLOCK = 4


@dataclass(frozen=True)
class Structure:
    """`split` lays a tensor out as [units, weights of a unit], short units filled up; `join` is its inverse."""

    split: Callable[[Tensor], Tensor]
    join: Callable[[Tensor, torch.Size], Tensor]


def sizes(structure: Structure, weight: Tensor) -> Tensor:
    """How many weights each unit has."""
    return structure.split(torch.ones(weight.shape)).sum(1)


def _weights(x: Tensor) -> Tensor:
    return x.reshape(-1, 1)


def _weights_back(units: Tensor, shape: torch.Size) -> Tensor:
    return units.view(shape)


def _filters(x: Tensor) -> Tensor:
    return x.flatten(1)


def _filters_back(units: Tensor, shape: torch.Size) -> Tensor:
    return units.view(-1, *[1] * (len(shape) - 1)).expand(shape).clone()


def _channels(x: Tensor) -> Tensor:
    return x.transpose(0, 1).flatten(1)


def _channels_back(units: Tensor, shape: torch.Size) -> Tensor:
    return units.view(1, -1, *[1] * (len(shape) - 2)).expand(shape).clone()


def _runs(x: Tensor, length: int) -> Tensor:
    """Runs of input channels at one place of one filter; the last run is filled up with zeros."""
    rows = x.movedim(1, -1)
    filled = torch.nn.functional.pad(rows.float(), (0, -x.shape[1] % length))
    return filled.reshape(-1, length)


def _runs_back(units: Tensor, shape: torch.Size, length: int) -> Tensor:
    """From one value a run, or one a weight, to the weight's own order."""
    per = units.view(-1, 1).expand(-1, length) if units.ndim == 1 else units
    rows = per.reshape(shape[0], *shape[2:], -1)[..., : shape[1]]
    return rows.movedim(-1, 1).contiguous()


STRUCTURES: dict[str, Structure] = {
    "weight": Structure(_weights, _weights_back),
    "filter": Structure(_filters, _filters_back),
    "channel": Structure(_channels, _channels_back),
    "1x4": Structure(lambda x: _runs(x, BLOCK), lambda u, shape: _runs_back(u, shape, BLOCK)),
}
"""coupled (channels that several layers share) and N:M are no layouts of one weight: `prune` treats them apart."""
RATIO = re.compile(r"(\d+):(\d+)")


def ratio(structure: str) -> tuple[int, int] | None:
    """N and M of "N:M": of M neighbouring input channels, N are kept; None for the other structures."""
    found = RATIO.fullmatch(structure)
    if not found:
        choose(structure, [*STRUCTURES, "coupled", "2:4"], "prune.structure")
        return None
    n, m = int(found[1]), int(found[2])
    if not 0 < n <= m <= 64:
        raise Refused(
            f'prune.structure = "{structure}" is not allowed; expected N:M with 0 < N <= M <= 64, such as 2:4'
        )
    return n, m


def turned(x: Tensor, groups: int) -> Tensor:
    """[in, out / groups, ...] of a transposed convolution as [out, in / groups, ...] of any other, and back."""
    return x.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


def n_of_m(scores: Tensor, mask: Tensor, n: int, m: int) -> Tensor:
    """The n best of every m input channels, ties to the earlier; a last, shorter run keeps n too if it has them."""
    alive = _runs(mask, m) > 0
    ranked = _runs(scores, m).masked_fill(~alive, -torch.inf)
    order = ranked.argsort(dim=1, descending=True, stable=True)[:, :n]
    kept = torch.zeros_like(alive).scatter_(1, order, True) & alive
    return _runs_back(kept, mask.shape, m)
