"""Claim: a sweep makes what its chains share once: fewer steps are run than asked for, and less time is spent.

Carries out recipes/sweep_lenet5_mnist.toml (LeNet-5 on MNIST: four ways to choose weights, three densities, three
seeds) in a folder of its own, with as many workers as cores. Checked: every step is made, and made once. Told beside
it: the seconds that all steps took, counted as often as chains ask for them. --quick has 8 chains on built-in images.
"""

import os
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

from claim import arguments, claim, columns, finish

from prunery.chain import Place
from prunery.runs import Runs, Step, asked
from prunery.sweep import About, Ended, Engine, Local, Tree, carry_out, cores, grown, read_sweep

SWEEP = Path(__file__).parent.parent / "recipes" / "sweep_lenet5_mnist.toml"

CHAIN = """
[data]
name = "digits"
[model]
name = "lenet_300_100"
[[step]]
kind = "train"
epochs = 3
[[step]]
kind = "prune"
[[step]]
kind = "train"
label = "finetune"
epochs = 1
"""
SMALL = """
recipe = "chain.toml"
seeds = 2
[sweep]
"prune.density" = [0.5, 0.1]
"prune.criterion" = ["magnitude", "random"]
"""


def carried(tree: Tree, runs: Runs, engine: Engine) -> tuple[Ended, float]:
    """A whole sweep, and the seconds that it took."""
    labels = {label: name for name, label in tree.labels().items()}
    began = time.perf_counter()
    with asked(runs.root, "sweep_shared", "", labels):
        ended = carry_out(tree, tree.there(runs), engine, 3, lambda: False, lambda *_: None)
    if ended.failed:
        sys.exit(f"steps failed: {ended.failed}")
    return ended, time.perf_counter() - began


def main() -> None:
    given = arguments(__doc__, data_dir="data")
    with tempfile.TemporaryDirectory() as folder:
        measured(given, Path(folder))


def measured(given: Namespace, folder: Path) -> None:
    file, data = SWEEP, Path(given.data_dir).resolve()
    if given.quick:
        file = folder / "sweep.toml"
        file.write_text(SMALL)
        (folder / "chain.toml").write_text(CHAIN)
    sweep, here = read_sweep(file, []), Runs(folder / "runs")
    tree = grown(sweep, Place(here, data))
    width = max(1, cores() // sweep.cpus)
    ended, seconds = carried(
        tree, here, Local(About(str(here.root), str(data), os.getcwd(), "cpu", sweep.cpus, 5.0), width)
    )
    if sorted(ended.made) != sorted(tree.nodes):
        sys.exit(f"{len(ended.made)} steps were made of {len(tree.nodes)}; expected each once")
    took = {node.name: Step(here.path(node)).env["seconds"] for node in tree.nodes.values()}
    each = sum(took[node.name] for chain in tree.chains for node in chain.nodes.values())
    rows = [
        ["", "asked", "made"],
        ["steps", tree.asked, len(ended.made)],
        ["seconds of steps", round(each, 1), round(sum(took.values()), 1)],
    ]
    share = len(ended.made) / tree.asked
    spread = f"{len(tree.chains)} chains, {width} workers, {seconds:.0f} s from first to last"
    text = "steps made against steps that all chains ask for"
    claims = [claim(text, share, "of them", spread, tree.asked, "<= 0.65", share <= 0.65)]
    finish(claims, columns(rows), given, file.read_text())


if __name__ == "__main__":
    main()
