"""A step's folder: read when it is finished (Step), written while it is being made (Work)."""

import functools
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..spec import Refused, Spec, loads
from .compact import read_state
from .files import finite, read_json, read_tensors, write_json, write_tensors, writing
from .state import State

if TYPE_CHECKING:
    from torch import Tensor

SPEC, METRICS, WEIGHTS, ENV, RESULT, CHECKPOINT = (
    "spec.toml", "metrics.jsonl", "weights.safetensors", "env.json", "result.json", "checkpoint.safetensors",
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """A finished step, as its folder tells it."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @functools.cached_property
    def spec(self) -> Spec:
        path = self.folder / SPEC
        try:
            return loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Refused(f"{path} cannot be read ({error}); delete its folder to have the step made again") from None

    @functools.cached_property
    def env(self) -> dict[str, Any]:
        return read_json(self.folder / ENV)

    @functools.cached_property
    def result(self) -> dict[str, Any]:
        path = self.folder / RESULT
        return read_json(path) if path.exists() else {}

    @property
    def parent(self) -> "Step | None":
        name = self.env.get("parent")
        return Step(self.folder.parent / name) if name else None

    def chain(self) -> "list[Step]":
        """From the first step to this one."""
        return [*(self.parent.chain() if self.parent else []), self]

    def metrics(self) -> list[dict[str, Any]]:
        return read_lines(self.folder / METRICS)

    def state(self) -> State:
        return read_state(self.folder / WEIGHTS)[0]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file; a last line that a killed process cut off is left out."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1] if line]


class Work:
    """A step while it is being made, in a folder that nobody takes for a finished one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started = time.monotonic()
        self.seconds_before = 0.0
        self.parts = 1
        self.notes: dict[str, Any] = {}  # conditions that only the maker knows, such as its threads and device
        self.kept: Callable[[], None] = lambda: None  # hears of every checkpoint
        self.say: Callable[[str], None] = lambda _: None  # what the user should know while the step is made

    def seconds(self) -> float:
        """Time spent on the step, earlier interrupted parts included."""
        return self.seconds_before + time.monotonic() - self.started

    def log(self, row: dict[str, Any]) -> None:
        """Append one row to the metrics."""
        path = self.folder / METRICS
        with writing(path), open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(finite(row), allow_nan=False) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        return read_lines(self.folder / METRICS)

    def checkpoint(self, tensors: "dict[str, Tensor]", about: dict[str, Any]) -> None:
        """Where a killed run takes up again: one file, replaced in one rename."""
        with writing(self.folder), open(self.folder / METRICS, "ab") as file:
            os.fsync(file.fileno())  # the checkpoint counts on these rows
            length = file.tell()
        about = {**about, "metrics_bytes": length, "seconds": self.seconds(), "parts": self.parts}
        write_tensors(self.folder / CHECKPOINT, tensors, about)
        self.kept()

    def restore(self) -> "tuple[dict[str, Tensor], dict[str, Any]] | None":
        """The last checkpoint, with the metrics cut back to it; None where there is none."""
        path = self.folder / CHECKPOINT
        tensors, about = self._checkpoint(path) if path.exists() else ({}, {})
        with writing(self.folder), open(self.folder / METRICS, "ab") as file:
            file.truncate(about.get("metrics_bytes", 0))
        if not about:
            return None
        self.seconds_before, self.parts = about["seconds"], about["parts"] + 1
        return tensors, about

    def _checkpoint(self, path: Path) -> "tuple[dict[str, Tensor], dict[str, Any]]":
        """It was written in one rename, so damage comes from outside; guessing would make other weights."""
        advice = f"delete the folder {self.folder} to start the step again"
        try:
            tensors, about = read_tensors(path)
        except Refused as error:
            raise Refused(f"{str(error).partition('; ')[0]}; {advice}") from None
        if not about.keys() >= {"metrics_bytes", "seconds", "parts"}:
            raise Refused(f"{path} is no checkpoint of prunery (it does not say where its metrics end); {advice}")
        return tensors, about

    def save(self, state: State, about: dict[str, Any] | None = None) -> None:
        write_tensors(self.folder / WEIGHTS, state.tensors(), about)

    def result(self, values: dict[str, Any]) -> None:
        write_json(self.folder / RESULT, values)
