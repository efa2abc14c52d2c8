"""What is swept, as a TOML file writes it: a recipe and, for some of its settings, the values to try.

recipe = "lenet5_mnist.toml"          # carried out once a combination; beside this file
settings = ["train.epochs=2"]         # of every combination, as --set
seeds = 3                             # 0, 1, 2; or a list. The seed of weights, of training, of pruning
retries = 2                           # of a step whose process or machine died

[sweep]                               # every combination of these
"prune.density" = [0.5, 0.2, 0.1]
"train.lr" = { from = 0.001, to = 0.1, steps = 5, log = true }   # or whole = true

[[zip]]                               # these go together: as many values each
"prune.criterion" = ["magnitude", "random"]
"prune.scope" = ["layer", "global"]

[resources]                           # of one step
cpus = 1                              # threads
gpus = 0                              # 0.5: two steps on one
"""

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..spec import Recipe, Refused, choose, no_seed, quote, read_recipe, read_toml

KEYS = ("name", "about", "recipe", "settings", "seeds", "retries", "sweep", "zip", "resources")
Point = dict[str, Any]
MOST = 100_000
"""chains"""


@dataclass(frozen=True)
class Sweep:
    """All of it; `groups` are settings that vary together, with the rows of their values."""

    path: Path
    name: str
    recipe: Path
    groups: tuple[tuple[tuple[str, ...], tuple[tuple[Any, ...], ...]], ...]
    seeds: tuple[int, ...] = ()
    settings: tuple[str, ...] = ()
    retries: int = 2
    cpus: int = 1
    gpus: float = 0.0

    def points(self) -> list[Point]:
        """Every combination of values, seeds aside."""
        names = [keys for keys, _ in self.groups]
        chosen = itertools.product(*(values for _, values in self.groups))
        return [
            {k: v for keys, row in zip(names, c, strict=True) for k, v in zip(keys, row, strict=True)} for c in chosen
        ]

    def made(self, point: Point, seed: int | None) -> Recipe:
        """The recipe of a combination."""
        seeded = [f"seed={seed}"] if seed is not None else []
        return read_recipe(self.recipe, [*seeded, *self.settings, *(f"{k}={json.dumps(v)}" for k, v in point.items())])


def read_sweep(path: Path, settings: list[str]) -> Sweep:
    """The sweep in a file; what cannot be is refused before anything is trained."""
    values = read_toml(path)
    try:
        return _sweep(path, values, settings)
    except Refused as error:
        raise error if str(path) in str(error) else Refused(f"{path}: {error}") from None


def _sweep(path: Path, values: dict[str, Any], settings: list[str]) -> Sweep:
    for key in values:
        choose(key, KEYS, "a key of the sweep")
    recipe, name, _ = (_text(values, key) for key in ("recipe", "name", "about"))
    if not recipe:
        raise Refused('recipe is missing; expected the file that is swept, such as recipe = "lenet5_mnist.toml"')
    own = values.get("settings", [])
    if not isinstance(own, list) or not all(isinstance(s, str) for s in own):
        raise Refused(f'settings = {quote(own)} is not allowed; expected such as ["train.epochs=2"]')
    resources = _table(values, "resources")
    for key in resources:
        choose(key, ("cpus", "gpus"), "a key of [resources]")
    seeds = _seeds(values.get("seeds", ()))
    if seeds:
        no_seed((*own, *settings), f"seeds = {quote(list(seeds))}")
    sweep = Sweep(
        path, name or path.stem, path.parent / recipe, tuple(_groups(values)), seeds,
        (*own, *settings), _whole(values.get("retries", 2), "retries", 0),
        _whole(resources.get("cpus", 1), "resources.cpus", 1), _share(resources.get("gpus", 0)),
    )  # fmt: skip
    if math.prod(len(rows) for _, rows in sweep.groups) * max(1, len(sweep.seeds)) > MOST:
        raise Refused(f"that is more than {MOST:,} chains; expected fewer values")
    return sweep


def _text(values: dict[str, Any], key: str) -> str:
    found = values.get(key, "")
    if not isinstance(found, str):
        raise Refused(f"{key} = {quote(found)} is not allowed; expected a text")
    return found


def _table(values: dict[str, Any], key: str) -> dict[str, Any]:
    found = values.get(key, {})
    if not isinstance(found, dict):
        raise Refused(f"{key} = {quote(found)} is not allowed; expected a table, [{key}]")
    return found


def _whole(value: Any, key: str, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise Refused(f"{key} = {quote(value)} is not allowed; expected a whole number, {least} or more")
    return value


def _share(value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < 1e3 or (value > 1 and value % 1):
        raise Refused(f"resources.gpus = {quote(value)} is not allowed; expected 0, a share such as 0.5, or a number")
    return float(value)


def _seeds(value: Any) -> tuple[int, ...]:
    """3 is 0, 1, 2."""
    if isinstance(value, list | tuple):
        seeds = tuple(_whole(v, "seeds", 0) for v in value)
        if len(set(seeds)) < len(seeds):
            raise Refused(f"seeds = {quote(list(seeds))} has one twice; expected each once")
        return seeds
    return tuple(range(_whole(value, "seeds", 1)))


def _groups(values: dict[str, Any]) -> "list[tuple[tuple[str, ...], tuple[tuple[Any, ...], ...]]]":
    """Settings by themselves, and those that go together."""
    zips = values.get("zip", [])
    if not isinstance(zips, list) or not all(isinstance(z, dict) and z for z in zips):
        raise Refused(f"zip = {quote(zips)} is not allowed; expected [[zip]] with two settings or more")
    found: list[Any] = [((k,), tuple((v,) for v in _axis(k, axis))) for k, axis in _table(values, "sweep").items()]
    for together in zips:
        axes = {k: _axis(k, axis) for k, axis in together.items()}
        if len({len(a) for a in axes.values()}) > 1:
            seen = ", ".join(f"{k} has {len(a)}" for k, a in axes.items())
            raise Refused(f"[[zip]]: {seen}; expected as many values of each, as they go together")
        found.append((tuple(axes), tuple(zip(*axes.values(), strict=True))))
    for names, values_ in found:
        if len({json.dumps(v, default=str) for v in values_}) < len(values_):
            shown = quote(list(values_)) if len(names) > 1 else quote([v for (v,) in values_])
            raise Refused(f"{', '.join(map(quote, names))} = {shown} has a value twice; expected each once")
    keys = [k for names, _ in found for k in names]
    if twice := next((k for k in keys if keys.count(k) > 1), ""):
        raise Refused(f"{quote(twice)} is swept twice; expected each setting once")
    if "seed" in keys:
        raise Refused('"seed" is swept as a setting; expected seeds = 3, so that results are told with their spread')
    if not found and not values.get("seeds"):
        raise Refused(
            'nothing is swept; expected [sweep] with a setting such as "prune.density" = [0.5, 0.2], or seeds'
        )
    return found


def _axis(key: str, value: Any) -> list[Any]:
    if isinstance(value, list) and value:
        return value
    if isinstance(value, dict) and {"from", "to", "steps"} <= set(value) <= {"from", "to", "steps", "log", "whole"}:
        return _range(key, value)
    seen = f"{quote(key)} = {quote(value)} is not allowed"
    raise Refused(
        f"{seen}; expected values in a list, or {{ from = 0.1, to = 0.9, steps = 5 }}, log = true, whole = true"
    )


def _range(key: str, value: dict[str, Any]) -> list[float]:
    """Evenly spread numbers, both ends included."""
    low, high, steps = value["from"], value["to"], _whole(value["steps"], f"{key}: steps", 2)
    log, whole = bool(value.get("log")), bool(value.get("whole"))
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in (low, high))
    if not numbers or low == high or (log and min(low, high) <= 0):
        seen = f"{quote(key)} = {quote(value)} is not allowed"
        raise Refused(f"{seen}; expected two numbers that differ, above 0 where log = true")
    if steps > MOST:
        raise Refused(f"{quote(key)}: steps = {steps} is too many; expected at most {MOST:,}")
    shares = [i / (steps - 1) for i in range(steps)]
    found = [low * (high / low) ** s if log else low + s * (high - low) for s in shares]
    return list(dict.fromkeys(round(v) if whole else float(f"{v:.6g}") for v in found))
