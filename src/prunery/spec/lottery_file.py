"""A lottery by the name of its network, or from a TOML file; and the changes that a user asks for."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from .changes import table, value_of
from .check import check
from .errors import Refused, choose, quote
from .lottery import Lottery
from .steps import hints
from .toml import build, plain, read_toml

LOTTERIES: dict[str, Lottery] = {"lenet_300_100": Lottery()}
"""The paper's, by the name of its network."""


def read_lottery(what: str, settings: list[str] | tuple[str, ...] = ()) -> Lottery:
    """The lottery of a network's name or of a TOML file, changed by `--set` arguments."""
    if not what.endswith(".toml"):
        return lottery(plain(LOTTERIES[choose(what, [*LOTTERIES, "a RECIPE.toml"], "lottery")]), settings)
    try:
        return lottery(read_toml(Path(what)), settings)
    except Refused as error:
        raise error if what in str(error) else Refused(f"{what}: {error}") from None


def lottery(values: dict[str, Any], settings: list[str] | tuple[str, ...] = ()) -> Lottery:
    """A lottery from plain values."""
    values = deepcopy(values)
    for key in ("name", "about"):
        check(values.pop(key, ""), str, key)
    for key in values:
        choose(key, [*hints(Lottery), "name", "about"], "a key of the lottery")
    for key in ("model", "data"):
        values[key] = plain(getattr(Lottery(), key)) | table(values, key)
    for setting in settings:
        _apply(setting, values)
    return build(Lottery, values)


def _apply(setting: str, values: dict[str, Any]) -> None:
    """KEY=VALUE, model.KEY=VALUE or data.KEY=VALUE."""
    path, equals, text = setting.partition("=")
    where, dot, key = path.strip().rpartition(".")
    if not equals or not key or (dot and where not in ("lottery", "model", "data")):
        raise Refused(f"--set {quote(setting)} is not allowed; expected KEY=VALUE such as lr=0.001 or data.name=digits")
    found = values[where] if where in ("model", "data") else values
    found[key] = value_of(text.strip())
