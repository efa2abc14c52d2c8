"""A graph with quantisers of its own -> bytes at the steps that it has learned: docs/format.md, "Quantised arithmetic".

What a quantised layer reads is rounded with the layer's own step and held within its own bounds. Bytes end at 0 and at
255, so numbers of fewer bits are held at the top by a zero point of 255 - top, and at the bottom by a relu, or by
another zero point in a pool of single pixels. A layer writes bytes as well: at the step of those who read it where
they agree; otherwise, as with residual sums, at the coarsest step of eight bits among its readers, or, where there is
none, with a scale and zero point that typical images decide.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor as Images

from ..spec import Refused
from .calibrate import ENDINGS, TIED, Seen, grid, least_error, watched
from .check import LEAST_SCALE, MOST_SCALE
from .graph import Graph, Op, Rounding, Tensor
from .rules import LAYERS

MOST_BIAS = 2.0**30
POSITIVE = ("relu", "relu6", "sigmoid", "hard_sigmoid")
"""activations that give nothing below zero"""
PASSING = (*TIED, "avg_pool", "global_pool")
"""operations that make nothing negative of what is not"""


def has_steps(graph: Graph) -> bool:
    """Whether anything in a graph is rounded with a step of its own."""
    return any(op.kind == "rounded" for op in graph.ops)


def in_learned_bytes(graph: Graph, batches: Iterable[Images] | None) -> Graph:
    """The graph in bytes wherever its layers are quantised, at their own steps; the rest stays in floats."""
    for op in graph.ops:
        if op.rounding and op.rounding.binary:
            seen = f"pack: {op.name} reads one bit with a sign, for which the engine has no operation"
            raise Refused(f"{seen}; use two bits of inputs")
    graph = apart(graph)
    homes = Homes(graph)
    return Builder(graph, homes, homes.found(batches)).built()


def apart(graph: Graph) -> Graph:
    """The graph with residuals and activations that bytes lack in operations behind their layers."""
    graph = replace(graph, tensors=list(graph.tensors))
    ops, native = list[Op](), set[int]()
    for op in graph.ops:
        last = op
        if op.scales is not None and len(op.inputs) > 1 and (op.kind == "linear" or op.inputs[1] not in native):
            between = graph.tensor(replace(graph.tensors[op.output]))
            ops.append(replace(op, inputs=op.inputs[:1], output=between, activation="none", slope=0.0))
            last = Op("add", op.name, [between, op.inputs[1]], op.output, activation=op.activation, slope=op.slope)
        elif op.scales is not None and op.activation not in ENDINGS:
            between = graph.tensor(replace(graph.tensors[op.output]))
            ops.append(replace(op, output=between, activation="none", slope=0.0))
            last = Op("activate", op.name, [between], op.output, activation=op.activation, slope=op.slope)
        ops.append(last)
        if (last.kind == "conv" and last.scales is not None) or of_bytes(last, native):
            native.add(last.output)
    return replace(graph, ops=ops)


def of_bytes(op: Op, native: set[int]) -> bool:
    """Whether an operation without weights computes in bytes because all that it reads is in bytes."""
    return op.kind in (*TIED, "add") and op.activation in ENDINGS and native.issuperset(op.inputs)


# ---- where tensors of bytes have their scale from


@dataclass(frozen=True)
class Home:
    """Scale and zero point of a tensor as it is written."""

    scale: float
    zero: int
    floor: bool = False
    """whether nothing below zero is to be kept, because nobody reads it"""


class Homes:
    """Which tensors are written as bytes, those that share a scale, and who reads them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.makers = {op.output: op for op in graph.ops}
        self.readers: dict[int, list[Op]] = {t: [] for t in [graph.input, *self.makers]}
        for op in graph.ops:
            for i in op.inputs:
                self.readers[i].append(op)
        self.native = set[int]()
        for op in graph.ops:
            if self.is_native(op):
                self.native.add(op.output)
        self.root = self.tied()

    def is_native(self, op: Op) -> bool:
        """Whether an operation writes bytes: linear layers and means only where all who read them want the same."""
        if op.kind == "linear" or op.kind == "avg_pool":
            computes = op.scales is not None if op.kind == "linear" else op.inputs[0] in self.native
            return computes and self.agreed([op.output]) is not None
        return (op.kind == "conv" and op.scales is not None) or of_bytes(op, self.native)

    def tied(self) -> dict[int, int]:
        """For each tensor of bytes one of those that must have its scale."""
        root = {t: t for t in self.native}

        def of(t: int) -> int:
            while root[t] != t:
                t = root[t]
            return t

        for op in self.graph.ops:
            if op.kind in TIED and op.output in self.native:
                for i in op.inputs:
                    root[of(i)] = of(op.output)
        return {t: of(t) for t in root}

    def groups(self) -> Iterator[list[int]]:
        for root in dict.fromkeys(self.root.values()):
            yield [t for t in self.root if self.root[t] == root]

    def wanted(self, group: list[int]) -> list[Rounding | None]:
        """How those who read a group round it; None: they read it as it is."""
        found = [op.rounding for t in group for op in self.readers[t] if op.kind not in TIED or op.output not in group]
        return [*found, None] if self.graph.output in group else found

    def agreed(self, group: list[int]) -> Rounding | None:
        """How all round it, if they agree."""
        wanted = set(self.wanted(group))
        return wanted.pop() if len(wanted) == 1 else None

    def found(self, batches: Iterable[Images] | None) -> dict[int, Home]:
        """A home for each tensor of bytes; typical images are looked at only if one is needed that nobody learned."""
        homes, left = dict[int, Home](), list[list[int]]()
        for group in self.groups():
            home = self.learned(group)
            homes |= dict.fromkeys(group, home) if home else {}
            left += [] if home else [group]
        if not left:
            return homes
        if batches is None:
            seen = f"pack: the results of {self.makers[left[0][0]].name} have no step of eight bits that was learned"
            raise Refused(f"{seen}; give typical inputs to find one: calibration=[images], or --data NAME")
        watching = watched(self.graph, batches)
        for group in left:
            homes |= dict.fromkeys(group, calibrated([watching[t] for t in group]))
        return homes

    def learned(self, group: list[int]) -> Home | None:
        """The step of those who read it."""
        if one := self.agreed(group):
            kept = all(self.makers[t].kind in (*LAYERS, *TIED, "add") for t in group)
            return Home(one.step, 255 - one.high, floor=kept and one.low == 0)
        positive = all(self.is_positive(t) for t in group)
        whole = [r for r in self.wanted(group) if r and r.high - r.low == 255 and (positive or r.low < 0)]
        best = max(whole, key=lambda r: r.step * r.high, default=None)
        return Home(best.step, 255 - best.high) if best else None

    def is_positive(self, tensor: int) -> bool:
        """Whether nothing in it can be below zero."""
        op = self.makers.get(tensor)
        if op is None or op.activation in POSITIVE or op.kind == "softmax":
            return op is not None
        return op.kind in PASSING and all(self.is_positive(i) for i in op.inputs)


def calibrated(seen: list[Seen]) -> Home:
    """The range that is off the least on what was seen."""
    sample = np.concatenate([part for s in seen for part in s.sample])
    return Home(*grid(*least_error(min(s.low for s in seen), max(s.high for s in seen), sample)))


# ---- the graph anew


@dataclass
class Builder:
    """The new graph as far as it is built, and where each tensor of the old one is, in each form that was needed."""

    old: Graph
    homes_of: Homes
    homes: dict[int, Home]
    new: Graph = field(default_factory=Graph)
    floats: dict[int, int] = field(default_factory=dict)
    bytes: dict[int, int] = field(default_factory=dict)
    """as they are written"""
    rounds: dict[tuple[int, Rounding], int] = field(default_factory=dict)
    """as quantised layers read them"""

    def built(self) -> Graph:
        self.new.input = self.floats[self.old.input] = self.new.tensor(replace(self.old.tensors[self.old.input]))
        for op in self.old.ops:
            if op.kind != "rounded" and not self.is_rounded(op.output):
                self.emit(op)
        self.new.output = self.as_floats(self.old.output)
        return self.new

    def op(self, kind: str, like: Op, inputs: list[int], old: int, home: Home | None = None, **more: object) -> int:
        """A new operation; the tensor that it writes."""
        shape = self.old.tensors[old].shape
        made = Tensor(*shape, "u8", float(np.float32(home.scale)), home.zero) if home else Tensor(*shape)
        output = self.new.tensor(made)
        self.new.ops.append(replace(like, kind=kind, inputs=inputs, output=output, **more))  # type: ignore[arg-type]
        return output

    def named(self, old: int) -> Op:
        """An operation without settings, by the name of who makes a tensor."""
        maker = self.homes_of.makers.get(old)
        return Op("", maker.name if maker else "input", [], 0)

    # -- forms

    def as_floats(self, old: int) -> int:
        if old not in self.floats:
            self.floats[old] = self.op("dequantize", self.named(old), [self.bytes[old]], old)
        return self.floats[old]

    def is_rounded(self, old: int) -> bool:
        """Whether a tensor is what a quantised layer reads: whole numbers, perhaps as a vector."""
        op = self.homes_of.makers.get(old)
        return op is not None and (op.kind == "rounded" or (op.kind == "flatten" and self.is_rounded(op.inputs[0])))

    def as_rounded(self, old: int) -> tuple[int, Rounding]:
        """The bytes that a quantised layer reads."""
        op = self.homes_of.makers[old]
        if op.rounding:
            return self.rounded(op.inputs[0], op), op.rounding
        inner, rounding = self.as_rounded(op.inputs[0])
        if (old, rounding) not in self.rounds:
            t = self.new.tensors[inner]
            self.rounds[old, rounding] = self.op("flatten", op, [inner], old, Home(t.scale, t.zero))
        return self.rounds[old, rounding], rounding

    def rounded(self, old: int, op: Op) -> int:
        """A tensor at a layer's step and within its bounds: the top first, then the bottom."""
        r = op.rounding
        assert r is not None
        if (old, r) in self.rounds:
            return self.rounds[old, r]
        like, home = Op("", op.name, [], 0), self.homes.get(old)
        top, is_low = Home(r.step, 255 - r.high), self.homes_of.is_positive(old)
        if home is None:
            made = self.op("quantize", like, [self.floats[old]], old, top)
        elif (home.scale, home.zero) == (top.scale, top.zero):
            made, is_low = self.bytes[old], home.floor or is_low
        else:
            made = self.op("avg_pool", like, [self.bytes[old]], old, top)
        if -top.zero < r.low and not (r.low == 0 and is_low):
            made = self.op("avg_pool", like, [made], old, Home(r.step, -r.low))
        self.rounds[old, r] = made
        return made

    # -- operations

    def emit(self, op: Op) -> None:
        home = self.homes.get(op.output)
        if self.is_rounded(op.inputs[0]):
            made = self.layer(op, home)
        elif home or (op.kind == "global_pool" and op.inputs[0] in self.homes):
            made = self.op(op.kind, op, [self.bytes[i] for i in op.inputs], op.output, home, **self.end(op, home))
        else:
            made = self.op(op.kind, op, [self.as_floats(i) for i in op.inputs], op.output)
        (self.bytes if home else self.floats)[op.output] = made

    def end(self, op: Op, home: Home | None) -> dict[str, str]:
        """Nothing below zero where it is not to be kept."""
        if home and home.floor and op.activation == "none" and op.kind in (*LAYERS, "add"):
            return {"activation": "relu"}
        return {}

    def layer(self, op: Op, home: Home | None) -> int:
        """A layer of what was rounded; in floats where its weights are no whole numbers."""
        x, rounding = self.as_rounded(op.inputs[0])
        if op.scales is None:
            assert op.weight is not None
            inputs = [self.op("dequantize", self.named(op.inputs[0]), [x], op.inputs[0])]
            inputs += [self.as_floats(i) for i in op.inputs[1:]]
            weight = (op.weight / np.float64(rounding.step)).astype(np.float32)
            return self.op(op.kind, op, inputs, op.output, weight=weight)
        inputs = [x, *(self.bytes[i] for i in op.inputs[1:])]
        return self.op(op.kind, op, inputs, op.output, home, **self.end(op, home), **matrix(op, rounding))


def matrix(op: Op, rounding: Rounding) -> dict[str, np.ndarray]:
    """Weights as signed bytes with positive scales, and the bias.

    A row whose scale is negative has its weights negated, of which -128 becomes 127: bytes end there. A row whose sums
    are too small to be seen beside its bias has no weights.
    """
    assert op.weight is not None
    assert op.scales is not None
    bias = np.zeros(len(op.weight)) if op.bias is None else op.bias.astype(np.float64)
    scales = op.scales / float(np.float32(rounding.step))
    small = (np.abs(scales) < LEAST_SCALE) | (np.abs(bias) > np.abs(op.scales) * MOST_BIAS)
    weight = np.where(small[:, None], 0, np.sign(op.scales)[:, None] * op.weight)
    unit = np.maximum(np.abs(bias), 1e-3) / 2**20 / rounding.step
    scales = np.clip(np.where(small, unit, np.abs(scales)), LEAST_SCALE, MOST_SCALE)
    bytes_ = np.clip(weight, -128, 127).astype(np.int8)
    found: dict[str, np.ndarray] = {"weight": bytes_, "scales": scales.astype(np.float32)}
    return found if op.bias is None else {**found, "bias": bias.astype(np.float32)}
