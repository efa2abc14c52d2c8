"""What nothing refers to: unfinished steps whose maker is dead, and finished ones that no record names.

A finished step is kept where a recipe, sweep or trial that was carried out names it, where a kept step descends from
it, learns from it, goes back to it or starts from its file, and where there are no records at all.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runs import ASKED, CHECKPOINT, ENV, Step, guarded, lock, records
from ..spec import Draw, Init, Refused, Reset, Spec, Train

WORK, GONE = ".work", ".gone-"
"""where unfinished steps lie; what goes is renamed first"""
STORES = ("", "lottery")
"""folders of steps within a folder of runs"""
FINISHED, NOTHING, RESUMABLE = "finished", "nothing to resume", "can be resumed"


@dataclass(frozen=True)
class Item:
    """Something that nothing refers to."""

    path: Path
    why: str
    bytes: int
    age: float
    """seconds since it was last written to"""


@dataclass(frozen=True)
class Unused:
    """What can go, and what is said about the rest."""

    items: list[Item]
    notes: list[str]

    def of(self, *why: str) -> list[Item]:
        return [i for i in self.items if i.why in why]


def unused(root: Path, age: float, forget: Iterable[str] = ()) -> Unused:
    """What nothing refers to and nobody has touched for `age` seconds; `forget` names records that do not count."""
    if not root.is_dir():
        raise Refused(f"{root} is no folder; expected the folder of runs (--runs)")
    items: list[Item] = []
    notes: list[str] = []
    for store in (root / s for s in STORES if (root / s).is_dir()):
        items += _unfinished(store)
        items += _finished(store, set(forget) if store == root else set(), notes)
    young = [i for i in items if i.age < age]
    if young:
        notes.append(f"{len(young)} more that nothing refers to are younger than --age, and stay")
    return Unused([i for i in items if i.age >= age], notes)


def _item(path: Path, why: str) -> Item:
    files = [p.stat() for p in (path, *path.rglob("*"))]
    return Item(path, why, sum(f.st_size for f in files[1:]), time.time() - max(f.st_mtime for f in files))


# --- unfinished -------------------------------------------------------------------------------------------------------


def _unfinished(store: Path) -> Iterator[Item]:
    """Folders of steps that nobody is making."""
    for folder in sorted((store / WORK).glob("*/")):
        if not held(store / WORK / f"{folder.name}.lock"):
            yield _item(folder, RESUMABLE if (folder / CHECKPOINT).exists() else NOTHING)


def held(path: Path) -> bool:
    """Whether a living process has a lock."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


# --- finished ---------------------------------------------------------------------------------------------------------


def _finished(store: Path, forget: set[str], notes: list[str]) -> list[Item]:
    """Steps that no record leads to; none where that cannot be told."""
    there = {p.parent.name for p in store.glob(f"*-*/{ENV}")}
    known, broken = records(store)
    if broken:
        notes.append(f"{broken[0]} cannot be read, so that no finished step is removed; mend it, or delete it")
        return []
    if not known:
        if there:
            notes.append(f"{store} has no records of who asked for its steps ({ASKED}): its {len(there)} finished stay")
        return []
    wrong = forget - {a.name for a in known}
    if wrong:
        names = ", ".join(dict.fromkeys(a.name for a in known))
        raise Refused(f"--forget = {min(wrong)} is no recipe that was carried out here; expected one of {names}")
    named = {name for a in known if a.name not in forget for name in a.steps.values()} | _tried(store)
    try:
        kept = _closed(named & there, lambda name: _needs(store / name, there))
    except Refused as error:
        notes.append(f"{error}: what it refers to is not known, so that no finished step is removed")
        return []
    return [_item(store / name, FINISHED) for name in sorted(there - kept)]


def _closed(names: set[str], needs: Callable[[str], set[str]]) -> set[str]:
    """Names with all that they need, and what that needs."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += needs(name)
    return found


def _needs(folder: Path, there: set[str]) -> set[str]:
    """The steps beside this one that it came from."""
    step = Step(folder)
    return {str(step.env.get("parent")), *_named(step.spec)} & there


def _named(spec: Spec) -> Iterator[str]:
    """Steps that a spec names, and those whose files it names."""
    if isinstance(spec, Init) and spec.model.weights:
        yield Path(spec.model.weights).parent.name
    if isinstance(spec, Train) and spec.teacher:
        yield from (spec.teacher, Path(spec.teacher).parent.name)
    if isinstance(spec, Reset):
        yield spec.to
    if isinstance(spec, Draw) and spec.source:
        yield spec.source


def _tried(store: Path) -> set[str]:
    """The steps that searches ended with."""
    found: set[str] = set()
    for file in (store / "search").glob("*.json"):
        try:
            told: Any = json.loads(file.read_text(encoding="utf-8"))
            found |= {str(trial["step"]) for trial in told}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # its steps are in the records of its trials as well
    return found


# --- removal ----------------------------------------------------------------------------------------------------------


class _Busy(Exception):
    """Somebody has begun to make it."""


def remove(root: Path, chosen: list[Item], age: float, forget: Iterable[str] = ()) -> list[Item]:
    """What was shown and still holds is removed; what somebody has asked for in the meantime stays."""
    forget = set(forget)
    with guarded(root, alone=True):
        still = {i.path for i in unused(root, age, forget).items}
        gone = [i for i in chosen if i.path in still and _renamed(i)]
        for record in records(root)[0]:
            if record.name in forget:
                record.file.unlink(missing_ok=True)
    for store in (root / s for s in STORES):
        for folder in (store / WORK).glob(f"{GONE}*"):
            shutil.rmtree(folder)
    return gone


def _renamed(item: Item) -> bool:
    """Out of everybody's sight in one rename; not where a maker has its lock."""
    work = item.path.parent if item.why != FINISHED else item.path.parent / WORK
    work.mkdir(exist_ok=True)

    def busy(_: str) -> None:
        raise _Busy

    try:
        with lock(work / f"{item.path.name}.lock", busy):
            os.rename(item.path, work / f"{GONE}{item.path.name}")
    except _Busy:
        return False
    return True
