"""Fewer operations that compute the same: the rules of rules.py, for as long as one of them has something to do.

A tensor that is left over holds what it held before, so that a graph can be compared with what it was made from.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .graph import Graph
from .rules import FOLDED, FUSED, NAMED, SPELT_OUT, Around, Change, Rule


def applied(graph: Graph, rules: tuple[Rule, ...]) -> Graph:
    """A graph after rules that are applied wherever one fits, until none does."""
    graph = replace(graph, tensors=list(graph.tensors))
    place = quiet = 0
    around = Around(graph)
    while quiet < len(graph.ops):
        place %= len(graph.ops)
        op = graph.ops[place]
        change = next((change for rule in rules if (change := rule(op, around))), None)
        if change is None:
            place, quiet = place + 1, quiet + 1
            continue
        graph, place, quiet = changed(graph, place, change), max(0, place - len(change.gone)), 0
        around = Around(graph)
    return graph


def changed(graph: Graph, place: int, change: Change) -> Graph:
    """A graph after one change of the operation at a place."""
    gone = {id(op) for op in change.gone}
    before, after = ([op for op in part if id(op) not in gone] for part in (graph.ops[:place], graph.ops[place + 1 :]))
    ops = [*before, *change.made, *after]
    if change.same:
        ops = [replace(op, inputs=[change.same.get(i, i) for i in op.inputs]) for op in ops]
    return replace(graph, ops=ops, output=change.same.get(graph.output, graph.output))


def alive(graph: Graph) -> Graph:
    """Without operations that nobody reads."""
    needed, ops = {graph.output}, []
    for op in reversed(graph.ops):
        if op.output in needed:
            needed.update(op.inputs)
            ops.append(op)
    return replace(graph, ops=ops[::-1])


def compact(graph: Graph) -> Graph:
    """Tensors numbered in the order in which they are written, without those that nobody writes."""
    written = [graph.input, *(op.output for op in graph.ops)]
    place = {tensor: number for number, tensor in enumerate(written)}
    ops = [replace(op, inputs=[place[i] for i in op.inputs], output=place[op.output]) for op in graph.ops]
    return Graph([graph.tensors[t] for t in written], ops, 0, place[graph.output])


def single(graph: Graph) -> Graph:
    """Numbers of the graph's own, in float32."""
    return replace(graph, ops=[replace(op, weight=float32(op.weight), bias=float32(op.bias)) for op in graph.ops])


def float32(numbers: np.ndarray | None) -> np.ndarray | None:
    return None if numbers is None else np.array(numbers, np.float32) + np.float32(0)


PASSES: tuple[Callable[[Graph], Graph], ...] = (
    alive,
    lambda graph: applied(graph, SPELT_OUT),
    lambda graph: applied(graph, NAMED),
    lambda graph: applied(graph, FOLDED),
    lambda graph: applied(graph, FUSED),
    alive,
)


def fused(graph: Graph) -> Graph:
    """The passes in order, with the tensors as they were."""
    for step in PASSES:
        graph = step(graph)
    return graph


def lower(graph: Graph) -> Graph:
    """The graph that is packed: nothing left that could be folded or fused, in float32."""
    return single(compact(fused(graph)))
