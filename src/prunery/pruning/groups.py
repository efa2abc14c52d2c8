"""Channels that must live and die together, as plain data: where each unit lies in each parameter that it touches."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..arguments import a_plain_network, an_example, copied
from ..masks import PRUNABLE, Mask, prunable
from ..spec import Refused
from .graph import Tie, ties
from .surgery import without

Role = Literal["out", "in", "norm", "bias"]
Atom = tuple[str, int]
"""a layer and one of its output channels"""


@dataclass(frozen=True)
class Slice:
    """Where the units lie along one axis of a parameter or buffer: places [units, width]."""

    parameter: str
    axis: int
    places: Tensor
    role: Role


@dataclass(frozen=True)
class Group:
    """Output channels of one or several layers that only go together."""

    name: str
    units: int
    slices: tuple[Slice, ...]
    """empty where channels of a protected group lie unevenly"""
    protected: str = ""
    """why its units may not be removed; empty when they may"""

    @property
    def makers(self) -> list[str]:
        """The weights whose rows the units are."""
        return [s.parameter for s in self.slices if s.role == "out"]


def groups(network: nn.Module, example: Tensor, verify: bool = True) -> list[Group]:
    """All output channels of the network's layers in groups, in the order of the layers.

    What the trace says is tried out: units of each group are removed from a copy with random scales, and a group after
    whose removal the copy computes something else is protected.
    """
    network, example = a_plain_network(network, "groups"), an_example(example, "groups")
    if isinstance(network, PRUNABLE):
        kind = type(network).__name__
        raise Refused(f"groups: the network is itself a layer, {kind}, whose channels are its outputs; expected layers")
    found = _Links(network, ties(network, example)).groups()
    return _verified(network, example, found) if verify else found


def unit_mask(group: Group, keep: Tensor, shapes: dict[str, tuple[int, ...]]) -> Mask:
    """The masks that keep these units of a group: in rows, biases, normalisation and columns that read them."""
    found: Mask = {}
    for part in group.slices:
        if part.parameter in shapes:  # buffers have no masks
            mask = found.setdefault(part.parameter, torch.ones(shapes[part.parameter], dtype=torch.bool))
            mask.index_fill_(part.axis, part.places[~keep].flatten(), False)
    return found


class _Links:
    """Who is tied to whom: a union of channels into units, of units into groups."""

    def __init__(self, network: nn.Module, found: dict[str, list[Tie]]) -> None:
        self.network = network
        self.layers: dict[str, Any] = {
            n.removesuffix(".weight"): network.get_submodule(n.rpartition(".")[0]) for n in prunable(network)
        }
        self.parent: dict[Atom, Atom] = {}
        self.reads: dict[str, list[tuple[Atom, int]]] = defaultdict(list)
        self.norms: dict[str, list[tuple[Atom, int]]] = defaultdict(list)
        self.bans: dict[Atom, str] = {}
        for root, reached in found.items():
            for tie in reached:
                self._take(root, tie)
        self._even()

    def top(self, atom: Atom) -> Atom:
        while (up := self.parent.setdefault(atom, atom)) != atom:
            self.parent[atom] = self.parent[up]
            atom = up
        return atom

    def union(self, a: Atom, b: Atom) -> None:
        self.parent[self.top(a)] = self.top(b)

    def _take(self, root: str, tie: Tie) -> None:
        size = self._size(tie)
        for r, i in tie.pairs:
            atom = (root, r)
            if tie.kind == "other":
                read = tie.what == "the network's outputs"
                self.bans[atom] = f"{tie.what} read them" if read else f"{tie.what} works on them"
            elif tie.kind != "norm" and tie.module not in self.layers:
                plain = self.network.get_submodule(tie.module)._parameters.get("weight") is not None
                self.bans[atom] = f"{tie.module} shares its weight" if plain else f"{tie.module} is parametrised"
            elif i >= size:  # as behind a broadcast: one channel meets many
                self.bans[atom] = f"{tie.module} takes them in another way than channel by channel"
            elif tie.kind == "out":
                self.union(atom, (tie.module, i))
            else:
                (self.reads if tie.kind == "in" else self.norms)[tie.module].append((atom, i))

    def _size(self, tie: Tie) -> int:
        """How many channels there are on that side of the module."""
        if tie.kind == "norm":
            norm: Any = self.network.get_submodule(tie.module)
            return norm.num_parameters if isinstance(norm, nn.PReLU) else norm.num_features
        if (layer := self.layers.get(tie.module)) is None:
            return 0
        return len(_rows(layer) if tie.kind == "out" else _columns(layer))

    def _even(self) -> None:
        """A convolution in groups keeps them equal: the same place in each is one unit, of inputs and of outputs."""
        for name, layer in self.layers.items():
            count = getattr(layer, "groups", 1)
            if count > 1 and not _depthwise(layer):
                wide = layer.out_channels // count
                for i in range(layer.out_channels):
                    self.union((name, i), (name, i % wide))
                first: dict[int, Atom] = {}
                for atom, i in self.reads[name]:
                    place = i % (layer.in_channels // count)
                    self.union(atom, first.setdefault(place, atom))

    def groups(self) -> list[Group]:
        """Units are sets of channels; a group is all units of layers that share one."""
        units: dict[Atom, list[Atom]] = defaultdict(list)
        for name, layer in self.layers.items():
            for i in range(len(_rows(layer))):
                units[self.top((name, i))].append((name, i))
        rank = {name: i for i, name in enumerate(self.layers)}
        first: dict[str, str] = {n: n for n in self.layers}

        def top(name: str) -> str:
            while first[name] != name:
                name = first[name]
            return name

        for atoms in units.values():
            for name in dict.fromkeys(name for name, _ in atoms[1:]):
                a, b = sorted((top(name), top(atoms[0][0])), key=rank.__getitem__)
                first[b] = a
        found: dict[str, list[Atom]] = defaultdict(list)
        for head in units:
            found[top(units[head][0][0])].append(head)
        bans = {self.top(atom): why for atom, why in self.bans.items()}
        return [
            self._group(name, sorted(heads, key=lambda h: units[h][0][1]), units, bans) for name, heads in found.items()
        ]

    def _group(self, name: str, heads: list[Atom], units: dict[Atom, list[Atom]], bans: dict[Atom, str]) -> Group:
        index = {atom: u for u, head in enumerate(heads) for atom in (*units[head], head)}
        ban = next((bans[head] for head in heads if head in bans), "")
        try:
            return Group(name, len(heads), tuple(self._slices(index, heads)), ban)
        except ValueError as error:
            return Group(name, len(heads), (), ban or str(error))

    def _slices(self, index: dict[Atom, int], heads: list[Atom]) -> list[Slice]:
        where: dict[tuple[str, int, Role], list[list[int]]] = defaultdict(lambda: [[] for _ in heads])
        for (name, i), u in index.items():
            if (layer := self.layers.get(name)) is not None:
                axis = _axis(layer, "out")
                where[f"{name}.weight", axis, "out"][u].append(i % layer.weight.shape[axis])
                if layer.bias is not None:
                    where[f"{name}.bias", 0, "bias"][u].append(i)
        for name, i, u in self._met(self.reads, index):
            axis = _axis(self.layers[name], "in")
            where[f"{name}.weight", axis, "in"][u].append(i % self.layers[name].weight.shape[axis])
        for name, i, u in self._met(self.norms, index):
            for leaf in ("weight", "bias", "running_mean", "running_var"):
                if getattr(self.network.get_submodule(name), leaf, None) is not None:
                    where[f"{name}.{leaf}", 0, "norm"][u].append(i)
        return [Slice(p, axis, _table(p, rows), role) for (p, axis, role), rows in where.items()]

    def _met(self, met: dict[str, list[tuple[Atom, int]]], index: dict[Atom, int]) -> Iterator[tuple[str, int, int]]:
        """(module, index there, unit) where units of a group are read or normalised."""
        for name, pairs in met.items():
            for atom, i in pairs:
                u = index.get(self.top(atom))
                if u is not None:
                    yield name, i, u


def _table(parameter: str, rows: list[list[int]]) -> Tensor:
    """Each unit's places, sorted; as many for each."""
    unique = [sorted(set(r)) for r in rows]
    if len({len(r) for r in unique}) != 1:
        raise ValueError(f"its channels lie unevenly in {parameter}")
    return torch.tensor(unique, dtype=torch.int64)


def _rows(layer: Any) -> range:
    return range(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


def _columns(layer: Any) -> range:
    return range(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)


def _transposed(layer: Any) -> bool:
    return isinstance(layer, nn.modules.conv._ConvTransposeNd)


def _depthwise(layer: Any) -> bool:
    return not isinstance(layer, nn.Linear) and layer.groups == layer.out_channels == layer.in_channels


def _axis(layer: Any, role: str) -> int:
    """Where a weight's output (or input) channels are; those of a depthwise convolution are the same."""
    return 0 if _depthwise(layer) else int((role == "in") != _transposed(layer))


TRIED = "removing its channels changes what the network computes"


def _verified(network: nn.Module, example: Tensor, found: list[Group]) -> list[Group]:
    """Groups whose removal, tried out, is no removal of zeros are protected."""
    twin = _restless(network)
    x = torch.randn((1, *example.shape[1:]), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    free = [g for g in found if not g.protected and g.units > 1]
    if free:
        _all_used(twin, x)
    reasons = _guilty(twin, x, free)
    return [
        replace(g, protected=g.protected or ("it has one channel" if g.units == 1 else reasons.get(g.name, "")))
        for g in found
    ]


def _restless(network: nn.Module) -> nn.Module:
    """A copy in doubles in which nothing is zero and no scale is one, so that nothing cancels by chance."""
    twin = copied(network, "prune").cpu().double().eval()
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in (p for p in twin.parameters() if p.is_floating_point()):
            drawn = torch.rand(p.shape, generator=rng, dtype=torch.float64) * 0.5 + 0.25
            if p.ndim <= 1:
                p.copy_(drawn)
            else:
                size = float(p.square().mean().sqrt()) or 1.0
                p.copy_(torch.where(p == 0, drawn * size, p))
    return twin


def _all_used(twin: nn.Module, x: Tensor) -> None:
    """Refuses a network with layers that its outputs do not depend on: nobody can tell whose channels they read."""
    for p in twin.parameters():
        p.requires_grad_(p.is_floating_point())
    with torch.enable_grad():
        ends = [t.grad_fn for t in tree_leaves(twin(x)) if isinstance(t, Tensor) and t.grad_fn]
    used, seen, ahead = set[int](), set[Any](), list[Any](ends)
    while ahead:
        node = ahead.pop()
        if node not in seen:
            seen.add(node)
            used.add(id(getattr(node, "variable", None)))
            ahead += [before for before, _ in node.next_functions if before]
    named = dict(twin.named_parameters())
    idle = [n.removesuffix(".weight") for n in prunable(twin) if id(named[n]) not in used]
    if ends and idle:
        raise Refused(
            f"{idle[0]} has no part in what the network computes in evaluation mode (an auxiliary head, or a branch "
            "not taken), so nobody can tell whose channels it reads; take it out, or put nn.Identity() in its place"
        )


def _guilty(twin: nn.Module, x: Tensor, suspects: Sequence[Group]) -> dict[str, str]:
    """Those of the suspects that must not go, by halving."""
    if not suspects or not (why := _differs(twin, x, suspects)):
        return {}
    if len(suspects) == 1:
        return {suspects[0].name: why}
    half = len(suspects) // 2
    first, second = _guilty(twin, x, suspects[:half]), _guilty(twin, x, suspects[half:])
    if not first and not second:  # each half is innocent and both together are not: none is let go
        return {g.name: TRIED for g in suspects}
    return first | second


def _some(units: int) -> Tensor:
    """Half of the units or one less, in no order: what needs pairs, or the same of each half, must not pass."""
    order = torch.randperm(units, generator=torch.Generator().manual_seed(units))
    return order >= max(units // 2 - (units // 2) % 2, 1) - (units > 5)


def _differs(twin: nn.Module, x: Tensor, tried: Sequence[Group]) -> str:
    """Why half of these groups' units cannot be removed; empty when they can."""
    keeps = {g.name: _some(g.units) for g in tried}
    named = dict(twin.named_parameters())
    shapes = {n: tuple(p.shape) for n, p in named.items()}
    masked: dict[str, Tensor] = {}
    for g in tried:
        for n, m in unit_mask(g, keeps[g.name], shapes).items():
            masked[n] = masked.get(n, named[n].detach()) * m
    with torch.no_grad():
        want = tree_leaves(torch.func.functional_call(twin, masked, (x,)))
        try:
            got = tree_leaves(without(twin, list(tried), keeps)(x))
        except Exception as error:  # a network that has its shapes in its code fails in its own way
            return f"the network's own code counts on all of them ({' '.join(str(error).split())[:80]})"
    if [t.shape for t in want] != [t.shape for t in got]:
        return "they are the network's outputs"
    close = (float((a - b).abs().max()) <= 1e-9 * float(a.abs().max()) for a, b in zip(want, got, strict=True))
    return "" if all(close) else TRIED
