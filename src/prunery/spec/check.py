"""Checked at birth: a value against its annotation, with the range and the choices that the annotation carries."""

import math
import types
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from .errors import Refused, choose, quote


@dataclass(frozen=True)
class Range:
    """The numbers an `Annotated` field accepts, with the words for them."""

    text: str
    holds: Callable[[Any], bool]


Positive = Annotated[float, Range("above 0", lambda x: x > 0)]
NotNegative = Annotated[float, Range("0 or above", lambda x: x >= 0)]
Share = Annotated[float, Range("0 or above and below 1", lambda x: 0 <= x < 1)]
Density = Annotated[float, Range("above 0 and at most 1", lambda x: 0 < x <= 1)]
Count = Annotated[int, Range("1 or more, below 2^31", lambda x: 1 <= x < 2**31)]
Whole = Annotated[int, Range("0 or more, below 2^63", lambda x: 0 <= x < 2**63)]


def check(value: Any, hint: Any, where: str) -> Any:
    """The value in the type that `hint` declares; refuses with the place, the value and the expectation."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _in_range(check(value, get_args(hint)[0], where), hint.__metadata__[0], where)
    if origin is Literal:
        return choose(value, get_args(hint), where)
    if origin in (Union, types.UnionType):
        return _optional(value, hint, where)
    if origin is tuple:
        return _tuple(value, get_args(hint)[0], where)
    if isinstance(hint, type) and is_dataclass(hint):
        return value if isinstance(value, hint) else _refuse(value, f"a {hint.__name__}", where)
    return _PLAIN[hint](value, where)


def _optional(value: Any, hint: Any, where: str) -> Any:
    """`T | None`: nothing, or a T."""
    inner = next(arg for arg in get_args(hint) if arg is not types.NoneType)
    return None if value is None else check(value, inner, where)


def _tuple(value: Any, inner: Any, where: str) -> tuple:
    if not isinstance(value, list | tuple):
        _refuse(value, f"a list, such as [{quote(value)}]", where)
    return tuple(check(item, inner, f"{where}[{i}]") for i, item in enumerate(value))


def _in_range(value: Any, allowed: Range, where: str) -> Any:
    return value if allowed.holds(value) else _refuse(value, allowed.text, where)


def _int(value: Any, where: str) -> int:
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return int(value) if whole and not isinstance(value, bool) else _refuse(value, "a whole number", where)


def _finite(value: Any) -> bool:
    """A whole number may be too large for a float."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _float(value: Any, where: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and _finite(value) else _refuse(value, "a number", where)


def _bool(value: Any, where: str) -> bool:
    return value if isinstance(value, bool) else _refuse(value, "true or false", where)


def _str(value: Any, where: str) -> str:
    """A text that any file and any file system can hold."""
    if not isinstance(value, str):
        _refuse(value, "a text in quotes", where)
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        _refuse(value, "a text of Unicode characters", where)
    return value


_PLAIN: dict[Any, Callable[[Any, str], Any]] = {int: _int, float: _float, bool: _bool, str: _str}


def _refuse(value: Any, expected: str, where: str) -> Any:
    raise Refused(f"{where} = {quote(value)} is not allowed; expected {expected}")
