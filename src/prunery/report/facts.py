"""What a file says, read by name: absent is None; the wrong type is refused with the file and the field."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..spec import Refused, quote

T = TypeVar("T")


@dataclass(frozen=True)
class Facts:
    """A table of values and the place it was read from."""

    values: dict[str, Any]
    where: str
    inside: str = ""

    def number(self, key: str) -> float | None:
        """A finite number; NaN and infinity, which a diverged run writes, read as absent."""
        value = self._get(key, int | float, "a number")
        return value if value is not None and math.isfinite(value) else None

    def whole(self, key: str) -> int | None:
        return self._get(key, int, "a whole number")

    def text(self, key: str) -> str | None:
        return self._get(key, str, "a text")

    def flag(self, key: str) -> bool | None:
        return self._get(key, bool, "true or false")

    def table(self, key: str) -> "Facts":
        """A table inside; empty where there is none."""
        return Facts(self._get(key, dict, "a table") or {}, self.where, f"{self.inside}{key}.")

    def tables(self, key: str) -> "list[Facts]":
        """A list of tables."""
        rows = self._get(key, list, "a list") or []
        places = [f"{self.inside}{key}[{i}]" for i in range(len(rows))]
        for row, place in zip(rows, places, strict=True):
            if not isinstance(row, dict):
                self._refuse(place, row, "a table")
        return [Facts(row, self.where, f"{place}.") for row, place in zip(rows, places, strict=True)]

    def wholes(self, key: str) -> list[int]:
        """A list of whole numbers."""
        values = self._get(key, list, "a list") or []
        if not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
            self._refuse(self.inside + key, values, "whole numbers")
        return values

    def pairs(self, key: str) -> list[tuple[float, float | None]]:
        """A list of pairs of numbers; the second of each may be absent, as a number that is not finite is."""
        values = self._get(key, list, "a list") or []
        if not all(
            isinstance(v, list) and len(v) == 2 and _number(v[0]) and (v[1] is None or _number(v[1])) for v in values
        ):
            self._refuse(self.inside + key, values, "pairs of numbers")
        return [(a, b) for a, b in values]

    def needed(self, read: Callable[[str], T | None], key: str) -> T:
        """A value that may not be absent: `facts.needed(facts.text, "unit")`."""
        value = read(key)
        if value is None:
            raise Refused(f"{self.where}: {self.inside}{key} is missing; expected it in every table of this kind")
        return value

    def _get(self, key: str, kind: Any, words: str) -> Any:
        value = self.values.get(key)
        # True is an int to Python, never to us.
        fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        return value if value is None or fits else self._refuse(self.inside + key, value, words)

    def _refuse(self, place: str, value: Any, words: str) -> Any:
        raise Refused(f"{self.where}: {place} = {quote(value)} is not allowed; expected {words}")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_json(path: Path) -> Facts:
    """The table in a JSON file; empty where there is no file."""
    try:
        return as_facts(json.loads(path.read_text(encoding="utf-8")), path)
    except FileNotFoundError:
        return Facts({}, str(path))
    except Refused:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise Refused(f"{path} cannot be read ({error}); expected a JSON table, make the step again") from None


def as_facts(value: Any, path: Path, inside: str = "") -> Facts:
    """A value that must be a table."""
    if not isinstance(value, dict):
        raise Refused(f"{path}: {inside or 'it'} holds {quote(value)}; expected a table")
    return Facts(value, str(path), inside)
