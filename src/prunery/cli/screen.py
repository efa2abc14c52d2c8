"""What the user sees: a bar on a terminal, plain lines elsewhere; nothing on standard output but results."""

import json
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..runs import Step
from ..spec import Node


class Screen:
    """The running commentary of a chain, on standard error."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self.bar: Progress | None = None
        self.label = ""
        self.task: Any = None
        self.shown, self.images, self.since = 0.0, 0, 0.0
        self.last_row: dict[str, Any] = {}

    def say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False)

    def began(self, label: str, node: Node) -> None:
        """A new step; the bar of the one before is over."""
        self.close()
        self.label, self.last_row = label, {}

    def tick(self, event: dict[str, Any]) -> None:
        """Called after each step of training; draws ten times a second at most."""
        if "row" in event:
            return self._row(event["row"])
        now = time.perf_counter()
        self.images += event["images"]
        if now - self.shown < 0.1:
            return None
        rate = self.images / max(now - self.since, 1e-9) if self.shown else 0.0
        self.shown, self.since, self.images = now, now, 0
        return self._draw(event, rate)

    def _draw(self, event: dict[str, Any], rate: float) -> None:
        if not self.console.is_terminal or self.console.quiet:
            return
        if self.bar is None:
            self.bar = Progress(*_columns(), console=self.console, transient=True)
            self.bar.start()
            self.task = self.bar.add_task(self.label, total=event["total"], note="")
        accuracy = self.last_row.get("val_accuracy", self.last_row.get("train_accuracy"))
        hits = f"  {accuracy:.2%}" if accuracy is not None else ""
        note = f"loss {event['loss'].item():.4f}{hits}  {rate:,.0f} images/s"
        self.bar.update(self.task, completed=event["step"], note=note)

    def _row(self, row: dict[str, Any]) -> None:
        self.last_row = row
        if not self.console.is_terminal:
            self.say(f"  {self.label}: " + figures(row))

    def close(self) -> None:
        """Take the bar away."""
        if self.bar:
            self.bar.stop()
        self.bar, self.task = None, None


def _columns() -> list[ProgressColumn]:
    steps = TextColumn("{task.completed:,.0f}/{task.total:,.0f}")
    label, note = TextColumn("{task.description:<10}"), TextColumn("{task.fields[note]}")
    return [label, BarColumn(), steps, note, TimeRemainingColumn()]


def figures(row: dict[str, Any]) -> str:
    """One row of metrics in words."""
    names = {"train_accuracy": "train", "val_accuracy": "validation", "test_accuracy": "test"}
    shown = [f"{text} {row[key]:.2%}" for key, text in names.items() if row.get(key) is not None]
    shown = [f"loss {row['train_loss']:.4f}", *shown]
    return f"step {row['step']:,}  epoch {row['epoch']:g}  " + "  ".join(shown) + f"  {row['seconds']:.1f} s"


def steps_table(steps: dict[str, Step]) -> Table:
    """Steps side by side: what each cost and what it is worth."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in COLUMNS[:2] else "right", no_wrap=name == "folder")
    for label, step in steps.items():
        table.add_row(label, step.name, *cells(step.result, step.env))
    return table


COLUMNS = ("step", "folder", "test\naccuracy", "density", "weights\nkept", "mult-\nadds", "bytes", "seconds")


def cells(result: dict[str, Any], env: dict[str, Any]) -> list[str]:
    """A step's figures as text."""
    test = result.get("test")
    accuracy = f"{test['accuracy']:.2%} ± {test['standard_error']:.2%}" if test else ""
    diverged = " diverged" if result.get("train", {}).get("diverged") else ""
    sizes = [number(result[k]) for k in ("kept_parameters", "kept_multiply_adds", "bytes")]
    return [accuracy + diverged, f"{result['density']:.2%}", *sizes, f"{env['seconds']:.1f}"]


def number(value: int) -> str:
    """Exact up to a million, then in millions or more: never over seven characters."""
    size, unit = next(((s, u) for s, u in ((1e12, "T"), (1e9, "G"), (1e6, "M")) if value >= s), (1, ""))
    return f"{value / size:.2f}{unit}" if unit else f"{value:,}"


def as_json(value: Any) -> None:
    """One JSON value on standard output."""
    print(json.dumps(value, indent=1, allow_nan=False))


def show(*parts: Any) -> None:
    """Results go to standard output, as wide as they are."""
    width = None if sys.stdout.isatty() else 200
    console = Console(highlight=False, width=width)
    for part in parts:
        console.print(part, markup=False, soft_wrap=True) if isinstance(part, str) else console.print(part)
