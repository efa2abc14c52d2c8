"""What criteria and scopes need to have seen of a network: gradients, activations, flow, places, losses.

Everything is measured on the network as it stands and leaves it as it was. Batches are (inputs, labels) ready to use.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..arguments import answers, copied
from ..masks import Mask, prunable
from ..spec import Refused

Batches = list[tuple[Tensor, Tensor]]
Found = dict[str, Tensor]
Evidence = dict[str, Found]
"""need -> weight's name -> what was seen"""
FLOW_PASS = (nn.modules.batchnorm._BatchNorm, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.GELU, nn.LeakyReLU, nn.ELU)
"""Modules that a feature map goes through before the next layer reads it."""


def collect(network: nn.Module, needs: set[str], batches: Batches, initial: Found | None = None) -> Evidence:
    """All that is asked for, in the order of the table; refuses in one line what cannot be seen."""
    if needs & DATA and not batches:
        raise Refused(
            f"prune: {', '.join(sorted(needs & DATA))} must be seen on data; expected batches of (inputs, labels)"
        )
    if "initial" in needs and initial is None:
        raise Refused(
            "prune: the first weights, with which this criterion compares, are not known; prune a run, or in a recipe"
        )
    there = {"initial": initial or {}} if "initial" in needs else {}
    return there | {need: COLLECTORS[need](network, batches) for need in COLLECTORS if need in needs}


def seen_of(evidence: Evidence, name: str, needs: tuple[str, ...]) -> Found:
    """What was seen of one weight; a layer that never ran has nothing to be judged by."""
    for need in needs:
        if name not in evidence.get(need, {}):
            raise Refused(
                f"prune: {name.removesuffix('.weight')} shows no {WORDS[need]}; exclude it, or choose another criterion"
            )
    return {need: evidence[need][name] for need in needs}


@contextmanager
def _quiet(network: nn.Module) -> Iterator[dict[str, nn.Parameter]]:
    """Evaluation mode with gradients, and the network as it was afterwards."""
    modes = {m: m.training for m in network.modules()}
    wanted = {p: (p.requires_grad, p.grad) for p in network.parameters()}
    network.eval()
    try:
        for p in wanted:
            p.requires_grad_(p.is_floating_point())
            p.grad = None
        yield {n: p for n, p in network.named_parameters() if n in prunable(network)}
    finally:
        for module, mode in modes.items():
            module.training = mode
        for p, (needed, grad) in wanted.items():
            p.requires_grad_(needed)
            p.grad = grad


def _loss(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(answers(network, x, "prune").float(), y)


def _gradients(loss: Tensor, weights: dict[str, nn.Parameter], graph: bool = False) -> Found:
    """By name; only of weights that the loss depends on."""
    found = torch.autograd.grad(loss, list(weights.values()), create_graph=graph, allow_unused=True)
    return {n: g for n, g in zip(weights, found, strict=True) if g is not None}


def gradients(network: nn.Module, batches: Batches) -> Found:
    """dL/dw, the mean over the batches."""
    total: Found = {}
    with _quiet(network) as weights:
        for x, y in batches:
            for n, g in _gradients(_loss(network, x, y), weights).items():
                total[n] = total.get(n, 0) + g.detach() / len(batches)
    return total


def curvature(network: nn.Module, batches: Batches) -> Found:
    """H g, the Hessian times the gradient, the mean over the batches; one batch in memory at a time."""
    total: Found = {}
    with _quiet(network) as weights:
        for x, y in batches:
            first = _gradients(_loss(network, x, y), weights, graph=True)
            flow = torch.stack([(g * g.detach()).sum() for g in first.values()]).sum()
            for n, g in _gradients(flow, weights).items():
                total[n] = total.get(n, 0) + g.detach() / len(batches)
    return total


def flow(network: nn.Module, batches: Batches) -> Found:
    """dR/d|w| of R, the sum of the outputs for an input of ones where every parameter is its absolute value.

    Data gives the input's shape only. Batch normalisation is left out, as its inventors do, and doubles keep the
    product of many layers from vanishing.
    """
    twin = copied(network, "prune").double().eval()
    for module in twin.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.forward = lambda input: input  # type: ignore[method-assign]
    with torch.no_grad():
        for p in twin.parameters():
            p.abs_()
    with _quiet(twin) as weights:
        found = _gradients(answers(twin, torch.ones_like(batches[0][0][:1]).double(), "prune").sum(), weights)
    return {n: g.detach().float() for n, g in found.items()}


MOVING_RATE = 0.01


def movement(network: nn.Module, batches: Batches) -> Found:
    """The sum of -w dL/dw over as many steps of plain gradient descent as there are batches, on a copy."""
    twin = copied(network, "prune")
    total: Found = {}
    with _quiet(twin) as weights:
        for x, y in batches:
            for n, g in _gradients(_loss(twin, x, y), weights).items():
                total[n] = total.get(n, 0) - weights[n].detach() * g
                weights[n].data.sub_(g, alpha=MOVING_RATE)
    return total


def inputs(network: nn.Module, batches: Batches) -> Found:
    """The root mean square of each input channel of each layer."""
    found = {n: (s / c).sqrt() for n, (s, c) in _watched(network, batches, _input_squares).items()}
    return _spread(network, found, "in")


def outputs(network: nn.Module, batches: Batches) -> Found:
    """The mean absolute value of each feature map, behind normalisation and activation."""
    found = {n: s / c for n, (s, c) in _feature_maps(network, batches, lambda y: y.abs()).items()}
    return _spread(network, found, "out")


def zeros(network: nn.Module, batches: Batches) -> Found:
    """The share of each feature map that a ReLU makes zero, or has made."""
    found = {n: s / c for n, (s, c) in _feature_maps(network, batches, lambda y: (y <= 0).float()).items()}
    return _spread(network, found, "out")


def scales(network: nn.Module, batches: Batches) -> Found:
    """The scales of the batch normalisation that reads a layer's output."""
    found = {}
    for name, chain in readers(network, batches).items():
        norms = [m for m in chain if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.weight is not None]
        if norms:
            found[name] = norms[0].weight.detach().clone()
    return _spread(network, found, "out")


def _spread(network: nn.Module, found: Found, side: str) -> Found:
    """Values of channels, each in the place of the weights that make it (or read it), ready to broadcast."""
    return {n: _placed(network.get_submodule(n.rpartition(".")[0]), v, side) for n, v in found.items()}


def _placed(layer: nn.Module, values: Tensor, side: str) -> Tensor:
    """A transposed convolution has its axes the other way round, and behind the first those of one group only."""
    rows, _, *window = layer.weight.shape  # type: ignore[misc]
    if (side == "out") != isinstance(layer, nn.modules.conv._ConvTransposeNd):
        return values.view(-1, 1, *[1] * len(window))
    groups = getattr(layer, "groups", 1)
    each = values.view(groups, -1)
    each = each.repeat_interleave(rows // groups, 0) if groups > 1 else each
    return each.view(*each.shape, *[1] * len(window))


def places(network: nn.Module, batches: Batches) -> Found:
    """How often each weight of a layer is used for one input: its multiply-adds."""
    found: Found = {}

    def note(name: str, module: nn.Module, y: Tensor, x: Tensor) -> None:
        found[name] = found.get(name, torch.zeros(())) + _uses(module, x)

    _hooked(network, [(batches[0][0][:1], batches[0][1][:1])], note)
    return found


def _uses(module: nn.Module, x: Tensor) -> float:
    """From the input alone, since a layer may pool its own output before anybody sees it."""
    if isinstance(module, nn.Linear):
        return x.numel() / x.shape[-1]
    assert isinstance(module, nn.modules.conv._ConvNd)
    sides = x.shape[-len(module.kernel_size) :]
    images = x.numel() / max(x.shape[-len(sides) - 1] * math.prod(sides), 1)  # a network may cut one image into several
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return images * math.prod(sides)
    if module.padding == "same":
        return images * math.prod(-(-n // s) for n, s in zip(sides, module.stride, strict=True))
    padding: Any = (0,) * len(sides) if module.padding == "valid" else module.padding
    each = zip(sides, padding, module.dilation, module.kernel_size, module.stride, strict=True)
    outputs_: list[int] = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in each]
    return images * math.prod(outputs_)


def shapes(network: nn.Module, batches: Batches) -> Found:
    """The sides of every parameter."""
    return {n: torch.tensor(p.shape, dtype=torch.int64) for n, p in network.named_parameters()}


def transposed(network: nn.Module, batches: Batches) -> Found:
    """Of layers whose weights have their axes the other way round: in how many groups they work."""
    layers = {n: network.get_submodule(n.rpartition(".")[0]) for n in prunable(network)}
    return {n: torch.tensor(m.groups) for n, m in layers.items() if isinstance(m, nn.modules.conv._ConvTransposeNd)}


def _input_squares(module: nn.Module, y: Tensor, x: Tensor) -> tuple[Tensor, int]:
    flat = x.flatten(0, -2) if isinstance(module, nn.Linear) else x.transpose(0, 1).flatten(1).t()
    return flat.float().square().sum(0), len(flat)


def _watched(
    network: nn.Module, batches: Batches, measure: Callable[..., tuple[Tensor, int]]
) -> dict[str, tuple[Tensor, int]]:
    total: dict[str, tuple[Tensor, int]] = {}

    def note(name: str, module: nn.Module, y: Tensor, x: Tensor) -> None:
        s, c = measure(module, y, x)
        before = total.get(name, (torch.zeros_like(s), 0))
        total[name] = (before[0] + s, before[1] + c)

    _hooked(network, batches, note)
    return total


def _shown(network: nn.Module, batches: Batches, hooks: list[RemovableHandle]) -> None:
    """All batches through the network while hooks watch, and the hooks taken off."""
    try:
        with _quiet(network), torch.no_grad():
            for x, _ in batches:
                answers(network, x, "prune")
    finally:
        for hook in hooks:
            hook.remove()


def _hooked(network: nn.Module, batches: Batches, note: Callable[[str, nn.Module, Tensor, Tensor], None]) -> None:
    """`note(name, layer, output, input)` at each call of each prunable layer."""
    names = {n: network.get_submodule(n.rpartition(".")[0]) for n in prunable(network)}
    hooks = [
        m.register_forward_hook(lambda m, x, named, y, n=n: note(n, m, y, read(x, named)), with_kwargs=True)
        for n, m in names.items()
    ]
    _shown(network, batches, hooks)


def watching(
    network: nn.Module, layers: list[nn.Module], batches: Batches, note: Callable[[nn.Module, Tensor], None]
) -> None:
    """`note(layer, input)` each time that one of the layers reads something."""
    hooks = [m.register_forward_pre_hook(lambda m, x, named: note(m, read(x, named)), with_kwargs=True) for m in layers]
    _shown(network, batches, hooks)


def read(args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """What a layer is called with, as fc(x) or as fc(input=x)."""
    return next(iter((*args, *named.values())))


def _feature_maps(
    network: nn.Module, batches: Batches, measure: Callable[[Tensor], Tensor]
) -> dict[str, tuple[Tensor, int]]:
    """Summed per output channel where the chain behind a layer ends."""
    ends = {
        (chain[-1] if chain else network.get_submodule(n.rpartition(".")[0])): n
        for n, chain in readers(network, batches).items()
    }
    total: dict[str, tuple[Tensor, int]] = {}

    def note(module: nn.Module, x: Any, y: Tensor) -> None:
        layer = network.get_submodule(ends[module].rpartition(".")[0])
        values = measure(y.detach().float())
        flat = values.flatten(0, -2) if isinstance(layer, nn.Linear) else values.transpose(0, 1).flatten(1).t()
        before = total.get(ends[module], (torch.zeros_like(flat[0]), 0))
        total[ends[module]] = (before[0] + flat.sum(0), before[1] + len(flat))

    hooks = [m.register_forward_hook(note) for m in ends]
    _shown(network, batches, hooks)
    return total


def readers(network: nn.Module, batches: Batches) -> dict[str, list[nn.Module]]:
    """The normalisations and activations that a layer's output runs through, one after the other."""
    made: dict[int, str] = {}
    kept: list[Tensor] = []  # so that no tensor's identity is used twice
    chains: dict[str, list[nn.Module]] = {n: [] for n in prunable(network)}
    layers = {network.get_submodule(n.rpartition(".")[0]): n for n in chains}

    def note(module: nn.Module, x: Any, y: Any) -> None:
        name = layers.get(module)
        if name is None and isinstance(module, FLOW_PASS) and x and id(x[0]) in made:
            name = made[id(x[0])]
            if module in chains[name]:  # the same activation object, used again further on
                return
            chains[name].append(module)
        if name is not None and isinstance(y, Tensor):
            kept.append(y)
            made[id(y)] = name

    hooks = [m.register_forward_hook(note) for m in network.modules()]
    try:
        with _quiet(network), torch.no_grad(), _copies_of_activations(network):
            answers(network, batches[0][0][:2], "prune")
    finally:
        for hook in hooks:
            hook.remove()
    shared = [m for c in chains.values() for m in c]
    return {n: [m for m in c if shared.count(m) == 1] for n, c in chains.items()}


@contextmanager
def _copies_of_activations(network: nn.Module) -> Iterator[None]:
    """In-place activations return the tensor they were given; for a while they return another."""
    inplace = [m for m in network.modules() if getattr(m, "inplace", False)]
    try:
        for m in inplace:
            m.inplace = False  # type: ignore[assignment]
        yield
    finally:
        for m in inplace:
            m.inplace = True  # type: ignore[assignment]


def losses(network: nn.Module, batches: Batches, trials: dict[str, Mask]) -> dict[str, tuple[float, float]]:
    """Loss and accuracy on the batches under each of several masks, tried one by one."""
    parameters = dict(network.named_parameters())
    found = {}
    with _quiet(network), torch.no_grad():
        for name, mask in trials.items():
            before = {n: parameters[n].detach().clone() for n in mask}
            for n, keep in mask.items():
                parameters[n].mul_(keep.to(parameters[n].device))
            found[name] = _tried(network, batches)
            for n, w in before.items():
                parameters[n].copy_(w)
    return found


def _tried(network: nn.Module, batches: Batches) -> tuple[float, float]:
    total, hits, images = 0.0, 0, 0
    for x, y in batches:
        logits = answers(network, x, "prune").float()
        total += float(F.cross_entropy(logits, y, reduction="sum"))
        hits += int((logits.argmax(1) == y).sum())
        images += len(y)
    return total / images, hits / images


COLLECTORS: dict[str, Callable[[nn.Module, Batches], Found]] = {
    "grad": gradients,
    "curved": curvature,
    "flow": flow,
    "movement": movement,
    "inputs": inputs,
    "outputs": outputs,
    "zeros": zeros,
    "scale": scales,
    "places": places,
    "shapes": shapes,
    "transposed": transposed,
}
DATA = frozenset(COLLECTORS) - {"shapes", "transposed"} | {"removal", "sensitivity"}
WORDS = {
    "initial": "first weights", "grad": "gradient", "curved": "curvature", "flow": "flow", "movement": "movement",
    "inputs": "inputs", "outputs": "feature map", "zeros": "feature map", "scale": "batch normalisation behind it",
    "places": "inputs", "removal": "order of removal", "sensitivity": "sensitivity",
}  # fmt: skip
