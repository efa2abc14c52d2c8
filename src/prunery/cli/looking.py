"""`--pictures`: the first layer of each step, run on a few test images, for the report to draw."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch

from .. import chain, data, measure
from ..report import Drawn, Look, draw
from ..runs import Step
from ..spec import Data, Refused

IMAGES = 4
"""test images, of as many classes"""


class Looker:
    """Looks at steps and remembers what it drew: a finished step stays as it is."""

    def __init__(self, root: Path, say: Callable[[str], None]) -> None:
        self.root, self.say = root, say
        self.drawn: dict[Path, Drawn | None] = {}

    def __call__(self, steps: Iterable[Step]) -> Iterator[tuple[str, Drawn]]:
        """What can be shown of each of these steps; why nothing can is said."""
        every = {s.folder: s for s in steps}
        children = {s.folder.parent / s.env["parent"]: s for s in every.values() if s.env.get("parent")}
        for folder, step in every.items():
            if folder not in self.drawn:
                self.drawn[folder] = self._draw(step, children.get(folder))
            if (drawn := self.drawn[folder]) is not None:
                yield step.name, drawn

    def _draw(self, step: Step, child: Step | None) -> Drawn | None:
        """An init step has no data of its own, and is looked at with those of a step after it."""
        spec = getattr(step.spec, "data", child and getattr(child.spec, "data", None))
        try:
            look = look_at(step, spec, self.root) if spec else None
        except Refused as error:
            self.say(f"no pictures of {step.name}: {error}")
            return None
        if look is None:
            self.say(f"no pictures of {step.name}: no layer of it reads images as they are")
            return None
        return draw(look)


def look_at(step: Step, spec: Data, root: Path) -> Look | None:
    """One step's first layer on the first test images of the first classes."""
    splits = chain.images(spec, root, "cpu")
    part = splits.test if len(splits.test) else splits.train
    places = [int((part.y == label).nonzero()[0, 0]) for label in part.y.unique()[:IMAGES]]
    network, state, _ = chain.network_of(step)
    found = measure.first_layer(network, state.masks, data.inputs(part.x[places], splits))
    if found is None:
        return None
    labels = tuple(splits.facts.classes[int(part.y[i])] for i in places)
    return Look(found.name, found.filters, found.kept, found.maps, part.x[places].cpu().to(torch.uint8).numpy(), labels)
