"""Writes docs/api.md: every public name with its signature and what its docstring says, from the code itself."""

import inspect
import re
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import prunery

OUT = Path(__file__).parent.parent / "docs" / "api.md"
HEAD = """# Python reference

`from prunery import NAME`. Made from the code by `make docs`; a test says when it is not.
"""


def main() -> None:
    OUT.write_text(text(), encoding="utf-8")


def text() -> str:
    parts = [HEAD]
    for room, names in prunery.PUBLIC.items():
        parts.append(f"## prunery.{room}\n")
        parts += [_entry(name) for name in names]
    parts.append("## prunery.runtime\n\nPacked files without torch; see [engine.md](engine.md).\n")
    parts += [_entry(name, prunery.runtime) for name in ("load", "loads")]
    return "\n".join(parts)


def _entry(name: str, home: Any = prunery) -> str:
    thing = getattr(home, name)
    prefix = "prunery." if home is prunery else f"{home.__name__}."
    about = inspect.cleandoc(thing.__doc__ or "")
    if inspect.isclass(thing) and is_dataclass(thing):
        return f"### `{prefix}{name}`\n\n{_first(about)}\n\n{_fields(thing)}"
    if inspect.isclass(thing):
        return f"### `{prefix}{name}`\n\n{about}\n\n{_methods(thing)}"
    return f"### `{prefix}{name}`\n\n```python\n{_call(name, thing)}\n```\n\n{about}\n"


def _first(about: str) -> str:
    """Not the signature that a dataclass without words has."""
    return "" if re.match(r"\w+\(", about) else about


def _call(name: str, thing: Any) -> str:
    signature = inspect.signature(thing)
    shown = [str(p) for p in signature.parameters.values()]
    returns = signature.return_annotation
    arrow = "" if returns is inspect.Signature.empty else f" -> {_word(returns)}"
    line = f"{name}({', '.join(shown)}){arrow}"
    if len(line) <= 100:
        return _plain(line)
    return _plain(f"{name}(\n" + "".join(f"    {p},\n" for p in shown) + f"){arrow}")


def _word(kind: Any) -> str:
    return kind if isinstance(kind, str) else kind.__name__ if inspect.isclass(kind) else str(kind)


def _plain(line: str) -> str:
    """Types by their own names, and defaults without addresses."""
    line = re.sub(r"<function (?:<?\w+>?\.)*(<lambda>|\w+)[^>]*>", r"\1", line)
    line = re.sub(r"(: |-> )'(\w+)'", r"\1\2", line)
    return re.sub(r"\b(?:[a-z_]+\.)+([A-Z]\w*)", r"\1", line)


def _fields(thing: Any) -> str:
    rows = ["| setting | kind | default |", "|---|---|---|"]
    for each in fields(thing):
        kind = _plain(_word(each.type)).replace("|", "\\|")
        default = "" if each.default is MISSING and each.default_factory is MISSING else f"`{_default(each)}`"
        rows.append(f"| `{each.name}` | {kind} | {default} |")
    return "\n".join(rows) + "\n"


def _default(each: Any) -> str:
    value = each.default if each.default is not MISSING else each.default_factory()
    return type(value).__name__ + "()" if is_dataclass(value) else "a function" if callable(value) else repr(value)


def _methods(thing: Any) -> str:
    lines = []
    for name, method in vars(thing).items():
        if name.startswith("_") or not callable(method):
            continue
        first = inspect.cleandoc(method.__doc__ or "").split("\n")[0]
        lines.append(f"- `{_call(name, method)}`" + (f": {first}" if first else ""))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
