"""The words of a refusal: one line with what was seen, what was expected and what to do."""

import os
import shlex
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..refused import Refused

__all__ = ["Refused", "choose", "install", "quote"]


def choose(name: Any, names: Iterable[Any], what: str) -> Any:
    """The name itself, when it is one of `names`; otherwise a refusal with the nearest ones."""
    known = list(names)
    for item in known:
        if item == name and isinstance(item, bool) == isinstance(name, bool):
            return item
    near = get_close_matches(str(name), map(str, known), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise Refused(f"{what} = {quote(name)} is unknown; {hint}choose one of {', '.join(map(str, known))}")


def quote(value: object) -> str:
    """A value as TOML would show it, cut short and on one line."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    text = '"' + text[1:-1] + '"' if isinstance(value, str) else text
    return text if len(text) <= 100 else text[:97] + "..."


def install(extra: str, *packages: str) -> str:
    """What to do about packages that are missing, with pip or in a checkout, whose environment has no pip."""
    return f"install {', '.join(packages)}: {_command(extra, packages)}"


def _command(extra: str, packages: tuple[str, ...]) -> str:
    """The line to type, from the folder that the user is in."""
    root = Path(sys.prefix).parent
    if not (root / "requirements.lock").is_file() or not (root / "src" / "prunery").is_dir():
        return f"pip install 'prunery[{extra}]'"
    own = root / ".tools" / "bin" / "uv"
    uv = os.path.relpath(own) if own.exists() else "uv"
    here = [] if Path.cwd() == root else ["--python", os.path.relpath(sys.executable)]
    return shlex.join([uv, "pip", "install", *here, *packages])
