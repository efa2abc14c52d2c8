"""Claim: the path of a course, stage by stage, takes a trained network to an eighth of its score within a point.

Half precision, 8 bits, half of the weights, convolutions of low rank, a teacher: recipes/course_resnet18.toml, for a
GPU; course_resnet18_brief, its 100 epochs cut to ten; course_resnet18_quarter, with a quarter of its channels; or, with
the default --recipe, the same path from the ResNet-20 baseline, which two CPU cores walk in half an hour. Every stage's
file is opened anew. The figure shows accuracy against score, with the 90 % line.
"""

import sys
from pathlib import Path

from claim import arguments, claim, columns, finish
from stages import HEAD, Stage, at, carried_out, measured, packed

from prunery.chain import WEIGHTS
from prunery.measure.score import SHORT
from prunery.report.figures import path_figure
from prunery.spec import read_recipe

RECIPES = Path(__file__).parent.parent / "recipes"
FILES = {
    "8 bits": "int8_file",
    "half of the weights": "pruned_file",
    "low rank": "factorised_file",
    "distilled": "distilled_file",
}


def main() -> None:
    asked = arguments(__doc__, data_dir="data", runs="runs", recipe="course_resnet20")
    if asked.quick:
        sys.exit("there is no quick form: the stages are what is measured (--runs FOLDER holds finished ones)")
    path = RECIPES / f"{asked.recipe}.toml"
    recipe, root = read_recipe(path), Path(asked.data_dir)
    done = carried_out(path, asked)
    dense = done.get("dense", done["init"]).folder / WEIGHTS
    stages = [
        measured("32 bits", dense, recipe, root),
        measured("16 bits", packed(done["half"]), recipe, root, SHORT),
        *(measured(stage, packed(done[label]), recipe, root) for stage, label in FILES.items()),
    ]
    if asked.keep:
        points = [(s.name, s.score, s.found.accuracy, s.found.standard_error) for s in stages]
        path_figure(points, asked.keep / "figures")
    claims = [claimed(stages, recipe.name.removeprefix("course_"))]
    more = "![accuracy against score](figures/path.svg)"
    also = {"points": [s.point for s in stages]}
    finish(claims, columns([HEAD, *(s.row for s in stages)]), asked, path.read_text(), more, at(done), also)


def claimed(stages: list[Stage], network: str) -> dict:
    first, last = stages[0], stages[-1]
    lost = 100 * (first.found.accuracy - last.found.accuracy)
    share, spread = last.score / first.score, f"{lost:.2f} points lost; one seed"
    holds = share <= 0.125 and lost <= 1
    text = f"{network}: the score at the end of the path against that of the trained network"
    return claim(text, share, "times", spread, first.found.n, "0.125, at most 1 point lost", holds)


if __name__ == "__main__":
    main()
