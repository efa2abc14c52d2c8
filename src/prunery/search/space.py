"""What is searched, as a TOML file writes it: a recipe, the settings that may vary, what must hold, what is wanted.

recipe = "score_tiny.toml"            # carried out once a trial; beside this file
target = "accuracy >= 0.9"            # of validation images
objective = "minimise score"          # or two of them in a list, for grid, random and optuna
engine = "greedy"                     # grid, random, greedy, bisection, optuna
trials = 30
budget = ["float.epochs=3", "qat.epochs=3"]   # what makes a trial cheap: --set of every trial

[space]
"model.widths" = [[32, 64], [48, 80]]         # choices, in order: neighbours are alike
"quantize.bits" = [2, 3, 4]
"float.density" = { low = 0.3, high = 0.9 }   # or a range; log = true, whole = true
"""

import hashlib
import json
import math
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..spec import Recipe, Refused, choose, quote, read_recipe, read_toml
from .engines import ENGINES

MEASURES = ("accuracy", "score", "multiply_adds", "bytes", "density", "parameters", "milliseconds")
"""of a trial's last step: accuracy on validation images; milliseconds of one image in the engine"""
STEPS = 9
"""places that a range has where choices are asked for"""
Choices = tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """Numbers between two, both included."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def at(self, share: float) -> float:
        """A number so far on the way from the lowest to the highest."""
        if self.log:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        return round(value) if self.whole else float(f"{min(max(value, self.low), self.high):.6g}")

    def choices(self) -> Choices:
        """Evenly spread."""
        return tuple(dict.fromkeys(self.at(i / (STEPS - 1)) for i in range(STEPS)))


@dataclass(frozen=True)
class Target:
    """What a trial must meet."""

    measure: str
    least: bool
    bound: float

    def met(self, measures: dict[str, float]) -> bool:
        value = measures[self.measure]
        return value >= self.bound if self.least else value <= self.bound

    def short(self, measures: dict[str, float]) -> float:
        """How far it is missed; nothing where it is met."""
        value = measures[self.measure]
        return max(0.0, self.bound - value if self.least else value - self.bound)


@dataclass(frozen=True)
class Objective:
    """What is wanted among those that meet it."""

    measure: str
    least: bool

    def cost(self, measures: dict[str, float]) -> float:
        """The smaller, the better."""
        return measures[self.measure] if self.least else -measures[self.measure]


@dataclass(frozen=True)
class Space:
    """All of it."""

    path: Path
    recipe: Path
    axes: dict[str, Choices | Range]
    target: Target
    objectives: tuple[Objective, ...]
    engine: str = "greedy"
    trials: int = 20
    seed: int = 0
    budget: tuple[str, ...] = ()

    @property
    def objective(self) -> Objective:
        """What decides which trial is the best: the first."""
        return self.objectives[0]

    @property
    def measures(self) -> set[str]:
        """What has to be measured of a trial."""
        return {"accuracy", self.target.measure, *(o.measure for o in self.objectives)}

    def costs(self, measures: dict[str, float]) -> list[float]:
        """Of every objective: the smaller, the better."""
        return [objective.cost(measures) for objective in self.objectives]

    def choices(self) -> dict[str, Choices]:
        """Every axis as choices in order."""
        return {k: v.choices() if isinstance(v, Range) else v for k, v in self.axes.items()}

    def digest(self) -> str:
        """Of what is measured and how it is judged; what is trained has a name of its own."""
        parts = [str(self.target), *map(str, self.objectives)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]

    def made(self, point: dict[str, Any]) -> Recipe:
        """The recipe of a trial."""
        settings = [*self.budget, *(f"{k}={json.dumps(v)}" for k, v in point.items())]
        return read_recipe(self.recipe, settings)


MANY = ("grid", "random", "optuna")
"""engines that can look for several things at once"""
SHARES = ("accuracy", "density")
KEYS = ("name", "about", "recipe", "target", "objective", "engine", "trials", "seed", "budget", "space")


def read_space(path: Path) -> Space:
    """The space in a file; what cannot be is refused before anything is trained."""
    values = read_toml(path)
    try:
        return _space(path, values)
    except Refused as error:
        raise error if str(path) in str(error) else Refused(f"{path}: {error}") from None


def _space(path: Path, values: dict[str, Any]) -> Space:
    for key in values:
        choose(key, KEYS, "a key of the search")
    for key in ("recipe", "target", "objective", "space"):
        if key not in values:
            raise Refused(f"{key} is missing; expected recipe, target, objective and [space]")
    given = {f.name: values[f.name] for f in fields(Space) if f.name in values and f.name not in ("path", "recipe")}
    for key, least in (("trials", 1), ("seed", 0)):
        value = given.get(key, least)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise Refused(f"{key} = {quote(value)} is not allowed; expected a whole number, {least} or more")
    budget = values.get("budget", [])
    if not isinstance(budget, list) or not all(isinstance(b, str) for b in budget):
        raise Refused(f'budget = {quote(budget)} is not allowed; expected settings such as ["train.epochs=2"]')
    choose(values.get("engine", "greedy"), ENGINES, "engine")
    axes = values["space"]
    if not isinstance(axes, dict) or not axes:
        raise Refused('[space] is empty; expected at least one setting, such as "train.lr" = [0.1, 0.2]')
    parsed = {k: _axis(k, v) for k, v in axes.items()}
    text = {k: values[k] for k in ("recipe", "target")}
    for key, value in text.items():
        if not isinstance(value, str):
            raise Refused(f"{key} = {quote(value)} is not allowed; expected a text")
    for twice in {entry.partition("=")[0].strip() for entry in budget} & set(axes):
        raise Refused(f"space: {quote(twice)} is in budget too; expected it in one of them")
    space = Space(
        path, path.parent / text["recipe"], parsed, _target(text["target"]), _objectives(values["objective"]),
        **{k: v for k, v in given.items() if k in ("engine", "trials", "seed")}, budget=tuple(budget),
    )  # fmt: skip
    _tried(space)
    if space.engine == "bisection" and len(axes) != 1:
        raise Refused(f"engine = bisection is for one setting, [space] has {len(axes)}; expected one, or greedy")
    if len(space.objectives) > 1 and space.engine not in MANY:
        raise Refused(f"engine = {space.engine} is for one objective; expected {', '.join(MANY)} for more of them")
    return space


def _tried(space: Space) -> None:
    """Every choice of every axis, the others at one of their ends: a setting that is none fails here."""
    choices = space.choices()
    first, last = ({k: v[i] for k, v in choices.items()} for i in (0, -1))
    for point in (first, last):
        space.made(point)
    for key, values in choices.items():
        for value in values[1:-1]:
            try:
                space.made(first | {key: value})
            except Refused:
                _with(space, last | {key: value}, key)


def _with(space: Space, point: dict[str, Any], key: str) -> None:
    """A point of a range that is refused because it is no whole number is told how to be one."""
    try:
        space.made(point)
    except Refused as error:
        axis, value = space.axes[key], point[key]
        if isinstance(axis, Range) and not axis.whole and value != int(value):
            raise Refused(f"{error}; a range of whole numbers says whole = true") from None
        raise


def _axis(key: str, value: Any) -> Choices | Range:
    if isinstance(value, list) and len(value) > 1 and all(a not in value[:i] for i, a in enumerate(value)):
        return tuple(value)
    if isinstance(value, dict) and {"low", "high"} <= set(value) <= {"low", "high", "log", "whole"}:
        low, high, log, whole = value["low"], value["high"], value.get("log", False), value.get("whole", False)
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (low, high))
        numbers = numbers and math.isfinite(low) and math.isfinite(high)
        if numbers and {type(log), type(whole)} == {bool} and low < high and (low > 0 or not log):
            return Range(low, high, log, whole)
    seen = f"space: {quote(key)} = {quote(value)} is not allowed"
    if isinstance(value, dict) and not {"low", "high"} & set(value):
        name = next(iter(value), "setting")
        raise Refused(f'{seen}; a setting with a dot is written in quotes: "{key}.{name}" = [0.1, 0.5]')
    raise Refused(f"{seen}; expected two different choices or more in a list, or {{ low = 0.1, high = 0.9 }}")


def _target(text: str) -> Target:
    found = re.fullmatch(r"\s*(\w+)\s*(>=|<=)\s*([\d.eE+-]+)\s*", text)
    number = re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", found[3]) if found else None
    if not found or not number:
        raise Refused(f"target = {quote(text)} is not allowed; expected such as accuracy >= 0.9")
    measure, bound = choose(found[1], MEASURES, "target: the measure"), float(found[3])
    if measure in SHARES and not 0 <= bound <= 1:
        raise Refused(f"target = {quote(text)} is not allowed; {measure} is a share of one, such as 0.903")
    return Target(measure, found[2] == ">=", bound)


def _objectives(told: Any) -> tuple[Objective, ...]:
    """One, or several in a list; the accuracy too where there are several."""
    texts = told if isinstance(told, list) and told else [told]
    for text in texts:
        if not isinstance(text, str):
            raise Refused(f"objective = {quote(told)} is not allowed; expected such as minimise score, or a list")
    found = tuple(_objective(text) for text in texts)
    if len({o.measure for o in found}) < len(found):
        raise Refused(f"objective = {quote(told)} is not allowed; expected each measure once")
    return found


def _objective(text: str) -> Objective:
    word, _, measure = text.strip().partition(" ")
    if word not in ("minimise", "minimize", "maximise", "maximize") or not measure:
        raise Refused(f"objective = {quote(text)} is not allowed; expected such as minimise score")
    return Objective(choose(measure.strip(), MEASURES, "objective: the measure"), word.startswith("min"))
