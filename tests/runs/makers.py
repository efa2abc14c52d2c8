"""What other processes run: small steps, made slowly or not at all. Nothing here waits for torch until it is needed."""

import os
import time
from pathlib import Path

from prunery.runs import Runs, State
from prunery.spec import Init, Node


def node(number: int = 0) -> Node:
    return Node(Init(seed=number))


def full(work) -> None:
    """A step with everything that a step can have."""
    import torch

    weights = {
        "w": torch.arange(30_000.0)
    }  # so few that PyTorch starts no threads, which a forked child would wait for
    for step in range(3):
        work.log({"step": step, "loss": 1.0})
        work.checkpoint(weights, {"step": step})
    work.save(State(weights), {"step": 3})
    work.result({"density": 1.0})


def made_slowly(root: str, seconds: float, told: str) -> None:
    """One step; each call of the maker leaves a mark, and so does each process that ends with the finished step."""
    folder, me = Path(told), os.getpid()

    def make(work):
        (folder / f"made-{me}").touch()
        time.sleep(seconds)
        work.result({"by": me})

    step = Runs(root).once(node(), make, lambda text: (folder / f"waited-{me}").write_text(text))
    (folder / f"done-{me}").write_text(str(step.result["by"]))


def held(root: str, told: str) -> None:
    """A step that is never finished: its holder is there to be killed."""

    def make(work):
        work.log({"step": 1})
        Path(told).touch()
        time.sleep(600)

    Runs(root).once(node(), make)


def made_for_ever(root: str, first: int) -> None:
    """One small step after the other until somebody ends it."""
    number = first
    while True:
        Runs(root).once(node(number), full)
        number += 1
