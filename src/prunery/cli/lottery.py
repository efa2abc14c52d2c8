"""`prunery lottery`: what it says while networks train, and what it shows of them at the end."""

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from ..report import lottery as report
from ..runs import Step
from ..spec import SOURCE, Lottery, Refused, choose, quote
from ..tickets import Pace

FIGURES = {
    "1": ("ticket", "random"),
    "3": ("ticket", "reinit"),
    "4": ("ticket", "reinit", "oneshot"),
    **dict.fromkeys("5678", ("ticket", "reinit")),
    "stability": ("ticket", "twin"),
    "all": (),
}
"""The arms that a figure shows; all: those that the lottery asks for."""
SIZES = re.compile(r"lottery\.(seeds|levels|steps)\b")
"""settings that have an option of their own"""
CURVES = 2
"""that figure 3 compares at least"""
ON_SCREEN, IN_A_FILE = 0.2, 60.0
"""seconds between two words on how far it is"""


def asked(wanted: Lottery, figure: str, seeds: int | None, levels: int | None, steps: int | None) -> Lottery:
    """The lottery with what the command line says about its size; a figure that would stay empty is refused."""
    arms = FIGURES[choose(figure, FIGURES, "--figure")] or wanted.arms
    given = {"seeds": seeds, "levels": levels, "steps": steps}
    changes: dict[str, Any] = {"arms": arms, **{k: v for k, v in given.items() if v is not None}}
    if "transferred" not in arms:  # no figure shows them, so nothing comes from another lottery
        changes |= {f.name: f.default for f in fields(Lottery) if f.name in SOURCE}
    try:
        found = replace(wanted, **changes)
    except Refused as error:
        raise Refused(SIZES.sub(r"--\1", str(error), count=1)) from None
    return drawable(found, figure)


def drawable(wanted: Lottery, figure: str) -> Lottery:
    """Itself, if the figure that is asked for has something to show; asked before days of training."""
    if figure not in ("all", "stability") and not wanted.levels:
        raise Refused(f"--figure {figure} shows pruned networks, and levels = 0 has none; expected --levels 1 or more")
    followed = [v for v in wanted.curve_levels if v <= wanted.levels]
    if figure == "3" and (len(followed) < CURVES or wanted.curve_steps < wanted.every):
        seen = f"curve_levels = {quote(list(wanted.curve_levels))}, curve_steps = {wanted.curve_steps}"
        seen = f"--figure 3 shows curves of {CURVES} levels or more: {seen} and levels = {wanted.levels} have fewer"
        raise Refused(f"{seen}; expected such as --levels 7 --set 'curve_levels=[0, 3, 7]' --set curve_steps=20000")
    return wanted


class Progressing:
    """How far a lottery is: a bar on a terminal, a line a minute elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self.bar = Progress(BarColumn(), TextColumn("{task.description}"), console=self.console, transient=True)
        self.task = self.bar.add_task("", total=None)
        self.live = self.console.is_terminal and not quiet
        self.every = ON_SCREEN if self.live else IN_A_FILE
        self.shown, self.lock = time.monotonic(), threading.Lock()

    def __enter__(self) -> Pace:
        if self.live:
            self.bar.start()
        return Pace(self.heard)

    def __exit__(self, *_: Any) -> None:
        if self.live:
            self.bar.stop()

    def heard(self, pace: Pace) -> None:
        """Called by whoever trains."""
        with self.lock:
            if time.monotonic() - self.shown < self.every:
                return
            self.shown = time.monotonic()
        if self.live:
            self.bar.update(self.task, description=told(pace), completed=pace.done, total=pace.networks)
        else:
            self.console.print(told(pace), soft_wrap=True, markup=False)


def told(pace: Pace) -> str:
    """Level, networks and the time left for all of them."""
    left = pace.seconds_left()
    when = "" if left is None else f", {duration(left)} left"
    return f"level {pace.level}, {pace.done} of {pace.networks} networks{when}"


def duration(seconds: float) -> str:
    """In the two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def records(steps: list[Step]) -> list[dict[str, Any]]:
    """What the networks left behind."""
    return [s.result | {"name": s.name, "env": s.env} for s in steps]


def costs(found: Sequence[dict[str, Any]]) -> str:
    """Where the processor's time went."""
    sums = {k: sum(r["env"]["cpu_seconds"][k] for r in found) for k in ("train", "validation", "test")}
    looks = ", ".join(f"{k} images {sums[k] / max(sums['train'], 1e-9):.0%}" for k in ("validation", "test"))
    spent = duration(sum(sums.values()))
    return f"{len(found)} networks took {spent} of one core; looks at {looks} of the time of training"


def finished(wanted: Lottery, steps: list[Step], figure: str, out: Path) -> tuple[dict[str, Any], list[Any]]:
    """Figures and claims written; the same as JSON and in words."""
    results = report.Results(wanted, tuple(records(steps)))
    verdicts, paths = report.write_lottery(results, figure, out)
    differs = report.differs(wanted)
    found = {"claims": [asdict(v) for v in verdicts], "differs": differs, "files": [str(p) for p in paths]}
    words = [f"not the paper's: {k} = {v}" for k, v in differs.items()]
    drawn, asked_for = {p.stem for p in paths}, report.papers_figures(results) if figure == "all" else (figure,)
    if left := [name for name in asked_for if not {name, f"figure{name}"} & drawn]:
        words.append(f"not drawn, as what it shows was not trained or not followed: figure {', '.join(left)}")
    return found, [claims_table(verdicts), *words, costs(results.records), f"figures, claims and rows: {out}"]


def claims_table(verdicts: list[report.Verdict]) -> Table:
    """What was decided; what was not run is counted."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "claim", "early stop", "value", "95 % interval", "paper", "expected", "verdict"):
        table.add_column(name)
    for verdict in verdicts:
        if verdict.verdict != report.NOT_RUN:
            name, _, *rest = report.claim_cells(verdict)
            table.add_row(name, *rest)
    for note in dict.fromkeys(v.note for v in verdicts if v.verdict == report.NOT_RUN):
        left = dict.fromkeys(v.name for v in verdicts if v.verdict == report.NOT_RUN and v.note == note)
        why = f" by the smoothed early stop, as {note}" if note else ""
        table.add_row("", f"NOT RUN: {', '.join(left)}{why}")
    return table
