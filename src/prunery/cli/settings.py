"""Where and how: the options that every command shares, and the `--option`s that come from a spec's fields."""

import inspect
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from ..spec import Refused, Spec, helps, hints

RunsFolder = Annotated[Path, typer.Option("--runs", envvar="PRUNERY_RUNS", help="folder that keeps every step")]
DataFolder = Annotated[Path, typer.Option("--data-dir", envvar="PRUNERY_DATA", help="folder that holds the data sets")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, mps; auto takes the best there is")]
Threads = Annotated[int, typer.Option("--threads", help="CPU threads of training; 0: one for small networks, else all")]
Every = Annotated[float, typer.Option("--checkpoint-seconds", help="seconds between checkpoints inside a training step")]
Json = Annotated[bool, typer.Option("--json", help="print the result as JSON")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress")]
Set = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="change a setting, e.g. train.lr=0.01")]


def device(name: str) -> str:
    """A device that exists, by name."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise Refused(f'--device = "{name}" is not there; expected cpu, auto, or a device that prunery doctor lists') from None
    return name


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks for a stop after the step in hand; a second one stops at once. SIGTERM likewise."""
    asked: list[int] = []

    def ask(number: int, _: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def place(runs: Path, data: Path, device_name: str, threads: int, every: float, quiet: bool) -> Iterator[Any]:
    """Everything a chain needs to know of this machine and this user."""
    from ..chain import Place
    from ..runs import Runs
    from ..train import Ways
    from .screen import Screen

    if threads < 0 or every < 0:
        raise Refused(f"--threads = {threads}, --checkpoint-seconds = {every:g}: expected 0 or more")
    screen = Screen(quiet)
    with stoppable() as stopping:
        ways = Ways(device=device(device_name), threads=threads, checkpoint_seconds=every, stopping=stopping, tick=screen.tick)
        try:
            yield Place(Runs(runs), data, ways, say=screen.say, began=screen.began)
        finally:
            screen.close()


def options(cls: type[Spec], leave: tuple[str, ...] = ()) -> list[inspect.Parameter]:
    """A spec's plain fields as command-line options; their values are checked by the spec itself."""
    fields = {n: h for n, h in hints(cls).items() if n not in leave}
    return [_parameter(cls, name, hint) for name, hint in fields.items()]


def _parameter(cls: type[Spec], name: str, hint: Any) -> inspect.Parameter:
    kind = bool if hint is bool else str
    option = typer.Option(_flag(name, hint), metavar=_metavar(hint), help=helps(cls)[name], rich_help_panel=f"{cls.kind}.*")
    annotation = Annotated[kind | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _flag(name: str, hint: Any) -> str:
    dashed = name.replace("_", "-")
    return f"--{dashed}/--no-{dashed}" if hint is bool else f"--{dashed}"


def _metavar(hint: Any) -> str | None:
    inner = [a for a in get_args(hint) if a is not type(None)] if get_origin(hint) is not Literal else []
    if get_origin(hint) is Literal:
        return "|".join(map(str, get_args(hint)))
    if hint is bool:
        return None
    return {int: "N", float: "X", str: "TEXT"}.get(hint) or (_metavar(inner[0]) if inner else "TEXT")


def with_options(function: Callable[..., Any], *classes: type[Spec], leave: tuple[str, ...] = ()) -> Callable[..., Any]:
    """`function(..., **fields)` with the specs' fields spelt out for the parser."""
    own = [p for p in inspect.signature(function).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    extra = [p for cls in classes for p in options(cls, leave)]
    both = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + extra
    function.__signature__ = inspect.Signature(both)  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in both}
    return function


