"""What surgery can change of a network, in words that a file can hold: the size of every layer, absolute.

`describe` says it, `reshape_` makes a freshly built network so. No code comes from the description: kinds are looked up
in a table, and every number is checked before anything is allocated or changed.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..spec import Refused, quote

Told = dict[str, Any]
Description = dict[str, Told]
LIMIT = 2**31
"""weights of a whole network; a description that asks for more is no description of ours"""
LENGTH, DEPTH = 8, 4
"""of rows that stand in a layer's place, and of rows within rows; low rank makes two or three layers of one"""
CONVS = {
    c.__name__: c for c in (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
}
BATCHES = {c.__name__: c for c in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)}
INSTANCES = {c.__name__: c for c in (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)}
NORMS = BATCHES | INSTANCES
SIDES = ("kernel_size", "stride", "padding", "dilation")
UNUSUAL: Told = {"padding_mode": "zeros", "affine": True, "track_running_stats": True}
"""what is only told where it differs from this"""
FIXED = ("kind", *SIDES, *UNUSUAL)
"""what surgery never changes of a layer that it leaves in its place"""
WRITTEN = "expected what prunery wrote: copy the file again"


def describe(network: nn.Module) -> Description:
    """Every layer that surgery can resize or replace, by name; a row of layers in a layer's place by its numbers."""
    told = {name: _told(module, name) for name, module in network.named_modules() if name}
    return {name: facts for name, facts in told.items() if facts is not None}


def _told(module: nn.Module, name: str) -> Told | None:
    if isinstance(module._parameters.get("weight"), nn.parameter.UninitializedParameter):
        raise Refused(f"{name} has no size yet; run the network once on a batch first")
    if isinstance(module, nn.Linear):
        return {"kind": "Linear", "in": module.in_features, "out": module.out_features, "bias": module.bias is not None}
    if isinstance(module, tuple(CONVS.values())):
        return _conv(module)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return _norm(module, _kind(module, BATCHES) or "BatchNorm2d")  # synchronised ones count as the usual ones
    if (kind := _kind(module, INSTANCES)) and module.affine:  # the size of others is in no tensor
        return _norm(module, kind)
    if isinstance(module, nn.PReLU):
        return {"kind": "PReLU", "slopes": module.num_parameters}
    return {"kind": "Identity"} if type(module) is nn.Identity else None


def _norm(module: Any, kind: str) -> Told:
    return {"kind": kind, "features": module.num_features} | _unusual(module, "affine", "track_running_stats")


def _conv(module: Any) -> Told:
    sizes = {"in": module.in_channels, "out": module.out_channels, "groups": module.groups}
    sides = {k: v if isinstance(v := getattr(module, k), str) else list(v) for k in SIDES}
    bias = {"bias": module.bias is not None}
    return {"kind": _kind(module, CONVS)} | sizes | bias | sides | _unusual(module, "padding_mode")


def _kind(module: nn.Module, table: dict[str, Any]) -> str:
    """The plain class that a subclass is one of."""
    return next((name for name, cls in table.items() if isinstance(module, cls)), "")


def _unusual(module: nn.Module, *keys: str) -> Told:
    return {k: v for k in keys if (v := getattr(module, k)) != UNUSUAL[k]}


def reshape_(network: nn.Module, description: Any, where: str = "the architecture") -> None:
    """Make every layer as described, in place, all or nothing; what fits already is not touched."""
    _checked(description, where)
    modules = {name: module for name, module in network.named_modules() if name}
    layers, rows = _sorted(description, modules, where)
    changed = {name: wanted for name, wanted in layers.items() if _told(modules[name], name) != wanted}
    for name, wanted in changed.items():
        _same_layer(name, modules[name], wanted, where)
    made: dict[str, nn.Module] = {}
    for name, parts in rows.items():
        made[name] = _row(parts, _like(modules[name]), f"{where}: {quote(name)}")
    for name, wanted in changed.items():
        if wanted["kind"] == "Identity":
            made[name] = nn.Identity()
        else:
            _resize_(modules[name], wanted)
    for name, module in made.items():
        parent, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(parent), leaf, module)


def _sorted(
    description: Description, modules: dict[str, nn.Module], where: str
) -> tuple[Description, dict[str, Description]]:
    """Layers that the network has, and rows by the name of the layer that they replace."""
    layers, rows = {}, defaultdict[str, Description](dict)
    for name, wanted in description.items():
        if name in modules:
            layers[name] = wanted
            continue
        words = name.split(".")
        above = (".".join(words[:i]) for i in range(1, len(words)))
        place = next((a for a in above if a not in description and _replaceable(modules.get(a), a)), None)
        if place is None:
            seen = f"{where} names {quote(name)}, which this network has not"
            raise Refused(f"{seen}; expected the network it was made for")
        rows[place][name[len(place) + 1 :]] = wanted
    return layers, rows


def _replaceable(module: nn.Module | None, name: str) -> bool:
    """A single layer that a row may replace."""
    told = _told(module, name) if module is not None else None
    return told is not None and (told["kind"] == "Linear" or told["kind"] in CONVS)


def _checked(description: Any, where: str) -> None:
    if not isinstance(description, dict):
        raise Refused(f"{where} is {type(description).__name__}; expected a table of layers")
    for name, told in description.items():
        problem = _problem(told)
        if problem:
            raise Refused(f"{where}: {quote(name)} {problem}; {WRITTEN}")
    total = sum(map(_size, description.values()))
    if total > LIMIT:
        raise Refused(f"{where} asks for {total:.3g} weights; expected at most {LIMIT}: copy the file again")


def _problem(told: Any) -> str:
    """What is wrong with the description of one layer; nothing when it can be made."""
    if not isinstance(told, dict) or not isinstance(told.get("kind"), str):
        return "has no kind"
    kind = told["kind"]
    family = _family(told)
    if family not in KEYS:
        return f"is a {quote(kind)}, which is no layer that surgery makes"
    needed, optional = KEYS[family]
    if not {"kind", *needed} <= set(told) <= {"kind", *needed, *optional}:
        return f"has the keys {', '.join(sorted(map(str, told)))[:100]}"
    wrong = [k for k in told if k != "kind" and not CHECKS[k](told[k])]
    if wrong:
        return f"has {wrong[0]} = {quote(told[wrong[0]])}"
    return _conflict(told) if family == "Conv" else ""


def _conflict(told: Told) -> str:
    """What PyTorch does not put together."""
    dims = int(told["kind"][-2])
    for k in SIDES:
        if not isinstance(told[k], str) and len(told[k]) != dims:
            return f"has {k} = {quote(told[k])}"
    if told["padding"] == "same" and max(told["stride"]) > 1:
        return f"has stride = {quote(told['stride'])} with same padding"
    if "Transpose" in told["kind"] and (isinstance(told["padding"], str) or "padding_mode" in told):
        return f"is a {told['kind']} with padding = {quote(told['padding'])}, which must be numbers of zeros"
    if told["in"] % told["groups"] or told["out"] % told["groups"]:
        return f"has {told['groups']} groups for {told['in']} inputs and {told['out']} outputs"
    return ""


def _count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**24


def _numbers(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(type(v) is int and least <= v < 2**16 for v in value)


CHECKS: dict[str, Callable[[Any], bool]] = {
    "in": _count, "out": _count, "groups": _count, "features": _count, "slopes": _count,
    "bias": lambda v: isinstance(v, bool),
    "kernel_size": _numbers(1), "stride": _numbers(1), "dilation": _numbers(1),
    "padding": lambda v: v in ("same", "valid") or _numbers(0)(v),
    "padding_mode": lambda v: v in ("reflect", "replicate", "circular"),
    "affine": lambda v: v is False, "track_running_stats": lambda v: v is False,
}  # fmt: skip
KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Conv": (("in", "out", "groups", "bias", *SIDES), ("padding_mode",)),
    "Linear": (("in", "out", "bias"), ()),
    "Norm": (("features",), ("affine", "track_running_stats")),
    "PReLU": (("slopes",), ()),
    "Identity": ((), ()),
}
"""By family: the keys that must be there, and those that may be."""


def _same_layer(name: str, module: nn.Module, wanted: Told, where: str) -> None:
    """Surgery resizes a layer that stays what it is, or puts an identity where normalisation was folded away."""
    told = _told(module, name) or {"kind": type(module).__name__}
    if wanted["kind"] == "Identity" and told["kind"] in BATCHES:
        return
    differs = next((k for k in FIXED if told.get(k) != wanted.get(k)), None)
    if differs:
        seen = f"{quote(name)} has {differs} = {quote(wanted.get(differs, UNUSUAL.get(differs)))} there and"
        here = quote(told.get(differs, UNUSUAL.get(differs)))
        raise Refused(f"{where}: {seen} {here} in the network; expected the network it was made for")
    masked = [leaf for leaf in _shapes(wanted) if _missing(module, leaf)]
    if masked:
        seen = f"{masked[0]} of {quote(name)} is masked or parametrised by PyTorch"
        raise Refused(f"{where}: {seen}; expected a plain one: remove that first")


def _missing(module: nn.Module, leaf: str) -> bool:
    """Something stands between the layer and the tensor: a mask or a parametrisation of PyTorch's."""
    return leaf not in module._parameters and leaf not in module._buffers


def _resize_(module: nn.Module, wanted: Told) -> None:
    """Another size in place: a subclass stays what it is."""
    for key, attribute in SIZES[_family(wanted)].items():
        setattr(module, attribute, wanted[key])
    like, shapes = _like(module), _shapes(wanted)
    for leaf, shape in shapes.items():
        old = getattr(module, leaf)
        new = torch.zeros(shape, dtype=like.dtype, device=like.device)
        if leaf in module._buffers:
            setattr(module, leaf, new)
        else:
            module.register_parameter(leaf, nn.Parameter(new, (like if old is None else old).requires_grad))
    if wanted.get("bias") is False:
        module.register_parameter("bias", None)


SIZES = {
    "Conv": {"in": "in_channels", "out": "out_channels", "groups": "groups"},
    "Linear": {"in": "in_features", "out": "out_features"},
    "Norm": {"features": "num_features"},
    "PReLU": {"slopes": "num_parameters"},
}
"""By family: which attributes of a module hold its sizes."""


def _family(told: Told) -> str:
    kind: str = told["kind"]
    return "Conv" if kind in CONVS else "Norm" if kind in NORMS else kind


def _shapes(told: Told) -> dict[str, tuple[int, ...]]:
    """The sides of each tensor of the layer."""
    if told["kind"] == "Identity":
        return {}
    if "slopes" in told:
        return {"weight": (told["slopes"],)}
    if "features" in told:
        leaves = {"affine": ("weight", "bias"), "track_running_stats": ("running_mean", "running_var")}
        return {leaf: (told["features"],) for key, pair in leaves.items() if key not in told for leaf in pair}
    rows, columns, groups = told["out"], told["in"], told.get("groups", 1)
    pair = (columns, rows // groups) if "Transpose" in told["kind"] else (rows, columns // groups)
    return {"weight": (*pair, *told.get("kernel_size", ()))} | ({"bias": (rows,)} if told["bias"] else {})


def _size(told: Told) -> int:
    return sum(math.prod(shape) for shape in _shapes(told).values())


def _like(module: nn.Module) -> Tensor:
    """What new tensors of a layer have their type and device from."""
    tensors = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return next((t for t in tensors if t.is_floating_point()), torch.zeros(0))


def _row(parts: Description, like: Tensor, what: str, depth: int = 1) -> nn.Sequential:
    """Plain layers one after the other, themselves rows where surgery was done twice; all weights zero."""
    inner = defaultdict[str, Description](dict)
    for name, told in parts.items():
        head, _, rest = name.partition(".")
        inner[head][rest] = told
    crossed = any("" in p and len(p) > 1 for p in inner.values())
    if set(inner) != set(map(str, range(len(inner)))) or len(inner) > LENGTH or depth > DEPTH or crossed:
        raise Refused(f"{what}: the layers in its place are not numbered from 0 to at most {LENGTH - 1}; {WRITTEN}")
    made = (inner[str(i)] for i in range(len(inner)))
    return nn.Sequential(*(_made(p[""], like) if "" in p else _row(p, like, what, depth + 1) for p in made))


def _made(told: Told, like: Tensor) -> nn.Module:
    """A plain layer, drawn without touching anybody's random numbers."""
    with torch.device("meta"):
        layer = _plain(told)
    layer.to_empty(device=like.device).to(like.dtype)
    for tensor in (*layer.parameters(), *layer.buffers()):
        tensor.data.zero_()
    return layer


def _plain(told: Told) -> nn.Module:
    kind = told["kind"]
    if kind == "Linear":
        return nn.Linear(told["in"], told["out"], told["bias"])
    if kind in CONVS:
        sides: Told = {k: told[k] if isinstance(told[k], str) else tuple(told[k]) for k in SIDES}
        sides |= {k: told[k] for k in ("groups", "bias", "padding_mode") if k in told}
        return CONVS[kind](told["in"], told["out"], **sides)
    if kind in NORMS:
        return NORMS[kind](told["features"], **{k: k not in told for k in ("affine", "track_running_stats")})
    if kind == "PReLU":
        return nn.PReLU(told["slopes"])
    return nn.Identity()
