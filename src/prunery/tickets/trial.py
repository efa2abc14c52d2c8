"""One network of a lottery from its start to its last iteration, with looks at images and checkpoints on the way."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..data import Images
from ..masks import Mask, kept, size
from ..runs import Work
from ..spec import Draw
from ..train import Stopped, Ways
from ..train.loop import derived
from .curve import WINDOWS, Curve, Watch
from .fcsteps import Snapshot
from .start import Start
from .table import Table

PARTS = {"weights": "weights:", "first": "first:", "second": "second:"}
"""of a snapshot in a checkpoint"""
REWOUND = "rewound:"


@dataclass(frozen=True)
class Final:
    """A network after its last iteration."""

    weights: dict[str, Tensor]
    rewound: dict[str, Tensor]
    """what it was at the iteration that tickets go back to; empty where it began there or later"""
    record: dict[str, Any]


def order_seed(draw: Draw) -> int:
    """Every network has a data order of its own."""
    return derived(draw.seed, f"order {draw.arm} {draw.level} {draw.number}")


class Trial:
    """A network between two looks."""

    def __init__(self, table: Table, draw: Draw, start: Start, mask: Mask, work: Work) -> None:
        self.table, self.draw, self.start, self.mask, self.work = table, draw, start, mask, work
        self.last = table.lottery.steps if start.until is None else start.until
        self.curve, self.cost = Curve(), dict.fromkeys(("train", "validation", "test"), 0.0)
        self.rewound: dict[str, Tensor] = {}
        self.replica = table.replica(start, mask, order_seed(draw), self._restored())
        self.watch = Watch(self.curve.val_loss)
        self.saved = time.monotonic()

    @property
    def iteration(self) -> int:
        """The optimiser's own count begins at the start, iterations at the first weights."""
        return self.start.iteration + self.replica.step

    def run(self, ways: Ways) -> Final:
        """To the last iteration; Stopped, with a checkpoint, when somebody asks for it."""
        lottery = self.table.lottery
        skipped = self.start.iteration + lottery.steps - self.last
        ways.tick({"draw": self.draw, "steps": self.replica.step + skipped, "seconds": 0.0})
        if self.iteration == self.last and not self.curve.iteration:
            self._look()  # at what is not trained
        while self.iteration < self.last:
            began, before = time.perf_counter(), self.iteration
            self._advance(min(self.last, before - before % lottery.every + lottery.every))
            self._look()
            spent = time.perf_counter() - began
            ways.tick({"draw": self.draw, "steps": self.iteration - before, "seconds": spent})
            self._save(ways)
        weights = self.replica.snapshot().weights
        return Final(weights, self.rewound, self._record())

    def _advance(self, until: int) -> None:
        lottery, steps = self.table.lottery, range(self.iteration, until)
        rates = [lottery.last_rate if self.start.slow else lottery.rate(i) for i in steps]
        with self._costs("train"):
            self.replica.advance(self.iteration, rates)

    def _look(self) -> None:
        """At the validation images; at the test images where a figure, or early stopping, may ask for them."""
        lottery, at = self.table.lottery, self.iteration
        with self._costs("validation"):
            seen = self.replica.evaluate(self.table.splits.validation)
        assert seen is not None
        self.curve.look(at, seen.loss, seen.hits)
        shown = self.draw.level in lottery.curve_levels and at <= lottery.curve_steps
        shown = shown or at in lottery.marks or at == self.last
        if self.watch.improves(self.curve.val_loss) or shown:
            with self._costs("test"):
                self.curve.test(at, self._hits(self.table.splits.test))
        if at == lottery.rewind:
            self.rewound = self.replica.snapshot().weights

    def _hits(self, images: Images) -> int:
        found = self.replica.evaluate(images)
        return found.hits if found else 0

    def _save(self, ways: Ways) -> None:
        stopping = ways.stopping()
        if stopping or time.monotonic() - self.saved > ways.checkpoint_seconds:
            about = {"step": self.replica.step, "curve": self.curve.as_dict(), "cost": self.cost}
            snapshot = self.replica.snapshot()
            tensors = {p + n: t for part, p in PARTS.items() for n, t in getattr(snapshot, part).items()}
            self.work.checkpoint(tensors | {REWOUND + n: t for n, t in self.rewound.items()}, about)
            self.saved = time.monotonic()
        if stopping:
            draw = self.draw
            raise Stopped(f"stopped at iteration {self.iteration:,} of {draw.arm} {draw.seed}, level {draw.level}")

    def _restored(self) -> Snapshot | None:
        """Where a killed run left off."""
        found = self.work.restore()
        if found is None:
            return None
        tensors, about = found
        self.curve, self.cost = Curve(**about["curve"]), about["cost"]
        self.rewound = self._under(REWOUND, tensors)
        return Snapshot(**{part: self._under(p, tensors) for part, p in PARTS.items()}, step=about["step"])

    def _under(self, prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """In the network's own order, which files do not keep."""
        return {n: tensors[prefix + n] for n in self.start.weights if prefix + n in tensors}

    def _record(self) -> dict[str, Any]:
        splits, curve, draw = self.table.splits, self.curve, self.draw
        images = {"train": len(splits.train), "validation": len(splits.validation), "test": len(splits.test)}
        stops = {}
        for name, window in WINDOWS.items():
            at = curve.stop(window)
            stops[name] = {"iteration": at, "test_accuracy": curve.tested(at) / images["test"]}
        end = {
            "test_accuracy": curve.test_hits[-1] / images["test"],
            "train_accuracy": self._hits(splits.train) / images["train"],
        }
        return {
            "arm": draw.arm, "level": draw.level, "seed": draw.seed, "number": draw.number,
            "density": kept(self.mask) / size(self.mask), "kept": {n: int(m.sum()) for n, m in self.mask.items()},
            "iterations": self.iteration, "first_iteration": self.start.iteration, "images": images,
            "early_stop": stops, "end": end, "curve": curve.as_dict(),
        }  # fmt: skip

    @contextmanager
    def _costs(self, what: str) -> Iterator[None]:
        """Seconds of this thread's processor time."""
        began = time.thread_time()
        yield
        self.cost[what] += time.thread_time() - began
