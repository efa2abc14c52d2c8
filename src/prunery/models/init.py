"""How the weights of convolutions and linear layers are drawn, by name, from a generator."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from ..masks import PRUNABLE

# Glorot and Bengio 2010, He et al. 2015, LeCun et al. 1998, Saxe et al. 2013; glorot_normal is not truncated.
INITS: dict[str, Callable[..., Any]] = {
    "glorot_normal": nn.init.xavier_normal_,
    "glorot_uniform": nn.init.xavier_uniform_,
    "kaiming_normal": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "kaiming_uniform": partial(nn.init.kaiming_uniform_, nonlinearity="relu"),
    "lecun_normal": partial(nn.init.kaiming_normal_, nonlinearity="linear"),
    "orthogonal": nn.init.orthogonal_,
}


def initialise_(network: nn.Module, init: str, seed: int) -> None:
    """Draw every weight anew and set biases to zero; normalisation keeps what it has; `default` changes nothing."""
    if init == "default":
        return
    generator = torch.Generator().manual_seed(init_seed(seed))
    with torch.no_grad():
        for layer in (m for m in network.modules() if isinstance(m, PRUNABLE)):
            INITS[init](layer.weight, generator=generator)
            if layer.bias is not None:
                layer.bias.zero_()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A place where networks draw their own initial weights from the seed; outside, the random state never notices."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it would reseed the accelerators too, which nobody puts back.
        torch.random.default_generator.manual_seed(init_seed(seed))
        yield


def init_seed(seed: int) -> int:
    """The same on every machine and in every version; unrelated to the seeds of other purposes."""
    return int.from_bytes(hashlib.sha256(f"{seed}:init".encode()).digest()[:8]) >> 1
