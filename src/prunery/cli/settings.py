"""Where and how: the options that every command shares, and the `--option`s that come from a spec's fields."""

import functools
import inspect
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
import typer.core

from ..spec import Refused, Spec, helps, hints, quote


class _Flags:
    """Help shows a flag as a flag; typer 0.29 adds that it is a <bool>, as if it took a word."""

    def get_params(self, ctx: Any) -> list[Any]:
        found: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for one in found:
            if getattr(one, "is_flag", False) and one.metavar is None:
                one.metavar = ""
        return found


class Command(_Flags, typer.core.TyperCommand):
    """A command with such a help."""


class Group(_Flags, typer.core.TyperGroup):
    """The commands together, with such a help."""


def whole(text: str) -> int:
    """An option's whole number."""
    return _parsed(int, text, "a whole number")


def real(text: str) -> float:
    """An option's number."""
    return _parsed(float, text, "a number")


def shares(text: str, option: str) -> tuple[float, ...]:
    """0.5,0.2 as numbers above 0 and at most 1."""
    found = []
    for part in (p.strip() for p in text.split(",")):
        try:
            found.append(float(part))
        except ValueError:
            raise Refused(
                f"{option}: {quote(part)} is no number; expected shares with commas, such as 0.5,0.2"
            ) from None
        if not 0 < found[-1] <= 1:
            raise Refused(f"{option}: {part} is not allowed; expected above 0 and at most 1")
    return tuple(found)


def _parsed(kind: Callable[[str], Any], text: str, expected: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise typer.BadParameter(f"{quote(text)} is not allowed; expected {expected}") from None


def is_address(text: str) -> bool:
    """s3://bucket/runs, also as a path spells it: with one stroke."""
    return bool(re.match(r"[a-zA-Z][\w+.-]*:/", text))


def _no_address(folder: Path) -> Path:
    """Steps are kept by renaming folders and by locks, which object stores do not know."""
    if is_address(str(folder)):
        seen = f"--runs = {quote(str(folder))} is an address, which only prunery sweep can work with"
        raise Refused(f"{seen}; expected a folder, such as the one that a sweep there names when it ends")
    return folder


RunsFolder = Annotated[
    Path, typer.Option("--runs", envvar="PRUNERY_RUNS", callback=_no_address, help="folder that keeps every step")
]
DataFolder = Annotated[Path, typer.Option("--data-dir", envvar="PRUNERY_DATA", help="folder that holds the data sets")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1; auto takes the best there is")]
Threads = Annotated[
    int,
    typer.Option(
        "--threads", parser=whole, metavar="N", help="CPU threads of training; 0: one for small networks, else all"
    ),
]
Cores = Annotated[
    int,
    typer.Option("--threads", parser=whole, metavar="N", help="networks that train side by side; 0: one a core"),
]
Every = Annotated[
    float,
    typer.Option(
        "--checkpoint-seconds", parser=real, metavar="X", help="seconds between checkpoints of a training step"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print the result as JSON")]
Board = Annotated[
    Path | None,
    typer.Option("--tensorboard", metavar="FOLDER", help="write the metrics there for TensorBoard, as they come"),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress")]
Set = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="change a setting, e.g. train.lr=0.01")]


def device(name: str) -> str:
    """A device that exists, by name."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).item()  # "meta" has no values
        return name
    except (RuntimeError, AssertionError, ImportError):
        expected = "cpu, auto, or a device that prunery doctor lists"
        raise Refused(f"--device = {quote(name)} is not there; expected {expected}") from None


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks for a stop after the step in hand; a second one stops at once. SIGTERM likewise."""
    asked: list[int] = []

    def ask(number: int, _: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        os.write(2, b"stopping after the step in hand; once more stops at once\n")

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Where:
    """What a command was told about where and how to work."""

    runs: Path
    data: Path
    device: str = "auto"
    threads: int = 0
    every: float = 30.0
    quiet: bool = False
    board: Path | None = None
    store: str = ""
    """an address that `runs` is this machine's folder before"""

    def __post_init__(self) -> None:
        for option, value in (("--threads", self.threads), ("--checkpoint-seconds", self.every)):
            if not value >= 0:
                raise Refused(f"{option} = {value:g} is not allowed; expected 0 or more")


@contextmanager
def place(where: Where) -> Iterator[Any]:
    """Everything a chain needs to know of this machine and this user; standard output is kept for results."""
    from ..chain import Place
    from ..runs import Runs
    from ..train import Ways

    listeners = _listeners(where)
    with redirect_stdout(sys.stderr), stoppable() as stopping:
        tick = lambda event: [listener.tick(event) for listener in listeners]  # noqa: E731
        began = lambda label, node: [listener.began(label, node) for listener in listeners]  # noqa: E731
        ways = Ways(device(where.device), where.threads, where.every, stopping, tick)  # type: ignore[arg-type]
        try:
            yield Place(Runs(where.runs), where.data, ways, say=listeners[0].say, began=began)  # type: ignore[arg-type]
        finally:
            for listener in listeners:
                listener.close()


def _listeners(where: Where) -> list[Any]:
    """Who hears of a chain's progress: the screen, and TensorBoard's files when asked for."""
    from .board import Board
    from .screen import Screen

    return [Screen(where.quiet), *([Board(where.board)] if where.board else [])]


def setting(cls: type[Spec], field: str, value: Any) -> str:
    """An option's text as `--set` reads it: texts quoted, 80,120 a list where a list is expected."""
    hint = _inner(hints(cls)[field])
    if isinstance(value, bool):
        text = str(value).lower()
    elif hint is str:
        text = json.dumps(value)
    elif get_origin(hint) is tuple and not value.startswith("["):
        words = _inner(get_args(hint)[0]) is str
        text = json.dumps([w.strip() for w in value.split(",")]) if words else f"[{value}]"
    else:
        text = value
    return f"{cls.kind}.{field}={text}"


def _inner(hint: Any) -> Any:
    """`T` of `T`, `T | None` and annotated `T`."""
    if get_origin(hint) is Annotated:
        return _inner(get_args(hint)[0])
    if get_origin(hint) is UnionType or get_origin(hint) is Union:
        return _inner(next(a for a in get_args(hint) if a is not type(None)))
    return hint


def options(cls: type[Spec], leave: tuple[str, ...] = ()) -> list[inspect.Parameter]:
    """A spec's plain fields as command-line options; their values are checked by the spec itself."""
    fields = {n: h for n, h in hints(cls).items() if n not in leave}
    return [_parameter(cls, name, hint) for name, hint in fields.items()]


def _parameter(cls: type[Spec], name: str, hint: Any) -> inspect.Parameter:
    kind, names = bool if hint is bool else str, _names(hint)
    metavar, words = _metavar(hint), helps(cls)[name]
    if len(metavar or "") > WIDE:
        metavar, words = "NAME", f"{words}: {', '.join(names)}"
    option = typer.Option(
        _flag(name, hint), metavar=metavar, help=words, rich_help_panel=f"{cls.kind}.*", autocompletion=_offer(names)
    )
    annotation = Annotated[kind | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_default(cls, name), annotation=annotation)


WIDE = 10
"""characters; choices that take more of the help's narrow middle column are told in words, in the wide one"""


def _default(cls: type[Spec], name: str) -> str | bool | None:
    """A field's default as an option's text; None where there is nothing to show."""
    value = getattr(cls, name)
    if value is None or isinstance(value, bool):
        return value
    return (f"{value:g}" if isinstance(value, float) else str(value)) if value != () else None


def _names(hint: Any) -> list[str]:
    """The values that a choice is among; nothing of other fields."""
    inner = _inner(hint)
    return [str(name) for name in get_args(inner)] if get_origin(inner) is Literal else []


def _offer(names: list[str]) -> Callable[[str], list[str]]:
    """What the shell completes an option's value with."""

    def offer(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return offer


def _flag(name: str, hint: Any) -> str:
    dashed = name.replace("_", "-")
    return f"--{dashed}/--no-{dashed}" if hint is bool else f"--{dashed}"


def _metavar(hint: Any) -> str | None:
    hint = _inner(hint)
    if get_origin(hint) is Literal:
        return "|".join(map(str, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"{_metavar(get_args(hint)[0])},..."
    return None if hint is bool else {int: "N", float: "X"}.get(hint, "TEXT")


def with_options(function: Callable[..., Any], *classes: type[Spec], leave: tuple[str, ...] = ()) -> Callable[..., Any]:
    """`function(..., **fields)` with the specs' fields spelt out for the parser; it gets those that were changed."""
    own = [p for p in inspect.signature(function).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    extra = {p.name: p for cls in classes for p in options(cls, leave)}

    @functools.wraps(function)
    def call(**given: Any) -> Any:
        return function(**{k: v for k, v in given.items() if k not in extra or v != extra[k].default})

    both = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *extra.values())]
    call.__signature__ = inspect.Signature(both)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in both}
    return call
