"""A packed network's bytes, written and read back with numpy; docs/format.md has every byte, check.py what they mean.

`read` is for tools and tests, and trusts a file as little as the engine's own reader does.
"""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..runs import write_file
from ..spec import Refused
from .check import ALL_WEIGHTS, MOST_TENSORS, TEXT, WEIGHTS, check, described, expect, is_text, subject
from .graph import ACTIVATIONS, KINDS, Graph, Op, Tensor

MAGIC, VERSION, ALIGNMENT = b"\x93PRUNERY", 1, 64
DENSE, SPARSE = 1, 2
SPARSE_BELOW = 0.75
"""the density under which a matrix is stored sparse even where that takes more bytes"""
VALUES = (np.dtype("<f4"), np.dtype("<f2"), np.dtype("i1"))
"""encoding of values number 0 is the first"""
TYPES: tuple[Literal["f32", "u8"], ...] = ("f32", "u8")

HEADER = np.dtype([
    ("magic", "S8"), ("version", "<u4"), ("crc", "<u4"), ("size", "<u8"), ("tensors", "<u4"), ("ops", "<u4"),
    ("inputs", "<u4"), ("names", "<u4"), ("about", "<u4"), ("input", "<u4"), ("output", "<u4"), ("reserved", "u1", 12),
])  # fmt: skip
TENSOR = np.dtype([("shape", "<u4", 3), ("type", "<u4"), ("scale", "<f4"), ("zero", "<u4"), ("reserved", "u1", 8)])
OP = np.dtype([
    ("kind", "<u4"), ("activation", "<u4"), ("slope", "<f4"), ("output", "<u4"), ("inputs", "<u4", 2),
    ("name", "<u4", 2), ("kernel", "<u4", 2), ("stride", "<u4", 2), ("dilation", "<u4", 2), ("groups", "<u4"),
    ("count_padding", "<u4"), ("padding", "<u4", 4), ("matrix", "<u4", 2), ("encoding", "<u4"), ("values", "<u4"),
    ("bits", "<u4"), ("reserved", "<u4"), ("kept", "<u8"), ("start_at", "<u8"), ("index_at", "<u8"),
    ("values_at", "<u8"), ("scales_at", "<u8"), ("bias_at", "<u8"), ("gather_at", "<u8"), ("also_reserved", "u1", 32),
])  # fmt: skip
TABLES = [
    ("tensors", TENSOR),
    ("ops", OP),
    ("inputs", np.dtype("<u4")),
    ("names", np.dtype("u1")),
    ("about", np.dtype("u1")),
]
"""what follows the header, as it counts it"""


def save(path: Path, data: bytes) -> None:
    """Whole or not at all: a temporary name, fsync, rename."""
    write_file(path, data)


# ---- writing


def write(graph: Graph, about: dict[str, Any], values: Literal["f32", "f16"] = "f32") -> bytes:
    """The file's bytes, once the graph is checked; `values` says how weights of floats are stored."""
    expect(values in ("f32", "f16"), f'values = "{values}"', "f32 or f16")
    check(graph)
    names, text = [op.name.encode() for op in graph.ops], _json(about)
    inputs = np.array([i for op in graph.ops for i in op.inputs], "<u4")
    tensors = np.array([(t.shape, TYPES.index(t.type), t.scale, t.zero, 0) for t in graph.tensors], TENSOR)
    ops = np.zeros(len(graph.ops), OP)
    ops["inputs"] = _runs([len(op.inputs) for op in graph.ops])
    ops["name"] = _runs([len(name) for name in names])
    sizes = (len(inputs), sum(map(len, names)), len(text))
    arrays = _Arrays(HEADER.itemsize + tensors.nbytes + ops.nbytes + inputs.nbytes + sizes[1] + sizes[2])
    for row, op in zip(ops, graph.ops, strict=True):
        _put(row, op, arrays, VALUES[values == "f16"])
    counts = (len(tensors), len(ops), *sizes, graph.input, graph.output)
    head = np.array((MAGIC, VERSION, 0, arrays.end, *counts, 0), HEADER)
    rest = b"".join([tensors.tobytes(), ops.tobytes(), inputs.tobytes(), *names, text, *arrays.parts])
    head["crc"] = zlib.crc32(rest, zlib.crc32(head.tobytes()[16:]))
    return head.tobytes() + rest


def _json(about: dict[str, Any]) -> bytes:
    """In ASCII, where no character is a control character."""
    expect(isinstance(about, dict), f"about is a {type(about).__name__}", "a table")
    try:
        return json.dumps(about, allow_nan=False, separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise Refused(f"about is not JSON ({error}); expected a table of texts, finite numbers and lists") from None


def _runs(lengths: list[int]) -> np.ndarray:
    """Where each of many things that follow one another begins, and how long it is."""
    ends = np.cumsum(lengths)
    return np.stack([ends - lengths, lengths], axis=1)


class _Arrays:
    """What comes behind the tables, each at a multiple of 64."""

    def __init__(self, tables_end: int):
        self.end, self.parts = tables_end, list[bytes]()
        self._align()

    def place(self, array: np.ndarray) -> int:
        """Where the array now lies."""
        self._align()
        place = self.end
        self.parts.append(array.tobytes())
        self.end += array.nbytes
        return place

    def _align(self) -> None:
        self.parts.append(bytes(-self.end % ALIGNMENT))
        self.end += len(self.parts[-1])


def _put(row: np.void, op: Op, arrays: _Arrays, floats: np.dtype) -> None:
    row["kind"], row["activation"], row["slope"] = KINDS.index(op.kind) + 1, ACTIVATIONS.index(op.activation), op.slope
    row["output"], row["groups"], row["count_padding"] = op.output, op.groups, op.count_padding
    row["kernel"], row["stride"], row["dilation"], row["padding"] = op.kernel, op.stride, op.dilation, op.padding
    if op.weight is not None:
        _put_matrix(row, _stored(op.weight, floats if op.kind != "affine" else VALUES[0]), op.kind, arrays)
    for field, array, dtype in (
        ("scales_at", op.scales, "<f4"), ("bias_at", op.bias, "<f4"), ("gather_at", op.index, "<u4"),
    ):  # fmt: skip
        if array is not None:
            row[field] = arrays.place(array.astype(dtype))


def _stored(weight: np.ndarray, floats: np.dtype) -> np.ndarray:
    """As it will lie in the file; what half precision cannot hold stays float32."""
    if weight.dtype == np.int8 or floats == weight.dtype:
        return weight
    with np.errstate(over="ignore"):
        halves = weight.astype(floats)
    return halves if np.isfinite(halves).all() else weight


def _put_matrix(row: np.void, weight: np.ndarray, kind: str, arrays: _Arrays) -> None:
    row["matrix"], row["values"] = weight.shape, VALUES.index(weight.dtype)
    index = np.dtype("<u2" if weight.shape[1] <= 65536 else "<u4")
    counts = np.count_nonzero(weight, axis=1)
    kept = int(counts.sum())
    smaller = 4 * len(weight) + 4 + kept * (index.itemsize + weight.itemsize) < weight.nbytes
    if kind != "affine" and (smaller or kept < SPARSE_BELOW * weight.size):
        row["encoding"], row["bits"], row["kept"] = SPARSE, 8 * index.itemsize, kept
        row["start_at"] = arrays.place(np.concatenate([[0], np.cumsum(counts)]).astype("<u4"))
        rows, columns = np.nonzero(weight)
        row["index_at"], row["values_at"] = arrays.place(columns.astype(index)), arrays.place(weight[rows, columns])
    else:
        row["encoding"], row["kept"], row["values_at"] = DENSE, weight.size, arrays.place(weight)


# ---- reading


def read(data: bytes) -> tuple[Graph, dict[str, Any]]:
    """The graph, its weights float32 or int8, and what the file says about itself."""
    file = _File(data)
    graph = Graph([], [], int(file.header["input"]), int(file.header["output"]))
    for number, row in enumerate(file.tensors):
        with subject(f"tensor {number}"):
            graph.tensors.append(_tensor(row))
    decoder = _Decoder(file, graph)
    for number in range(len(file.ops)):
        graph.ops.append(decoder.op(number))
    decoder.finish()
    check(graph)
    return graph, file.about


def _zeros(reserved: np.ndarray, what: str = "") -> None:
    expect(not np.any(reserved), f"reserved bytes {what}are not zero", "zeros")


class _File:
    """The tables of a file whose lengths and checksum are right."""

    def __init__(self, data: bytes):
        self.data, self.size = data, len(data)
        expect(self.size >= HEADER.itemsize, f"the file has {self.size} bytes", "at least 64")
        self.header = np.frombuffer(data, HEADER, 1)[0]
        self._check_header()
        end = HEADER.itemsize + sum(int(self.header[name]) * dtype.itemsize for name, dtype in TABLES)
        self.arrays_at = end + -end % ALIGNMENT
        need = f"the tables need {self.arrays_at} bytes"
        expect(self.arrays_at <= self.size, need, f"at most the {self.size} of the file")
        self.tensors, self.ops, self.inputs, names, about = self._tables()
        self.names, self.about = names.tobytes(), _about(about.tobytes())
        expect(not any(data[end : self.arrays_at]), "the bytes between tables and arrays are not zero", "zeros")

    def _check_header(self) -> None:
        head = self.header
        expect(self.data[:8] == MAGIC, "the file does not begin like a packed network", r"\x93PRUNERY")
        expect(head["version"] == VERSION, f"the file has version {head['version']}", VERSION)
        expect(head["size"] == self.size, f"the file has {self.size} bytes", f"{head['size']}, as its header says")
        crc = zlib.crc32(memoryview(self.data)[16:])
        seen = f"the file is damaged: its checksum is {crc}"
        expect(head["crc"] == crc, seen, f"{head['crc']}, as its header says")
        _zeros(head["reserved"], "of the header ")
        tensors, ops = int(head["tensors"]), int(head["ops"])
        expect(2 <= tensors <= MOST_TENSORS, f"the file has {tensors} tensors", "2 to 8192")
        wanted = f"{tensors - 1}, one for each tensor but the input"
        expect(ops == tensors - 1, f"the file has {ops} operations", wanted)

    def _tables(self) -> Iterator[np.ndarray]:
        at = HEADER.itemsize
        for name, dtype in TABLES:
            table = np.frombuffer(self.data, dtype, int(self.header[name]), at)
            at += table.nbytes
            yield table

    def array(self, what: str, place: int, count: int, dtype: np.dtype) -> np.ndarray:
        """An array that the file must have, be it empty."""
        length = count * dtype.itemsize
        expect(place % ALIGNMENT == 0, f"{what} at {place}", "a multiple of 64")
        inside = self.arrays_at <= place and place + length <= self.size
        where = f"a place between {self.arrays_at} and {self.size}"
        expect(inside, f"{what} at {place} with {length} bytes", where)
        return np.frombuffer(self.data, dtype, count, place)


def _decoded(raw: bytes, what: str) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = "\n"
    expect(is_text(text), f"{what} is damaged", TEXT)
    return text


def _about(raw: bytes) -> dict[str, Any]:
    text = _decoded(raw, "what it says about itself")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused("what it says about itself is damaged; expected JSON") from None
    expect(isinstance(found, dict), f"what it says about itself is a {type(found).__name__}", "a table")
    return found


def _tensor(row: np.void) -> Tensor:
    _zeros(row["reserved"])
    expect(row["type"] < len(TYPES), f"type {row['type']}", "0 or 1")
    channels, rows, columns = row["shape"].tolist()
    return Tensor(channels, rows, columns, TYPES[row["type"]], float(row["scale"]), int(row["zero"]))


class _Decoder:
    """Operations, one after the other; names and inputs follow one another in their lists."""

    def __init__(self, file: _File, graph: Graph):
        self.file, self.graph = file, graph
        self.inputs = self.names = self.weights = 0

    def op(self, number: int) -> Op:
        row = self.file.ops[number]
        with subject(f"operation {number}"):
            expect(1 <= row["kind"] <= len(KINDS), f"kind {row['kind']}", "1 to 15")
            kind, name = KINDS[row["kind"] - 1], self._name(row)
        with subject(described(number, name, kind)):
            _zeros([*row["also_reserved"], row["reserved"]])  # type: ignore[arg-type]
            op = Op(kind, name, self._inputs(row), self._output(row), **_settings(row))
            if kind in WEIGHTS:
                self._matrix(row, op)
                op.bias = self._optional("bias", row["bias_at"], len(op.weight))  # type: ignore[arg-type]
            else:
                _absent("matrix", row, *NO_MATRIX)
                _absent("bias", row, "bias_at")
            if kind == "gather":
                channels = self.graph.tensors[op.output].channels
                op.index = self.file.array("index of channels", int(row["gather_at"]), channels, np.dtype("<u4"))
            else:
                _absent("index of channels", row, "gather_at")
        return op

    def finish(self) -> None:
        """Nothing is left over in the lists."""
        there = len(self.file.inputs)
        expect(there == self.inputs, f"the list of inputs has {there}", f"{self.inputs}, as operations read")
        there = len(self.file.names)
        expect(there == self.names, f"there are {there} bytes of names", f"{self.names}, as operations need")

    def _name(self, row: np.void) -> str:
        first, length = row["name"].tolist()
        expect(first == self.names, f"its name begins at {first}", f"{self.names}, where the one before ends")
        self.names += length
        there = len(self.file.names)
        expect(self.names <= there, f"its name ends at {self.names}", f"at most {there}, the bytes of names")
        return _decoded(self.file.names[first : self.names], "its name")

    def _inputs(self, row: np.void) -> list[int]:
        first, count = row["inputs"].tolist()
        expect(first == self.inputs, f"its inputs begin at {first}", f"{self.inputs}, where those before end")
        self.inputs += count
        there = len(self.file.inputs)
        expect(self.inputs <= there, f"its inputs end at {self.inputs}", f"at most {there}, the length of their list")
        return self.file.inputs[first : self.inputs].tolist()

    def _output(self, row: np.void) -> int:
        place = int(row["output"])
        fresh = place < len(self.graph.tensors)
        expect(fresh, f"it writes tensor {place}", "one that is not written yet")
        return place

    def _optional(self, what: str, place: int, count: int) -> np.ndarray | None:
        return self.file.array(what, int(place), count, np.dtype("<f4")) if place else None

    def _matrix(self, row: np.void, op: Op) -> None:
        outputs, columns = row["matrix"].tolist()
        expect(outputs * columns > 0, f"a matrix of {outputs} x {columns}", "at least 1 x 1")
        self.weights += outputs * columns
        fits = self.weights <= ALL_WEIGHTS
        expect(fits, f"a matrix of {outputs} x {columns}", "at most 2^30 places in all matrices")
        _check_encoding(row, op.kind, outputs * columns, columns)
        kept, dtype = int(row["kept"]), VALUES[row["values"]]
        places = self._places(row, outputs, columns, kept)
        values = self.file.array("values", int(row["values_at"]), kept, dtype)
        values = values if dtype == np.int8 else values.astype(np.float32)
        if places is None:
            op.weight = values.reshape(outputs, columns)
        else:
            op.weight = np.zeros((outputs, columns), values.dtype)
            op.weight[places] = values
        if dtype == np.int8:
            op.scales = self.file.array("scales", int(row["scales_at"]), outputs, np.dtype("<f4"))
        else:
            _absent("scales", row, "scales_at")

    def _places(self, row: np.void, outputs: int, columns: int, kept: int) -> tuple[np.ndarray, np.ndarray] | None:
        """The rows and columns of a sparse matrix's values."""
        if row["encoding"] == DENSE:
            _absent("start of rows", row, "start_at")
            _absent("index", row, "index_at")
            return None
        start = self.file.array("start of rows", int(row["start_at"]), outputs + 1, np.dtype("<u4")).astype(np.int64)
        expect(start[0] == 0, f"the first row starts at {start[0]}", 0)
        for o in np.flatnonzero(np.diff(start) < 0)[:1]:
            expect(False, f"row {o} ends at {start[o + 1]}", f"at least {start[o]}, its start")
        expect(start[-1] == kept, f"the last row ends at {start[-1]}", f"{kept}, the number of values")
        narrow = np.dtype("<u2" if row["bits"] == 16 else "<u4")
        index = self.file.array("index", int(row["index_at"]), kept, narrow).astype(np.int64)
        rows = np.repeat(np.arange(outputs), np.diff(start))
        for k in np.flatnonzero((np.diff(index) <= 0) & (np.diff(rows) == 0))[:1]:
            expect(False, f"the index of row {rows[k]} does not rise", "places in rising order")
        for k in np.flatnonzero(index >= columns)[:1]:
            expect(False, f"row {rows[k]} has a weight at {index[k]}", f"less than {columns}")
        return rows, index


NO_MATRIX = ("matrix", "encoding", "values", "bits", "kept", "start_at", "index_at", "values_at", "scales_at")


def _absent(what: str, row: np.void, *fields: str) -> None:
    for name in fields:
        for value in np.atleast_1d(row[name]):
            expect(value == 0, f"{what}: {value}", "0, since there is none")


def _settings(row: np.void) -> dict[str, Any]:
    number = int(row["activation"])
    expect(number < len(ACTIVATIONS), f"activation {number}", "0 to 10")
    counts = int(row["count_padding"])
    expect(counts <= 1, f"counting of padding is {counts}", "0 or 1")
    windows = {name: tuple(row[name].tolist()) for name in ("kernel", "stride", "dilation", "padding")}
    rest = {"groups": int(row["groups"]), "activation": ACTIVATIONS[number], "slope": float(row["slope"])}
    return windows | rest | {"count_padding": bool(counts)}


def _check_encoding(row: np.void, kind: str, places: int, columns: int) -> None:
    encoding, values, bits, kept = (int(row[name]) for name in ("encoding", "values", "bits", "kept"))
    plain, narrow = kind == "affine", columns <= 65536
    expect(1 <= encoding <= (1 if plain else 2), f"encoding {encoding}", "1" if plain else "1 or 2")
    expect(values <= (0 if plain else 2), f"values {values}", "0" if plain else "0, 1 or 2")
    if encoding == DENSE:
        expect(kept == places, f"{kept} values", f"{places}, the places of the matrix")
        expect(bits == 0, f"{bits} bits of an index", 0)
    else:
        expect(kept <= places, f"{kept} values", f"at most {places}, the places of the matrix")
        expect(bits == 32 or (bits == 16 and narrow), f"{bits} bits of an index", "16 or 32" if narrow else "32")
