"""The one place that knows Torch-Pruning: which channels of which layers are tied to those of a given layer.

Its dependency graph follows the network's operations through autograd. Of it we use `build_dependency`, and walk the
nodes' dependencies with their index mappings ourselves; contract tests hold it to that. The network that is traced is
a copy.
"""

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..arguments import copied
from ..masks import PRUNABLE
from ..spec import Refused

Kind = Literal["out", "in", "norm", "other"]
NORMS = (nn.modules.batchnorm._NormBase, nn.PReLU)
"""what has parameters of its own for each channel and mixes none"""
Pairs = tuple[tuple[int, int], ...]
NOWHERE = -1
MEETING = 8
"""so many channels of a layer may meet at one index, on average; more do where shuffles are taken for sums"""


@dataclass(frozen=True)
class Tie:
    """A module that channels of a root layer reach: `pairs` are (channel of the root, index there)."""

    module: str
    kind: Kind
    pairs: Pairs
    what: str = ""
    """of other: what it is, in words"""


def ties(network: nn.Module, example: Tensor) -> dict[str, list[Tie]]:
    """By root layer, everything that its output channels are tied to; a layer tied to an earlier root is no root."""
    twin = apart(copied(network, "prune").cpu().float()).eval()
    for p in twin.parameters():
        p.requires_grad_(p.is_floating_point())
    names = {m: n for n, m in twin.named_modules()}
    graph = _graph(twin, example)
    roots = [m for m in twin.modules() if isinstance(m, PRUNABLE) and m in graph.module2node]
    found: dict[str, list[Tie]] = {}
    covered: set[nn.Module] = set()
    for root in roots:
        if root not in covered:
            found[_plain(names[root])] = _of(graph, root, names, covered)
    return found


def _graph(twin: nn.Module, example: Tensor) -> Any:
    import torch_pruning as tp

    graph = tp.DependencyGraph()
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            _build(graph, twin, example.detach().cpu().float())
    except Exception as error:  # tracing fails in as many ways as there are networks
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        kind = type(twin).__name__
        raise Refused(
            f"prune: the channels of {kind} cannot be traced ({type(error).__name__}: {reason}); "
            "use structure filter or weight"
        ) from None
    return graph


def _build(graph: Any, twin: nn.Module, example: Tensor) -> None:
    """The widths of some reshapes are inferred as 0 (ShuffleNet's shuffle), and divided by: those map nothing.

    Whether channels can go that pass such a reshape is left to trying it out.
    """
    from torch_pruning.dependency import index_mapping
    from torch_pruning.ops import OPTYPE

    try:
        graph.build_dependency(twin, example_inputs=example, verbose=False)
    except ZeroDivisionError:  # everything is built but for the index mappings, which come last
        mappings = {
            OPTYPE.CONCAT: index_mapping.update_concat_index_mapping,
            OPTYPE.SPLIT: index_mapping.update_split_index_mapping,
            OPTYPE.RESHAPE: index_mapping.update_reshape_index_mapping,
            OPTYPE.UNBIND: index_mapping.update_unbind_index_mapping,
            OPTYPE.EXPAND: index_mapping.update_expand_index_mapping,
            OPTYPE.SLICE: index_mapping.update_slice_index_mapping,
        }
        for node in graph.module2node.values():
            if node.type in mappings:
                with suppress(ZeroDivisionError):
                    mappings[node.type](graph, node)


def _of(graph: Any, root: nn.Module, names: dict[nn.Module, str], covered: set[nn.Module]) -> list[Tie]:
    """Everything a layer's channels reach, in our own words."""
    reached = _reached(graph, root)
    if reached is None:
        own = tuple((i, i) for i in range(_outputs(root)))
        return [
            Tie(_plain(names[root]), "out", own),
            Tie("", "other", own, "a reshape or slice that cannot be followed"),
        ]
    found = []
    for (module, handler), pairs in reached.items():
        tie = _tie(graph, module, handler, tuple(sorted(pairs)), names)
        if tie is not None:
            found.append(tie)
            if tie.kind == "out" and len({i for _, i in tie.pairs}) == _outputs(module):
                covered.add(module)
    return found


def _reached(graph: Any, root: nn.Module) -> dict[tuple[Any, Any], set[tuple[int, int]]] | None:
    """By (module, in or out), pairs of (channel of the root, index there); None where the indices make no sense.

    `get_pruning_group` finds the same, but infers the whole network's shapes anew for each layer that it is asked of,
    and does not end where slices of another axis are taken for slices of the channels (Swin's merging of patches).
    """
    first = graph.get_pruner_of_module(root).prune_out_channels
    start = {(i, i) for i in range(_outputs(root))}
    reached = {(root, first): set(start)}
    waiting = [(graph.module2node[root], first, start)]
    indices = range(max(max(m.weight.shape[:2]) for m in graph.module2node if isinstance(m, PRUNABLE)))
    while waiting:
        node, handler, pairs = waiting.pop()
        for dep in node.dependencies:
            if dep.is_triggered_by(handler):
                known = reached.setdefault((dep.target.module, dep.handler), set())
                new = _mapped(dep, pairs) - known
                if any(i not in indices for _, i in new):
                    return None
                if new:
                    known |= new
                    if len(known) > MEETING * max(len(start), len({i for _, i in known})):
                        return None
                    waiting.append((dep.target, dep.handler, new))
    return {place: pairs for place, pairs in reached.items() if pairs}


def _mapped(dep: Any, pairs: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """The pairs on the other side of a dependency."""
    from torch_pruning._helpers import _HybridIndex

    if not any(dep.index_mapping):
        return pairs
    indices = [_HybridIndex(idx=i, root_idx=r) for r, i in pairs]
    try:
        for mapping in dep.index_mapping:
            indices = mapping(indices) if mapping is not None else indices
    except IndexError:  # a split into more parts than the graph has sizes for
        return {(r, NOWHERE) for r, _ in pairs}
    return {(h.root_idx, h.idx) for h in indices}


def _outputs(module: Any) -> int:
    return module.out_features if isinstance(module, nn.Linear) else module.out_channels


def _tie(graph: Any, module: Any, handler: Any, pairs: Pairs, names: dict[nn.Module, str]) -> Tie | None:
    """None for operations without channels of their own."""
    import torch_pruning as tp

    if isinstance(module, nn.modules.conv._ConvNd) and 1 < module.groups == module.out_channels != module.in_channels:
        # The graph takes one output in each group for a depthwise convolution, whatever the inputs are.
        return Tie("", "other", pairs, f"{names[module]}, which has one filter in each of its groups,")
    if isinstance(module, PRUNABLE):
        depthwise = not isinstance(module, nn.Linear) and module.groups == module.out_channels == module.in_channels > 1
        out = depthwise or graph.is_out_channel_pruning_fn(handler)
        return Tie(_plain(names[module]), "out" if out else "in", pairs)
    if isinstance(module, NORMS):
        if isinstance(module, nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d) and not module.affine:
            return Tie("", "other", pairs, f"{type(module).__name__} {names[module]}, whose size no tensor says,")
        shared = isinstance(module, nn.PReLU) and module.num_parameters == 1
        return None if shared else Tie(names[module], "norm", pairs)
    if isinstance(module, tp.ops._OutputOp):
        return Tie("", "other", pairs, "the network's outputs")
    if isinstance(module, nn.Parameter):
        return Tie("", "other", pairs, "a parameter of no layer")
    if module in names and any(True for _ in module.parameters(recurse=False)):
        return Tie(names[module], "other", pairs, f"{type(module).__name__} {names[module]}")
    return None


PART = "prunery_layer"


def apart(network: nn.Module) -> nn.Module:
    """Layers that hold several operations (they offer `apart()`) as a row of plain ones; in place, on a copy."""
    for name, module in list(network.named_modules()):
        split: Callable[[], nn.Sequential] | None = getattr(module, "apart", None)
        if split is not None:
            parent, _, leaf = name.rpartition(".")
            row = split()
            named = nn.Sequential()
            for i, part in enumerate(row):
                named.add_module(PART if i == 0 else str(i), part)
            network.get_submodule(parent).add_module(leaf, named)
    return network


def _plain(name: str) -> str:
    """A layer's name in the network as it is."""
    return name.removesuffix("." + PART)
