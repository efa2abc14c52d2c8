"""Claim: in 8 bits ResNet-20 loses at most 0.3 points without any training, in 4 bits at most 0.5 with a little.

Carries out recipes/resnet20_few_bits.toml: the baseline of results/resnet20_cifar10 quantised after training to 8, 6
and 4 bits, trained on at 4 bits for 3 epochs, lowered to 2 bits and trained for 2 more. Weights and activations alike;
8 bits in the first and last layer. Packed files are opened anew, and their sums computed in integers as well.
"""

import shutil
import sys
from pathlib import Path

from claim import arguments, claim, columns, finish
from stages import HEAD, at, carried_out, measured, packed

from prunery.chain import WEIGHTS
from prunery.spec import read_recipe

HERE = Path(__file__).parent.parent
RECIPE = HERE / "recipes" / "resnet20_few_bits.toml"
KEPT = HERE / "results" / "few_bits"
FILES = {"8 bits": "packed8", "4 bits, trained": "packed4", "2 bits, trained": "packed2"}
ROUNDED = {"6 bits": "six", "4 bits": "four"}


def name(stage: str) -> str:
    """Of the kept file."""
    return f"resnet20_{stage[0]}bit.safetensors"


def main() -> None:
    asked = arguments(__doc__, data_dir="data", runs="runs")
    if asked.quick and asked.keep:
        sys.exit("--quick measures what is kept already; leave out one of --quick and --keep")
    recipe, root, made = read_recipe(RECIPE), Path(asked.data_dir), None
    if asked.quick:
        files = {stage: KEPT / name(stage) for stage in FILES}
    else:
        done = carried_out(RECIPE, asked)
        files, made = {stage: packed(done[label]) for stage, label in FILES.items()}, at(done)
        files |= {stage: done[label].folder / WEIGHTS for stage, label in ROUNDED.items()}
    dense = measured("baseline", HERE / recipe.init.model.weights, recipe, root)
    stages = {stage: measured(stage, file, recipe, root) for stage, file in files.items()}
    if asked.keep:
        asked.keep.mkdir(parents=True, exist_ok=True)
        for stage in FILES:
            shutil.copyfile(files[stage], asked.keep / name(stage))

    def lost(stage: str, text: str, target: float) -> dict:
        points = 100 * (dense.found.accuracy - stages[stage].found.accuracy)
        spread = f"{100 * stages[stage].found.accuracy:.2f} of {100 * dense.found.accuracy:.2f} %; one seed"
        return claim(text, points, "points", spread, dense.found.n, target, points <= target)

    claims = [
        lost("8 bits", "ResNet-20 in 8 bits after training, packed: test accuracy lost", 0.3),
        lost("4 bits, trained", "ResNet-20 in 4 bits, trained on for 3 epochs, packed: test accuracy lost", 0.5),
    ]
    order = ["8 bits", "6 bits", "4 bits", "4 bits, trained", "2 bits, trained"]
    rows = [HEAD, dense.row, *(stages[stage].row for stage in order if stage in stages)]
    also = {"files": {name(s): stages[s].claimed for s in FILES}, "points": [s.point for s in stages.values()]}
    finish(claims, columns(rows), asked, RECIPE.read_text(), "", made, also)


if __name__ == "__main__":
    main()
