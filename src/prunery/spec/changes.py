"""`--set where.key=value`: where is data, model, a step's label, or a kind (all steps of it); or just seed=value."""

import re
import tomllib
from collections.abc import Iterable
from typing import Any

from .errors import Refused, choose, quote
from .steps import STEPS

Table = dict[str, Any]
KINDS = tuple(STEPS)


def apply(setting: str, top: Table, entries: list[Table]) -> None:
    """One setting, written into the tables of a recipe that it means."""
    path, equals, text = setting.partition("=")
    *where, key = (part.strip() for part in path.split("."))
    if not equals or not key or not all(where) or len(where) > 2:
        raise Refused(f"--set {quote(setting)} is not allowed; expected KEY=VALUE such as train.lr=0.01")
    for found in _targets(where, key, top, entries):
        found[key] = value_of(text.strip())


def no_seed(settings: Iterable[str], asked: str) -> None:
    """Refuses a seed among settings where seeds are asked for: it would win, and all runs would be the same one."""
    for setting in settings:
        if setting.partition("=")[0].strip() == "seed":
            seen = f"the setting {quote(setting)} together with {asked} is not allowed"
            raise Refused(f"{seen}; expected one of them, as every seed would give the same run: leave the setting out")


def table(values: Table, key: str) -> Table:
    """The table under a key; an empty one where there is none."""
    found = values.get(key, {})
    if not isinstance(found, dict):
        raise Refused(f"{key} = {quote(found)} is not allowed; expected a table of settings, such as [{key}]")
    return found


def _targets(where: list[str], key: str, top: Table, entries: list[Table]) -> list[Table]:
    if not where:
        choose(key, ["seed"], "--set: a key without a step")
        return [top]
    if where == ["data"]:
        return [top["data"], *(table(e, "data") for e in entries if "data" in e)]
    if where == ["model"]:
        return [top["model"]]
    steps = _steps(where[0], entries)
    return steps if len(where) == 1 else [_inner(step, where[1]) for step in steps]


def _steps(name: str, entries: list[Table]) -> list[Table]:
    """All steps of that kind, or else the step of that label."""
    given = [e for e in entries if e["label"] == name and name not in KINDS]
    found = given or [e for e in entries if e["kind"] == name]
    if not found:
        names = [e[k] for k in ("label", "kind") for e in entries]
        choose(name, dict.fromkeys(["data", "model", "seed", *names]), "--set: the step")
        raise Refused(f"--set: {quote(name)} is no step; expected {name}.KEY=VALUE with one key")
    return found


def _inner(step: Table, key: str) -> Table:
    """A step's own table, which is its own from now on."""
    choose(key, ["data"], f"--set: a table of step {step['label']}")
    step[key] = dict(table(step, key))
    return step[key]


def value_of(text: str) -> Any:
    """A value as TOML would read it; words without quotes are texts."""
    try:
        found = tomllib.loads(f"x = {text}")
        return found["x"] if len(found) == 1 else text
    except (tomllib.TOMLDecodeError, RecursionError):
        return _number(text)


def _number(text: str) -> Any:
    """.1 and 1. are numbers to everyone but TOML; everything else is a text."""
    plain = re.fullmatch(r"[+-]?(\d+\.|\.\d+)([eE][+-]?\d+)?", text)
    return float(text) if plain else text
