"""Layers that do not learn, and from which epoch on they do. Nothing of it is state: the epoch says it all.

A frozen layer is frozen whole. Its parameters get no gradient, so no optimiser touches them (nor decays them), and its
normalisations compute as in evaluation, so that their running statistics stay to the bit. Dropout goes on as ever.
What is frozen to the end is never handed to the optimiser; what thaws on the way begins with fresh moments.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from torch import nn

from ..models import block_names
from ..spec import Refused, Train, thaw

NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
"""normalisations that keep statistics"""


def hits(name: str, pattern: str) -> bool:
    """A pattern may mean a parameter or any module that it lies in."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[: i + 1]), pattern) for i in range(len(parts)))


class Freezing:
    """What of a network is frozen at each epoch."""

    def __init__(self, network: nn.Module, spec: Train) -> None:
        self.network, self.spec = network, spec
        self.wanted = {n for n, p in network.named_parameters() if p.requires_grad}
        self.names = [n for n, _ in _tensors(network)]
        self.depth = _places(network, self.names) if spec.freeze_blocks else {}
        self.thaws = [thaw(entry) for entry in spec.unfreeze]
        self.epochs = self._changes()
        _known((*spec.freeze, *(pattern for _, pattern in self.thaws)), self.names)
        found = max(self.depth.values(), default=-1) + 1
        if spec.freeze_blocks > found:
            seen = f"train.freeze_blocks = {spec.freeze_blocks} is more than the network has"
            raise Refused(f"{seen}; expected at most {found}, the number of its blocks")

        if all(n in self.at(0.0) for n in self.wanted):
            raise Refused("train.freeze leaves no weight to train at first; expected fewer layers, or 0=LAYER to thaw")

    def at(self, epoch: float) -> set[str]:
        """Names of the frozen parameters and buffers."""
        thawed = [pattern for begins, pattern in self.thaws if begins <= epoch + 1e-9]
        return {n for n in self.names if self._frozen(n, epoch) and not any(hits(n, p) for p in thawed)}

    def _frozen(self, name: str, epoch: float) -> bool:
        return any(hits(name, p) for p in self.spec.freeze) or self.depth.get(name, math.inf) < self._blocks(epoch)

    def _blocks(self, epoch: float) -> int:
        """Blocks that are frozen: one fewer each time."""
        every = self.spec.unfreeze_every
        return max(0, self.spec.freeze_blocks - (math.floor(epoch / every + 1e-9) if every else 0))

    def _changes(self) -> list[float]:
        """Epochs at which something thaws, 0 first."""
        every = self.spec.unfreeze_every
        blocks_ = [i * every for i in range(1, self.spec.freeze_blocks + 1)] if every else []
        return sorted({0.0, *blocks_, *(epoch for epoch, _ in self.thaws)})

    def stage(self, epoch: float) -> int:
        """How many changes there have been."""
        return bisect_right(self.epochs, epoch + 1e-9)

    def set_(self, epoch: float) -> None:
        """Freeze what is to be frozen; what never wanted gradients does not begin to."""
        frozen = self.at(epoch)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name in self.wanted and name not in frozen)
        for name, module in self.network.named_modules():
            if isinstance(module, NORMS):
                module.train(not _still(name, module, frozen))

    def release_(self) -> None:
        """Everything as it was: the network is its owner's again."""
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name in self.wanted)


def _still(name: str, module: nn.Module, frozen: set[str]) -> bool:
    """A normalisation is frozen with all that is its own."""
    own = [n for n, _ in _tensors(module)]
    return bool(own) and all((f"{name}.{n}" if name else n) in frozen for n in own)


def _tensors(network: nn.Module) -> Iterator[tuple[str, object]]:
    yield from network.named_parameters()
    yield from network.named_buffers()


def _places(network: nn.Module, names: list[str]) -> dict[str, int]:
    """The number of the block that each tensor lies in; those of no block are never frozen by depth."""
    order = block_names(network)
    return {n: i for n in names for i, block in enumerate(order) if n.startswith(f"{block}.")}


def _known(patterns: Iterable[str], names: list[str]) -> None:
    for pattern in patterns:
        if not any(hits(n, pattern) for n in names):
            layers = ", ".join(dict.fromkeys(n.rpartition(".")[0] for n in names))
            raise Refused(f'train.freeze: "{pattern}" meets no layer; the layers are {layers[:600]}')
