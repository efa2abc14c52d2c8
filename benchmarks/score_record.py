"""Claim: a tiny network of 4 bits has 90 % of CIFAR-10's test images at a score of at most 0.010 (2.8e8).

Carries out recipes/score_tiny.toml, opens the packed file as a stranger would, and measures it on all 10,000 test
images, with sums in floats and in integers, which have to agree. --quick measures the kept file alone. The recipe was
fixed before its training began, after a shorter one with fewer weights and bits had come to 87.60 % of the test images.
"""

import shutil
import sys
from pathlib import Path

from claim import arguments, claim, columns, finish
from stages import Stage, at, carried_out, measured, packed

from prunery import save
from prunery.chain import WEIGHTS, opened
from prunery.report import write_figures
from prunery.spec import read_recipe

HERE = Path(__file__).parent.parent
RECIPE = HERE / "recipes" / "score_tiny.toml"
KEPT = HERE / "results" / "score_tiny" / "tiny.safetensors"
FLOAT = "`float.safetensors` is the network before its bits were lowered, in half precision, for other attempts."
COMMAND = "`prunery score results/score_tiny/tiny.safetensors --verify` measures it again, layer by layer, in integers."


def main() -> None:
    asked = arguments(__doc__, data_dir="data", runs="runs")
    if asked.quick and asked.keep:
        sys.exit("--quick measures what is kept already; leave out one of --quick and --keep")
    recipe, root, file, made = read_recipe(RECIPE), Path(asked.data_dir), KEPT, None
    if not asked.quick:
        done = carried_out(RECIPE, asked)
        file, made = packed(done["pack"]), at(done)
    stage, halved = measured("4 bits", file, recipe, root), KEPT.parent / "float.safetensors"
    if asked.keep:
        asked.keep.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, asked.keep / KEPT.name)
        network, state, model = opened(done["float"].folder / WEIGHTS)
        halved = asked.keep / "float.safetensors"
        save(network, halved, state.masks, model, half=True)
        write_figures(list(done.values()), asked.keep / "figures")
    figures = "![accuracy against score](figures/accuracy_score.svg)\n\n![curves](figures/curves.svg)"
    more = f"{COMMAND}\n\n{FLOAT}\n\n{figures}"
    before = measured("before, in floats", halved, recipe, root)
    files = {KEPT.name: stage.claimed, halved.name: before.claimed}
    also = {"files": files, "points": [before.point, stage.point]}
    finish(claims(stage), table(stage), asked, RECIPE.read_text(), more, made, also)


def claims(stage: Stage) -> list[dict]:
    accuracy, error = 100 * stage.found.accuracy, 100 * stage.found.standard_error
    spread = f"standard error {error:.2f}; one seed; {stage.size:,} bytes"
    return [
        claim(
            "test accuracy on CIFAR-10, sums in integers", accuracy, "%", spread, stage.found.n, 90.0, accuracy >= 90
        ),
        claim("score, edition 2.8e8", stage.score, "", None, 1, 0.010, stage.score <= 0.010),
    ]


def table(stage: Stage) -> str:
    rows = [["edition", "parameters", "operations", "score"]]
    rows += [[name, *(f"{part:.5f}" for part in told.values())] for name, told in stage.scores.items()]
    return columns(rows)


if __name__ == "__main__":
    main()
