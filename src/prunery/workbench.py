"""Networks in hand, without recipes and folders: load, prune, finetune, shrink, save. For the user's own modules too.

Masks are plain dicts, `name -> bool tensor`; `prune` returns them and sets what they prune to zero, `finetune` keeps it
there.
"""

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import models
from . import pruning as room
from .chain import skeleton
from .masks import Mask, apply_
from .models import default_input, describe, reshape_
from .runs import State, checksum, pack, read_state, write_tensors
from .spec import Model, Prune, Refused, build, choose, hints, plain, quote
from .train.loop import derived

FORMAT = 1
Batches = Iterable[tuple[Tensor, Tensor]]


def load(
    what: str | Path,
    into: nn.Module | None = None,
    input: tuple[int, int, int] | None = None,
    classes: int | None = None,
    weights: str = "",
) -> nn.Module:
    """A network from a file of ours, made smaller as it was when it was saved; or by name ("resnet20", "timm:NAME").

    A file that was saved from a module of the user's own needs such a module to load into: `into=MyNet()`. Neither code
    nor pickle comes from the file. `input`, `classes` and `weights` (a file, or "pretrained") are for a name.
    """
    path = Path(what)
    if path.suffix == ".py" or not (path.is_file() or path.suffix == ".safetensors"):
        if into is not None:
            raise Refused(f"load: into goes with a file of weights, and {quote(str(what))} is none; leave it out")
        return _named(_spec(str(what), input, classes, weights))
    if input or classes or weights:
        raise Refused(f"load: {what} is a file, which says itself what it holds; leave out input, classes and weights")
    state, about = read_state(path, sealed=True)
    if about.get("format", FORMAT) != FORMAT:
        raise Refused(f"{what} is of format {quote(about['format'])}; expected {FORMAT}: use a newer prunery")
    network = _rebuilt(about, str(what)) if into is None else into
    for tried in (network,) if into is None else (copy.deepcopy(into), into):
        # A file that does not fit leaves the user's network as it was.
        if "architecture" in about:
            reshape_(tried, about["architecture"], f"{what}: the architecture")
        models.fit(tried, state.weights, str(what), head=False)
    return network.eval()


def _spec(name: str, input: tuple[int, int, int] | None = None, classes: int | None = None, weights: str = "") -> Model:
    """What a name means, sealed by the checksum of the user's file where it is one."""
    usual, usual_classes = default_input(name)
    code = Path(models.own_file(name)).expanduser()
    sealed = checksum(code) if code.is_file() else ""
    return Model(name=name, input=input or usual, classes=classes or usual_classes, weights=weights, code_sha256=sealed)


def _named(spec: Model) -> nn.Module:
    network = models.build(spec, 0)
    network.prunery_model = spec  # type: ignore[assignment]
    return network.eval()


def _rebuilt(about: dict[str, Any], what: str) -> nn.Module:
    """The network that the file names, as it is before surgery."""
    if "model" not in about:
        raise Refused(f"{what} holds {_kind(about)}")
    try:
        spec = build(Model, about["model"])
        if models.own_file(spec.name) and not spec.code_sha256:
            seen = f"it names the code {quote(spec.name)} without a checksum"
            raise Refused(f"{seen}; read that code, build its network, and load(path, into=NETWORK)")
        network = skeleton(spec)
    except Refused as error:
        raise Refused(f"{what}: {error}") from None
    network.prunery_model = spec  # type: ignore[assignment]
    return network


def _kind(about: dict[str, Any]) -> str:
    """What a file without a name says it is; only a plain word is repeated."""
    said = about.get("class")
    kind = said if isinstance(said, str) and said.isidentifier() and len(said) <= 80 else ""
    seen = f"{kind or 'a network of its own kind'}, which has no name to build it by"
    return f"{seen}; expected load(path, into={kind + '()' if kind else 'NETWORK'})"


def save(
    network: nn.Module,
    path: str | Path,
    masks: Mask | None = None,
    model: str | Model | None = None,
    half: bool = False,
) -> Path:
    """Weights, masks and the sizes of all layers in one safetensors file with a checksum; returns its path.

    A network that `load` built says itself what it is; `model` says it of another (a name, or a Model), and the file
    then needs no module to load into. `half` stores half precision, and of masked weights those alone that are kept.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise Refused(f"{path.parent} is no folder; expected one to write {path.name} into")
    masks = _zeros(network, _fitting(network, masks or {}))
    about: dict[str, Any] = {"format": FORMAT, "class": type(network).__name__, "architecture": describe(network)}
    tensors = {n: t.detach().cpu() for n, t in network.state_dict().items()}
    hooked = [n for n in tensors if n.endswith("_mask") and n.removesuffix("mask") + "orig" in tensors]
    if hooked:
        seen = f"{hooked[0].removesuffix('_mask')} is pruned by torch.nn.utils.prune"
        raise Refused(f"save: {seen}; make the network plain first: masks = prunery.plain_(network)")
    spec = _spec(model) if isinstance(model, str) else model or getattr(network, "prunery_model", None)
    if isinstance(spec, Model):
        about["model"] = plain(spec)
        _comes_back(spec, about["architecture"], tensors)
    state = State(tensors, masks)
    write_tensors(path, pack(state) if half else state.tensors(), about)
    return path


def _zeros(network: nn.Module, masks: Mask) -> Mask:
    """The masks, once the weights are zero where these prune them."""
    named = dict(network.named_parameters())
    for name, mask in masks.items():
        if bool(named[name].detach().cpu()[~mask].any()):
            wanted = "expected what the masks prune to be zero: masks.apply_(dict(network.named_parameters()), masks)"
            raise Refused(f"{name} is not zero where its mask prunes it; {wanted}")
    return masks


def _comes_back(spec: Model, architecture: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Does now what `load` will do: a file that does not open is found out too late."""
    try:
        fresh = skeleton(spec)
        reshape_(fresh, architecture)
        models.fit(fresh, tensors, "its state", head=False)
    except Refused as error:
        seen = f"save: this network cannot be rebuilt from model {quote(spec.name)}: {error}"
        raise Refused(f"{seen}; give the right model, or `del network.prunery_model` and load it with into=") from None


def _fitting(network: nn.Module, masks: Mask) -> Mask:
    named = dict(network.named_parameters())
    for name, mask in masks.items():
        if name not in named or named[name].shape != mask.shape:
            raise Refused(
                f"the mask of {name} does not fit this network; expected what prune or shrink returned for it"
            )
    return {n: m.cpu() for n, m in masks.items()}


def masks_of(what: str | Path | nn.Module) -> Mask:
    """The masks in a file; of a network, those of torch.nn.utils.prune, or the places of its exact zeros."""
    if isinstance(what, nn.Module):
        return room.from_torch(what)
    return read_state(Path(what), sealed=True)[0].masks


def prune(
    network: nn.Module,
    density: float = 0.1,
    scope: str = "global",
    data: Batches | None = None,
    masks: Mask | None = None,
    example: Tensor | None = None,
    **how: Any,
) -> Mask:
    """Prunes in place and returns the masks; a pruning step's settings are keywords (criterion, structure, ...).

    `data` gives batches of (inputs, labels) to criteria that look at data; `example` alone is enough for coupled
    channels and for budgets of multiply-adds; `masks` are those of an earlier pruning, to go on from.
    """
    for key in how:
        choose(key, [k for k in hints(Prune) if k not in ("data", "measure")], "prune: a setting")
    spec = Prune(density=density, scope=scope, **how)  # type: ignore[arg-type]
    masks = _fitting(network, masks or {})
    batches = _some(data, example, spec, _device(network))
    rng = torch.Generator().manual_seed(derived(spec.seed, "prune"))
    new, changed = room.pruned(network, masks, spec, room.Known(batches), rng)
    named = dict(network.named_parameters())
    with torch.no_grad():
        for n, w in changed.items():
            named[n].copy_(w)
        apply_({n: named[n].data for n in new}, new)
    return new


def _device(network: nn.Module) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("cpu"))


def _some(
    data: Batches | None, example: Tensor | None, spec: Prune, device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    """As many batches as the spec looks at; inputs alone where no labels are needed."""
    if data is not None:
        return [(x.to(device), y.to(device)) for (x, y), _ in zip(data, range(spec.batches), strict=False)]
    return (
        [] if example is None else [(example.to(device), torch.zeros(len(example), dtype=torch.int64, device=device))]
    )


def finetune(
    network: nn.Module,
    data: Batches,
    masks: Mask | None = None,
    epochs: int = 1,
    lr: float = 0.01,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
    say: Callable[[str], None] = lambda line: None,
) -> list[float]:
    """Trains in place on any iterable of (inputs, labels), a DataLoader for one; pruned weights stay exactly zero.

    SGD with momentum and a cosine to zero unless `optimizer` makes another. Returns the mean loss of each epoch.
    """
    if epochs < 1 or not lr > 0:
        raise Refused(
            f"finetune: epochs = {epochs}, lr = {lr:g} is not allowed; expected epochs of 1 or more and lr above 0"
        )
    device, named = _device(network), dict(network.named_parameters())
    if not named:
        raise Refused(f"finetune: {type(network).__name__} has no weights to train; expected a network with layers")
    keep = {n: m.to(device) for n, m in _fitting(network, masks or {}).items()}
    rule = (
        optimizer(network.parameters()) if optimizer else torch.optim.SGD(network.parameters(), lr, 0.9, nesterov=True)
    )
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(rule, epochs)
    losses, mode = [], network.training
    network.train()
    try:
        for epoch in range(epochs):
            losses.append(_pass(network, data, named, keep, rule, loss, device))
            fall.step()
            say(f"epoch {epoch + 1} of {epochs}: loss {losses[-1]:.4f}")
    finally:
        network.train(mode)
    return losses


def _pass(
    network: nn.Module, data: Batches, named: dict[str, nn.Parameter], keep: Mask, rule: torch.optim.Optimizer,
    loss: Callable[[Tensor, Tensor], Tensor], device: torch.device,
) -> float:  # fmt: skip
    """One time over the data: masked gradients, a step, masked weights."""
    total, images = 0.0, 0
    for x, y in data:
        value = loss(network(x.to(device)), y.to(device))
        rule.zero_grad(set_to_none=True)
        value.backward()
        for n, m in keep.items():
            if named[n].grad is not None:
                named[n].grad.mul_(m)  # type: ignore[union-attr]
        rule.step()
        apply_({n: named[n].data for n in keep}, keep)
        total, images = total + float(value.detach()) * len(y), images + len(y)
    if not images:
        raise Refused(
            "finetune: data gave no batch; expected an iterable of (inputs, labels) that starts anew each epoch"
        )
    if not total < float("inf"):
        raise Refused(f"finetune: the loss became {total / images:g}; use a smaller lr")
    return total / images


def shrink(network: nn.Module, masks: Mask | None, example: Tensor, multiple: int = 1) -> tuple[nn.Module, Mask]:
    """A really smaller copy with equal outputs, and the masks of what is left in it."""
    return room.shrink(network, masks, example, multiple)
