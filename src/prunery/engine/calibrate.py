"""A graph of floats -> one that computes in bytes wherever that is faster: docs/format.md, "Quantised arithmetic".

Weights become symmetric signed bytes with a scale for each output, activations unsigned bytes with one scale and zero
point for each tensor, which typical images decide. Zeros stay zeros: what was pruned stays pruned. Tensors that would
change what the network says are left in floats.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import torch
from torch import Tensor as Images

from ..quantize import weights as rounding
from ..spec import Refused, choose
from .check import LEAST_SCALE, MOST_SCALE
from .graph import Graph, Op, Tensor
from .harm import ALLOWED, PART, Harm, Kept, how_many, rounded
from .interpret import every_tensor

TIED = ("max_pool", "concat", "gather", "flatten")
"""operations of bytes whose tensors share one scale and zero point"""
IN_BYTES = (*TIED, "conv", "linear", "avg_pool", "global_pool", "add")
TO_FLOATS = ("conv", "linear", "global_pool")
"""operations of bytes that may write floats, where there is no residual"""
ENDINGS = ("none", "relu", "relu6")
"""activations that bytes have; in front of any other a layer writes floats, which nothing has rounded yet"""
SAMPLE = 1 << 16
"""numbers of a tensor, in each batch, that are looked at for its range"""


def quantised_graph(
    graph: Graph,
    batches: Iterable[Images],
    rules: Sequence[str] = ("minmax", "mse"),
    correct: bool = True,
    allowed: float = ALLOWED,
) -> Graph:
    """The graph with bytes where they are faster, unless they do harm.

    Each tensor takes the range, of those that `rules` find for it, with which the outputs move the least on some of the
    images; what would move them most stays in floats, until all together is at most `allowed` of their variance. With
    `correct`, biases make up for what the rounding of weights adds on average.
    """
    ranges = [RANGES[choose(rule, RANGES, "rule")] for rule in rules]
    apart, whole = activations_apart(graph)
    trade = Trade(apart)
    chosen = cheapest(trade, set(trade.bytes))
    groups = tied(apart, chosen)
    shown = Kept(batches, how_many(apart, len(groups) * len(ranges)))
    seen = watched(apart, shown)
    in_bytes = {group for group in groups if any(trade.is_rounded(t, chosen) for t in group)}
    found = {group: [*dict.fromkeys(scaled([seen[t] for t in group], rule) for rule in ranges)] for group in groups}
    looks = [(group, *place) for group in groups if group in in_bytes for place in found[group]]
    off = dict(zip(looks, Harm(apart, shown.images()).of(looks), strict=True))
    harms, places = dict[frozenset[int], float](), Places()
    for group, (place, *_) in found.items():
        if group in in_bytes:
            harms[group], place = min((off[group, *p], p) for p in found[group])
        places |= dict.fromkeys(group, place)
    chosen = harmless(trade, chosen, harms, allowed)
    return Builder(trade, whole, chosen, places, seen if correct else {}).built()


def harmless(trade: "Trade", chosen: set[int], harms: dict[frozenset[int], float], allowed: float) -> set[int]:
    """Without the operations at what does most harm, until what is left together does no more than is allowed."""
    able = set(trade.bytes)
    while chosen:
        left = {group: h for group, h in harms.items() if any(trade.is_rounded(t, chosen) for t in group)}
        if sum(left.values()) <= allowed:
            break
        worst = max(left, key=lambda group: left[group])
        able &= chosen - {reader for t in worst for reader in trade.readers[t]}
        able -= {t for t in worst if trade.gives_bytes(t, able)}
        chosen = cheapest(trade, able)
    return chosen


# ---- operations whose activation bytes lack


def activations_apart(graph: Graph) -> tuple[Graph, dict[int, Op]]:
    """The graph with such activations in operations of their own where a layer of bytes could not write floats, and the
    whole operation by the tensor in between."""
    graph = replace(graph, tensors=list(graph.tensors))
    ops, whole = list[Op](), dict[int, Op]()
    for op in graph.ops:
        if op.kind == "activate" or op.kind not in IN_BYTES or op.activation in ENDINGS or may_write_floats(op):
            ops.append(op)
            continue
        between = graph.tensor(replace(graph.tensors[op.output]))
        whole[between] = op
        ops.append(replace(op, output=between, activation="none", slope=0.0))
        ops.append(Op("activate", op.name, [between], op.output, activation=op.activation, slope=op.slope))
    return replace(graph, ops=ops), whole


def may_write_floats(op: Op) -> bool:
    """Whether an operation of bytes can leave its sums as floats."""
    return op.kind in TO_FLOATS and len(op.inputs) == 1


# ---- what is worth it


NS_PER_CONVERSION = (100.0, 0.06)
"""of a tensor to bytes or back: at all, and for each number"""
NS_PER_FLOAT = 0.04
"""of what a convolution writes, more than for a byte"""


def cheapest(trade: "Trade", able: set[int]) -> set[int]:
    """The operations (by their output) that bytes compute, so that all of it takes the least time.

    From all that are able: whatever saves time by going back to floats goes, one operation or connected part at a time.
    What cannot be bytes pays for conversions around it.
    """
    chosen = set(able)
    cost, before = trade.total_ns(chosen), float("inf")
    while cost < before:
        before = cost
        for move in [*trade.connected(chosen), *({o} for o in sorted(chosen))]:
            if (less := trade.total_ns(chosen - move)) < cost:
                cost, chosen = less, chosen - move
    return chosen


class Trade:
    """What operations and conversions cost, given which operations are in bytes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.floats = {op.output: float_ns(op, graph) for op in graph.ops}
        self.bytes = {op.output: bytes_ns(op, graph) for op in graph.ops if op.kind in IN_BYTES}
        self.made = {op.output: op for op in graph.ops}
        self.readers: dict[int, set[int]] = {t: set() for t in [graph.input, *self.made]}
        for op in graph.ops:
            for i in op.inputs:
                self.readers[i].add(op.output)

    def total_ns(self, chosen: set[int]) -> float:
        ns = sum(self.bytes[t] if t in chosen else self.floats[t] for t in self.made)
        floats = [t for t in chosen if self.made[t].kind == "conv" and not self.gives_bytes(t, chosen)]
        ns += NS_PER_FLOAT * sum(self.numbers(t) for t in floats)
        fixed, each = NS_PER_CONVERSION
        return ns + sum(fixed + each * self.numbers(t) for t in self.readers if self.is_converted(t, chosen))

    def numbers(self, tensor: int) -> int:
        """Of an image."""
        return prod(self.graph.tensors[tensor].shape)

    def is_converted(self, tensor: int, chosen: set[int]) -> bool:
        """Whether somebody needs a tensor in the form that its maker does not give it."""
        readers = self.readers[tensor]
        if self.gives_bytes(tensor, chosen):
            return tensor == self.graph.output or not readers <= chosen
        return bool(readers & chosen)

    def gives_bytes(self, tensor: int, chosen: set[int]) -> bool:
        """Whether a tensor is written as bytes: some operations of bytes write floats if nobody wants bytes."""
        op = self.made.get(tensor)
        if op is None or tensor not in chosen or op.activation not in ENDINGS:
            return False
        return not may_write_floats(op) or bool(self.readers[tensor] & chosen)

    def is_rounded(self, tensor: int, chosen: set[int]) -> bool:
        """Whether there are bytes of a tensor."""
        return self.gives_bytes(tensor, chosen) or bool(self.readers.get(tensor, set()) & chosen)

    def connected(self, chosen: set[int]) -> list[set[int]]:
        """Parts of the graph that hang together by tensors of bytes."""
        part: dict[int, set[int]] = {}
        for op in self.graph.ops:
            if op.output in chosen:
                joined = {op.output}.union(*(part.get(i, ()) for i in op.inputs))
                part |= dict.fromkeys(joined, joined)
        return [set(p) for p in {frozenset(p): None for p in part.values()}]


def float_ns(op: Op, graph: Graph) -> float:
    """Roughly what an image takes on a core with vectors of 16 floats."""
    numbers = prod(graph.tensors[op.output].shape)
    if op.kind == "linear":
        assert op.weight is not None
        return min(0.2 * op.weight.size / 16, 0.3 * np.count_nonzero(op.weight))
    if op.weight is None or op.kind == "affine":
        return 0.04 * numbers * prod(op.kernel)
    pixels = numbers / len(op.weight)
    return pixels * min(0.3 * op.weight.size, 0.45 * np.count_nonzero(op.weight)) / 16 + 0.02 * numbers


def bytes_ns(op: Op, graph: Graph) -> float:
    """The same for bytes, four of which share a lane."""
    numbers = prod(graph.tensors[op.output].shape)
    if op.kind == "linear":
        assert op.weight is not None
        return min(0.2 * op.weight.size / 64, 0.3 * np.count_nonzero(op.weight))
    if op.weight is None:
        known = {"add": 0.11, "concat": 0.01, "gather": 0.03, "flatten": 0.01}
        return known.get(op.kind, 0.01 * prod(op.kernel)) * numbers
    pixels = numbers / len(op.weight)
    return pixels * min(0.275 * op.weight.size / 4, 0.31 * quads(op, graph)) / 16 + 0.045 * numbers


def quads(op: Op, graph: Graph) -> int:
    """Quads of channels at one place of a kernel of which something is kept."""
    assert op.weight is not None
    outputs, taps = len(op.weight), prod(op.kernel)
    channels = graph.tensors[op.inputs[0]].channels // op.groups
    kept = (op.weight != 0).reshape(outputs, channels, taps)
    first = (np.arange(outputs) // (outputs // op.groups) * channels) % 4 if op.groups > 1 else np.zeros(outputs, int)
    total = 0
    for shift in np.unique(first):
        rows = np.pad(kept[first == shift], ((0, 0), (shift, -(shift + channels) % 4), (0, 0)))
        total += int(rows.reshape(len(rows), -1, 4, taps).any(2).sum())
    return total


# ---- what typical images show


@dataclass
class Seen:
    """Of one tensor: its extremes, the means of its channels, and some of its numbers."""

    low: float = 0.0
    high: float = 0.0
    images: int = 0
    total: np.ndarray | None = None
    sample: list[np.ndarray] = field(default_factory=list)

    def add(self, values: np.ndarray, rng: np.random.Generator, batch: int) -> None:
        """Some images of a batch of so many, which share the numbers that are looked at."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        mean = values.mean((2, 3), dtype=np.float64).sum(0)
        self.total = mean if self.total is None else self.total + mean
        self.images += len(values)
        flat, most = values.reshape(-1), SAMPLE * len(values) // batch
        self.sample.append(flat if flat.size <= most else rng.choice(flat, most))

    def means(self) -> np.ndarray:
        assert self.total is not None
        return self.total / self.images


def watched(graph: Graph, batches: Iterable[Images]) -> dict[int, Seen]:
    """All tensors of the graph on typical images."""
    seen, rng = {t: Seen() for t in [graph.input, *(op.output for op in graph.ops)]}, np.random.default_rng(0)
    for batch in batches:
        for part in batch.detach().cpu().float().split(PART):
            for tensor, values in every_tensor(graph, part, torch.float32).items():
                seen[tensor].add(values.numpy(), rng, len(batch))
    if not seen[graph.input].images:
        raise Refused("there are no images to learn the ranges of activations from; give a batch or more")
    if not all(np.isfinite([s.low, s.high]).all() for s in seen.values()):
        raise Refused("the network's activations are not finite on the images given; look at its weights and inputs")
    return seen


def whole_range(low: float, high: float, sample: np.ndarray) -> tuple[float, float]:
    """Everything that was seen."""
    return low, high


def least_error(low: float, high: float, sample: np.ndarray) -> tuple[float, float]:
    """The part of the range whose steps and whose ends together are off the least, squared."""
    shares, x = np.linspace(0.2, 1.0, 33), torch.from_numpy(sample)
    errors = [float((rounded(x, *grid(low * s, high * s)) - x).square().mean()) for s in shares]
    best = shares[int(np.argmin(errors))]
    return low * best, high * best


RANGES: dict[str, Callable[[float, float, np.ndarray], tuple[float, float]]] = {
    "minmax": whole_range,
    "mse": least_error,
}


def grid(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of bytes from low to high, zero being one of them."""
    scale = float(np.float32((high - low) / 255))
    if not LEAST_SCALE <= scale <= MOST_SCALE:
        if scale > MOST_SCALE:
            raise Refused(f"activations reach from {low:g} to {high:g}, which is too far for bytes")
        return 1.0, 0  # nothing but zeros was seen
    return scale, int(np.clip(np.rint(-low / scale), 0, 255))


Places = dict[int, tuple[float, int]]
"""scale and zero point of each tensor as bytes"""


def tied(graph: Graph, chosen: set[int]) -> list[frozenset[int]]:
    """Tensors that have one scale, as operations of bytes tie them together; most have their own."""
    tied = {t: t for t in [graph.input, *(op.output for op in graph.ops)]}

    def root(t: int) -> int:
        while tied[t] != t:
            t = tied[t]
        return t

    for op in graph.ops:
        if op.kind in TIED and op.output in chosen:
            for i in op.inputs:
                tied[root(i)] = root(op.output)
    roots = {t: root(t) for t in tied}
    return [frozenset(t for t in tied if roots[t] == r) for r in dict.fromkeys(roots.values())]


def scaled(seen: Sequence[Seen], ranges: Callable[..., tuple[float, float]]) -> tuple[float, int]:
    """Scale and zero point of tensors that have one."""
    sample = np.concatenate([part for s in seen for part in s.sample])
    return grid(*ranges(min(s.low for s in seen), max(s.high for s in seen), sample))


# ---- the graph anew


@dataclass
class Builder:
    """The new graph as far as it is built, and where each tensor of the old one is: in bytes, as floats or both."""

    trade: Trade
    whole: dict[int, Op]
    chosen: set[int]
    places: Places
    seen: dict[int, Seen]
    new: Graph = field(default_factory=Graph)
    forms: dict[tuple[int, bool], int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    @property
    def old(self) -> Graph:
        return self.trade.graph

    def built(self) -> Graph:
        self.new.input = self.tensor(self.old.input, False)
        for op in self.old.ops:
            self.names[op.output] = op.name
            self.emit(op)
        self.new.output = self.form(self.old.output, False)
        return self.new

    def tensor(self, old: int, in_bytes: bool) -> int:
        """A new tensor in the place of an old one, as bytes or floats."""
        t = self.old.tensors[old]
        scale, zero = self.places[old]
        made = Tensor(*t.shape, "u8", scale, zero) if in_bytes else Tensor(*t.shape)
        self.forms[old, in_bytes] = self.new.tensor(made)
        return self.forms[old, in_bytes]

    def form(self, old: int, in_bytes: bool) -> int:
        """An old tensor in the form that is wanted, converted if need be."""
        if (old, in_bytes) not in self.forms:
            source = self.forms[old, not in_bytes]
            name = self.names.get(old, "input")
            output = self.tensor(old, in_bytes)
            self.new.ops.append(Op("quantize" if in_bytes else "dequantize", name, [source], output))
        return self.forms[old, in_bytes]

    def emit(self, op: Op) -> None:
        if op.output in self.whole and op.output not in self.chosen:
            return  # its activation, which comes next, brings it along
        between = op.inputs[0]
        if op.kind == "activate" and between in self.whole and between not in self.chosen:
            op = self.whole[between]
        in_bytes = op.output in self.chosen
        inputs = [self.form(i, in_bytes) for i in op.inputs]
        if in_bytes and op.weight is not None:
            op = self.with_bytes(op)
        output = self.tensor(op.output, self.trade.gives_bytes(op.output, self.chosen))
        self.new.ops.append(replace(op, inputs=inputs, output=output))

    def with_bytes(self, op: Op) -> Op:
        """Weights in bytes, and a bias that makes up for the mean of what their rounding adds."""
        weight, scales = byte_weights(op, self.places[op.inputs[0]][0], self.places[op.output][0])
        bias = op.bias
        if self.seen:
            assert op.weight is not None
            added = weight * scales[:, None].astype(np.float64) - op.weight
            bias = (0.0 if bias is None else bias) - expected(op, added, self.seen[op.inputs[0]].means())
            bias = bias.astype(np.float32)
        return replace(op, weight=weight, scales=scales, bias=bias)


def byte_weights(op: Op, in_scale: float, out_scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric bytes with a scale for each output; a row without weights has one that says its bias well."""
    weight = torch.from_numpy(np.ascontiguousarray(op.weight, np.float32))
    scales = rounding.scale(weight, 8, "channel")
    empty = (weight == 0).all(1, keepdim=True)
    scales = torch.where(empty, out_scale / in_scale / 256, scales).clamp(LEAST_SCALE, MOST_SCALE)
    return rounding.integers(weight, scales).numpy(), scales[:, 0].float().numpy()


def expected(op: Op, weight: np.ndarray, means: np.ndarray) -> np.ndarray:
    """What weights add to each output on average, if a channel's numbers are about the same everywhere."""
    by_channel = weight.reshape(len(weight), -1, prod(op.kernel)).sum(2)
    groups = np.repeat(means.reshape(op.groups, -1), len(weight) // op.groups, 0)
    return (by_channel * groups).sum(1)
