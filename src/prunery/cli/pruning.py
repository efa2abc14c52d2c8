"""`prunery prune`, `sensitivity` and `compare`: what they do behind their options."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import chain, compare, data, pruning, report, workbench
from ..measure import count, totals
from ..runs import ENV, Runs, State, Step, folder_to_write, to_write
from ..spec import STEPS, Data, Model, Prune, Recipe, Refused, quote
from ..train import evaluate
from ..train.loop import derived

Opened = tuple[torch.nn.Module, State, Model]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as the user names it: a file or a run, and of plain weights the network that they belong to."""

    what: str
    runs: Path
    own: str = ""

    def opened(self, facts: data.Facts | None = None) -> Opened:
        """Its network; plain weights need the images that it is for."""
        if not self.own:
            return opened(self.what, self.runs)
        if facts is None:
            raise Refused(f"--model {self.own} needs --data NAME: the images tell the input and the classes")
        if not os.path.isfile(self.what):
            seen = f"--model {self.own} is for a file of weights, and {quote(self.what)} is none"
            raise Refused(f"{seen}; expected a file, or a run's name alone")
        try:
            return chain.given(Model(name=self.own, weights=self.what), facts)
        except Refused as refusal:
            size = "x".join(map(str, facts.shape))
            told = f"the images are {facts.name}, {size} of {len(facts.classes)} classes: --data names others"
            raise Refused(f"{refusal}; {told}") from None

    def first_weights(self) -> dict[str, torch.Tensor] | None:
        """The weights that a run's chain began with; a lone file does not know them."""
        return None if os.path.isfile(self.what) else Runs(self.runs).find(self.what).chain()[0].state().weights


def opened(what: str, runs: Path) -> Opened:
    """A checkpoint or a finished run."""
    if os.path.isfile(what):  # of a name that is too long, Path.is_file raises an error
        return chain.opened(Path(what))
    if names_a_run(what):
        return chain.network_of(Runs(runs).find(what))
    raise Refused(
        f"{quote(what)} is no file and no run; expected a checkpoint (runs/NAME/weights.safetensors) or a run's name"
    )


def names_a_run(what: str) -> bool:
    """Whether it is written like a step's name, or is its folder."""
    return what.startswith(tuple(f"{kind}-" for kind in STEPS)) or os.path.isfile(Path(what) / ENV)


def as_seen(what: str, runs: Path, name: str) -> Data:
    """The images as the run's own steps saw them, above all in their scaling; plain for another set or a lone file."""
    name = data.named(name)
    return its_own(what, runs, name) or Data(name=name)


def its_own(what: str, runs: Path, name: str = "") -> Data | None:
    """The images of a run's last step that had any, or any of that name; none of a lone file."""
    step = Step(Path(what).parent) if os.path.isfile(what) else None
    if step is None and names_a_run(what):
        step = Runs(runs).find(what)
    while step and (step.folder / ENV).is_file():
        found = getattr(step.spec, "data", None)
        if isinstance(found, Data) and name in ("", found.name):
            return found
        step = step.parent
    return None


def images(spec: Data, root: Path, model: Model) -> data.Splits:
    """The images, once they fit the network."""
    found = data.load(spec, root, "cpu")
    chain.fits(found.facts, model, spec.name)
    return found


def prune_file(file: Checkpoint, how: Prune, root: Path, out: Path, small: bool, multiple: int) -> dict[str, Any]:
    """Prune a checkpoint, measure before and after, and write what is left."""
    to_write(out, "pruned.safetensors")
    network, state, model = file.opened(data.facts(how.data, root))
    splits = images(how.data, root, model)
    before = _worth(network, state.masks, splits)
    rng = torch.Generator().manual_seed(derived(how.seed, "prune"))
    work = pruning.work({}, pruning.collect(network, {"places", "shapes"}, chain.looked_at(how, splits)[:1]))
    known = pruning.Known(chain.looked_at(how, splits), file.first_weights(), work)
    mask, changed = pruning.pruned(network, state.masks, how, known, rng)
    network.load_state_dict(chain.masked(state.weights | changed, mask))
    if small:
        network, mask = pruning.shrink(network, mask, data.inputs(splits.train.x[:2], splits), multiple)
    network.prunery_model = model  # type: ignore[assignment]
    after = _worth(network, mask, splits)
    workbench.save(network, out, mask)
    return {"file": str(out), "bytes": out.stat().st_size, "before": before, "after": after}


def _worth(network: torch.nn.Module, mask: dict[str, torch.Tensor], splits: data.Splits) -> dict[str, Any]:
    sums = totals(count(network, splits.facts.shape, masks=mask))
    test = evaluate(network, splits.test, splits)
    kept = {k: sums[k] for k in ("parameters", "kept_parameters", "multiply_adds", "kept_multiply_adds", "density")}
    return kept | {"test": test and test.as_dict()}


def told(found: dict[str, Any]) -> list[str]:
    """Before and after in a few lines."""
    lines = []
    for when in ("before", "after"):
        r = found[when]
        test = f"test accuracy {r['test']['accuracy']:.2%} ± {r['test']['standard_error']:.2%}, " if r["test"] else ""
        sizes = f"{r['kept_parameters']:,} parameters, {r['kept_multiply_adds']:,} multiply-adds"
        lines.append(f"{when:7} {test}{sizes}, density {r['density']:.2%}")
    return [*lines, f"written  {found['file']} ({found['bytes']:,} bytes)"]


def sensitivity(
    file: Checkpoint, how: Prune, tried: tuple[float, ...], root: Path, figure: Path | None
) -> dict[str, dict[str, dict[str, float]]]:
    """Loss and accuracy on validation images with one layer at a time pruned."""
    if figure:
        folder_to_write(figure)
    network, state, model = file.opened(data.facts(how.data, root))
    splits = images(how.data, root, model)
    batches = _held_out(how, splits)
    rng = torch.Generator().manual_seed(derived(how.seed, "prune"))
    known = pruning.Known(batches, file.first_weights())
    trials = pruning.alone(network.eval(), state.masks, how, known, tried, rng)
    found = {n: {f"{d:g}": {"loss": v[0], "accuracy": v[1]} for d, v in ds.items()} for n, ds in trials.items()}
    if figure:
        report.write_sensitivity(found, figure)
    return found


def _held_out(how: Prune, splits: data.Splits) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Validation images; training images where none are held out."""
    part = splits.validation if len(splits.validation.y) else splits.train
    x, y = part.x[: how.batches * how.batch], part.y[: how.batches * how.batch]
    pairs = zip(x.split(how.batch), y.split(how.batch), strict=True)
    return [(data.inputs(a, splits), b) for a, b in pairs]


def sensitivity_table(found: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """A layer a line, its accuracy at each density."""
    whole = found[""]["1"]
    densities = list(next(v for n, v in found.items() if n))
    width = max(12, *(len(n) for n in found))
    lines = [f"{'layer':{width}} " + " ".join(f"{float(d):>8.0%}" for d in densities)]
    for name, values in found.items():
        if name:
            row = " ".join(f"{values[d]['accuracy']:>8.2%}" for d in densities)
            lines.append(f"{name.removesuffix('.weight'):{width}} {row}")
    return [
        *lines,
        f"untouched: {whole['accuracy']:.2%} of the images looked at (validation images, one layer pruned at a time)",
    ]


def comparison(recipes: list[Recipe], wanted: compare.Wanted, there: Any, out: Path) -> list[dict[str, Any]]:
    """Every seed's rows; what is finished is written after each seed, so that nothing waits for the last."""
    folder_to_write(out)
    rows: list[dict[str, Any]] = []
    for seed, recipe in enumerate(recipes):
        rows += compare.compare(recipe, wanted, there, seed)
        report.write_comparison(rows, out)
    return rows
