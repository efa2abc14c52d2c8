"""From a network to the engine's graph: torch.export says what is computed, operators.py how the engine says it."""

import contextlib
import io
import logging
import operator
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils._pytree import tree_leaves, tree_map

from ..spec import Refused
from .graph import Graph
from .net import INSTEAD, Net, canonical, move, sized, tensor_of
from .operators import DROPOUTS, MOVES, OPERATORS, SAME, SHAPED, pointwise
from .places import IMAGES, Value

INSTEADS = {
    **dict.fromkeys(("layer_norm", "group_norm", "instance_norm", "rms_norm"), "replace it by BatchNorm"),
    "log_softmax": "end with the scores, or with softmax",
}  # fmt: skip
"""what can be done about operators that are often met"""
SILENT = ("_assert_tensor_metadata", "_assert_async", "_assert_scalar")


def captured(network: nn.Module, example: torch.Tensor) -> Graph:
    """What a network in evaluation mode computes for images like the example's; nothing is fused yet."""
    program = exported(network, example[:1].repeat(IMAGES, *[1] * (example.ndim - 1)))
    net = Net()
    values: dict[fx.Node, Any] = {}
    needed = reached(program.graph)
    constants = dict(constants_of(program))
    for node in program.graph.nodes:
        if node.op == "placeholder":
            values[node] = constants[node.name] if node.name in constants else image(net, node)
        elif node.op == "get_attr":
            values[node] = getattr(program.graph_module, node.target, None)
        elif node.op == "call_function" and node in needed:
            values[node] = carried_out(net, node, values)
    return finished(net, node.name, only_output(program, values))


# ---- torch.export


def exported(network: nn.Module, images: torch.Tensor) -> ExportedProgram:
    """The network as torch's operators, none of which writes over what another still reads."""
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(network, (images,), strict=False)
            return program.run_decompositions({}) if overwrites(program.graph) else program
    except Exception as error:  # whatever happens in a forward(), and in the exporter
        if why := failure(network, images):
            seen = f"{type(network).__name__} cannot take inputs of {list(images.shape)} ({why})"
            raise Refused(f"{seen}; expected an example of the size that it runs at, and a forward() of one") from None
        seen = f"torch.export cannot follow {type(network).__name__} on two images like the example ({words(error)})"
        raise Refused(
            f"{seen}; expected a forward() of tensors whose course does not depend on their values nor on the number "
            "of images"
        ) from None


def failure(network: nn.Module, images: torch.Tensor) -> str:
    """What the network itself says against such images; nothing if it takes them."""
    try:
        with quiet(), torch.no_grad():
            network(images)
        return ""
    except Exception as error:  # a forward() is anybody's code
        return words(error)


def words(error: Exception) -> str:
    """An error on one line, cut short."""
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters print graphs, warnings and advice for their own developers; what matters is in the error."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "nncf")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def overwrites(graph: fx.Graph) -> bool:
    """Whether something is read after an operator that works in place has written over it."""
    position = {node: number for number, node in enumerate(graph.nodes)}
    memory: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.nodes:
        written, shared = arguments_in_memory(node)
        for one in written:
            others = [n for n in memory.get(one, [one]) if n is not node]
            if any(position[user] > position[node] for n in others for user in n.users):
                return True
        group = memory.setdefault(node, [node])
        for one in shared:
            group = memory[one]
            group.append(node)
            memory[node] = group
    return False


def arguments_in_memory(node: fx.Node) -> tuple[list[fx.Node], list[fx.Node]]:
    """The arguments that an operator writes, and those whose memory its result may be."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return [], [n for n in node.args if isinstance(n, fx.Node)] if node.target is operator.getitem else []
    pairs = [(a, n) for a, n in zip(node.target._schema.arguments, node.args, strict=False) if isinstance(n, fx.Node)]
    written = [n for a, n in pairs if a.alias_info is not None and a.alias_info.is_write]
    passes = name_of(node) in (*SAME, *DROPOUTS)
    return written, [n for a, n in pairs if a.alias_info is not None or passes]


def reached(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that the output depends on."""
    found: set[fx.Node] = set()
    waiting = [node for node in graph.nodes if node.op == "output"]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(node.all_input_nodes)
    return found


def constants_of(program: ExportedProgram) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters, buffers and other tensors of the network, by the names of their placeholders."""
    for spec in program.graph_signature.input_specs:
        if spec.kind != InputKind.USER_INPUT and spec.target is not None:
            held = program.state_dict if spec.target in program.state_dict else program.constants
            yield spec.arg.name, held[spec.target].detach()


def only_output(program: ExportedProgram, values: dict[fx.Node, Any]) -> Value:
    """What the network returns: one tensor that depends on the images."""
    names = program.graph_signature.user_outputs
    made = [values[node] for node in values if node.name in names]
    if len(names) != 1 or len(made) != 1 or not isinstance(made[0], Value):
        raise Refused(f"the network returns {len(names)} results; expected one tensor that depends on the images")
    return made[0]


# ---- node by node


def image(net: Net, node: fx.Node) -> Value:
    """The network's input, which is the graph's first tensor."""
    shape = tuple(node.meta["val"].shape[1:])
    net.graph.input = net.graph.tensor(sized(canonical(net, shape)))
    return Value(net.graph.input, shape)


def finished(net: Net, path: str, output: Value) -> Graph:
    """The graph with its output; a network without an operation gets one that does nothing."""
    net.path, net.module, net.operator = "", "its output", path
    net.graph.output = tensor_of(net, output)
    if net.graph.output == net.graph.input:
        net.graph.output = pointwise(net, output, "none").tensor
    return net.graph


def carried_out(net: Net, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    """A node's value: computed where it does not depend on the images, otherwise said in the graph's words."""
    args, kwargs = (filled(a, values) for a in (list(node.args), dict(node.kwargs)))
    name = name_of(node)
    if name in SHAPED:
        args = [*args[: name in MOVES], *(blank(a) for a in args[name in MOVES :])]
    if not any(is_value(leaf) for leaf in tree_leaves((args, kwargs), is_leaf=is_value)):
        return computed(node, args, kwargs)
    net.path, net.module = module_of(node)
    if node.target is operator.getitem:
        return chosen(net, *args)
    net.operator = name
    if name in SILENT:
        return None
    net.made = shape_of(net, node)
    if name in MOVES:
        return moved_by(net, node, args, kwargs)
    if name not in OPERATORS:
        known = name.strip("_").removeprefix("native_")
        raise net.refused("is not an operation of the engine", INSTEADS.get(known, INSTEAD))
    return OPERATORS[name](net, **bound(node, args, kwargs))


def blank(argument: Any) -> Any:
    """A tensor of an argument's shape, for operators that want no more of it."""
    return torch.zeros(IMAGES, *argument.shape) if is_value(argument) else argument


def is_value(leaf: Any) -> bool:
    return isinstance(leaf, Value)


def filled(arguments: Any, values: dict[fx.Node, Any]) -> Any:
    """Arguments with values in the places of nodes."""
    return tree_map(lambda a: values[a] if isinstance(a, fx.Node) else a, arguments)


def computed(node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """What an operator makes of constants, which it must not change."""
    args = [a.clone() if isinstance(a, torch.Tensor) and is_in_place(node) else a for a in args]
    with torch.no_grad():
        return node.target(*args, **kwargs)  # type: ignore[operator]


def is_in_place(node: fx.Node) -> bool:
    return bool(arguments_in_memory(node)[0])


def name_of(node: fx.Node) -> str:
    """An operator's name, the same in place and not."""
    target: Any = node.target
    if isinstance(target, torch._ops.OpOverload):
        name = target._schema.name.split("::")[-1]
        return name[:-1] if is_in_place_name(name) else name
    return target.name() if isinstance(target, torch._ops.OperatorBase) else target.__name__


def is_in_place_name(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__")


def module_of(node: fx.Node) -> tuple[str, str]:
    """Path and class of the module whose forward() called an operator."""
    stack = [*node.meta.get("nn_module_stack", {}).values()]
    path, kind = stack[-1] if stack else ("", "")
    kind = kind if isinstance(kind, str) else kind.__name__
    return re.sub(r"@\d+", "", path), kind.rpartition(".")[2]


def shape_of(net: Net, node: fx.Node) -> tuple[int, ...]:
    """The shape of an operator's first result, without images."""
    first = next((leaf for leaf in tree_leaves(node.meta.get("val")) if isinstance(leaf, torch.Tensor)), None)
    if first is None or not first.dtype.is_floating_point:
        raise net.refused("makes something else than floats of the images")
    return tuple(first.shape[1:])


def chosen(net: Net, results: Any, place: int) -> Any:
    """One of an operator's results."""
    if results[place] is None:
        raise net.refused(f"has no result {place} in the engine, expected only the first to be used")
    return results[place]


def bound(node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by the names of the operator's schema, defaults included."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return {}
    schema = node.target._schema.arguments
    names = ["x" if a.name in ("self", "input") else a.name for a in schema]
    defaults = {n: a.default_value for n, a in zip(names, schema, strict=True) if a.has_default_value()}
    return {**defaults, **dict(zip(names, args, strict=False)), **kwargs}


def moved_by(net: Net, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """What an operator that only moves numbers does to the places of its first argument."""
    x, *rest = args
    if not isinstance(x, Value) or any(isinstance(leaf, Value) for leaf in tree_leaves(rest, is_leaf=is_value)):
        raise net.refused("by places that depend on the images is not there")
    return move(net, [x], lambda places: node.target(places, *rest, **kwargs))  # type: ignore[operator]
