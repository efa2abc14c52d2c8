"""Pruning methods compared: one dense network, one retraining budget, the same seeds; accuracy with 95 % intervals.

Carries out recipes/compare_RECIPE.toml for every method (what is in --runs already is not made again). Unstructured
methods keep the given share of the weights; structured ones remove channels until the given share of the multiply-adds
is left. Every method goes on from one density to the next, so all have spent as many epochs at each; global alone never
retrains. What the papers lead one to expect: Han et al. stay near the dense network down to a tenth of the weights and
magnitude beats chance by far; ThiNet beats Li et al.'s L1 norms, and both beat channels chosen blindly; single weights
can be pruned further than channels. The differences tested below are paired: the same seed on both sides.
"""

import statistics
from pathlib import Path

from claim import arguments, claim, finish

from prunery.chain import Place
from prunery.compare import Wanted, compare
from prunery.report import as_markdown, comparison_cells, write_comparison
from prunery.report.comparison import half_width
from prunery.runs import Runs
from prunery.spec import read_recipe
from prunery.train import Ways

RECIPES = Path(__file__).parent.parent / "recipes"
METHODS = "global,han,random,lth,rigl,lamp,li,thinet,thinet_norms,random_channels"
DENSITIES = (0.5, 0.2, 0.1, 0.05)
# (claim, better, worse, density, least mean difference in points)
ORDER = (
    ("Han et al. at a tenth of the weights against the dense network", "han", "dense", 0.1, -0.5),
    ("Magnitude against chance at a tenth of the weights, both retrained", "han", "random", 0.1, 0.0),
    ("Retraining against none at a tenth of the weights", "han", "global", 0.1, 0.0),
    ("ThiNet against channels chosen blindly at a fifth of the multiply-adds", "thinet", "random_channels", 0.2, 0.0),
)


def main() -> None:
    asked = arguments(
        __doc__, recipe="lenet5_mnist", methods=METHODS, data_dir="data", runs="runs", seeds="5", threads="1"
    )
    file = RECIPES / f"compare_{asked.recipe}.toml"
    seeds = range(2 if asked.quick else int(asked.seeds))
    wanted = Wanted(tuple(asked.methods.split(",")), DENSITIES[:2] if asked.quick else DENSITIES)
    place = Place(Runs(asked.runs), Path(asked.data_dir), Ways(threads=int(asked.threads)))
    quick = ["train.steps=150", "retrain.steps=30"] if asked.quick else []
    rows = []
    for seed in seeds:
        rows += compare(read_recipe(file, [f"seed={seed}", *quick]), wanted, place, seed)
    table = as_markdown(comparison_cells(rows))
    more = f"{table}\n\n![accuracy over what is kept](comparison.svg)\n\nEvery run: [comparison.csv](comparison.csv)."
    if asked.keep:
        write_comparison(rows, asked.keep)
    at = ", ".join(sorted({r["commit"] or "unknown" for r in rows}))
    found = [c for c in (difference(rows, *order) for order in ORDER) if c]
    finish(found, f"{len(rows)} networks, {len(seeds)} seeds", asked, file.read_text(), more, at)


def difference(rows, text, better, worse, density, least):
    """The paired difference of two methods, in points; nothing where one of them was not run."""
    one, other = (accuracies(rows, m, 1.0 if m == "dense" else density) for m in (better, worse))
    if not one or not other:
        return None
    each = [100 * (a - b) for a, b in zip(one, other, strict=True)]
    mean, half = statistics.mean(each), half_width(each)
    low = mean - half if half is not None else mean
    spread = f"95 % interval {low:.2f} to {2 * mean - low:.2f}" if half is not None else "one seed"
    return claim(text, mean, "points", spread, len(each), f"interval above {least:g}", low > least)


def accuracies(rows, method, density):
    return [r["accuracy"] for r in rows if r["method"] == method and r["density"] == density]


if __name__ == "__main__":
    main()
