"""The contract of every benchmark: verify, take turns, repeat, print a table, end with one JSON line, fail if it fails.

A benchmark is `python benchmarks/NAME.py [--quick] [--json] [--keep results/NAME]`. Machines are shared and noisy:
contestants take turns, and what is reported is the median of the ratios of neighbouring turns with its spread, never
a lone time.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch  # noqa: F401  (its threads are among the conditions)

from prunery.runs import commit, conditions


def arguments(about: str, **more: Any) -> argparse.Namespace:
    """--quick and --json, and what a benchmark adds as name = default (a text)."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="fewer repeats; under 50 seconds")
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    parser.add_argument("--keep", type=Path, help="folder under results/ to write README.md and result.json into")
    for name, default in more.items():
        parser.add_argument("--" + name.replace("_", "-"), default=default, help=f"default: {default}")
    return parser.parse_args()


def turns(contestants: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Each contestant's figure, taken in turn, `repeats` times."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, run in contestants.items():
            found[name].append(run())
    return found


def ratios(over: list[float], under: list[float]) -> tuple[float, str]:
    """Median of the turn-by-turn ratios, and their range."""
    each = sorted(a / b for a, b in zip(over, under, strict=True))
    return statistics.median(each), f"{each[0]:.3g} to {each[-1]:.3g}"


def claim(
    text: str, value: float, unit: str, spread: str | float | None, n: int, target: Any, holds: bool
) -> dict[str, Any]:
    """One claim with its conditions, the fields that results/*/result.json has."""
    here = conditions()
    machine = here["machine"] | {"threads": here["threads"], "isa": here["isa"]}
    fields = {"claim": text, "value": round(value, 6), "unit": unit, "spread": spread, "n": n, "target": target}
    return fields | {"holds": bool(holds), "machine": machine, "versions": here["versions"]}


def finish(
    claims: list[dict[str, Any]],
    table: str,
    asked: argparse.Namespace,
    spec: str = "",
    more: str = "",
    at: str | None = None,
    also: dict[str, Any] | None = None,
) -> None:
    """Print what was found and leave, with 0 when every claim holds and 1 otherwise; the first is the headline.

    `at` is the commit that made the results, where they were not all made just now; `also` goes into result.json.
    """
    if not asked.json:
        print(table)
        print("\n".join(told(c) for c in claims))
    if asked.keep:
        keep(asked.keep, claims, table, spec, more, at or commit() or "unknown", also or {})
    holds = all(c["holds"] for c in claims)
    print(json.dumps(claims[0] | {"holds": holds, "also": claims[1:]}))
    sys.exit(0 if holds else 1)


def told(c: dict[str, Any]) -> str:
    """A claim in words."""
    mark = "holds" if c["holds"] else "FAILS"
    spread = f" ({c['spread']})" if c["spread"] is not None else ""
    return f"{mark}: {c['claim']}: {c['value']:.4g} {c['unit']}{spread}, n = {c['n']}, target {c['target']}"


HERE = ("--keep", "--runs", "--data-dir", "--figures")
"""options that name folders of this machine"""


def chosen(words: list[str]) -> list[str]:
    """The options that change what is measured."""
    pairs = [word.partition("=") for word in words if word != "--json"]
    flat = [part for name, sign, value in pairs for part in ([name, value] if sign else [name])]
    starts = [i for i, word in enumerate(flat) if word.startswith("--")] + [len(flat)]
    each = [flat[a:b] for a, b in pairwise(starts)]
    return [word for option in each if option[0] not in HERE for word in option]


def keep(
    folder: Path, claims: list[dict[str, Any]], table: str, spec: str, more: str, at: str, also: dict[str, Any]
) -> None:
    """The result as others find it: a page to look at, and the same as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    about = sys.modules["__main__"].__doc__ or ""
    title, _, rest = about.strip().partition("\n")
    here = claims[0]
    made = f"{here['machine']['cpu']}, {here['machine']['cores']} cores; " + ", ".join(
        f"{k} {v}" for k, v in here["versions"].items() if v
    )
    program = Path(sys.argv[0])
    source = " ".join([f"python {program.parent.name}/{program.name}", *chosen(sys.argv[1:]), f"--keep {folder}"])
    text = [f"# {title}", rest.strip(), "```\n" + table + "\n```", *(f"- {told(c)}" for c in claims), more]
    text += [f"Made by `{source}` at commit {at} on {made}."]
    (folder / "README.md").write_text("\n\n".join(t for t in text if t).replace("\n\n- ", "\n- ") + "\n")
    result = {"claims": claims, **also, "spec": spec or source, "commit": at}
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")


def columns(rows: list[list[Any]]) -> str:
    """A table with aligned columns: the first to the left, figures to the right."""
    cells = [[f"{c:,.4g}" if isinstance(c, float) else str(c) for c in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        for row in cells
    ]
    return "\n".join("  ".join(line).rstrip() for line in lines)
