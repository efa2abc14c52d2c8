"""A recipe: data, network and a list of steps, as a TOML file writes them; expanded into the nodes of a tree."""

import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .changes import apply, table
from .check import check
from .errors import Refused, choose, quote
from .names import Node
from .steps import STEPS, Data, Init, Model, Reset, Spec, Train, hints
from .toml import build, read_toml

WORD = re.compile(r"[\w-]+")
TOP = ("name", "about", "seed", "data", "model", "step")
OF_A_LOTTERY = {"levels", "arms", "seeds", "rate_fc", "rate_conv", "rate_output", "reinits"}
"""keys by which a file is a lottery's"""


@dataclass(frozen=True)
class Stage:
    """A step's place in a recipe: its name there, the step it starts from, and what it does."""

    label: str
    after: str
    spec: Spec


@dataclass(frozen=True)
class Recipe:
    """A small tree of steps over one network."""

    name: str
    about: str
    stages: tuple[Stage, ...]

    @property
    def data(self) -> Data:
        """The images that the recipe works on."""
        return next((s.spec.data for s in self.stages if hasattr(s.spec, "data")), Data())

    @property
    def init(self) -> Init:
        """The first step, which every recipe has."""
        first = self.stages[0].spec
        assert isinstance(first, Init)
        return first

    def nodes(self) -> dict[str, Node]:
        """Every stage as a node under its label, parents first; a teacher's label becomes its name."""
        found: dict[str, Node] = {}
        for stage in self.stages:
            spec = stage.spec
            if isinstance(spec, Train) and spec.teacher in found:
                spec = replace(spec, teacher=found[spec.teacher].name)
            if isinstance(spec, Reset) and spec.to in found:
                spec = replace(spec, to=found[spec.to].name)
            found[stage.label] = Node(spec, found.get(stage.after))
        return found

    def mapped(self, change: Callable[[Spec], Spec]) -> "Recipe":
        """The same recipe with every spec changed by a function."""
        return replace(self, stages=tuple(replace(s, spec=change(s.spec)) for s in self.stages))


def in_a_row(model: Model, *steps: Spec, seed: int = 0, name: str = "recipe") -> Recipe:
    """A recipe without branches, from Python; steps are labelled as those of a file are."""
    labels = _labels([step.kind for step in steps])
    before = ["init", *labels]
    stages = (Stage(label, after, step) for label, after, step in zip(labels, before, steps, strict=False))
    return Recipe(name, "", (Stage("init", "", Init(model=model, seed=seed)), *stages))


def _labels(kinds: list[str]) -> list[str]:
    """A kind, with a number from the second on."""
    counts = [kinds[: i + 1].count(kind) for i, kind in enumerate(kinds)]
    return [kind if n == 1 else f"{kind}{n}" for kind, n in zip(kinds, counts, strict=True)]


def read_recipe(path: Path, settings: list[str] | None = None) -> Recipe:
    """The recipe in a file, changed by `--set` arguments; refusals name the file."""
    try:
        return recipe(read_toml(path), settings or [], path.stem)
    except Refused as error:
        raise error if str(path) in str(error) else Refused(f"{path}: {error}") from None


def recipe(values: dict[str, Any], settings: list[str] | tuple[str, ...] = (), name: str = "recipe") -> Recipe:
    """A recipe from plain values: top-level data and seed are the default of every step."""
    if "step" not in values and OF_A_LOTTERY & set(values):
        seen = ", ".join(sorted(OF_A_LOTTERY & set(values)))
        raise Refused(f"this is a lottery ({seen}), not a recipe of steps; carry it out with prunery lottery FILE")
    for key in values:
        choose(key, TOP, "a key of the recipe")
    steps = values.get("step", [])
    if not isinstance(steps, list) or not steps or not all(isinstance(s, dict) for s in steps):
        raise Refused('the recipe has no steps; expected at least one [[step]] with a kind, such as kind = "train"')
    values = deepcopy(values)
    top = {"model": table(values, "model"), "data": table(values, "data"), "seed": values.get("seed", 0)}
    entries = values["step"]
    _label(entries)
    for setting in settings:
        apply(setting, top, entries)
    root = Stage("init", "", build(Init, {"model": build(Model, top["model"]), "seed": top["seed"]}))
    words = {k: check(values.get(k, default), str, k) for k, default in (("name", name), ("about", ""))}
    return Recipe(words["name"], words["about"], (root, *_stages(entries, top)))


def _label(entries: list[dict[str, Any]]) -> None:
    """Each step gets a name in the recipe: its own label, or its kind with a number from the second on."""
    used: set[str] = {"init", "data", "model", "seed"}
    for i, entry in enumerate(entries):
        kind = choose(entry.get("kind", ""), [k for k in STEPS if k != "init"], f"step {i + 1}: kind")
        nth = sum(e["kind"] == kind for e in entries[: i + 1])
        label = entry.setdefault("label", kind if nth == 1 else f"{kind}{nth}")
        if not isinstance(label, str) or not WORD.fullmatch(label):
            raise Refused(f"step {i + 1}: label = {quote(label)} is not allowed; expected letters, digits, - and _")
        if label in used:
            raise Refused(f"step {i + 1}: label = {quote(label)} is taken; expected a name that no other step has")
        used.add(label)


def _stages(entries: list[dict[str, Any]], top: dict[str, Any]) -> list[Stage]:
    stages, known = [], ["init"]
    for i, entry in enumerate(entries):
        where = f"step {i + 1} ({entry['label']})"
        after = choose(entry.get("after", known[-1]), known, f"{where}: after")
        stages.append(Stage(entry["label"], after, _step(entry, top, where)))
        _teacher(stages[-1].spec, [e["label"] for e in entries[i:]], where)
        known.append(entry["label"])
    return stages


def _teacher(spec: Spec, later: list[str], where: str) -> None:
    """Nobody learns from, or goes back to, a step that is not made yet."""
    if isinstance(spec, Train) and spec.teacher in later:
        seen = f"teacher = {quote(spec.teacher)} comes no earlier than this step"
        raise Refused(f"{where}: {seen}; put the teacher's step first")
    if isinstance(spec, Reset) and spec.to in later:
        raise Refused(f"{where}: to = {quote(spec.to)} comes no earlier than this step; put that step first")


def _step(entry: dict[str, Any], top: dict[str, Any], where: str) -> Spec:
    """One step: its own settings over the recipe's."""
    cls = STEPS[entry["kind"]]
    own = {k: v for k, v in entry.items() if k not in ("kind", "label", "after")}
    shared = {k: top[k] for k in ("seed",) if k in hints(cls)}
    try:
        if "data" in hints(cls):
            shared["data"] = top["data"] | table(own, "data")
        return build(cls, own | {**shared, **{k: v for k, v in own.items() if k != "data"}})
    except Refused as error:
        raise Refused(f"{where}: {error}") from None
