"""Chains grown into a tree: steps of the same name are the same step, and are made once."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from ..chain import Place, filled, preflight
from ..runs import Runs
from ..spec import Node, Recipe, Refused, Reset, Train
from .plan import Point, Sweep


@dataclass(frozen=True)
class Chain:
    """A combination of settings, and its steps by label."""

    point: Point
    seed: int | None
    nodes: dict[str, Node]
    ends: tuple[str, ...]
    """labels that no other step goes on from"""

    def settings(self) -> dict[str, Any]:
        return self.point | ({"seed": self.seed} if self.seed is not None else {})


@dataclass(frozen=True)
class Tree:
    """All chains; each distinct step once, parents first, with the steps that it cannot begin without."""

    chains: list[Chain]
    nodes: dict[str, Node]
    needs: dict[str, set[str]]

    @property
    def asked(self) -> int:
        """Steps of all chains, shared ones as often as they are asked for."""
        return sum(len(c.nodes) for c in self.chains)

    def there(self, runs: Runs) -> set[str]:
        """Steps that need not be made."""
        return runs.there(self.nodes)

    def labels(self) -> dict[str, str]:
        """A label for each step: the recipe's, with the settings that all chains through it have in common."""
        common: dict[str, tuple[str, dict[str, Any]]] = {}
        for chain in self.chains:
            for label, node in chain.nodes.items():
                told, settings = common.get(node.name, (label, chain.settings()))
                shared = {k: v for k, v in settings.items() if chain.settings().get(k) == v}
                common[node.name] = told, shared
        words = {n: " ".join([label, *(f"{k}={v}" for k, v in s.items())]) for n, (label, s) in common.items()}
        counts = list(words.values())
        return {n: w if counts.count(w) == 1 else f"{w} {n}" for n, w in words.items()}


def grown(sweep: Sweep, place: Place) -> Tree:
    """The tree of a sweep; a combination that cannot be carried out is refused, with its settings."""
    chains: list[Chain] = []
    for point in sweep.points():
        for seed in sweep.seeds or (None,):
            recipe = _checked(sweep, point, seed, place)
            goes_on = {stage.after for stage in recipe.stages}
            ends = tuple(s.label for s in recipe.stages if s.label not in goes_on)
            chains.append(Chain(point, seed, recipe.nodes(), ends))
    nodes = {node.name: node for chain in chains for node in chain.nodes.values()}
    return Tree(chains, nodes, {name: _needs(node) & nodes.keys() for name, node in nodes.items()})


def _checked(sweep: Sweep, point: Point, seed: int | None, place: Place) -> Recipe:
    try:
        recipe = filled(sweep.made(point, seed), place)
        preflight(recipe, place)
    except Refused as error:
        words = " ".join(f"{k}={v}" for k, v in point.items())
        raise Refused(f"{error} (with {words})" if words else str(error)) from None
    return recipe


def _needs(node: Node) -> set[str]:
    """The steps that must be there before this one: the one before it, its teacher, the one that it goes back to."""
    spec, parent = node.spec, {node.parent.name} if node.parent else set()
    return parent | ({spec.teacher} if isinstance(spec, Train) else {spec.to} if isinstance(spec, Reset) else set())


def heights(tree: Tree) -> dict[str, int]:
    """How many steps wait behind each, one after the other: those with many go first."""
    behind = defaultdict(set)
    for name, needs in tree.needs.items():
        for needed in needs:
            behind[needed].add(name)
    found: dict[str, int] = {}
    for name in reversed(tree.nodes):
        found[name] = 1 + max((found.get(n, 0) for n in behind[name]), default=0)
    return found
