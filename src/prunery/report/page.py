"""The page: one HTML file that asks nothing of the network and shows what it is given as text, never as markup."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..runs import Step, to_write, write_file
from .game import ENTRIES
from .headline import Headline, headline
from .more import More
from .palette import css
from .records import Album, gather

HEAVY = ("curve", "layers", "sensitivity", "toml", "recipe")
SCRIPTS = (
    "plot", "steps", "tree", "detail", "compare", "curves", "claims", "lotteries", "made", "layers", "sensitivity",
    "engine", "pictures", "front", "table", "data", "start",
)  # fmt: skip
"""in the order in which they stand in the page: each knows those before it"""
LIVE = "live"
"""the script that asks again whether there is something new: of a served page only"""
NOTHING = More()


def write_report(
    steps: list[Step],
    out: Path,
    title: str = "Prunery report",
    labels: Mapping[str, str] | None = None,
    more: More = NOTHING,
) -> Path:
    """The steps and their ancestors as one self-contained HTML file; `labels` are what a recipe calls them.

    Lotteries and claims make a page by themselves, too.
    """
    alone = not steps and (more.lotteries or more.claims)
    text = page(Album([], [], {}) if alone else gather(steps, labels), title, more)
    write_file(to_write(out, "report.html"), text.encode("utf-8", "replace"))
    return out


def page(album: Album, title: str, more: More = NOTHING, live: str = "") -> str:
    """The file's text. Details of a step travel in a block of their own, parsed when they are looked at.

    `live` is the state that a served page began with: it asks its server whether that has changed.
    """
    head = headline(album)
    names = (*SCRIPTS, LIVE) if live else SCRIPTS
    style, script = css() + _asset("page.css"), "\n".join(_asset(f"script/{name}.js") for name in names)
    records = [vars(r) for r in album.records]
    index = {
        "steps": [{k: v for k, v in r.items() if k not in HEAVY} | {"curves": bool(r["curve"])} for r in records],
        "common": album.common,
        "conditions": album.conditions,
        "entries": [vars(entry) for entry in ENTRIES] if any(r.score for r in album.records) else [],
        "current": [r.name for r in album.records].index(head.current) if album.records else None,
        "live": live,
    }
    blocks = {"claims": more.claims, "lotteries": more.lotteries, "times": more.times, "pictures": more.pictures}
    parts = {
        "title": html.escape(title),
        "policy": policy(style, script, live),
        "style": style,
        "script": script,
        "lead": _lead(head),
        "readings": _readings(head),
        "basis": html.escape(_basis(album)),
        "data": _block("data", index),
        "more": "\n".join(_block(f"{name}-data", value) for name, value in blocks.items()),
        "details": "\n".join(_block(f"step-{i}", {k: r[k] for k in HEAVY}) for i, r in enumerate(records)),
    }
    # In one pass: a title that looks like a placeholder stays a title.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def policy(style: str, script: str, live: str = "") -> str:
    """Nothing from elsewhere, and of what is here only this style and this script; a served page may ask its server."""
    asking = "connect-src 'self'; " if live else ""
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; {asking}"
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _block(name: str, value: Any) -> str:
    """JSON inside HTML: no `<` means no `</script>` and no `<!--`."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    text = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return f'<script type="application/json" id="{name}">{text}</script>'


def _lead(head: Headline) -> str:
    first, *others = head.sentences
    rest = "".join(f'\n<p class="also">{html.escape(s)}</p>' for s in others)
    return f'<p class="lead">{html.escape(first)}</p>{rest}'


def _readings(head: Headline) -> str:
    rows = [
        f"<div><dt>{html.escape(r.label)}</dt><dd><b>{html.escape(r.value)}</b><span>{html.escape(r.detail)}</span></dd></div>"
        for r in head.readings
    ]
    return "\n".join(rows)


def _basis(album: Album) -> str:
    """What all numbers rest on, where it is the same for all; otherwise how many conditions there are."""
    return f"{_grounds(album)} ± is one standard error over the test images." if album.records else ""


def _grounds(album: Album) -> str:
    chains = len({i for i, _ in enumerate(album.records)} - {r.parent for r in album.records})
    words = f"{_count(len(album.records), 'step')} in {_count(chains, 'chain')}."
    if len(album.conditions) > 1:
        return f"{words} Measured under {len(album.conditions)} sets of conditions, lettered below."
    rows = dict(next(iter(album.conditions.values())))
    where = [rows.get("processor", ""), _with(rows, "cores"), _with(rows, "threads"), _package(rows, "torch")]
    place = ", ".join(w for w in [*where, _package(rows, "commit")] if w)
    return f"{words} Measured on {place}." if place else words


def _count(n: int, word: str) -> str:
    return f"{n:,} {word}{'s' * (n != 1)}"


def _with(rows: dict[str, str], key: str) -> str:
    return f"{rows[key]} {key.removesuffix('s') if rows[key] == '1' else key}" if key in rows else ""


def _package(rows: dict[str, str], key: str) -> str:
    return f"{key} {rows[key]}" if key in rows else ""
