"""What makes steps: the words between who schedules and who works, the same for processes and for Ray."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..chain import Place, made, make
from ..runs import ASKED, Remote, Runs, Store, Unreached, usual_folder
from ..spec import Node, Refused, dumps, loads
from ..train import Stopped, Ways


@dataclass(frozen=True)
class About:
    """Where and how every worker works; paths are those of all machines."""

    runs: str
    data: str
    folder: str
    """that paths in specs are relative to"""
    device: str
    threads: int
    every: float
    store: str = ""
    """the address that all machines share; then `runs` is a folder of each machine, or empty for the usual one"""


@dataclass(frozen=True)
class Task:
    """One step: its specs from the first on, as text."""

    name: str
    specs: tuple[str, ...]

    @classmethod
    def of(cls, node: Node) -> "Task":
        return cls(node.name, tuple(dumps(n.spec) for n in node.chain()))

    def node(self) -> Node:
        node: Node | None = None
        for text in self.specs:
            node = Node(loads(text), node)
        assert node is not None
        return node


@dataclass(frozen=True)
class Outcome:
    """How a task ended."""

    name: str
    made: bool = False
    """by this worker, and not found there"""
    error: str = ""
    again: bool = False
    """another try may do better: the worker died, or ran out of something"""
    stopped: bool = False
    seconds: float = 0.0
    """that the step took, whoever made it"""


class Engine(Protocol):
    """Workers."""

    def room(self) -> bool:
        """Whether another task can begin, or wait there."""

    def start(self, task: Task) -> None: ...

    def next(self, seconds: float) -> Outcome | None:
        """Whatever ends first; None where nothing ends in so many seconds."""

    def close(self) -> None:
        """All workers stop, with a checkpoint where they are training."""


def carried_out(task: Task, about: About, stopping: Callable[[], bool], say: Callable[[str], None]) -> Outcome:
    """One task in this process; whatever goes wrong is told, and ends nothing else."""
    mine: list[bool] = []

    def making(node: Node, place: Place, work: Any) -> None:
        mine.append(True)
        make(node, place, work)

    try:
        node, place = task.node(), _place(about, stopping, say)
        if node.name != task.name:
            raise Refused(f"{task.name} is called {node.name} here; expected the same version of prunery everywhere")
        seconds = float(made(node, place, making).env.get("seconds") or 0.0)
    except Unreached as error:
        return Outcome(task.name, error=str(error), again=True)
    except Refused as error:
        return Outcome(task.name, error=str(error))
    except (Stopped, KeyboardInterrupt):
        return Outcome(task.name, stopped=True)
    except Exception as error:
        return Outcome(task.name, error=f"{type(error).__name__}: {' '.join(str(error).split())}", again=True)
    return Outcome(task.name, made=bool(mine), seconds=seconds)


def _place(about: About, stopping: Callable[[], bool], say: Callable[[str], None]) -> Place:
    import torch

    runs = _runs(about)
    if not about.store or os.path.isdir(about.folder):  # specs without paths of their own do not need it
        os.chdir(about.folder)
    device = about.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(about.threads)
    ways = Ways(device, 0, about.every, stopping)
    return Place(runs, Path(about.data), ways, say=say)


def _runs(about: About) -> Runs:
    """Where steps are kept, once it is certain that it is the place that all machines share."""
    if about.store:
        return Remote(about.runs or usual_folder(about.store), Store(about.store).joined())
    if not (Path(about.runs) / ASKED).is_dir():
        raise Refused(f"{about.runs} is not the sweep's folder on this machine; expected one that all machines share")
    return Runs(about.runs)
