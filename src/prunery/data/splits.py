"""Which images are held out, the same on every machine."""

import torch
from torch import Tensor

from ..spec import Data, Refused
from .sets import Images


def hold_out(train: Images, spec: Data, own: int | None) -> tuple[Images, Images]:
    """Training and validation images, as `random_split` with a generator of `split_seed` chooses them."""
    n, held = len(train), held_out(len(train), spec, own)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(spec.split_seed))
    return train.at(order[: n - held]), train.at(order[n - held :])


def held_out(n: int, spec: Data, own: int | None) -> int:
    """What the spec says, else the set's own number, else a tenth."""
    held = spec.validation if spec.validation is not None else n // 10 if own is None else own
    if held >= n:
        raise Refused(f"data.validation = {held} leaves nothing of the {n} training images of {spec.name}; give less")
    return held


def fifth(y: Tensor) -> Tensor:
    """True for the fixed fifth of each class that tests, in sets that have no published test images."""
    test = torch.zeros(len(y), dtype=torch.bool)
    for label in y.unique():
        mine = (y == label).nonzero()[:, 0]
        order = torch.randperm(len(mine), generator=torch.Generator().manual_seed(int(label)))
        test[mine[order[: _share(len(mine))]]] = True
    return test


def _share(n: int) -> int:
    """At least one to test, at least one to train."""
    return min(max(round(n / 5), 1), n - 1)
