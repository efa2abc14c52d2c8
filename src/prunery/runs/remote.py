"""Steps in a store that machines reach by an address, s3://bucket/runs, and the folder of a machine before it.

    train-14e506e1e6c1/sealed.json          where the step's files are, each with its SHA-256; written last
    train-14e506e1e6c1/5f0c9a3b11d2/...     the files, as in any folder of runs
    .work/train-14e506e1e6c1.zip            the last checkpoint of a step that is being made
    prunery.json                            says that this is a store of steps

Stores know no locks and no renames, but an object is there whole or not at all. So a step is there once its seal is,
and since its files lie in a folder that is named by what they hold, two machines that make one step never mix theirs.
"""

import functools
import hashlib
import io
import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..spec import Node, Refused, install, quote
from .files import header, write_file, writing
from .step import CHECKPOINT, ENV, METRICS, Step, Work
from .store import Runs, finish, lock

SEALED, MARK, WORK = "sealed.json", "prunery.json", ".work"
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "abfs": "adlfs"}
"""what speaks each protocol; all keep an object whole or not at all, and show it as soon as it is written"""
FOLDERS = ("file", "local")
SHORT = 12
"""characters of a checksum that name a folder"""
Files = dict[str, bytes]


class Unreached(Refused):
    """A store that does not answer or says no: another try may do better."""


@contextmanager
def _reaching(what: str) -> Iterator[None]:
    """Every package has errors of its own; here all of them become one line."""
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        seen = f"{what} cannot be reached ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        raise Unreached(
            f"{seen}; expected a bucket or folder that is there, and leave to read and write in it"
        ) from None


class Store:
    """Objects by their names below an address."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.files, self.root = _opened(self.url)

    def read(self, name: str) -> bytes | None:
        """What an object holds; None where there is none."""
        with _reaching(f"{self.url}/{name}"):
            try:
                return self.files.cat_file(f"{self.root}/{name}")
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Whole or not at all, also in a folder, which does not promise it by itself."""
        with _reaching(f"{self.url}/{name}"):
            if self.url.startswith(FOLDERS):
                path = Path(self.root, name)
                with writing(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                return write_file(path, data)
            return self.files.pipe_file(f"{self.root}/{name}", data)

    def remove(self, name: str) -> None:
        with _reaching(f"{self.url}/{name}"):
            try:
                self.files.rm_file(f"{self.root}/{name}")
            except FileNotFoundError:
                return

    def steps(self) -> set[str]:
        """The names of all finished steps, in as few questions as the store allows."""
        with _reaching(self.url):
            self.files.invalidate_cache()
            try:
                found = self.files.find(self.root)
            except FileNotFoundError:
                return set()
        names = (path[len(self.root) + 1 :].split("/") for path in map(str, found))
        return {parts[0] for parts in names if parts[1:] == [SEALED]}

    def begin(self) -> None:
        """Says that this is a store of steps, and finds out whether it can be read and written."""
        if self.read(MARK) is None:
            self.write(MARK, b'{"format": 1}\n')

    def joined(self) -> "Store":
        """The store that a sweep has begun in, and not a folder that only has the same name here."""
        if self.read(MARK) is None:
            raise Refused(f"{self.url} is not the sweep's store on this machine; expected one that all machines share")
        return self


def _opened(url: str) -> tuple[Any, str]:
    """Who answers for an address, and the address as it is called there; refused where nobody does."""
    kind, _, rest = url.partition("://")
    if kind not in (*PACKAGES, *FOLDERS) or not rest or (kind in FOLDERS and not rest.startswith("/")):
        raise Refused(
            f"--runs = {quote(url)} is no store; expected s3://BUCKET/..., gs://..., abfs://..., or file:///..."
        )
    from fsspec.core import url_to_fs

    with _reaching(url):
        try:
            files, root = url_to_fs(url)
        except ImportError:
            package = PACKAGES[kind]
            needed = f"--runs = {quote(url)} needs the package {package}, which is missing"
            raise Refused(f"{needed}; {install(kind, package)}") from None
    return files, root.rstrip("/")


def usual_folder(url: str) -> Path:
    """This machine's folder before a store where none is named."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prunery"
    return home / f"runs-{_sum(url.rstrip('/').encode())[:SHORT]}"


class Remote(Runs):
    """A folder of this machine; steps come into it from a store when they are needed, and go there when finished."""

    def __init__(self, root: Path | str, store: Store) -> None:
        super().__init__(root)
        self.store = store

    def there(self, names: Iterable[str]) -> set[str]:
        """Those that the store has."""
        return self.store.steps() & set(names)

    def find(self, name: str) -> Step:
        """As in a folder, among the steps of the store as well."""
        if not (Path(name) / ENV).exists() and not (self.root / name / ENV).exists():
            hits = {n for n in self.store.steps() | {s.name for s in self.steps()} if n.startswith(name)}
            if len(hits) > 1:
                raise Refused(f"run = {quote(name)} could be {', '.join(sorted(hits)[:5])}; give more of the name")
            for hit in hits:
                self.fetch(hit)
        return super().find(name)

    def once(
        self,
        node: Node,
        make: Callable[[Work], None],
        say: Callable[[str], None] = print,
        stopping: Callable[[], bool] = lambda: False,
    ) -> Step:
        """As in a folder, but what any machine has finished is fetched, and what one left off is taken up."""
        if not self.path(node).exists():
            if self._seal(node.name):
                return self.fetch(node.name, say, stopping)
            for name in {n.name for n in (node.parent, node.chain()[0]) if n and n is not node}:
                self.fetch(name, say, stopping)
        step = super().once(node, functools.partial(self._taken_up, node.name, make), say, stopping)
        self._upload(step)
        return step

    def fetch(
        self, name: str, say: Callable[[str], None] = print, stopping: Callable[[], bool] = lambda: False
    ) -> Step:
        """A finished step of the store in this machine's folder, every file as its seal says."""
        final, work = self.root / name, self.root / WORK
        if final.exists():
            return Step(final)
        with writing(work):
            work.mkdir(parents=True, exist_ok=True)
        with lock(work / f"{name}.lock", say, stopping):
            if not final.exists():
                self._put(self._files(name), work / name, final)
        return Step(final)

    def _files(self, name: str) -> Files:
        """A finished step's files, every one as its seal says."""
        seal = self._seal(name)
        if not seal:
            raise Refused(f"{self.store.url}/{name} is not finished; expected a step that is there: make it first")
        found: Files = {}
        for file, expected in seal["files"].items():
            where = f"{name}/{seal['folder']}/{file}"
            data = self.store.read(where)
            if data is None or _sum(data) != expected:
                seen = "is missing" if data is None else f"is damaged: it has SHA-256 {_sum(data)}, not {expected}"
                raise Refused(f"{self.store.url}/{where} {seen}; {self._again(name)}")
            found[file] = data
        return found

    def _put(self, files: Files, folder: Path, final: Path) -> None:
        """In the place of what was begun here: another machine has finished it."""
        with writing(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for file, data in files.items():
                (folder / file).write_bytes(data)
        finish(folder, final)

    def _again(self, name: str) -> str:
        return f"delete {self.store.url}/{name} to have the step made again"

    def _seal(self, name: str) -> dict[str, Any] | None:
        """Where the files of a finished step are and what they hold; None where it is not finished."""
        data = self.store.read(f"{name}/{SEALED}")
        try:
            return None if data is None else _checked(json.loads(data))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise Refused(f"{self.store.url}/{name}/{SEALED} is damaged; {self._again(name)}") from None

    def _upload(self, step: Step) -> None:
        """The files first and their seal last; who finds a seal there leaves it."""
        if not self._seal(step.name):
            files = {p.name: p.read_bytes() for p in sorted(step.folder.iterdir()) if p.name != CHECKPOINT}
            sums = {name: _sum(data) for name, data in files.items()}
            folder = _sum(json.dumps(sums).encode())[:SHORT]
            for name, data in files.items():
                self.store.write(f"{step.name}/{folder}/{name}", data)
            self.store.write(f"{step.name}/{SEALED}", _json({"folder": folder, "files": sums}))
        self.store.remove(_kept(step.name))

    def _taken_up(self, name: str, make: Callable[[Work], None], work: Work) -> None:
        """The maker, from the furthest checkpoint of any machine, and every new one goes to the store."""
        self._resume(name, work.folder)
        work.kept = lambda: self._keep(name, work)
        make(work)

    def _keep(self, name: str, work: Work) -> None:
        """A checkpoint in the store, with the metrics that it counts on; one that does not arrive ends no training."""
        try:
            self.store.write(_kept(name), _zipped({f: (work.folder / f).read_bytes() for f in (METRICS, CHECKPOINT)}))
        except Unreached as error:
            work.say(f"{name}: this checkpoint is on this machine only: {error}")

    def _resume(self, name: str, folder: Path) -> None:
        """The store's checkpoint in the place of this machine's, where it is further."""
        where = f"{self.store.url}/{_kept(name)}"
        data = self.store.read(_kept(name))
        if data is None:
            return
        files, mine = _unzipped(data, where), folder / CHECKPOINT
        if mine.exists() and _seconds(mine.read_bytes(), str(mine)) >= _seconds(files[CHECKPOINT], where):
            return
        mine.unlink(missing_ok=True)  # it counts on metrics of its own
        for file in (METRICS, CHECKPOINT):
            write_file(folder / file, files[file])


def _kept(name: str) -> str:
    return f"{WORK}/{name}.zip"


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _checked(seal: dict[str, Any]) -> dict[str, Any]:
    """A seal that names files of one folder and nothing elsewhere."""
    for name in (seal["folder"], *seal["files"]):
        if not isinstance(name, str) or name in ("", ".", "..") or {"/", "\\", "\0"} & set(name):
            raise ValueError(name)
    return seal


def _zipped(files: Files) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in (files | {SEALED: _json({n: _sum(d) for n, d in files.items()})}).items():
            archive.writestr(name, data)
    return out.getvalue()


def _unzipped(data: bytes, where: str) -> Files:
    """What `_zipped` put together; anything else is damage."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = {name: archive.read(name) for name in (METRICS, CHECKPOINT)}
            sums = json.loads(archive.read(SEALED))
    except (zipfile.BadZipFile, zipfile.LargeZipFile, KeyError, ValueError, OSError, NotImplementedError):
        sums, files = None, {}
    if sums is None or sums != {name: _sum(d) for name, d in files.items()}:
        raise Refused(f"{where} is damaged; delete it to start the step again")
    return files


def _seconds(data: bytes, where: str) -> float:
    """How far a checkpoint is: seconds spent on the step."""
    try:
        return float(header(data)["seconds"])
    except (ValueError, KeyError, TypeError, struct.error, RecursionError):
        raise Refused(f"{where} is no checkpoint of prunery; delete it to start the step again") from None
