"""Who makes what when: a step begins as soon as all that it needs is there; those with most behind them go first."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

from ..train import Stopped
from .engine import Engine, Outcome, Task
from .tree import Tree, heights

TICK = 0.5
"""seconds after which a stop is asked about"""


@dataclass
class Ended:
    """What came of the steps."""

    made: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """steps with their one line; those behind them are not made, and not named"""
    tries: dict[str, int] = field(default_factory=dict)


Heard = Callable[[Outcome, Ended], None]


def carry_out(
    tree: Tree, there: set[str], engine: Engine, retries: int, stopping: Callable[[], bool], heard: Heard
) -> Ended:
    """Every step that is not there; one that fails stops only those behind it."""
    queue = _Queue(tree, there)
    ended = Ended(found=[n for n in tree.nodes if n in there])
    try:
        while queue.ready or queue.running:
            while queue.ready and engine.room():
                name = queue.begin()
                ended.tries[name] = ended.tries.get(name, 0) + 1
                engine.start(Task.of(tree.nodes[name]))
            outcome = engine.next(TICK)
            if stopping() or (outcome and outcome.stopped):
                raise Stopped("the sweep was stopped")
            if outcome:
                _take(outcome, queue, ended, retries)
                heard(outcome, ended)
    finally:
        engine.close()
    return ended


def _take(outcome: Outcome, queue: "_Queue", ended: Ended, retries: int) -> None:
    if not outcome.error:
        (ended.made if outcome.made else ended.found).append(outcome.name)
        queue.done(outcome.name)
    elif outcome.again and ended.tries[outcome.name] <= retries:
        queue.again(outcome.name)
    else:
        ended.failed[outcome.name] = outcome.error
        queue.running.discard(outcome.name)


class _Queue:
    """Steps that are ready, running, or wait for others."""

    def __init__(self, tree: Tree, there: set[str]) -> None:
        self.height, self.order = heights(tree), {name: i for i, name in enumerate(tree.nodes)}
        self.waiting = {n: needs - there for n, needs in tree.needs.items() if n not in there}
        self.behind: dict[str, list[str]] = {}
        for name, needs in self.waiting.items():
            for needed in needs:
                self.behind.setdefault(needed, []).append(name)
        self.running: set[str] = set()
        self.ready: list[tuple[int, int, str]] = []
        for name in [n for n, needs in self.waiting.items() if not needs]:
            self._push(name)

    def _push(self, name: str) -> None:
        self.waiting.pop(name, None)
        heapq.heappush(self.ready, (-self.height[name], self.order[name], name))

    def begin(self) -> str:
        name = heapq.heappop(self.ready)[2]
        self.running.add(name)
        return name

    def again(self, name: str) -> None:
        self.running.discard(name)
        self._push(name)

    def done(self, name: str) -> None:
        self.running.discard(name)
        for behind in self.behind.get(name, ()):
            self.waiting[behind].discard(name)
            if not self.waiting[behind]:
                self._push(behind)
