"""Trials: a recipe carried out with some settings, and what came of it. Steps that are there are not made again."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch

from .. import chain, engine, measure
from ..chain import Place
from ..runs import Step, write_json
from ..spec import Node, Recipe, Refused
from ..train import Stopped
from .engines import ENGINES, Hopeless, Point
from .space import Objective, Space

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
    refused: str = ""
    """why it could not be carried out"""
    rows: tuple[tuple[int, float], ...] = ()
    """accuracies on the way: after how many steps of training"""

    @property
    def whole(self) -> bool:
        """Whether it was carried out to its end."""
        return not self.cut and not self.refused

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
            rows = {key: tuple((step, accuracy) for step, accuracy in f["rows"]) for key, f in told.items()}
            self.known = {key: Found(**f | {"rows": rows[key]}) for key, f in told.items()}

    @property
    def file(self) -> Path:
        """What is known of a space, beside the runs."""
        return self.place.runs.root / "search" / f"{self.space.path.stem}-{self.space.digest()}.json"

    def run(self) -> Iterator[Found]:
        """What the engine asks for, each point once, as many as the space allows."""
        seen: dict[str, Found] = {}
        for found in islice(ENGINES[self.space.engine](self.space, self.look), LIMIT):
            key = json.dumps(found.point, sort_keys=True)
            if key not in seen:
                seen[key] = found
                yield found
            if len(seen) >= self.space.trials:
                break
        if all(found.refused for found in seen.values()):
            first, *others = seen.values()
            raise Refused(f"none of {1 + len(others)} trials could be carried out; the first: {first.refused}")

    def look(self, point: Point, hopeless: Hopeless | None = None) -> Found:
        """One trial; what it came to is written down, under the name of what it trains.

        A trial that was given up is nothing to those who ask for its end; one that was refused is, the next time,
        worth another try."""
        recipe = chain.filled(self.space.made(point), self.place)
        key = f"{list(recipe.nodes().values())[-1].name} {json.dumps(point, sort_keys=True)}"
        known = self.known.get(key)
        if known and hopeless:  # who decides by what others came to on the way hears it again
            for step, accuracy in known.rows:
                hopeless(step, accuracy)
        if not known or (known.cut and not hopeless):
            self.known[key] = self._carried_out(point, recipe, hopeless)
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.file, {k: asdict(found) for k, found in self.known.items() if not found.refused})
        return self.known[key]

    def _carried_out(self, point: Point, recipe: Recipe, hopeless: Hopeless | None) -> Found:
        watch, target = Watch(self.place, hopeless), self.space.target
        try:
            last = list(chain.run(recipe, watch.place).values())[-1]
            judged = bool(last.result.get("validation"))
            measures = self._measured(last) if judged else {}
        except Stopped:
            if not watch.cut:
                raise
            measures = {"accuracy": watch.rows[-1][1]}
            return Found(point, measures, met=False, short=WORST, cost=WORST, cut=True, rows=tuple(watch.rows))
        except Refused as error:
            return Found(point, {"accuracy": 0.0}, met=False, short=10 * WORST, cost=10 * WORST, refused=str(error))
        if not judged:
            raise Refused("a search judges by validation images, and there are none; set data.validation to 1 or more")
        cost = self.space.objective.cost(measures)
        met, short = target.met(measures), target.short(measures)
        return Found(point, measures, met, short, cost, last.name, rows=tuple(watch.rows))

    def _measured(self, step: Step) -> dict[str, float]:
        result = step.result
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
    """A place that listens, and stops a chain that somebody holds hopeless.

    Steps of training are counted along the chain, and what earlier trials have carried out of it is told again: two
    trials are compared after as many steps, whether they share them or not."""

    def __init__(self, place: Place, hopeless: Hopeless | None) -> None:
        self.hopeless, self.before, self.cut = hopeless, 0, False
        self.rows: list[tuple[int, float]] = []
        tick, began, stopping = place.ways.tick, place.began, place.ways.stopping

        def heard(event: dict[str, Any]) -> None:
            tick(event)
            self.look(event.get("row", {}))

        def begins(label: str, node: Node) -> None:
            began(label, node)
            self.before = 0
            for ancestor in node.chain()[:-1]:
                self.before += self.again(place.runs.rows(ancestor))
            self.again(place.runs.rows(node))

        ways = replace(place.ways, tick=heard, stopping=lambda: self.cut or stopping())
        self.place = replace(place, ways=ways, began=begins)

    def again(self, rows: list[dict[str, Any]]) -> int:
        """What a step has told already; how many steps of training it comes to."""
        for row in rows:
            self.look(row)
        return rows[-1]["step"] if rows else 0

    def look(self, row: dict[str, Any]) -> None:
        """Once a row."""
        accuracy, step = row.get("val_accuracy"), self.before + row.get("step", 0)
        if accuracy is not None and step not in dict(self.rows):
            self.rows.append((step, accuracy))
            self.cut = self.cut or bool(self.hopeless and self.hopeless(step, accuracy))


def _timed(packed: Any, x: torch.Tensor) -> float:
    began = time.perf_counter()
    packed(x)
    return 1e3 * (time.perf_counter() - began)


LIMIT = 100_000
"""looks of an engine, those at known points included"""


def best(found: Iterable[Found]) -> Found:
    """The one that no other is better than."""
    first, *others = found
    for other in others:
        first = other if other.better(first) else first
    return first


def front(found: Iterable[Found], objectives: Sequence[Objective] = ()) -> list[Found]:
    """Those that no other beats in all: the objectives, or the one there is, and the accuracy."""

    def worth(trial: Found) -> tuple[float, ...]:
        costs = [o.cost(trial.measures) for o in objectives] or [trial.cost]
        return (*costs, -trial.measures["accuracy"])

    kept: list[Found] = []
    for trial in sorted(found, key=worth):
        if not any(all(a <= b for a, b in zip(worth(k), worth(trial), strict=True)) for k in kept):
            kept.append(trial)
    return kept
