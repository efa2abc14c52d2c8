"""Worker processes on this machine."""

import json
import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from .engine import About, Outcome, Task

PATIENCE = 60.0
"""seconds that a worker has for its last checkpoint"""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class Worker:
    """A process, and the task that it has in hand."""

    process: "subprocess.Popen[str]"
    ears: threading.Thread
    task: Task | None = None
    number: int = 0
    """the smallest that no other living worker has"""


class Local:
    """As many processes as there is work for, each with threads of its own; one that dies is replaced."""

    def __init__(self, about: About, width: int, cards: int = 0) -> None:
        self.about, self.width, self.cards = about, width, cards
        self.workers: list[Worker] = []
        self.heard: queue.Queue[tuple[Worker, str]] = queue.Queue()

    def room(self) -> bool:
        return sum(w.task is not None for w in self.workers) < self.width

    def start(self, task: Task) -> None:
        worker = next((w for w in self.workers if w.task is None), None) or self._worker()
        worker.task = task
        with suppress(OSError):  # it has died: its end of the line is heard, and the task is told as lost
            _send(worker, asdict(task))

    def next(self, seconds: float) -> Outcome | None:
        try:
            worker, line = self.heard.get(timeout=seconds)
        except queue.Empty:
            return None
        task, worker.task = worker.task, None
        if line:
            return Outcome(**json.loads(line))
        self.workers.remove(worker)
        code = worker.process.wait()
        assert worker.process.stdin is not None
        with suppress(OSError):
            worker.process.stdin.close()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Outcome(task.name, error=f"its process died ({how})", again=True) if task else None

    def close(self) -> None:
        for worker in self.workers:
            assert worker.process.stdin is not None
            with suppress(OSError):
                worker.process.stdin.close()  # a worker without a master stops, in the middle of a step too
        for worker in self.workers:
            try:
                worker.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            worker.ears.join()
        self.workers.clear()

    def _worker(self) -> Worker:
        """A new process, in a session of its own: Ctrl-C is for its master, who tells it."""
        number = min(set(range(self.width + 1)) - {w.number for w in self.workers})
        threads = {name: str(self.about.threads) for name in THREADS}
        card = {"CUDA_VISIBLE_DEVICES": str(number % self.cards)} if self.cards else {}
        process = subprocess.Popen(
            [sys.executable, "-m", "prunery.sweep.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **threads, **card}, start_new_session=True,
        )  # fmt: skip
        worker = Worker(process, threading.Thread(target=lambda: self._listen(worker), daemon=True), number=number)
        self.workers.append(worker)
        worker.ears.start()
        with suppress(OSError):
            _send(worker, asdict(self.about))
        return worker

    def _listen(self, worker: Worker) -> None:
        assert worker.process.stdout is not None
        with worker.process.stdout as pipe:
            for line in pipe:
                self.heard.put((worker, line))
        self.heard.put((worker, ""))


def _send(worker: Worker, what: dict[str, Any]) -> None:
    assert worker.process.stdin is not None
    worker.process.stdin.write(json.dumps(what) + "\n")
    worker.process.stdin.flush()


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))
