"""Claim: a search finds settings of the score game's tiny network that meet its bound and cost less than the record.

Carries out recipes/search_tiny.toml (greedy, a proxy of two epochs in floats and one with few bits a trial) and, with
the same proxy, the settings of recipes/score_tiny.toml that the record was made with. Both are judged by validation
images; the winner's packed file is then opened anew and measured on the test images, with sums in floats and in
integers, which have to agree. The proxy tells which settings are worth training in full, not what they will come to.
"""

import sys
from pathlib import Path

from claim import arguments, claim, columns, finish
from stages import at, measured, packed

from prunery.chain import Place, run
from prunery.cli.search import finished
from prunery.measure.score import CURRENT
from prunery.runs import Runs, Step
from prunery.search import Found, Space, Trials, best, read_space
from prunery.spec import read_recipe
from prunery.train import Ways

SPACE = Path(__file__).parent.parent / "recipes" / "search_tiny.toml"


def main() -> None:
    asked = arguments(__doc__, data_dir="data", runs="runs")
    if asked.quick:
        sys.exit("there is no quick form: the trials are what is measured (--runs FOLDER holds finished ones)")
    space, root = read_space(SPACE), Path(asked.data_dir)
    place = Place(Runs(asked.runs), root, Ways(), say=print)
    own = run(read_recipe(space.recipe, [*space.budget]), place)
    found = list(Trials(space, place).run())
    winner = best(found)
    done = run(space.made(winner.point), place)
    stage = measured("the best", packed(done["pack"]), space.made(winner.point), root)
    if asked.keep:
        finished(space, found, asked.keep)
    more = f"{told(stage.found.accuracy, len(found))}\n\n![accuracy against score](front.svg)"
    claims = [claimed(space, winner, own["pack"], len(found))]
    finish(claims, table(found, winner, own["pack"]), asked, SPACE.read_text(), more, at(own | done))


def worth(step: Step) -> tuple[float, float]:
    """Accuracy on validation images, and the score."""
    return step.result["validation"]["accuracy"], step.result["score"][CURRENT]["score"]


def claimed(space: Space, winner: Found, own: Step, trials: int) -> dict:
    accuracy, score = worth(own)
    ratio = winner.measures["score"] / score
    spread = f"{100 * winner.measures['accuracy']:.2f} % of validation images against {100 * accuracy:.2f}; one seed"
    text = "the score of the best trial against that of the record's own settings under the same proxy"
    goal = f"below 1, with at least {100 * space.target.bound:g} %"
    return claim(text, ratio, "times", spread, trials, goal, winner.met and ratio < 1)


def table(found: list[Found], winner: Found, own: Step) -> str:
    rows = [["trial", *found[0].point, "validation, %", "score, 2.8e8", "target"]]
    for n, f in enumerate(found, 1):
        verdict = "best" if f is winner else "met" if f.met else "missed"
        worth_of = [f"{100 * f.measures['accuracy']:.2f}", f"{f.measures['score']:.5f}"]
        rows.append([n, *map(str, f.point.values()), *worth_of, verdict])
    accuracy, score = worth(own)
    return columns([*rows, ["recipe", *[""] * len(found[0].point), f"{100 * accuracy:.2f}", f"{score:.5f}", ""]])


def told(accuracy: float, trials: int) -> str:
    return f"""After so short trainings the best of {trials} trials has {100 * accuracy:.2f} % of the 10,000 test
images, sums in integers. `trials.csv` has every trial, `best.json` the settings of the best and the front."""


if __name__ == "__main__":
    main()
