"""A worker process: a task a line on standard input, an outcome a line on standard output; it ends with its master."""

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from .engine import About, Task, carried_out


def serve() -> None:
    """Until standard input ends or a signal asks for a stop."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a user's network prints is no answer
    stop, lines = threading.Event(), queue.SimpleQueue[str]()

    def ask(*_: Any) -> None:
        stop.set()
        lines.put("")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    about = About(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_read, args=(lines, ask), daemon=True).start()
    for line in iter(lines.get, ""):
        given = json.loads(line)
        outcome = carried_out(Task(given["name"], tuple(given["specs"])), about, stop.is_set, _say)
        answers.write(json.dumps(asdict(outcome)) + "\n")
        answers.flush()
        if stop.is_set():
            return


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _read(lines: "queue.SimpleQueue[str]", ended: Callable[[], None]) -> None:
    """Lines as they come; a master that has gone is a reason to stop, in the middle of a step too."""
    for line in sys.stdin:
        lines.put(line)
    ended()


if __name__ == "__main__":
    serve()
