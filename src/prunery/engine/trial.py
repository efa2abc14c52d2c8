"""`lowered`: a network as the engine's graph, held against the network before anybody sees it."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..spec import Refused
from .capture import captured
from .given import evaluated
from .graph import Graph
from .interpret import every_tensor, interpret
from .lower import compact, fused, single
from .rules import LAYERS
from .spelt import spelt_

EQUAL = 1e-4
"""of the largest output"""
SHOWN = 4
"""images of the example that the graph is tried on"""


def lowered(network: nn.Module, example: Tensor, alone: bool = False) -> Graph:
    """The graph that computes what the network does in evaluation mode, for images like the example's.

    Weights that are zero are what was pruned. The graph's output is compared with the network's on the example and on
    random images; where they differ, the network is refused with the name of the first module that is to blame.
    With `alone`, whole weights are known as such behind inputs of floats too.
    """
    network = spelt_(evaluated(network))
    plain = whole(captured(network, example), alone)
    loose = fused(plain)
    graph = single(compact(loose))
    for images in tried(example.detach().float().cpu()):
        if not (seen := compared(network, graph, images)) <= EQUAL:
            look_closer(network, plain, loose, images, seen)
    return graph


def whole(graph: Graph, alone: bool = False) -> Graph:
    """Layers of whole numbers known as such: what normalisation does to them goes into their scales."""
    makers = {op.output: op for op in graph.ops}

    def rounds(tensor: int) -> bool:
        op = makers.get(tensor)
        return op is not None and (op.kind == "rounded" or (op.kind == "flatten" and rounds(op.inputs[0])))

    ops = list(graph.ops)
    for place, op in enumerate(ops):
        if op.kind in LAYERS and op.weight is not None and (alone or rounds(op.inputs[0])) and is_whole(op.weight):
            ops[place] = replace(op, scales=np.ones(len(op.weight)))
    return replace(graph, ops=ops)


def is_whole(weight: np.ndarray) -> bool:
    """Whether signed bytes hold the weights."""
    return bool((weight == np.rint(weight)).all() and (np.abs(weight + 0.5) < 128).all())


def look_closer(network: nn.Module, plain: Graph, loose: Graph, images: Tensor, seen: float) -> None:
    """In doubles: an error of ours, or rounding that the network magnifies, or nothing."""
    rounded = answer(network, images)
    images = images.double()
    exact = answer(network.double(), images)
    if difference(interpret(single(compact(loose)), images, images.dtype), exact) <= EQUAL:
        network.float()
    elif (own := difference(rounded, exact)) > EQUAL:
        raise Refused(
            f"the network magnifies rounding: its own results in float32 and float64 differ by {own:.1e} of the "
            f"largest (expected at most {EQUAL:g}); train it, or look at the statistics of its normalisation"
        )
    else:
        raise Refused(
            f"{to_blame(network, plain, loose, images)}: the engine's graph differs from the network here, by "
            f"{seen:.1e} of the largest result in the end (allowed {EQUAL:g}); please report the network"
        )


def compared(network: nn.Module, graph: Graph, images: Tensor) -> float:
    """How far the graph's results lie from the network's, which must be worth comparing with."""
    wanted = answer(network, images)
    if not torch.isfinite(wanted).all():
        raise Refused("the network's results are not finite; train it again, or look at its weights")
    if not close(answer(network, images), wanted):
        raise Refused("the network gives other results for the same images each time; expected one without chance")
    return difference(interpret(graph, images, images.dtype), wanted)


def tried(example: Tensor) -> Iterator[Tensor]:
    """The example, and random images of its shape."""
    yield example[:SHOWN]
    for seed in (1, 2):
        yield torch.randn(seed + 1, *example.shape[1:], generator=torch.Generator().manual_seed(seed))


def answer(network: nn.Module, images: Tensor) -> Tensor:
    """The one tensor that a network returns."""
    with torch.no_grad():
        return next(leaf for leaf in tree_leaves(network(images)) if isinstance(leaf, Tensor))


def difference(found: Tensor, wanted: Tensor) -> float:
    """The largest of all differences, relative to the largest number; infinite where the sizes differ."""
    if found.numel() != wanted.numel():
        return float("inf")
    found, wanted = found.detach(), wanted.detach()
    largest = max(float(wanted.abs().max()), 1e-30)
    return float((found.reshape(wanted.shape) - wanted).abs().max()) / largest


# ---- who is to blame


def to_blame(network: nn.Module, plain: Graph, loose: Graph, images: Tensor) -> str:
    """The first module whose output the graph does not reproduce: as it was captured, or as it was lowered."""
    tensors = every_tensor(plain, images, images.dtype)
    outputs = outputs_of(network, images)
    for name in dict.fromkeys(op.name for op in plain.ops):
        made = [tensors[op.output] for op in plain.ops if op.name == name]
        if name in outputs and not any(close(m, o) for m in made for o in outputs[name]):
            return name
    low = every_tensor(loose, images, images.dtype)
    for op in loose.ops:
        if op.output in tensors and not close(low[op.output], tensors[op.output]):
            return op.name
    return "its output"


def close(found: Tensor, wanted: Tensor) -> bool:
    return difference(found, wanted) <= EQUAL


def outputs_of(network: nn.Module, images: Tensor) -> dict[str, list[Tensor]]:
    """What each module without parts returned, each time."""
    found: dict[str, list[Tensor]] = defaultdict(list)

    def kept(name: str, output: object) -> None:
        if isinstance(output, Tensor):
            found[name].append(output.clone())

    hooks = [
        module.register_forward_hook(lambda module, args, output, name=name: kept(name, output))
        for name, module in network.named_modules()
        if not any(True for _ in module.children())
    ]
    try:
        answer(network, images)
    finally:
        for hook in hooks:
            hook.remove()
    return found
