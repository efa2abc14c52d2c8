"""What a sweep will cost, from what like steps have cost here: seconds of a step, or of an epoch of training."""

from collections import defaultdict
from collections.abc import Iterable
from statistics import median
from typing import Any

from ..runs import Runs, Step
from ..spec import Init, Node, Refused, Train
from .tree import Tree

Alike = tuple[Any, ...]


class Cost:
    """Rates of like steps: those of the same kind, network and data; of training also of the same batch."""

    def __init__(self, runs: Runs) -> None:
        self.rates: dict[Alike, list[float]] = defaultdict(list)
        firsts: dict[str, Init | None] = {}
        for step in runs.steps():  # the oldest first: a parent comes before its children
            try:
                parent = step.env.get("parent")
                firsts[step.name] = first = firsts.get(parent) if parent else _first(step)
                if first:
                    self._learn(Node(step.spec, Node(first)), float(step.env["seconds"]))
            except (Refused, KeyError, TypeError, ValueError):
                continue  # its seconds are not known

    def learn(self, node: Node, seconds: float) -> None:
        """A step has been made."""
        self._learn(node, seconds)

    def _learn(self, node: Node, seconds: float) -> None:
        if amount := _amount(node):
            self.rates[_alike(node)].append(seconds / amount)

    def of(self, node: Node) -> float | None:
        """Seconds; None where no like step is known."""
        rates = self.rates.get(_alike(node))
        return median(rates) * _amount(node) if rates else None


def _first(step: Step) -> Init | None:
    return step.spec if isinstance(step.spec, Init) else None


def _amount(node: Node) -> float:
    """What the time of a step grows with."""
    spec = node.spec
    if not isinstance(spec, Train):
        return 1.0
    return spec.epochs if spec.steps is None else float(spec.steps)


def _alike(node: Node) -> Alike:
    first, spec = node.chain()[0].spec, node.spec
    model = (first.model.name, first.model.widths) if isinstance(first, Init) else ()
    data = spec.data.name if hasattr(spec, "data") else ""
    training = (spec.batch, spec.steps is None) if isinstance(spec, Train) else ()
    return (spec.kind, *model, data, *training)


def total(cost: Cost, tree: Tree, names: Iterable[str], workers: int) -> dict[str, Any]:
    """Seconds of these steps by themselves, and with so many workers; and how many steps nothing is known of."""
    seconds = {name: cost.of(tree.nodes[name]) for name in names}
    known = {name: s for name, s in seconds.items() if s is not None}
    ends: dict[str, float] = {}
    for name in (n for n in tree.nodes if n in seconds):  # parents first
        ends[name] = known.get(name, 0.0) + max((ends.get(p, 0.0) for p in tree.needs[name]), default=0.0)
    alone = sum(known.values())
    longest = max(ends.values(), default=0.0)
    wall = max(alone / workers, longest)
    return {
        "seconds": round(alone, 1), "wall_seconds": round(wall, 1), "known": len(known),
        "unknown": len(seconds) - len(known), "longest_chain_seconds": round(longest, 1),
    }  # fmt: skip
