"""What `show` and `data` print."""

import os
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import chain, data, measure, models
from ..masks import Mask
from ..runs import ENV, Runs
from ..spec import STEPS, Model, Refused, install, quote, recipe


def shown(what: str, batch: int, size: str, classes: int, runs: Path) -> tuple[list[dict[str, Any]], str]:
    """The rows and the text for a network by name, a finished run, or a checkpoint."""
    if not 1 <= batch <= 2**31:
        raise Refused(f"--batch = {batch} is not allowed; expected 1 or more, below 2^31")
    with redirect_stdout(sys.stderr):  # a network of the user's own may print
        network, mask, shape = network_of(what, size, classes, runs)
        rows = measure.count(network, shape, batch, mask)
    return [asdict(r) for r in rows], measure.summary_text(rows, measure.totals(rows), shape, batch)


def network_of(what: str, size: str, classes: int, runs: Path) -> tuple[Any, Mask, tuple[int, int, int]]:
    """A network by name, of a finished run, or in a checkpoint; its masks and the input that it is shown with."""
    if os.path.isfile(what) and not what.endswith(".py"):
        network, state, model = chain.opened(Path(what))
        return network, state.masks, model.input  # type: ignore[return-value]
    if what.startswith(tuple(f"{kind}-" for kind in STEPS)) or os.path.isfile(Path(what) / ENV):
        network, state, model = chain.network_of(Runs(runs).find(what))
        return network, state.masks, model.input  # type: ignore[return-value]
    usual, usual_classes = models.default_input(what)
    shape = input_of(size) or usual
    spec = Model(name=what, input=shape, classes=classes or usual_classes)
    return models.build(spec, 0), {}, shape


def input_of(text: str) -> tuple[int, int, int] | None:
    """channels,height,width as numbers; nothing where nothing is said."""
    parts = text.split(",") if text else []
    if text and (len(parts) != 3 or not all(p.strip().isdecimal() and int(p) for p in parts)):
        raise Refused(f"--input = {quote(text)} is not allowed; expected channels,height,width such as 3,32,32")
    return (int(parts[0]), int(parts[1]), int(parts[2])) if parts else None


def described(name: str, settings: list[str], root: Path) -> dict[str, Any]:
    """The facts of one data set, with `--set data.…` applied."""
    wanted = recipe({"data": {"name": name}, "step": [{"kind": "train"}]}, settings)
    return data.describe(data.load(wanted.data, root))


def data_sets(root: Path) -> dict[str, str]:
    """Every set by name: what it is, and whether it can be used at once."""
    return {name: _there(name, root) for name in data.DATASETS} | {
        "folder:PATH": "your own images, one sub-folder per class",
        "hf:NAME": f"a set of the Hugging Face hub ({install('hf', 'datasets')})",
    }


def _there(name: str, root: Path) -> str:
    known = data.DATASETS[name]
    text = f"{'x'.join(map(str, known.shape))}, {len(known.classes)} classes"
    if name == "digits":
        return text + ", built in"
    return text + (f", found in {root}" if data.found(name, root) else f", not in {root}: downloaded when asked for")
