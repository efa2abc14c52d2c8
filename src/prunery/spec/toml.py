"""Specs as TOML text and back: every field written, nothing guessed on reading."""

import json
import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from .errors import Refused, choose, quote
from .lottery import Draw, Lottery
from .steps import STEPS, Spec, hints

S = TypeVar("S", bound=Spec)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as plain values; a refusal that names the file when there is none or it does not parse."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refused(f"{path} does not exist; expected a TOML file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Refused(f"{path} cannot be read: {reason}; expected a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise Refused(f"{path} is not TOML: {error}; mend the file there") from None
    except RecursionError:
        raise Refused(f"{path} is nested too deeply to be read; expected a few tables of settings") from None


def plain(spec: Spec) -> dict[str, Any]:
    """All fields as TOML knows them; what is not given (None) is left out."""
    values = {f.name: getattr(spec, f.name) for f in fields(spec)}
    return {k: plain(v) if is_dataclass(v) else v for k, v in values.items() if v is not None}  # type: ignore[arg-type]


def build(cls: type[S], values: dict[str, Any], where: str = "") -> S:
    """A spec from plain values; unknown keys are refused, nested tables become nested specs."""
    where = where or cls.kind
    if not isinstance(values, dict):
        raise Refused(f"{where} = {quote(values)} is not allowed; expected a table of settings")
    for key in values:
        choose(key, hints(cls), f"a key of {where}")
    nested = {k: _inner(h, values[k], f"{where}.{k}") for k, h in _nested(cls).items() if k in values}
    return cls(**(values | nested))


def _inner(cls: type[Spec], value: Any, where: str) -> Spec:
    return value if isinstance(value, cls) else build(cls, value, where)


def _nested(cls: type[Spec]) -> dict[str, type[Spec]]:
    """The fields that are specs themselves."""
    return {k: h for k, h in hints(cls).items() if isinstance(h, type) and issubclass(h, Spec)}


def dumps(spec: Spec) -> str:
    """`kind`, the fields, then the nested tables."""
    return "\n".join([f"kind = {_value(spec.kind)}", *_lines(plain(spec), "")]) + "\n"


def loads(text: str) -> Spec:
    """What `dumps` wrote, as the same object."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Refused(f"the spec is not TOML: {error}; expected what prunery wrote") from None
    kinds = STEPS | {cls.kind: cls for cls in (Lottery, Draw)}
    return build(kinds[choose(values.pop("kind", ""), kinds, "kind")], values)


def _lines(values: dict[str, Any], prefix: str) -> list[str]:
    own = [f"{k} = {_value(v)}" for k, v in values.items() if not isinstance(v, dict)]
    tables = [(prefix + k, v) for k, v in values.items() if isinstance(v, dict)]
    return own + [line for name, v in tables for line in ["", f"[{name}]", *_lines(v, name + ".")]]


def _value(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    # JSON's texts, numbers and booleans are TOML's too (repr of a float keeps every bit).
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
