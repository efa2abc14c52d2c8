"""`prunery time`: finished steps packed for the engine and timed in turns; the readings are kept for the report."""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import chain, data, engine
from ..measure.latency import Latency, latencies
from ..quantize import quantised_layers
from ..runs import Runs, Step, conditions, keep_times
from ..runtime import SURE, Packed, cores
from ..spec import Data, Init, Refused
from .engine import MOST

STEPS, REPEATS, TYPICAL, TOO_MANY = 32, 20, 512, 10_000
"""steps that take turns; repeats of each layer; images that ranges of bytes are learned from; of any option"""


@dataclass(frozen=True)
class Asked:
    """The conditions under which steps are to be timed: one set for all."""

    batch: int = 1
    threads: int = 1
    turns: int = 9

    def __post_init__(self) -> None:
        for option, most in (("batch", TOO_MANY), ("threads", max(SURE, 4 * cores())), ("turns", TOO_MANY)):
            if not 1 <= (value := getattr(self, option)) <= most:
                raise Refused(f"--{option} = {value} is not allowed; expected 1 to {most}")


@dataclass(frozen=True)
class Contestant:
    """A step's network as the engine runs it."""

    packed: Packed
    same_answer: float | None = None
    """of a network with quantised activations, the share of images that it and its packed file answer alike: sums are
    rounded in the file; all other files compute what the network does"""
    same_of: int | None = None

    def call(self, asked: Asked) -> Callable[[], Any]:
        shape = self.packed.input_shape
        x = np.random.default_rng(0).standard_normal((asked.batch, *shape)).astype(self.packed.input_type)
        return lambda: self.packed(x, asked.threads)


def timed(names: list[str], asked: Asked, runs: Path, root: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """All steps under the same conditions, in turns; what was found is kept beside them."""
    if not os.access(runs, os.W_OK):
        raise Refused(f"{runs} is no folder that can be written; expected the folder of runs (--runs)")
    there = Runs(runs)
    steps = list(dict.fromkeys(there.find(n) for n in names)) or wanted(there)
    if len(steps) > STEPS:
        raise Refused(f"{len(steps)} steps are too many to take turns; name {STEPS} of them at most")
    found, left = contestants(steps, bool(names), asked, root, say)
    if not found:
        raise Refused(f"no step of {runs} can be timed ({next(iter(left.values()), 'none tells its accuracy')})")
    say(f"{len(found)} steps take turns")
    started = time.time()
    times = latencies({name: c.call(asked) for name, c in found.items()}, asked.turns)
    about = {"started": started, **asdict(asked), "repeats": REPEATS, **conditions(), "threads": asked.threads}
    reading = about | {"steps": {name: row(c, times[name], asked) for name, c in found.items()}}
    return reading | {"file": str(keep_times(runs, reading)), "left_out": left}


def wanted(there: Runs) -> list[Step]:
    """Where none is named: all whose accuracy is known."""
    return [s for s in there.steps() if not isinstance(s.spec, Init) and s.result.get("test")]


def contestants(
    steps: list[Step], named: bool, asked: Asked, root: Path, say: Callable[[str], None]
) -> tuple[dict[str, Contestant], dict[str, str]]:
    """The steps as packed networks, and why others are left out; a step that was named is never left out silently."""
    found: dict[str, Contestant] = {}
    left: dict[str, str] = {}
    for step in steps:
        say(f"packing {step.name}")
        try:
            found[step.name] = contestant(step, asked, root)
        except Refused as error:
            if named:
                raise Refused(f"{step.name} cannot be timed: {error}") from None
            left[step.name] = str(error)
    return found, left


def contestant(step: Step, asked: Asked, root: Path) -> Contestant:
    """One step's network, packed in memory as `prunery pack` does it: nothing is rounded that is not."""
    network, _, model = chain.network_of(step)
    example = torch.randn(2, *model.input, generator=torch.Generator().manual_seed(0))
    if not quantised_layers(network):
        return Contestant(_fits(engine.pack(network, example), asked))
    typical = _typical(step, root)
    packed = engine.pack(network, example, typical.split(64))
    with torch.no_grad():
        own = network.eval()(typical).argmax(1)
    same = (torch.as_tensor(packed(typical)).reshape(len(typical), -1).argmax(1) == own).float().mean()
    return Contestant(_fits(packed, asked), float(same), len(typical))


def _fits(packed: Packed, asked: Asked) -> Packed:
    """A batch that memory holds, on threads that are there."""
    if asked.batch * max(np.prod(packed.input_shape), np.prod(packed.output_shape)) > MOST:
        raise Refused(
            f"--batch = {asked.batch} is too large for this network; expected at most {MOST:,} numbers a batch"
        )
    packed.threads = asked.threads
    return packed


def _typical(step: Step, root: Path) -> torch.Tensor:
    """Training images of the step's own data, as the network sees them."""
    spec = getattr(step.spec, "data", None)
    if not isinstance(spec, Data):
        seen = f"{step.name} has quantisers and no images to learn what they are given"
        raise Refused(f"{seen}; expected a step with data: time one that follows it")
    splits = chain.images(spec, root, "cpu")
    return data.inputs(splits.train.x[:TYPICAL], splits)


def row(found: Contestant, took: Latency, asked: Asked) -> dict[str, Any]:
    """Milliseconds of a call, and what each layer is run with and why, on one thread."""
    packed, many = found.packed, asked.batch > 1
    return {
        "median_ms": took.median_ms, "low_ms": min(took.turns_ms), "high_ms": max(took.turns_ms),
        "best_ms": took.best_ms, "bytes": packed.nbytes, "same_answer": found.same_answer,
        "same_of": found.same_of,
        "layer_images": packed.memory(many)["images"],
        "layers": [asdict(layer) for layer in packed.explain(many, REPEATS)],
    }  # fmt: skip


def told(found: dict[str, Any]) -> list[str]:
    """A step a line, the fastest first."""
    lines = [f"{'step':26} {'median ms':>10} {'of the turns':>20} {'bytes':>12}"]
    for name, r in sorted(found["steps"].items(), key=lambda pair: pair[1]["median_ms"]):
        spread = f"{r['low_ms']:.3f} to {r['high_ms']:.3f}"
        lines.append(f"{name:26} {r['median_ms']:>10.3f} {spread:>20} {r['bytes']:>12,}")
    plural = lambda n, word: f"{n} {word}{'s' if n > 1 else ''}"  # noqa: E731
    where = f"{plural(found['batch'], 'image')} a call, {plural(found['threads'], 'thread')}"
    return [
        *lines, *(f"{name} is left out: {why}" for name, why in found["left_out"].items()),
        f"{where}, {found['machine']['cpu']}; the steps took turns, medians of {plural(found['turns'], 'turn')}",
        f"kept in {found['file']}; prunery report shows accuracy against milliseconds",
    ]  # fmt: skip
