"""`prunery lottery`: what it says while networks train, and what it shows of them at the end."""

import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from ..report import lottery as report
from ..runs import Step
from ..spec import Lottery, Refused, choose
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
ON_SCREEN, IN_A_FILE = 0.2, 60.0
"""seconds between two words on how far it is"""


def asked(wanted: Lottery, figure: str, seeds: int | None, levels: int | None, steps: int | None) -> Lottery:
    """The lottery with what the command line says about its size."""
    arms = FIGURES[choose(figure, FIGURES, "--figure")] or wanted.arms
    given = {"seeds": seeds, "levels": levels, "steps": steps}
    try:
        return replace(wanted, arms=arms, **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
    except Refused as error:
        raise Refused(str(error).replace("lottery.", "--", 1)) from None


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
    left = dict.fromkeys(v.name for v in verdicts if v.verdict == report.NOT_RUN)
    table.add_row("", f"NOT RUN: {', '.join(left)}")
    return table
