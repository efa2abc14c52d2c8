"""Layers by what they do, so that a setting can say `kind:depthwise` where a name would have to be known."""

import re
from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from ..masks import prunable
from ..spec import Prune, Refused, choose

PREFIX = "kind:"
KINDS = {
    "stem": "the first layer that the network's class makes, which reads pixels",
    "head": "the last layer that it makes",
    "depthwise": "convolutions with one filter a channel",
    "pointwise": "1x1 convolutions that mix the channels of every pixel",
    "squeeze": "layers of squeeze-and-excitation, which see one pixel",
}
SQUEEZE = re.compile(r"squeeze_?(and_?)?excit|^(effective)?se(module|block|layer)?$", re.IGNORECASE)
"""classes of squeeze-and-excitation as torchvision, timm and most others call them; FireModule's squeeze is none"""


def by_kind(network: nn.Module, how: Prune) -> Prune:
    """The same request with the names of layers in place of kinds."""
    patterns = [*how.exclude, *how.layers, *how.table]
    if not any(p.startswith(PREFIX) for p in patterns):
        return how
    found = kinds(network)
    exclude = tuple(n for p in how.exclude for n in _named(p, found, "exclude"))
    left = {n.removesuffix(".weight") for n in prunable(network, exclude)}
    open_ = {kind: [n for n in names if n in left] for kind, names in found.items()}
    layers = tuple(n for p in how.layers for n in _named(p, open_, "layers"))
    entries = (entry.rpartition("=") for entry in how.table)
    table = tuple(f"{n}={density}" for p, _, density in entries for n in _named(p, open_, "table"))
    return replace(how, exclude=exclude, layers=layers, table=table)


def _named(pattern: str, found: dict[str, list[str]], key: str) -> list[str]:
    """The layers of a kind; anything else as it is."""
    if not pattern.startswith(PREFIX):
        return [pattern]
    kind = choose(pattern.removeprefix(PREFIX), KINDS, f"prune.{key}: a kind of layer")
    if not found[kind]:
        raise Refused(f'prune.{key} = "{pattern}" meets no layer here ({KINDS[kind]})')
    return found[kind]


def kinds(network: nn.Module) -> dict[str, list[str]]:
    """Names of the prunable layers of each kind; a layer may be of several, or of none."""
    names = [n.removesuffix("weight").removesuffix(".") for n in prunable(network)]
    found: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for name in names:
        for kind in _of(network, name):
            found[kind].append(name)
    return found | {"stem": names[:1], "head": names[-1:]}


def _of(network: nn.Module, name: str) -> Iterator[str]:
    layer = network.get_submodule(name)
    squeezes = any(SQUEEZE.search(type(m).__name__) for m in _around(network, name))
    if squeezes:
        yield "squeeze"
    if isinstance(layer, nn.modules.conv._ConvNd):
        if layer.groups == layer.in_channels > 1:
            yield "depthwise"
        elif layer.groups == 1 and set(layer.kernel_size) == {1} and not squeezes:
            yield "pointwise"


def _around(network: nn.Module, name: str) -> Iterator[nn.Module]:
    """The modules that a layer lies in, the network left out."""
    parts = name.split(".")
    yield from (network.get_submodule(".".join(parts[:i])) for i in range(1, len(parts)))
