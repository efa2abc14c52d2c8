"""A recipe carried out: each step made once from its parent's state, measured, and kept in its folder."""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import data, models, pruning, quantize
from .masks import ones, prunable
from .measure import count, score, summary, totals
from .runs import WEIGHTS, Runs, State, Step, Work, asked, checksum, pack, read_state, unpack, write_tensors
from .spec import (
    Data,
    Factorise,
    Init,
    Model,
    Node,
    Pack,
    Prune,
    Quantize,
    Recipe,
    Refused,
    Reset,
    Shrink,
    Spec,
    Train,
    build,
    plain,
    quote,
)  # fmt: skip
from .train import Freezing, Stopped, Ways, train
from .train.loop import derived

PACKED = "packed.safetensors"


@dataclass(frozen=True)
class Place:
    """Where and how steps are made."""

    runs: Runs
    data: Path
    ways: Ways = field(default_factory=Ways)
    say: Callable[[str], None] = lambda _: None
    began: Callable[[str, Node], None] = lambda label, node: None
    source: str = ""
    """the file and the settings that ask: once more, and its record takes the place of the earlier one"""


def run(recipe: Recipe, place: Place) -> dict[str, Step]:
    """Every stage of a recipe, under its label; what is there already is not made again."""
    recipe = filled(recipe, place)
    preflight(recipe, place)
    done: dict[str, Step] = {}
    nodes = recipe.nodes()
    with asked(place.runs.root, recipe.name, place.source, {label: node.name for label, node in nodes.items()}):
        for label, node in nodes.items():
            if place.ways.stopping():
                raise Stopped(f"stopped before step {label}")
            place.began(label, node)
            done[label] = made(node, place)
    return done


def made(node: Node, place: Place, maker: Callable[[Node, Place, Work], None] | None = None) -> Step:
    """One step, its parents being there; what is there already is not made again."""
    making = functools.partial(maker or make, node, place)
    return place.runs.once(node, making, place.say, place.ways.stopping)


def filled(recipe: Recipe, place: Place) -> Recipe:
    """The recipe with what a name must hold: the data's shape and classes, the checksums of the files it names."""
    model, facts = recipe.init.model, data.facts(recipe.data, place.data)
    for key, seen, wanted in (("input", model.input, facts.shape), ("classes", model.classes, len(facts.classes))):
        if seen and seen != wanted:
            raise Refused(f"model.{key} = {seen} does not fit {recipe.data.name}, which has {wanted}; leave it out")
    labels = {stage.label for stage in recipe.stages}
    look = functools.cache(functools.partial(_seen, root=place.data))
    return recipe.mapped(lambda spec: _completed(_looked_at(spec, look), facts, labels, place.runs))


def _looked_at(spec: Spec, look: Callable[[Data], Data]) -> Spec:
    return replace(spec, data=look(spec.data)) if hasattr(spec, "data") else spec  # type: ignore[call-arg]


def _seen(spec: Data, root: Path) -> Data:
    """With the checksum of images that the set's name does not stand for."""
    there = data.checksum(spec, root)
    if spec.sha256 and spec.sha256 != there:
        raise Refused(
            f"the images of {spec.name} have SHA-256 {there}, not {spec.sha256}; put back those that were meant"
        )
    return replace(spec, sha256=there)


def _completed(spec: Spec, facts: data.Facts, labels: set[str], runs: Runs) -> Spec:
    if isinstance(spec, Init):
        return replace(spec, model=_known(spec.model, facts))
    if isinstance(spec, Train) and spec.teacher and spec.teacher not in labels:
        if Path(spec.teacher).is_file():
            return replace(spec, teacher_sha256=_sum(spec.teacher, spec.teacher_sha256))
        return replace(spec, teacher=_named(spec.teacher, "train.teacher", "no file", runs))
    if isinstance(spec, Reset) and spec.to not in ("fresh", *labels):
        return replace(spec, to=_named(spec.to, "reset.to", "not fresh", runs))
    return spec


def _known(model: Model, facts: data.Facts) -> Model:
    """The network with everything that its name must hold."""
    weights = _sum(model.weights, model.weights_sha256)
    code = _sum(models.own_file(model.name), model.code_sha256)
    return replace(model, input=facts.shape, classes=len(facts.classes), weights_sha256=weights, code_sha256=code)


def _named(name: str, key: str, other: str, runs: Runs) -> str:
    """The full name of the run that a step's key means."""
    try:
        return runs.find(name).name
    except Refused as error:
        raise Refused(f"{key} = {quote(name)} is no earlier step of the recipe and {other}; {error}") from None


def _sum(path: str, given: str) -> str:
    """The checksum of a file that a spec names; what was given where there is none (who reads it says so)."""
    file = Path(path).expanduser()
    found = checksum(file) if file.is_file() else given
    if given and given != found:
        raise Refused(f"{path} has SHA-256 {found}, not {given}; put back the file that the recipe means")
    return found


def preflight(recipe: Recipe, place: Place) -> None:
    """What can be known to fail later is refused before anything is computed."""
    network, model = skeleton(recipe.init.model), recipe.init.model
    left: dict[str, dict[tuple[str, ...], float]] = {"": {}}
    built = {""}  # the steps behind which layers are still those of the skeleton
    for stage in recipe.stages:
        spec, left[stage.label] = stage.spec, dict(left[stage.after])
        if stage.after in built and not isinstance(spec, Shrink | Factorise):
            built.add(stage.label)
        try:
            if isinstance(spec, Quantize) and (spec.activations or spec.learned) and stage.after in built:
                quantize.planned(network, spec)
            if isinstance(spec, Prune):
                _prunes(spec, network, left[stage.label])
            elif isinstance(spec, Shrink | Factorise | Reset) or getattr(spec, "sparse", "static") != "static":
                left[stage.label] = {}
            if isinstance(spec, Train) and spec.freezes:
                Freezing(network, spec)
            if getattr(spec, "data", recipe.data) != recipe.data:
                fits(data.facts(spec.data, place.data), model, spec.data.name)  # type: ignore[attr-defined]
            if isinstance(spec, Train) and spec.teacher not in ("", *left):
                fits(data.facts(spec.data, place.data), _origin(spec.teacher, place)[2], f"the teacher {spec.teacher}")
        except Refused as error:
            raise Refused(f"step {stage.label}: {error}") from None


def _prunes(spec: Prune, network: nn.Module, left: dict[tuple[str, ...], float]) -> None:
    """A density that is still there to be had; known for steps that count the same layers."""
    pruning.eligible(network, spec)
    if (
        (spec.structure, spec.budget) != ("weight", "units")
        or spec.scope == "table"
        or spec.layers
        or spec.keep_first
        or spec.keep_last
    ):
        left.clear()
        return
    there = left.get(spec.exclude, 1.0)
    if spec.density > there:
        raise Refused(
            f"prune.density = {spec.density:g} would bring weights back: expected {there:g} or less, what is left"
        )
    left[spec.exclude] = spec.density


def fits(facts: data.Facts, model: Model, what: str) -> None:
    """Images and classes as the network has them."""
    if (facts.shape, len(facts.classes)) != (model.input, model.classes):
        seen = f"the images are {_size(facts.shape)} of {len(facts.classes)} classes"
        expected = f"{_size(model.input)} of {model.classes}, as the network has"
        raise Refused(f"{what} does not fit: {seen}; expected {expected}")


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def skeleton(model: Model) -> nn.Module:
    """The network of a spec, its weights of no account."""
    return models.build(replace(model, weights="", weights_sha256="", init="default"), 0)


def opened(path: Path) -> tuple[nn.Module, State, Model]:
    """The network that a checkpoint holds, its state and its spec: the file says itself what it is."""
    state, about = read_state(path)
    if "model" not in about:
        raise Refused(f"{path} {_nameless(about)}")
    try:
        model = build(Model, about["model"])
        network = skeleton(model)
        if "architecture" in about:
            models.reshape_(network, about["architecture"])
        if "quantised" in about:
            quantize.wear_(network, quantize.plan_of(about["quantised"], "the file"))
    except Refused as error:
        raise Refused(f"{path}: {error}") from None
    models.fit(network, state.weights, str(path), head=False)
    return network, state, model


def given(model: Model, facts: data.Facts) -> tuple[nn.Module, State, Model]:
    """The same for a file of plain weights, which `model` names with the network that they belong to."""
    known = _known(model, facts)
    network, state = _begun(known, 0, lambda line: print(line, file=sys.stderr))
    return network, state, replace(known, weights="", weights_sha256="")


def _nameless(about: dict[str, Any]) -> str:
    """What is to be done about a file without the name of its network."""
    kind = about.get("class")
    if not isinstance(kind, str) or not kind.isidentifier():
        return "does not say which network it belongs to; expected a file that prunery wrote"
    how = f'model=prunery.Model(name="FILE.py:{kind[:80]}", input=(C, H, W), classes=N)'
    return f"holds {kind[:80]}, a network of your own, and not where its code is; expected a file saved with {how}"


def network_of(step: Step) -> tuple[nn.Module, State, Model]:
    """A finished step's network with its weights in place, its state and its spec."""
    return opened(step.folder / WEIGHTS)


@functools.lru_cache(maxsize=2)
def images(spec: Data, root: Path, device: str) -> data.Splits:
    """The images of a spec; kept, since the steps of a chain share them."""
    return data.load(spec, root, device)


def make(node: Node, place: Place, work: Work) -> None:
    """One step: compute its state, write it, measure it."""
    if isinstance(node.spec, Init):
        return _init(node, place, work)
    assert node.parent is not None
    network, state, model = network_of(Step(place.runs.path(node.parent)))
    splits = images(node.spec.data, place.data, place.ways.device)  # type: ignore[attr-defined]
    state, facts = MAKERS[type(node.spec)](node.spec, Given(network, state, splits, place, work, node))
    network = facts.pop("network", network)
    network.load_state_dict(state.weights)
    about = {"model": plain(model), "step": node.name, **_architecture(network, model)}
    work.save(state, about)
    if isinstance(node.spec, Pack):
        write_tensors(work.folder / PACKED, pack(state, node.spec.values == "float16"), about)
    wanted = splits if getattr(node.spec, "measure", True) else None
    measured = summary(network.to(place.ways.device), state.masks, splits.facts.shape, wanted)
    if splits.spec.name == score.PLAYED:
        facts["score"] = score.as_dict(score.account(network, splits.facts.shape).scores())
    file = PACKED if isinstance(node.spec, Pack) else WEIGHTS
    return work.result(measured | facts | {"bytes": (work.folder / file).stat().st_size})


def _architecture(network: nn.Module, model: Model) -> dict[str, Any]:
    """What surgery and quantisation have made of the network, for its file to say; nothing where it is as built."""
    now, bits = models.describe(network), quantize.described(network)
    told = {"architecture": now} if now != models.describe(skeleton(model)) else {}
    return told | ({"quantised": bits} if bits else {})


def _root(node: Node) -> Init:
    """The chain's first step."""
    first = node.chain()[0].spec
    assert isinstance(first, Init)
    return first


def _init(node: Node, place: Place, work: Work) -> None:
    spec = _root(node)
    network, state = _begun(spec.model, spec.seed, place.say)
    work.save(state, {"model": plain(spec.model), "step": node.name, **_architecture(network, spec.model)})
    size = (work.folder / WEIGHTS).stat().st_size
    work.result(summary(network, state.masks, spec.model.input) | {"bytes": size})


def _begun(model: Model, seed: int, say: Callable[[str], None]) -> tuple[nn.Module, State]:
    """A network with the weights that it begins with."""
    network = models.build(model, seed, say)
    return network, State(network.state_dict(), _masks(model, network))


def _masks(model: Model, network: nn.Module) -> dict[str, torch.Tensor]:
    """A network that starts from a pruned file starts pruned; a layer that the file does not fit is whole."""
    path = Path(model.weights).expanduser()
    found = read_state(path)[0].masks if path.is_file() and path.suffix == ".safetensors" else {}
    own = network.state_dict()
    return {n: m for n, m in found.items() if n in own and own[n].shape == m.shape}


@dataclass(frozen=True)
class Given:
    """What a step starts from and where it works."""

    network: nn.Module
    state: State
    splits: data.Splits
    place: Place
    work: Work
    node: Node

    @property
    def example(self) -> torch.Tensor:
        """Two inputs of the right shape, to trace and compare networks with."""
        return data.inputs(self.splits.train.x[:2], self.splits)

    @property
    def first(self) -> Step:
        """The chain's first step."""
        return Step(self.place.runs.path(self.node.chain()[0]))


Made = tuple[State, dict[str, Any]]


def _train(spec: Train, given: Given) -> Made:
    network, masks, place = given.network, given.state.masks, given.place
    teacher = teacher_of(spec, place) if spec.teacher else None
    threads = place.ways.threads or fitting_threads(network, spec, given.splits)
    rewire = pruning.moving(spec) if spec.sparse != "static" else None
    if rewire and spec.sparse == "gradual":
        masks = ones(prunable(network)) | masks
    elif rewire and not masks:
        raise Refused(f'train.sparse = "{spec.sparse}" moves masks, and there are none; put a prune step before it')
    ways = replace(place.ways, threads=threads)
    trained, facts = train(network, masks, given.splits, spec, given.work, ways, teacher, rewire)
    return trained, {"train": facts}


SMALL = 50_000_000
"""Multiply-adds of a forward pass below which a second thread costs more than it brings: it saves a fifth of a step on
an idle machine and makes it many times slower on a busy one, where threads wait for each other at every layer."""


def fitting_threads(network: nn.Module, spec: Train, splits: data.Splits) -> int:
    """CPU threads for a training step, by its size alone, so that the choice is the same in every run."""
    work = totals(count(network, splits.facts.shape, spec.batch))["multiply_adds"]
    return 1 if work < SMALL else torch.get_num_threads()


def _prune(spec: Prune, given: Given) -> Made:
    rng = torch.Generator().manual_seed(derived(spec.seed, "prune"))
    known = pruning.Known(looked_at(spec, given.splits), _initial(spec, given), _work(given))
    curves: list[dict[str, Any]] = []

    def saw(density: float, seen: pruning.Evidence) -> None:
        if "sensitivity" in seen:
            rows = {n: curve.tolist() for n, curve in seen["sensitivity"].items()}
            curves.append({"density": density, "layers": [{"name": n, "rises": r} for n, r in rows.items()]})

    mask, changed = pruning.pruned(given.network.cpu(), given.state.masks, spec, known, rng, saw)
    weights = given.state.weights | changed
    return State(masked(weights, mask), mask), ({"sensitivity": curves} if curves else {})


def looked_at(spec: Prune, splits: data.Splits) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Training images, unvaried, that criteria may look at: a choice of the seed's."""
    rng = torch.Generator().manual_seed(derived(spec.seed, "images"))
    chosen = torch.randperm(len(splits.train.y), generator=rng)[: spec.batches * spec.batch]
    x, y = splits.train.x[chosen.to(splits.train.x.device)], splits.train.y[chosen.to(splits.train.y.device)]
    pairs = zip(x.split(spec.batch), y.split(spec.batch), strict=True)
    return [(data.inputs(a, splits).cpu(), b.cpu()) for a, b in pairs]


def _initial(spec: Prune, given: Given) -> dict[str, torch.Tensor] | None:
    """The chain's first weights, for criteria that compare with them."""
    if "initial" not in pruning.CRITERIA[spec.criterion].needs:
        return None
    first, now = given.first.state().weights, given.state.weights
    return {n: w for n, w in first.items() if n in now and now[n].shape == w.shape}


def _work(given: Given) -> float:
    """Multiply-adds of the layers of the network that the chain began with."""
    network = skeleton(_root(given.node).model)
    example = given.example[:1].cpu()
    seen = pruning.collect(network, {"places", "shapes"}, [(example, torch.zeros(1, dtype=torch.int64))])
    return pruning.work({}, seen)


def _reset(spec: Reset, given: Given) -> Made:
    masks = given.state.masks
    if spec.to == "fresh":
        model = replace(_root(given.node).model, weights="", weights_sha256="")
        weights = models.build(model, spec.seed).state_dict()
    else:
        weights = given.place.runs.find(spec.to).state().weights
    wrong = [n for n, w in given.state.weights.items() if n not in weights or weights[n].shape != w.shape]
    if wrong:
        raise Refused(
            f"reset.to = {quote(spec.to)} has no weights of this shape for {wrong[0]}; reset before shrinking"
        )
    return State(masked(weights, masks), masks), {}


def _shrink(spec: Shrink, given: Given) -> Made:
    _unquantised(given.network, "shrink")
    network, masks = pruning.shrink(given.network.cpu(), given.state.masks, given.example.cpu(), spec.multiple)
    if spec.fold:
        network = pruning.fold_batchnorm(network, given.example.cpu())
    return State(network.state_dict(), masks), {"network": network}


def _factorise(spec: Factorise, given: Given) -> Made:
    _unquantised(given.network, "factorise")
    network = pruning.factorise(given.network.cpu(), given.example.cpu(), layers=spec.layers, **{spec.by: spec.keep})
    parameters = dict(network.named_parameters())
    masks = {n: m for n, m in given.state.masks.items() if n in parameters and parameters[n].shape == m.shape}
    return State(network.state_dict(), masks), {"network": network}


def masked(weights: dict[str, torch.Tensor], mask: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights with those that are pruned at zero."""
    return weights | {n: weights[n].masked_fill(~m, 0) for n, m in mask.items()}


def _quantize(spec: Quantize, given: Given) -> Made:
    if not spec.activations and not spec.learned:
        _unquantised(given.network, "quantize")
        rounded, scales = quantize.quantize(prunable(given.network), spec.bits, spec.per)
        return State(given.state.weights | rounded, given.state.masks, scales), {}
    network = given.network.cpu()
    network.load_state_dict(given.state.weights)
    plan = quantize.planned(network, spec)
    order = torch.randperm(len(given.splits.train.y), generator=torch.Generator().manual_seed(derived(0, "images")))
    chosen = order[: spec.batches * spec.batch].split(spec.batch)
    batches = (data.inputs(given.splits.train.x[part], given.splits).cpu() for part in chosen)
    quantize.quantised_(network, plan, batches)
    return State(network.state_dict(), given.state.masks), {"network": network}


def _unquantised(network: nn.Module, what: str) -> None:
    """Steps that know nothing of quantised layers."""
    layers = quantize.quantised_layers(network)
    if layers:
        seen = f"{what}: {next(iter(layers))} is quantised already"
        raise Refused(f"{seen}; put the step before quantize, or set quantize.activations to change the bits")


def _pack(spec: Pack, given: Given) -> Made:
    if quantize.quantised_layers(given.network):
        given.network.load_state_dict(given.state.weights)
        norms = dict(pruning.pairs(given.network.cpu().eval(), given.example.cpu(), quantize.is_quantised))
        network = quantize.folded(given.network, norms)
        ones_ = {f"{n}.weight": torch.ones(1) for n in quantize.quantised_layers(network)}
        state = State(network.state_dict(), given.state.masks, ones_)
        return unpack(pack(state, spec.values == "float16")), {"network": network}
    return unpack(pack(given.state, spec.values == "float16")), {}


def _origin(name: str, place: Place) -> tuple[nn.Module, State, Model]:
    """The network of a file or of a run."""
    return opened(Path(name)) if Path(name).is_file() else network_of(place.runs.find(name))


MAKERS: dict[type[Spec], Callable[..., Made]] = {
    Train: _train, Prune: _prune, Reset: _reset, Shrink: _shrink, Factorise: _factorise, Quantize: _quantize,
    Pack: _pack,
}  # fmt: skip


def teacher_of(spec: Train, place: Place) -> nn.Module:
    """The network of a finished step or a checkpoint, ready to be imitated."""
    if spec.teacher_sha256:
        _sum(spec.teacher, spec.teacher_sha256)
    network, *_ = _origin(spec.teacher, place)
    return network.to(place.ways.device).eval().requires_grad_(False)
