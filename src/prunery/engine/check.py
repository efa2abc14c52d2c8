"""What a graph keeps to when it is packed and when it is read; native/engine/reader.cpp says it in the same words."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from ..spec import Refused
from .graph import ACTIVATIONS, KINDS, Graph, Op, Tensor

MOST_TENSORS, MOST_EXTENT, MOST_WINDOW = 2**13, 2**20, 255
MOST_NUMBERS = 2**28
"""of one tensor, and of one input with room for windows"""
ALL_NUMBERS, ALL_WEIGHTS, ALL_WORK = 2**30, 2**30, 2**42
"""of all of these; places of all matrices, kept or not; multiply-adds of an image, as if nothing were pruned"""
MOST_BYTES_POOLED, MOST_ROW = 2**23, 2**30 // 255
LEAST_SCALE, MOST_SCALE = 2.0**-40, 2.0**24

MATRIX = frozenset({"conv", "linear"})
WEIGHTS = MATRIX | {"affine"}
POOL = frozenset({"max_pool", "avg_pool"})
WINDOW = POOL | {"conv"}
ACTIVE = WEIGHTS | {"add", "mul", "activate"}
FLOATS_ONLY = frozenset({"mul", "activate", "affine", "softmax", "quantize"})
ONE_SCALE = frozenset({"max_pool", "concat", "gather", "flatten"})
TEXT = "UTF-8 without control characters"
LINES = "\x7f\u2028\u2029" + "".join(map(chr, [*range(0x20), *range(0x80, 0xA0)]))


def expect(kept: bool, seen: str, expected: object) -> None:
    """A refusal of what was seen, unless the rule is kept."""
    if not kept:
        raise Refused(f"{seen}; expected {expected}")


@contextmanager
def subject(where: str) -> Iterator[None]:
    """Refusals inside say whom they are about."""
    try:
        yield
    except Refused as refusal:
        raise Refused(f"{where}: {refusal}") from None


def described(number: int, name: str, kind: str) -> str:
    """How an operation is called in refusals."""
    raw = name.encode("utf-8", "replace")
    short = name if len(raw) <= 60 else raw[:57].decode("utf-8", "ignore") + "..."
    return f"operation {number}{' ' if name else ''}{short} ({kind})"


def is_text(text: str) -> bool:
    """Whether a terminal makes one line of it, and UTF-8 can hold it."""
    return not any(c in LINES or "\ud800" <= c <= "\udfff" for c in text)


@dataclass
class Used:
    """What the operations so far have used up."""

    written: set[int]
    read: set[int] = field(default_factory=set)
    numbers: int = 0
    weights: int = 0
    work: int = 0


def check(graph: Graph) -> None:
    """A refusal in one line, unless the graph is sound."""
    count, steps = len(graph.tensors), len(graph.ops)
    expect(2 <= count <= MOST_TENSORS, f"the file has {count} tensors", "2 to 8192")
    expect(steps == count - 1, f"the file has {steps} operations", f"{count - 1}, one for each tensor but the input")
    for what, place in (("input", graph.input), ("output", graph.output)):
        expect(0 <= place < count, f"the {what} is tensor {place}", f"less than {count}")
    used = Used({graph.input})
    for number, tensor in enumerate(graph.tensors):
        with subject(f"tensor {number}"):
            _tensor(tensor)
            _numbers(used, math.prod(tensor.shape))
    for number, op in enumerate(graph.ops):
        expect(is_text(op.name), f"operation {number}: its name is damaged", TEXT)
        with subject(described(number, op.name, op.kind)):
            _operation(op, graph.tensors, used)
    for number in range(count):
        known = number in used.read or number == graph.output
        expect(known, f"tensor {number} is never read", "every tensor but the output to be read")


def _shape(t: Tensor) -> str:
    return " x ".join(map(str, t.shape))


def _tensor(t: Tensor) -> None:
    fits = all(1 <= extent <= MOST_EXTENT for extent in t.shape) and math.prod(t.shape) <= MOST_NUMBERS
    expect(fits, _shape(t), "1 to 2^20 each, and at most 2^28 numbers")
    expect(t.type in ("f32", "u8"), f"type {t.type}", "f32 or u8")
    if t.type == "f32":
        plain = t.scale == 0 and math.copysign(1, t.scale) > 0 and t.zero == 0
        expect(plain, f"scale {t.scale:g}, zero {t.zero}", "0 and 0 for float32")
    else:
        expect(_is_scale(t.scale), f"scale {t.scale:g}", "2^-40 to 2^24 for bytes")
    expect(0 <= t.zero <= 255, f"zero {t.zero}", "0 to 255")


def _is_scale(value: float) -> bool:
    return LEAST_SCALE <= value <= MOST_SCALE


def _numbers(used: Used, numbers: int) -> None:
    used.numbers += numbers
    expect(used.numbers <= ALL_NUMBERS, "too many numbers", "at most 2^30 in all tensors and inputs of windows")


def _operation(op: Op, tensors: list[Tensor], used: Used) -> None:
    expect(op.kind in KINDS, f"kind {op.kind}", f"one of {', '.join(KINDS)}")
    _edges(op, len(tensors), used)
    inputs, output = [tensors[i] for i in op.inputs], tensors[op.output]
    _settings(op)
    _window(op)
    _weights(op, used)
    _index(op, inputs[0], output)
    _types(op, inputs, output)
    SHAPES[op.kind](op, inputs, output)
    if op.kind in MATRIX and len(inputs) == 2:
        _like("residual", inputs[1], output.shape)
    _limits(op, inputs[0], output, used)


def _edges(op: Op, count: int, used: Used) -> None:
    seen = len(op.inputs)
    if op.kind == "concat":
        expect(seen >= 2, f"{seen} inputs", "2 or more")
    elif op.kind in ("add", "mul"):
        expect(seen == 2, f"{seen} inputs", "2")
    else:
        expect(seen == 1 or (op.kind in MATRIX and seen == 2), f"{seen} inputs", "1 or 2" if op.kind in MATRIX else "1")
    for place in op.inputs:
        expect(place in used.written, f"it reads tensor {place}", "one that is written before")
        used.read.add(place)
    fresh = 0 <= op.output < count and op.output not in used.written
    expect(fresh, f"it writes tensor {op.output}", "one that is not written yet")
    used.written.add(op.output)


def _settings(op: Op) -> None:
    names = ACTIVATIONS if op.kind in ACTIVE else ACTIVATIONS[:1]
    expect(op.activation in names, f"activation {op.activation}", f"one of {', '.join(names)}")
    if op.activation in ("leaky_relu", "elu"):
        expect(math.isfinite(op.slope), f"slope {op.slope:g}", "a finite number")
    else:
        expect(op.slope == 0 and math.copysign(1, op.slope) > 0, f"slope {op.slope:g}", "0")
    most = MOST_EXTENT if op.kind == "conv" else 1
    expect(1 <= op.groups <= most, f"{op.groups} groups", "1 to 2^20" if op.kind == "conv" else "1")
    counts = f"counting of padding is {int(op.count_padding)}"
    expect(int(op.count_padding) in ((0, 1) if op.kind == "avg_pool" else (0,)), counts, 0)


def _window(op: Op) -> None:
    most = MOST_WINDOW if op.kind in WINDOW else 1
    for what, (down, across) in (("kernel", op.kernel), ("stride", op.stride), ("dilation", op.dilation)):
        limit = 1 if what == "dilation" and op.kind == "avg_pool" else most
        fits = 1 <= down <= limit and 1 <= across <= limit
        expect(fits, f"{what} {down} x {across}", "1 x 1" if limit == 1 else "1 to 255")
    expect(len(op.padding) == 4, f"{len(op.padding)} sides of padding", "4")
    for side, padding in enumerate(op.padding):
        extent = _extent(op)[side % 2]
        expect(0 <= padding < extent, f"padding {padding}", f"less than the window's extent, {extent}")


def _extent(op: Op) -> tuple[int, int]:
    down, across = (d * (k - 1) + 1 for k, d in zip(op.kernel, op.dilation, strict=True))
    return down, across


# ---- weights


def _weights(op: Op, used: Used) -> None:
    if op.kind not in WEIGHTS:
        for what, array in (("matrix", op.weight), ("scales", op.scales), ("bias", op.bias)):
            expect(array is None, f"there are {what}", "none")
        return
    weight = _array("weights", op.weight, ("float32",) if op.kind == "affine" else ("float32", "int8"), 2)
    outputs, columns = weight.shape
    expect(weight.size > 0, f"a matrix of {outputs} x {columns}", "at least 1 x 1")
    used.weights += weight.size
    expect(used.weights <= ALL_WEIGHTS, f"a matrix of {outputs} x {columns}", "at most 2^30 places in all matrices")
    if weight.dtype == np.int8:
        _integers(weight, op.scales)
    else:
        expect(op.scales is None, "scales for weights of floats", "none")
        # The least and the greatest are not finite where any is not, and no copy is made to find them.
        sound = bool(np.isfinite(weight.min()) and np.isfinite(weight.max()))
        expect(sound, "a weight is infinite or not a number", "finite numbers")
    if op.kind == "affine":
        expect(op.bias is not None, "no bias", "one")
    if op.bias is not None:
        _row("bias", op.bias, outputs)
        expect(bool(np.isfinite(op.bias).all()), "a bias is infinite or not a number", "finite numbers")


def _array(what: str, array: np.ndarray | None, types: tuple[str, ...], dimensions: int) -> np.ndarray:
    expect(isinstance(array, np.ndarray), f"the {what} are {type(array).__name__}", "an array")
    assert array is not None
    fits = array.dtype.name in types and array.ndim == dimensions
    expect(fits, f"{what} of {array.dtype} in {array.ndim} dimensions", f"{' or '.join(types)} in {dimensions}")
    return array


def _row(what: str, array: np.ndarray | None, count: int) -> np.ndarray:
    row = _array(what, array, ("float32",), 1)
    expect(row.size == count, f"{what} of {row.size} numbers", f"{count}, one for each output")
    return row


def _integers(weight: np.ndarray, given: np.ndarray | None) -> None:
    scales = _row("scales", given, len(weight))
    for row in np.flatnonzero(~((scales >= LEAST_SCALE) & (scales <= MOST_SCALE)))[:1]:
        expect(False, f"the scale of row {row} is {scales[row]:g}", "2^-40 to 2^24")
    many = max(
        1, 2**20 // weight.shape[1]
    )  # rows at a time: sums need wider numbers than a large matrix should be copied into
    for first in range(0, len(weight), many):
        sums = np.abs(weight[first : first + many].astype(np.int16)).sum(axis=1, dtype=np.int64)
        for row in np.flatnonzero(sums > MOST_ROW)[:1]:
            seen = f"the weights of row {first + row} add up to {sums[row]}"
            expect(False, seen, f"at most {MOST_ROW}, for 32 bits")


def _index(op: Op, x: Tensor, y: Tensor) -> None:
    if op.kind != "gather":
        expect(op.index is None, "there is an index of channels", "none")
        return
    index = _array("index of channels", op.index, ("uint32", "int64", "int32"), 1)
    expect(index.size == y.channels, f"an index of {index.size} channels", f"{y.channels}, as the output has")
    inside = bool((index >= 0).all() and (index < x.channels).all())
    expect(inside, "the index of channels goes beyond the input", f"less than {x.channels}")


# ---- types

WORDS = {"f32": "float32", "u8": "bytes"}


def _types(op: Op, inputs: list[Tensor], y: Tensor) -> None:
    source = inputs[0].type
    for other in inputs[1:]:
        expect(other.type == source, f"inputs of {WORDS[source]} and {WORDS[other.type]}", "one type")
    if op.kind in FLOATS_ONLY:
        expect(source == "f32", f"an input of {WORDS[source]}", "float32")
    if op.kind == "dequantize":
        expect(source == "u8", f"an input of {WORDS[source]}", "bytes")
    target = {"quantize": "u8", "dequantize": "f32"}.get(op.kind, source)
    if not (op.kind in ("conv", "linear", "global_pool") and source == "u8"):
        expect(y.type == target, f"an output of {WORDS[y.type]}", WORDS[target])
    if source == "u8":
        _bytes(op, inputs, y)
    elif op.weight is not None:
        expect(op.weight.dtype != np.int8, "weights of i8 for an input of float32", "f32 or f16")


def _bytes(op: Op, inputs: list[Tensor], y: Tensor) -> None:
    if op.kind in MATRIX:
        expect(op.weight is not None and op.weight.dtype == np.int8, "weights of floats for an input of bytes", "i8")
    if y.type == "u8":
        number = ACTIVATIONS.index(op.activation)
        expect(number <= 2, f"activation {number}", "0, 1 or 2 for bytes")
    elif op.kind in MATRIX:
        expect(len(inputs) == 1, "a residual of bytes", "none where the output is float32")
    if op.kind == "global_pool":
        _, rows, columns = inputs[0].shape
        expect(rows * columns <= MOST_BYTES_POOLED, f"a mean of {rows} x {columns} bytes", "at most 2^23")
    for x in inputs if op.kind in ONE_SCALE else ():
        same = np.float32(x.scale) == np.float32(y.scale) and x.zero == y.zero
        seen = f"scale and zero {x.scale:g} and {x.zero} become {y.scale:g} and {y.zero}"
        expect(bool(same), seen, "the same")


# ---- shapes


def _like(what: str, seen: Tensor, shape: tuple[int, int, int]) -> None:
    expect(seen.shape == shape, f"the {what} is {_shape(seen)}", " x ".join(map(str, shape)))


def _columns(op: Op, columns: int) -> None:
    assert op.weight is not None
    expect(op.weight.shape[1] == columns, f"weights for {op.weight.shape[1]} inputs", columns)


def _conv(op: Op, inputs: list[Tensor], y: Tensor) -> None:
    x, outputs, groups = inputs[0], len(op.weight), op.groups  # type: ignore[arg-type]
    divides = x.channels % groups == 0 and outputs % groups == 0
    expect(divides, f"{groups} groups of {x.channels} channels and {outputs} outputs", "a divisor of both")
    _columns(op, x.channels // groups * math.prod(op.kernel))
    (high, wide), (rows, columns) = _extent(op), _padded(op, x)
    fits = rows >= high and columns >= wide
    expect(fits, f"a window of {high} x {wide} over {_shape(x)}", "one that fits into the picture and its padding")
    _like("output", y, (outputs, (rows - high) // op.stride[0] + 1, (columns - wide) // op.stride[1] + 1))


def _padded(op: Op, x: Tensor) -> tuple[int, int]:
    above, left, below, right = op.padding
    return x.rows + above + below, x.columns + left + right


def _linear(op: Op, inputs: list[Tensor], y: Tensor) -> None:
    x = inputs[0]
    _like("input", x, (x.channels, 1, 1))
    _like("output", y, (len(op.weight), 1, 1))  # type: ignore[arg-type]
    _columns(op, x.channels)


def _pool(op: Op, inputs: list[Tensor], y: Tensor) -> None:
    """Every window holds a pixel: it begins before the picture's end, ends behind its start, never steps over it."""
    x, (down, across) = inputs[0], op.dilation
    near = down <= x.rows and across <= x.columns
    expect(near, f"dilation {down} x {across} over {_shape(x)}", "at most its rows and columns")
    expect(y.channels == x.channels, f"the output is {_shape(y)}", f"{x.channels} channels")
    for axis, what in enumerate(("rows", "columns")):
        size, seen = x.shape[axis + 1], y.shape[axis + 1]
        before, behind, stride = op.padding[axis], op.padding[axis + 2], op.stride[axis]
        span = size + before + behind - _extent(op)[axis]
        over = f"a window of {_extent(op)[axis]} over {size} {what}"
        expect(span > -stride, over, "one that fits into the picture and its padding")
        possible = _pooled(size + before, span, stride)
        expect(seen in possible, f"the output has {seen} {what}", " or ".join(map(str, sorted(possible))))


def _pooled(size: int, span: int, stride: int) -> set[int]:
    """How many windows there can be: those that fit, and those with one that sticks out but begins inside."""
    whole = span // stride + 1 if span >= 0 else 0
    cut = -(-span // stride) + 1
    return {whole, cut if (cut - 1) * stride < size else whole} - {0}


def _mul(op: Op, inputs: list[Tensor], y: Tensor) -> None:
    x, b = inputs
    _like("second input", b, (x.channels, 1, 1) if b.is_vector else x.shape)
    _like("output", y, x.shape)


def _add(op: Op, inputs: list[Tensor], y: Tensor) -> None:
    _like("second input", inputs[1], inputs[0].shape)
    _like("output", y, inputs[0].shape)


def _affine(op: Op, inputs: list[Tensor], y: Tensor) -> None:
    outputs = len(op.weight)  # type: ignore[arg-type]
    expect(outputs == inputs[0].channels, f"weights for {outputs} channels", inputs[0].channels)
    _columns(op, 1)
    _like("output", y, inputs[0].shape)


def _concat(op: Op, inputs: list[Tensor], y: Tensor) -> None:
    _, rows, columns = inputs[0].shape
    for x in inputs[1:]:
        _like("next input", x, (x.channels, rows, columns))
    _like("output", y, (sum(x.channels for x in inputs), rows, columns))


def _softmax(op: Op, inputs: list[Tensor], y: Tensor) -> None:
    _like("input", inputs[0], (inputs[0].channels, 1, 1))
    _like("output", y, inputs[0].shape)


def _same(op: Op, inputs: list[Tensor], y: Tensor) -> None:
    _like("output", y, inputs[0].shape)


SHAPES: dict[str, Callable[[Op, list[Tensor], Tensor], None]] = {
    "conv": _conv,
    "linear": _linear,
    "max_pool": _pool,
    "avg_pool": _pool,
    "global_pool": lambda op, inputs, y: _like("output", y, (inputs[0].channels, 1, 1)),
    "add": _add,
    "mul": _mul,
    "activate": _same,
    "affine": _affine,
    "concat": _concat,
    "gather": lambda op, inputs, y: _like("output", y, (y.channels, *inputs[0].shape[1:])),
    "flatten": lambda op, inputs, y: _like("output", y, (math.prod(inputs[0].shape), 1, 1)),
    "softmax": _softmax,
    "quantize": _same,
    "dequantize": _same,
}


# ---- limits


def _limits(op: Op, x: Tensor, y: Tensor, used: Used) -> None:
    if op.kind in WINDOW:
        rows, columns = _room(op, x)
        numbers = x.channels * rows * columns
        seen = f"the input with room for windows is {x.channels} x {rows} x {columns}"
        expect(numbers <= MOST_NUMBERS, seen, "at most 2^28 numbers")
        _numbers(used, numbers)
    used.work += _work(op, x, y)
    expect(used.work <= ALL_WORK, "too much to compute", "at most 2^42 multiply-adds for an image")


def _room(op: Op, x: Tensor) -> tuple[int, int]:
    """Who cuts a picture into blocks keeps with each the neighbours that its windows reach, and whole strides."""
    (high, wide), (down, across) = _extent(op), op.stride
    return x.rows + 4 * (max(high, down) - 1), x.columns + 4 * (max(wide, across) - 1)


def _work(op: Op, x: Tensor, y: Tensor) -> int:
    if op.kind in MATRIX and op.weight is not None:
        return y.rows * y.columns * op.weight.size
    return math.prod(x.shape) if op.kind == "global_pool" else math.prod(y.shape) * math.prod(op.kernel)
