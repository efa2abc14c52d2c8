"""The published files of a set: where they may lie, how they are opened, how they are fetched."""

import gzip
import os
import socket
import sys
import tarfile
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..spec import Refused

DAMAGED = (OSError, EOFError, zlib.error, tarfile.TarError)


@dataclass(frozen=True)
class Layout:
    """A set's folder and files as torchvision lays them, and the class of torchvision that downloads them."""

    name: str
    folder: str
    files: tuple[str, ...]
    fetcher: str
    archive: str = ""


class Blob(NamedTuple):
    """The bytes of a file, and where they were."""

    where: Path
    data: bytes


def locate(root: Path, layout: Layout) -> dict[str, Path]:
    """Each published file by its name; downloaded when none is there. An archive stands for all its files."""
    found = _find(root, layout)
    if not found:
        _fetch(root, layout)
        found = _find(root, layout)
    if not found:
        raise _absent(root, layout, "the download left none")
    return found


def present(root: Path, layout: Layout) -> bool:
    """Whether published files of the set lie there, whole or not."""
    return any(
        (f / n).is_file() or (f / f"{n}.gz").is_file() for f in _folders(root, layout) for n in layout.files
    ) or any((p / layout.archive).is_file() for p in (root, root / layout.name) if layout.archive)


def _find(root: Path, layout: Layout) -> dict[str, Path]:
    for folder in _folders(root, layout):
        here = {n: p for n in layout.files for p in (folder / n, folder / f"{n}.gz") if p.is_file()}
        if here:
            return _all(here, folder, layout)
    archives = [p / layout.archive for p in (root, root / layout.name) if layout.archive]
    return next((dict.fromkeys(layout.files, p) for p in archives if p.is_file()), {})


def _folders(root: Path, layout: Layout) -> list[Path]:
    """Both MNISTs give their files the same names: bare in the root, only its own name tells them apart."""
    bare = ("fashion" in "/".join(root.resolve().parts[-2:]).lower()) == ("fashion" in layout.name)
    named = [root / layout.folder, root / layout.name / layout.folder, root / layout.name]
    return named + [root] * bare


def _all(here: dict[str, Path], folder: Path, layout: Layout) -> dict[str, Path]:
    missing = [n for n in layout.files if n not in here]
    if missing:
        raise Refused(
            f"{folder / missing[0]} is missing: {len(here)} of {len(layout.files)} files of {layout.name} are there; "
            f"copy the published file, or remove the others to have the set downloaded"
        )
    return here


def contents(files: dict[str, Path]) -> Iterator[tuple[str, Blob]]:
    """Every file, unpacked; an archive is read once."""
    archives = {p for p in files.values() if p.name.endswith(".tar.gz")}
    for path in archives:
        yield from _members(path, list(files))
    for name, path in files.items():
        if path not in archives:
            yield name, Blob(path, _plain(path))


def _plain(path: Path) -> bytes:
    with _whole(path):
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _members(path: Path, names: list[str]) -> list[tuple[str, Blob]]:
    """The wanted files of an archive, in memory: nothing is unpacked on the disk."""
    with _whole(path), tarfile.open(path, "r:gz") as tar:
        wanted = {Path(m.name).name: m for m in tar if m.isfile() and Path(m.name).name in names}
        found = [(n, Blob(path / n, tar.extractfile(m).read())) for n, m in wanted.items()]  # type: ignore[union-attr]
    if len(found) != len(names):
        lost = next(n for n in names if n not in wanted)
        raise Refused(f"{path} is damaged (it has no {lost}); remove it and fetch or copy it again")
    return found


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}; change its permissions") from None
    except DAMAGED as error:
        raise Refused(f"{path} is damaged or half-downloaded ({error}); remove it and fetch or copy it again") from None


def _fetch(root: Path, layout: Layout) -> None:
    """Into a hidden folder first: a download that breaks off leaves no half set for the next run to find."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root) as folder:
            _quietly(layout.fetcher, folder)
            _move(Path(folder) / layout.folder, root / layout.folder)
    except Exception as error:  # torchvision, urllib, the network and the disk fail in their own ways
        raise _absent(root, layout, f"fetching it failed ({_first_line(error)})") from None


def _quietly(fetcher: str, folder: str) -> None:
    from torchvision import datasets

    fetch: Callable[..., object] = getattr(datasets, fetcher)
    with _timeout(60), redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fetch(folder, download=True)


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """torchvision waits for ever for a silent server."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _move(here: Path, there: Path) -> None:
    there.parent.mkdir(parents=True, exist_ok=True)
    if not (there.is_dir() and any(there.iterdir())):  # another process may have been faster
        os.rename(here, there)


def _absent(root: Path, layout: Layout, why: str) -> Refused:
    archive = f" (or {layout.archive} in {root})" if layout.archive else " (plain or .gz)"
    return Refused(
        f"{layout.name}: {layout.files[0]} is not in {root / layout.folder} and {why}; connect to the network, "
        f"or lay the published files {', '.join(layout.files)} there{archive}"
    )


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
