"""`pack`: a network becomes one file that runs without torch, checked against the network before it is handed out."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..runtime import MOST_DIMENSIONS, RESULT_SHAPE, Packed, loads
from ..spec import Refused, choose
from . import given
from .file import read, write
from .graph import Graph
from .learned import has_steps, in_learned_bytes
from .trial import answer, lowered

EQUAL = 1e-4
"""of the largest output: what the order of sums does to floats"""
ROUNDED = 1e-2
"""where floats that were computed are rounded to bytes: a difference in the last place can make the next byte of one"""
TRIED = 4
"""images of the example that the kernels are tried on"""
LANES = 16
"""of a vector, at most: more images than these are computed by another plan, as many at once as there are lanes"""


def pack(
    network: nn.Module,
    example: Tensor,
    calibration: Iterable[Tensor | Sequence[Tensor]] | None = None,
    values: Literal["f32", "f16"] = "f32",
    about: dict[str, Any] | None = None,
) -> Packed:
    """The network as a packed file in memory, ready to run: `packed(x)`, `packed.save(path)`, `packed.explain()`.

    Zeros are what was pruned. `example` is a batch of inputs of the size that it will run at. With `calibration`,
    weights and activations become bytes: it gives batches of typical inputs, or of (inputs, labels) as a DataLoader
    does, of which the first 4,096 inputs are looked at. `values="f16"` halves a float file. `about` is what the file
    says of itself, a table of texts, numbers and lists; the key "result_shape" is taken.
    """
    network, example = given.a_network(network, "pack"), given.a_batch(example, "pack")
    choose(values, ("f32", "f16"), "pack: values")
    about = _own(about)
    typical = None if calibration is None else given.batches(calibration, example, "pack")
    graph = lowered(network, example)
    if has_steps(graph):
        graph = in_learned_bytes(graph, typical)
    elif typical is not None:
        from .calibrate import quantised_graph

        graph = quantised_graph(graph, typical)
    packed = loads(write(graph, about | _reshaped(network, graph, example), values=values))
    _check(packed, graph, example, values)
    return packed


def _own(about: Any) -> dict[str, Any]:
    """What the caller lets the file say of itself."""
    if not isinstance(about, dict | None):
        raise Refused(f"pack: about is a {type(about).__name__}; expected a table")
    if RESULT_SHAPE in (about or {}):
        raise Refused(f'pack: about has the key "{RESULT_SHAPE}", which the engine writes itself; choose another')
    return about or {}


def _reshaped(network: nn.Module, graph: Graph, example: Tensor) -> dict[str, list[int]]:
    """The shape of one image's result where it is not the tensor's, which knows vectors and pictures only."""
    made, tensor = answer(given.evaluated(network), example[:TRIED]).shape[1:], graph.tensors[graph.output]
    if tuple(made) == (tensor.shape[:1] if tensor.is_vector else tensor.shape):
        return {}
    if len(made) > MOST_DIMENSIONS:
        seen = f"pack: the network's result has {len(made)} dimensions beside the batch"
        raise Refused(f"{seen}; expected at most {MOST_DIMENSIONS}")
    return {RESULT_SHAPE: [*made]}


def _check(packed: Packed, graph: Graph, example: Tensor, values: str) -> None:
    """What the kernels compute is what the graph says: bytes exactly, floats to 1e-4 of the largest.

    A few images go one by one, many take the plan that serves large batches.
    """
    from .interpret import interpret

    x = example[:TRIED].numpy()
    with torch.no_grad():
        wanted = np.asarray(interpret(graph, x))
    times = LANES // len(x) + 1
    many, few = np.asarray(packed(np.concatenate([x] * times))), np.asarray(packed(x))
    found = np.concatenate([few, many]).reshape(1 + times, *wanted.shape)
    largest = max(float(np.abs(wanted).max()), 1e-30)
    difference = float(np.abs(found - wanted).max()) / largest
    allowed = ROUNDED if values == "f16" or rounds(graph) else EQUAL
    if not difference <= allowed:
        raise Refused(
            f"pack: the packed network differs from the network by {difference:.1e} of its largest output "
            f"(allowed {allowed:g}); this is a bug of the engine: please report the network"
        )


def rounds(graph: Graph) -> bool:
    """Whether floats that the network computes become bytes on the way."""
    return any(op.kind == "quantize" and op.inputs[0] != graph.input for op in graph.ops)


def graph_of(packed: Packed) -> Graph:
    """The graph in a packed file."""
    return read(packed.data)[0]


def is_quantised(packed: Packed) -> bool:
    """Whether any part of it computes in bytes."""
    return any(t.type == "u8" for t in graph_of(packed).tensors)
