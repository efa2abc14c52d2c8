"""A folder of steps: each made once, whole or not at all, by whoever holds its lock."""

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..spec import Node, Refused, dumps, quote
from .conditions import commit, environment
from .files import sync, write_file, write_json, writing
from .step import CHECKPOINT, ENV, SPEC, Step, Work


class Runs:
    """A folder of steps."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def path(self, node: Node) -> Path:
        return self.root / node.name

    def rows(self, node: Node) -> list[dict[str, Any]]:
        """The metrics of a step as far as it has come; none where nobody has begun it."""
        final = self.path(node)
        return Step(final if final.exists() else self.root / ".work" / node.name).metrics()

    def there(self, names: Iterable[str]) -> set[str]:
        """Those that need not be made."""
        return {name for name in names if (self.root / name).exists()}

    def steps(self) -> list[Step]:
        """All finished steps, oldest first."""
        found = self.root.glob(f"*-*/{ENV}") if self.root.is_dir() else []
        return sorted((Step(p.parent) for p in found), key=lambda s: (s.env.get("started") or 0, s.name))

    def find(self, name: str) -> Step:
        """A step by its name, an unambiguous beginning of it, or its folder."""
        if (Path(name) / ENV).exists():
            return Step(Path(name))
        hits = [s for s in self.steps() if s.name.startswith(name)]
        if len(hits) != 1:
            raise Refused(_not_found(name, hits, self.steps(), self.root))
        return hits[0]

    def once(
        self,
        node: Node,
        make: Callable[[Work], None],
        say: Callable[[str], None] = print,
        stopping: Callable[[], bool] = lambda: False,
    ) -> Step:
        """The step's folder, made by `make` unless it is there; others who want it at the same time wait."""
        final = self.path(node)
        if final.exists():
            return Step(final)
        with writing(self.root):
            (self.root / ".work").mkdir(parents=True, exist_ok=True)
        with lock(self.root / ".work" / f"{node.name}.lock", say, stopping):
            if not final.exists():
                self._make(node, make, final, say)
        return Step(final)

    def _make(self, node: Node, make: Callable[[Work], None], final: Path, say: Callable[[str], None]) -> None:
        work = Work(self.root / ".work" / node.name)
        work.say = say
        with writing(work.folder):
            work.folder.mkdir(exist_ok=True)
            for left in work.folder.glob(".*.tmp"):  # by a writer that was killed
                left.unlink()
        started = time.time()
        commit()  # asked now and remembered: the checkout may move on while a long step is made
        write_file(work.folder / SPEC, dumps(node.spec).encode())
        make(work)
        write_json(work.folder / ENV, environment(node, started, work))
        finish(work.folder, final)


def finish(folder: Path, final: Path) -> None:
    """The moment a step begins to exist: everything on disk, then one rename."""
    with writing(final):
        for path in folder.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        sync(folder)
        os.rename(folder, final)
        sync(final.parent)
        (final / CHECKPOINT).unlink(missing_ok=True)  # only now: a kill before the rename still needs it


def _not_found(name: str, hits: list[Step], steps: list[Step], root: Path) -> str:
    if hits:
        return f"run = {quote(name)} could be {', '.join(s.name for s in hits[:5])}; give more of the name"
    known = ", ".join(s.name for s in steps[-5:]) or "none yet: start one with prunery run RECIPE"
    return f"run = {quote(name)} is not in {root}; the newest there: {known}"


@contextmanager
def lock(path: Path, waiting: Callable[[str], None], stopping: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """A lock that the operating system takes back when its holder dies, however it dies."""
    while True:
        with writing(path):
            file = open(path, "a+")  # noqa: SIM115
        with file:
            if not _try(file):
                waiting(f"{path.stem}: another process is making it; waiting")
                _wait(file, stopping)
            # The holder before us has removed the name: then this lock guards nothing.
            if not _named(file, path):
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _wait(file: Any, stopping: Callable[[], bool]) -> None:
    """Until the lock is ours; asked again and again, so that a user who has had enough is heard."""
    while not _try(file):
        if stopping():
            raise KeyboardInterrupt("stopped while waiting")
        time.sleep(0.1)


def _named(file: Any, path: Path) -> bool:
    """Whether the open file is still the one under that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _try(file: Any) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
