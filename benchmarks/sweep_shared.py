"""Claim: a sweep makes what chains share once.

    python benchmarks/sweep_shared.py --small              # 8 chains on built-in images, a minute on an idle machine
    python benchmarks/sweep_shared.py recipes/sweep_lenet5_mnist.toml --out results/sweep_shared

Every step is made, and by one worker; told are the steps run against the steps that all chains ask for.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from prunery.chain import Place
from prunery.runs import Runs, Step, asked, conditions, write_json
from prunery.sweep import About, Ended, Engine, Local, Tree, carry_out, cores, grown, read_sweep

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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", nargs="?", type=Path)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if bool(given.sweep) == given.small:
        parser.error("expected a sweep's file, or --small")
    with tempfile.TemporaryDirectory() as folder:
        told = measured(given, Path(folder))
    print(json.dumps(told, indent=1))
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        write_json(given.out / "sweep_shared.json", told)


def measured(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    file = given.sweep or folder / "sweep.toml"
    if given.small:
        file.write_text(SMALL)
        (folder / "chain.toml").write_text(CHAIN)
    sweep = read_sweep(file, [])
    here = Runs(folder / "runs")
    tree = grown(sweep, Place(here, given.data_dir))
    about = About(str(here.root), str(given.data_dir.resolve()), os.getcwd(), "cpu", sweep.cpus, 5.0)
    width = max(1, cores() // sweep.cpus)
    ended, seconds = carried(tree, here, Local(about, width))
    assert sorted(ended.made) == sorted(tree.nodes), "every step is made, and by one worker"
    told: dict[str, Any] = {
        "chains": len(tree.chains), "steps_asked": tree.asked, "steps_run": len(ended.made),
        "share_run": len(ended.made) / tree.asked, "workers": width, "seconds": round(seconds, 1), **conditions(),
    }  # fmt: skip
    alone = sum(Step(here.path(n)).env["seconds"] for c in tree.chains for n in c.nodes.values())
    told["seconds_of_all_steps_asked"] = round(alone, 1)
    return told


if __name__ == "__main__":
    main()
