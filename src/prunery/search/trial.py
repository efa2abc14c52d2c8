"""Trials: a recipe carried out with some settings, and what came of it. Steps that are there are not made again."""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch

from .. import chain, engine, measure
from ..chain import Place
from ..runs import Step, write_json
from ..spec import Refused
from ..train import Stopped
from .engines import ENGINES, Hopeless, Point
from .space import Space

WORST = 1e30
"""cost of a trial that was given up"""
ROUNDS = 30
"""runs whose median is a time"""


@dataclass(frozen=True)
class Found:
    """A point of the space, and what a trial there is worth."""

    point: Point
    measures: dict[str, float]
    met: bool
    short: float
    """how far the target is missed"""
    cost: float
    """the smaller, the better"""
    step: str = ""
    """the run that the trial ended with"""
    cut: bool = False
    """whether it was given up on the way"""

    def better(self, other: "Found") -> bool:
        """Meeting the target comes first, then the cost; among those that miss it, who misses by less."""
        return (self.short, self.cost) < (other.short, other.cost)


@dataclass
class Trials:
    """Carries trials out; the same point twice is one trial, also tomorrow."""

    space: Space
    place: Place
    known: dict[str, Found] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.file.is_file():
            told = json.loads(self.file.read_text(encoding="utf-8"))
            self.known = {_key(t["point"]): Found(**t) for t in told}

    @property
    def file(self) -> Path:
        """What is known of a space, beside the runs."""
        return self.place.runs.root / "search" / f"{self.space.path.stem}-{self.space.digest()}.json"

    def run(self) -> Iterator[Found]:
        """What the engine asks for, each point once, as many as the space allows."""
        seen: set[str] = set()
        for found in islice(ENGINES[self.space.engine](self.space, self.look), LIMIT):
            if _key(found.point) not in seen:
                seen.add(_key(found.point))
                yield found
            if len(seen) >= self.space.trials:
                return

    def look(self, point: Point, hopeless: Hopeless | None = None) -> Found:
        """One trial; what it came to is written down."""
        key = _key(point)
        if key not in self.known:
            self.known[key] = self._carried_out(point, hopeless)
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.file, [asdict(found) for found in self.known.values()])
        return self.known[key]

    def _carried_out(self, point: Point, hopeless: Hopeless | None) -> Found:
        watch = Watch(self.place, hopeless)
        try:
            done = chain.run(self.space.made(point), watch.place)
        except Stopped:
            if not watch.cut:
                raise
            return Found(point, {"accuracy": watch.accuracy}, met=False, short=WORST, cost=WORST, cut=True)
        last = list(done.values())[-1]
        measures, target = self._measured(last), self.space.target
        cost = self.space.objective.cost(measures)
        return Found(point, measures, target.met(measures), target.short(measures), cost, last.name)

    def _measured(self, step: Step) -> dict[str, float]:
        result = step.result
        if not result.get("validation"):
            raise Refused("a search judges by validation images, and there are none; set data.validation to 1 or more")
        found = {"accuracy": result["validation"]["accuracy"], "multiply_adds": result["kept_multiply_adds"]}
        found |= {"parameters": result["kept_parameters"]} | {k: result[k] for k in ("bytes", "density")}
        if "score" in self.space.measures:
            found["score"] = self._score(step)
        if "milliseconds" in self.space.measures:
            found["milliseconds"] = self._milliseconds(step)
        return found

    def _score(self, step: Step) -> float:
        """What the step itself says of images that are played with; counted for others."""
        told = step.result.get("score")
        if told:
            return told[measure.score.CURRENT]["score"]
        network, _, model = chain.network_of(step)
        return measure.score.account(network, model.input).score

    def _milliseconds(self, step: Step) -> float:
        """Of one image in the engine, on one thread."""

        network, _, model = chain.network_of(step)
        x = torch.zeros(1, *model.input)
        packed = engine.pack(network.eval(), x)
        return median(_timed(packed, x) for _ in range(ROUNDS))


class Watch:
    """A place that listens, and stops a chain that somebody holds hopeless."""

    def __init__(self, place: Place, hopeless: Hopeless | None) -> None:
        self.hopeless, self.rows, self.accuracy, self.cut = hopeless, 0, 0.0, False
        tick, stopping = place.ways.tick, place.ways.stopping

        def heard(event: dict[str, Any]) -> None:
            tick(event)
            self.look(event.get("row", {}).get("val_accuracy"))

        self.place = replace(place, ways=replace(place.ways, tick=heard, stopping=lambda: self.cut or stopping()))

    def look(self, accuracy: float | None) -> None:
        """Once a row."""
        if accuracy is not None:
            self.rows, self.accuracy = self.rows + 1, accuracy
            self.cut = self.cut or bool(self.hopeless and self.hopeless(self.rows, accuracy))


def _timed(packed: Any, x: torch.Tensor) -> float:
    began = time.perf_counter()
    packed(x)
    return 1e3 * (time.perf_counter() - began)


LIMIT = 100_000
"""looks of an engine, those at known points included"""


def _key(point: Point) -> str:
    return json.dumps(point, sort_keys=True)


def best(found: Iterable[Found]) -> Found:
    """The one that no other is better than."""
    first, *others = found
    for other in others:
        first = other if other.better(first) else first
    return first


def front(found: Iterable[Found]) -> list[Found]:
    """Those that no other beats in both, the objective and the accuracy."""
    kept: list[Found] = []
    for trial in sorted(found, key=lambda f: (f.cost, -f.measures["accuracy"])):
        if not kept or trial.measures["accuracy"] > kept[-1].measures["accuracy"]:
            kept.append(trial)
    return kept
