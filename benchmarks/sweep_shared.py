"""Claim: a sweep makes what its chains share once, and a machine that is lost half-way changes nothing.

Carries out recipes/sweep_lenet5_mnist.toml (LeNet-5 on MNIST: four ways to choose weights, three densities, three
seeds) in a folder of its own, with as many workers as cores. Checked: every step is made, and made once. Told beside
it: the seconds that all steps took, counted as often as chains ask for them. With --on ray once more on a Ray cluster
of two nodes on this machine, of which one is killed when half of the steps are there: weights and results of every
step have to be the same, times aside, and no step may be made twice. --quick has 8 chains on built-in images.
"""

import json
import os
import sys
import tempfile
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any

from claim import arguments, claim, columns, finish

from prunery.chain import Place
from prunery.runs import Runs, Step, asked
from prunery.sweep import About, Ended, Engine, Local, Outcome, Tree, carry_out, cores, grown, read_sweep

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


def carried(tree: Tree, runs: Runs, engine: Engine, heard: Any = lambda *_: None) -> tuple[Ended, float]:
    """A whole sweep, and the seconds that it took."""
    labels = {label: name for name, label in tree.labels().items()}
    began = time.perf_counter()
    with asked(runs.root, "sweep_shared", "", labels):
        ended = carry_out(tree, tree.there(runs), engine, 3, lambda: False, heard)
    if ended.failed:
        sys.exit(f"steps failed: {ended.failed}")
    return ended, time.perf_counter() - began


def contents(step: Step) -> tuple[Any, bytes]:
    """What a step came to, without what depends on the clock."""
    result = json.loads(json.dumps(step.result))
    for key in ("seconds", "images_per_second"):
        result.get("train", {}).pop(key, None)
    return result, (step.folder / "weights.safetensors").read_bytes()


LATER = 1.5
"""seconds from the end of a step to the kill: then whoever made it has the next one in hand"""


def with_a_lost_node(tree: Tree, runs: Runs, about: About, cpus: int) -> tuple[Ended, int]:
    """Two nodes; when half of the steps are there, one is killed, with whatever it is making."""
    from ray.cluster_utils import Cluster

    from prunery.sweep.onray import OnRay

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus, "include_dashboard": False})
    other = cluster.add_node(num_cpus=cpus)
    os.environ["RAY_ADDRESS"] = cluster.address
    lost: list[int] = []

    def heard(outcome: Outcome, ended: Ended) -> None:
        if not lost and len(ended.made) >= len(tree.nodes) // 2:
            lost.append(len(ended.made))
            Timer(LATER, lambda: cluster.remove_node(other, allow_graceful=False)).start()

    try:
        ended, _ = carried(tree, runs, OnRay(about, cpus, 0.0), heard)
    finally:
        cluster.shutdown()
    if not lost:
        sys.exit("no node was killed")
    return ended, lost[0]


def main() -> None:
    given = arguments(__doc__, data_dir="data", on="local")
    if given.on not in ("local", "ray"):
        sys.exit(f"--on = {given.on} is not allowed; expected local or ray")
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
    about = About(str(here.root), str(data), os.getcwd(), "cpu", sweep.cpus, 5.0)
    ended, seconds = carried(tree, here, Local(about, width))
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
    if given.on == "ray":
        there = Runs(folder / "ray")
        lost = with_a_lost_node(tree, there, replace(about, runs=str(there.root)), sweep.cpus)
        claims.append(same(tree, here, there, *lost))
    finish(claims, columns(rows), given, file.read_text())


def same(tree: Tree, here: Runs, there: Runs, ended: Ended, after: int) -> dict[str, Any]:
    """The steps of the cluster against those of this machine."""
    nodes = tree.nodes.values()
    equal = sum(contents(Step(here.path(n))) == contents(Step(there.path(n))) for n in nodes)
    again, parts = sum(n - 1 for n in ended.tries.values()), sum(Step(there.path(n)).env["parts"] - 1 for n in nodes)
    once = len(set(ended.made)) == len(ended.made)
    spread = f"killed after {after}; {again} begun again, {parts} of them from a checkpoint; none made twice: {once}"
    text = "two nodes of Ray, one killed half-way: steps that are bit for bit those of local processes"
    return claim(
        text, equal / len(tree.nodes), "of all", spread, len(tree.nodes), 1.0, equal == len(tree.nodes) and once
    )


if __name__ == "__main__":
    main()
