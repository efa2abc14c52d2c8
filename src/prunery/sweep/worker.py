"""A worker process: a task a line on standard input, an outcome a line on standard output; it ends with its master."""

import json
import os
import queue
import signal
import sys
import threading
from dataclasses import asdict

from .engine import About, Task, carried_out


def serve() -> None:
    """Until standard input ends or a signal asks for a stop."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a user's network prints is no answer
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    about = About(**json.loads(sys.stdin.readline()))
    for line in iter(_lines(stop).get, ""):
        given = json.loads(line)
        outcome = carried_out(Task(given["name"], tuple(given["specs"])), about, stop.is_set, _say)
        answers.write(json.dumps(asdict(outcome)) + "\n")
        answers.flush()
        if stop.is_set():
            return


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _lines(stop: threading.Event) -> "queue.Queue[str]":
    """Lines as they come; a master that has gone is a reason to stop, in the middle of a step too."""
    found: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            found.put(line)
        stop.set()
        found.put("")

    threading.Thread(target=read, daemon=True).start()
    return found


if __name__ == "__main__":
    serve()
