"""A network's blocks in order, one level above layers. Freezing by depth and profiles count them."""

from collections.abc import Iterator

from torch import nn

LISTS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
MOST = 0.5
"""share of the network's parameters above which a module is looked into: it is the network's trunk, not a block"""


def block_names(network: nn.Module) -> list[str]:
    """Names of modules that share no parameter of their own, in the order in which the network lists them.

    The network is looked into, and so are its lists of several blocks (a stage) or of several layers with weights (a
    plain stack), and whatever holds more than half of all parameters; everything else is a block. Modules without
    parameters, such as a pooling layer, are blocks of their own where they stand between others.
    """
    whole = _size(network)
    found = list(_within(network, "", whole))
    return found or [""]


def _within(module: nn.Module, prefix: str, whole: int) -> Iterator[str]:
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if _opened(child, whole):
            yield from _within(child, f"{path}.", whole)
        else:
            yield path


def _opened(module: nn.Module, whole: int) -> bool:
    children = list(module.children())
    if not children:
        return False
    several = sum(bool(_size(c)) for c in children) > 1 or any(any(True for _ in c.children()) for c in children)
    # A subclass of a list, such as a convolution with its normalisation, is somebody's block.
    return several and (type(module) in LISTS or _size(module) > MOST * whole)


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
