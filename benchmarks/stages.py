"""What the score game's benchmarks share: a recipe carried out, and what its files are charged and worth."""

from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

from prunery.chain import PACKED, Place, images, opened, run
from prunery.measure.score import CURRENT, FLOAT, account, as_dict
from prunery.quantize import in_integers, quantised_layers
from prunery.runs import Runs, Step
from prunery.spec import Recipe, Refused, read_recipe
from prunery.train import Evaluation, Ways, evaluate


class Stage(NamedTuple):
    """A file on the way: its accuracy, opened anew, its score, and how large it is."""

    name: str
    found: Evaluation
    scores: dict[str, dict[str, float]]
    size: int

    @property
    def score(self) -> float:
        return self.scores[CURRENT]["score"]

    @property
    def row(self) -> list:
        return [self.name, f"{100 * self.found.accuracy:.2f}", f"{self.score:.5f}", f"{self.size:,}"]

    @property
    def claimed(self) -> dict[str, float]:
        """What `prunery score --verify` holds a kept file against."""
        return {"n": self.found.n, "accuracy": self.found.accuracy}

    @property
    def point(self) -> dict[str, str | float]:
        """Of the figure of all results."""
        told = {"name": self.name, "score": self.score, "accuracy": self.found.accuracy}
        return told | {"standard_error": self.found.standard_error}


HEAD = ["stage", "test accuracy, %", "score, 2.8e8", "bytes"]


def carried_out(path: Path, asked: Namespace) -> dict[str, Step]:
    """Every step of a recipe; what is in --runs already is not made again."""
    return run(read_recipe(path), Place(Runs(asked.runs), Path(asked.data_dir), Ways(), say=print))


def packed(step: Step) -> Path:
    return step.folder / PACKED


def at(done: dict[str, Step]) -> str:
    """The commits that made the steps."""
    return ", ".join(sorted({s.env["commit"] or "unknown" for s in done.values()}))


def measured(name: str, file: Path, recipe: Recipe, root: Path, floats: int = FLOAT) -> Stage:
    """A file as a stranger finds it: sums in integers where it is quantised, which have to give what floats give."""
    network, _, model = opened(file)
    splits = images(recipe.data, root, "cpu")
    found = evaluate(network, splits.test, splits, "float32" if floats == FLOAT else "bfloat16")
    assert found is not None
    assert model.input
    if quantised_layers(network):
        with in_integers(network):
            whole = evaluate(network, splits.test, splits)
        if whole != found:
            raise Refused(f"{file}: sums in integers give {whole}, in floats {found}; expected the same")
    return Stage(name, found, as_dict(account(network, model.input, floats).scores()), file.stat().st_size)
