"""Threads that carry out tasks, the most urgent first; a task may bring others."""

import heapq
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass
class Task:
    """Something to do, and the seconds or other units that wait for it, itself included."""

    weight: float
    act: "Callable[[], Iterable[Task]]"


@dataclass
class Crew:
    """Each thread takes the heaviest task that is ready; the first failure ends all, and is raised."""

    threads: int
    _heap: list[tuple[float, int, Task]] = field(default_factory=list)
    _known: int = 0
    _busy: int = 0
    _failure: BaseException | None = None
    _left: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def run(self, tasks: Iterable[Task]) -> None:
        """Until there is nothing left to do."""
        self._add(tasks)
        workers = [threading.Thread(target=self._work) for _ in range(self.threads)]
        for worker in workers:
            worker.start()
        try:
            for worker in workers:
                while worker.is_alive():
                    worker.join(0.2)  # not for ever: signals reach this thread in between
        finally:
            self._leave()
            for worker in workers:
                worker.join()
        if self._failure:
            raise self._failure

    def leaving(self) -> bool:
        """Whether the tasks in hand should come to an end."""
        return self._left

    def _work(self) -> None:
        try:
            while task := self._next():
                more = list(task.act())
                with self._changed:
                    self._busy -= 1
                    self._add(more)
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._failure = self._failure or error
            self._leave()

    def _next(self) -> Task | None:
        with self._changed:
            while not self._heap and self._busy and not self._left:
                self._changed.wait()
            if self._left or not self._heap:
                return None
            self._busy += 1
            return heapq.heappop(self._heap)[-1]

    def _add(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            self._known += 1
            heapq.heappush(self._heap, (-task.weight, self._known, task))

    def _leave(self) -> None:
        with self._changed:
            self._left = True
            self._changed.notify_all()
