"""Networks in hand, without recipes and folders: load, prune, finetune, shrink, save. For the user's own modules too.

Masks are plain dicts, `name -> bool tensor`; `prune` returns them and sets what they prune to zero, `finetune` keeps it
there.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import models
from . import pruning as room
from .arguments import a_network, a_plain_network, an_example, answers, applied, copied, fitting, hooked, pairs, scores
from .chain import skeleton
from .masks import Mask, apply_, prunable
from .measure.score import FLOAT, SHORT, Account, account
from .models import default_input, describe, reshape_
from .quantize import described, plan_of, wear_
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

    A file that was saved from a module of the user's own needs such a module to load into, `into=MyNet()`, unless it
    says where its code is, as those of the commands do. Neither code nor pickle comes from the file. `input`, `classes`
    and `weights` (a file, or "pretrained") are for a name.
    """
    path = _path(what, "load")
    if into is not None:
        a_network(into, "load")
    if path.suffix == ".py" or not (os.path.isfile(path) or path.suffix == ".safetensors"):
        if into is not None:
            raise Refused(f"load: into goes with a file of weights, and {quote(str(what))} is none; leave it out")
        return _named(_spec(str(what), input, classes, weights))
    if input or classes or weights:
        raise Refused(f"load: {what} is a file, which says itself what it holds; leave out input, classes and weights")
    state, about = read_state(path, sealed=True)
    if about.get("format", FORMAT) != FORMAT:
        raise Refused(f"{what} is of format {quote(about['format'])}; expected {FORMAT}: use a newer prunery")
    network = _rebuilt(about, str(what)) if into is None else into
    for tried in (network,) if into is None else (copied(into, "load"), into):
        # A file that does not fit leaves the user's network as it was.
        if "architecture" in about:
            reshape_(tried, about["architecture"], f"{what}: the architecture")
        if "quantised" in about:
            wear_(tried, plan_of(about["quantised"], str(what)))
        models.fit(tried, state.weights, str(what), head=False)
    return network.eval()


def _path(what: Any, who: str) -> Path:
    """A file, or a name."""
    if not isinstance(what, str | Path):
        raise Refused(f"{who}: {type(what).__name__} is no path; expected a file's name as text or a Path")
    if not str(what) or os.path.isdir(what):
        where = f"{what} is a folder" if str(what) else "the name is empty"
        raise Refused(f"{who}: {where}; expected a file's, such as {Path(what) / 'network.safetensors'}")
    return Path(what)


def _spec(name: str, input: tuple[int, int, int] | None = None, classes: int | None = None, weights: str = "") -> Model:
    """What a name means."""
    usual, usual_classes = default_input(name)
    model = Model(name=name, input=input or usual, classes=classes or usual_classes, weights=weights)
    return _sealed(model)


def _sealed(model: Any) -> Any:
    """A spec whose code, where it is the user's file, has its checksum."""
    if not isinstance(model, Model) or model.code_sha256:
        return model
    code = Path(models.own_file(model.name)).expanduser()
    return replace(model, code_sha256=checksum(code)) if code.is_file() else model


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
    network, path = a_network(network, "save"), _path(path, "save")
    if not path.parent.is_dir():
        raise Refused(f"{path.parent} is no folder; expected one to write {path.name} into")
    masks = applied(network, fitting(network, masks or {}, "save"), "save")
    about: dict[str, Any] = {"format": FORMAT, "class": type(network).__name__, "architecture": describe(network)}
    about |= {"quantised": bits} if (bits := described(network)) else {}
    tensors = {n: t.detach().cpu() for n, t in network.state_dict().items()}
    broken = next((n for n, t in tensors.items() if t.is_floating_point() and bool(t.isnan().any())), "")
    if broken:
        raise Refused(f"save: {broken} holds NaN, which load refuses; expected weights that did not diverge")
    hooked = [n for n in tensors if n.endswith("_mask") and n.removesuffix("mask") + "orig" in tensors]
    if hooked:
        seen = f"{hooked[0].removesuffix('_mask')} is pruned by torch.nn.utils.prune"
        raise Refused(f"save: {seen}; make the network plain first: masks = prunery.plain_(network)")
    spec = _spec(model) if isinstance(model, str) else _sealed(model or getattr(network, "prunery_model", None))
    if isinstance(spec, Model):
        about["model"] = plain(spec)
        _comes_back(spec, about, tensors)
    state = State(tensors, masks)
    write_tensors(path, pack(state) if half else state.tensors(), about)
    return path


def _comes_back(spec: Model, about: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Does now what `load` will do: a file that does not open is found out too late."""
    try:
        fresh = skeleton(spec)
        reshape_(fresh, about["architecture"])
        wear_(fresh, plan_of(about.get("quantised", {}), "its state"))
        models.fit(fresh, tensors, "its state", head=False)
    except Refused as error:
        seen = f"save: this network cannot be rebuilt from model {quote(spec.name)}: {error}"
        raise Refused(f"{seen}; give the right model, or `del network.prunery_model` and load it with into=") from None


def masks_of(what: str | Path | nn.Module) -> Mask:
    """The masks in a file; of a network, those of torch.nn.utils.prune, or the places of its exact zeros."""
    if isinstance(what, str | Path):
        return read_state(_path(what, "masks_of"), sealed=True)[0].masks
    return room.from_torch(a_network(what, "masks_of"))


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
    channels and for budgets of multiply-adds. `masks` are those of an earlier pruning, to go on from: without them the
    network counts as whole, and one that is mostly zeros is refused (`masks={}` prunes it all the same).
    """
    network = a_plain_network(network, "prune")
    for key in how:
        choose(key, [k for k in hints(Prune) if k not in ("data", "measure")], "prune: a setting")
    spec = Prune(density=_plain(density), scope=scope, **how)  # type: ignore[arg-type]
    before = fitting(network, masks or {}, "prune")
    batches = _looked_at(network, data, example, spec)
    rng = torch.Generator().manual_seed(derived(spec.seed, "prune"))
    new, changed = room.pruned(network, before, spec, room.Known(batches), rng)
    named = dict(network.named_parameters())
    if masks is None:
        _first(network, new)
    with torch.no_grad():
        for n, w in changed.items():
            named[n].copy_(w)
        apply_({n: named[n].data for n in new}, new)
    return new


def _plain(number: Any) -> Any:
    """A single number of NumPy's or PyTorch's as one of Python's."""
    return number.item() if getattr(number, "ndim", None) == 0 else number


STALE = 0.01
"""of the weights that a first pruning keeps, the share that may be zero already"""


def _first(network: nn.Module, masks: Mask) -> None:
    """A first pruning whose result would call zeros kept is refused: training would bring them back."""
    weights = {n: w.cpu() for n, w in prunable(network).items() if n in masks}
    zeros = sum(int((w[masks[n]] == 0).sum()) for n, w in weights.items())
    if zeros > STALE * sum(int(masks[n].sum()) for n in weights):
        seen = f"prune: {zeros:,} of the weights that it would keep are zero already"
        raise Refused(f"{seen}; go on with masks=prunery.masks_of(network), or begin anew with masks={{}}")


def _device(network: nn.Module) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("cpu"))


def _looked_at(
    network: nn.Module, data: Batches | None, example: Tensor | None, spec: Prune
) -> list[tuple[Tensor, Tensor]]:
    """As many batches as the spec looks at, tried out; inputs alone where no labels are needed."""
    device = _device(network)
    if data is None and example is None:
        return []
    if data is None:
        x = an_example(example, "prune").to(device)
        return [(x, torch.zeros(len(x), dtype=torch.int64, device=device))]
    batches = [(x.to(device), y.to(device)) for x, y in islice(pairs(data, "prune"), spec.batches)]
    twin = copied(network, "prune").eval()
    for x, y in batches:
        with torch.no_grad():
            scores(answers(twin, x, "prune"), y, "prune")
    return batches


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
    network = a_network(network, "finetune")
    _possible(network, epochs, lr)
    device, named = _device(network), dict(network.named_parameters())
    keep = {n: m.to(device) for n, m in _ours(network, masks or {}).items()}
    rule = _rule(network, optimizer, lr)
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


def _possible(network: nn.Module, epochs: Any, lr: Any) -> None:
    whole = isinstance(epochs, int) and not isinstance(epochs, bool) and epochs >= 1
    if not whole or not isinstance(lr, int | float) or not lr > 0:
        seen = f"finetune: epochs = {quote(epochs)}, lr = {quote(lr)} is not allowed"
        raise Refused(f"{seen}; expected a whole number of epochs, 1 or more, and lr above 0")
    kind, learning = type(network).__name__, [p.requires_grad for p in network.parameters()]
    if not learning:
        raise Refused(f"finetune: {kind} has no weights to train; expected a network with layers")
    if not any(learning):
        raise Refused(f"finetune: all weights of {kind} are frozen; expected some with requires_grad = True")
    if torch.is_inference_mode_enabled():
        raise Refused("finetune: called inside torch.inference_mode(), where nothing can be learnt; call it outside")


def _ours(network: nn.Module, masks: Any) -> Mask:
    """The masks; those of PyTorch's hooks are kept by these hooks."""
    layer = hooked(network)
    if masks and layer:
        seen = f"finetune: {layer} is pruned by torch.nn.utils.prune, whose hooks keep its masks"
        raise Refused(f"{seen}; leave masks out, or make the network plain first: masks = prunery.plain_(network)")
    return fitting(network, masks, "finetune")


def _rule(network: nn.Module, optimizer: Any, lr: float) -> torch.optim.Optimizer:
    if optimizer is None:
        return torch.optim.SGD(network.parameters(), lr, 0.9, nesterov=True)
    rule = optimizer(network.parameters()) if callable(optimizer) else optimizer
    if not callable(optimizer) or not isinstance(rule, torch.optim.Optimizer):
        seen = f"finetune: optimizer is {quote(rule) if isinstance(rule, str) else 'a ' + type(rule).__name__}"
        raise Refused(f"{seen}; expected a function that makes one: lambda weights: torch.optim.Adam(weights, 1e-3)")
    return rule


def _lost(loss: Callable[[Any, Tensor], Tensor], made: Any, y: Tensor) -> Tensor:
    """The loss; labels that cross-entropy cannot take are told as such."""
    if loss is nn.functional.cross_entropy and not y.is_floating_point():  # soft labels are its own business
        scores(made, y, "finetune")
    try:
        return loss(made, y)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason, kind = " ".join(str(error).split())[:160], type(made).__name__
        size = list(made.shape) if isinstance(made, Tensor) else kind
        raise Refused(
            f"finetune: the loss cannot take results of {size} and labels of {list(y.shape)} ({reason})"
        ) from error


def _pass(
    network: nn.Module, data: Batches, named: dict[str, nn.Parameter], keep: Mask, rule: torch.optim.Optimizer,
    loss: Callable[[Tensor, Tensor], Tensor], device: torch.device,
) -> float:  # fmt: skip
    """One time over the data: masked gradients, a step, masked weights."""
    total, images = 0.0, 0
    for x, y in pairs(data, "finetune"):
        value = _lost(loss, answers(network, x.to(device), "finetune"), y.to(device))
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
    network = a_plain_network(network, "shrink")
    masks = applied(network, fitting(network, masks or {}, "shrink"), "shrink")
    return room.shrink(network, masks, example, multiple)


def score(network: nn.Module, input: tuple[int, int, int] = (3, 32, 32), floats: int = 32) -> Account:
    """What a network is charged with in the score game, layer by layer: `score(network).score` in the current edition.

    Quantised layers are charged with their own bits, other numbers with `floats`, 32 or 16. `input` is one image.
    """
    network = copied(a_plain_network(network, "score"), "score").float().cpu()
    if not isinstance(input, tuple | list) or len(input) != 3 or not all(type(n) is int and n > 0 for n in input):
        raise Refused(f"score: input = {quote(input)} is no image; expected channels, height and width: (3, 32, 32)")
    if floats not in (SHORT, FLOAT):
        raise Refused(f"score: floats = {quote(floats)} is not allowed; expected 16 or 32 bits")
    return account(network, tuple(input), floats)
