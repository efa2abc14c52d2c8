"""The folders that a report reads: each step and what it started from, checked to be readable, parents first."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..runs import ENV, METRICS, RESULT, SPEC, Step, read_lines
from ..spec import Refused, Spec, quote
from .facts import Facts, as_facts, read_json


@dataclass(frozen=True)
class Files:
    """What a step's folder says, checked to be readable."""

    name: str
    spec: Spec
    env: Facts
    result: Facts
    rows: list[Facts]
    parent: str


def _read(folder: Path) -> Files:
    env = read_json(folder / ENV)
    parent = env.text("parent") or ""
    if "/" in parent or "\\" in parent:
        raise Refused(
            f"{folder / ENV}: parent = {quote(parent)} is not allowed; expected the name of a step beside this one"
        )
    return Files(folder.name, _spec(folder), env, read_json(folder / RESULT), _rows(folder / METRICS), parent)


def _spec(folder: Path) -> Spec:
    try:
        return Step(folder).spec
    except (OSError, ValueError) as error:
        raise Refused(f"{folder / SPEC} cannot be read ({error}); expected the spec of a finished step") from None


def _rows(path: Path) -> list[Facts]:
    try:
        rows = read_lines(path)
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read ({error}); expected one JSON table per line") from None
    return [as_facts(row, path, f"line {i + 1}: ") for i, row in enumerate(rows)]


def with_ancestors(steps: list[Step], allowed: Callable[[Path], bool] = lambda folder: True) -> dict[str, Files]:
    """Every step once; an ancestor whose folder is gone, or not allowed, is left out, and its child says so."""
    found: dict[str, Files] = {}
    waiting = [s.folder for s in steps]
    while waiting:
        folder = waiting.pop()
        if folder.name not in found:
            found[folder.name] = files = _read(folder)
            above = folder.parent / files.parent
            if files.parent and (above / ENV).exists() and allowed(above):
                waiting.append(above)
    return found


def with_parents(steps: list[Step]) -> list[Step]:
    """The steps themselves and all before them whose folders are there."""
    found: dict[Path, Step] = {}
    for step in steps:
        at: Step | None = step
        while at and at.folder not in found and (at.folder / ENV).exists():
            found[at.folder] = at
            at = at.parent
    return list(found.values())


def ordered(found: dict[str, Files]) -> list[Files]:
    """Parents before children, older before newer."""
    children: dict[str, list[Files]] = defaultdict(list)
    for files in sorted(found.values(), key=lambda f: (-(f.env.number("started") or 0), f.name)):
        children[files.parent if files.parent in found else ""].append(files)
    order: list[Files] = []
    waiting = children[""]
    while waiting:
        order.append(waiting.pop())
        waiting.extend(children[order[-1].name])
    if len(order) < len(found):
        lost = min(found.keys() - {f.name for f in order})
        raise Refused(
            f"{found[lost].env.where}: parent = {quote(found[lost].parent)} leads in a circle; expected an older step"
        )
    return order


def lineage(file: Files, files: list[Files], at: dict[str, int]) -> list[Files]:
    """From the first step to this one."""
    chain = [file]
    while chain[-1].parent in at:
        chain.append(files[at[chain[-1].parent]])
    return chain[::-1]
