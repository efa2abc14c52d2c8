"""Claim: a sweep makes what chains share once, and a machine that is lost half-way changes nothing in what comes out.

    python benchmarks/sweep_shared.py --small              # 8 chains on built-in images, a minute on an idle machine
    python benchmarks/sweep_shared.py recipes/sweep_lenet5_mnist.toml --ray --out results/sweep_shared

The sweep is carried out on local processes, and with --ray once more on a cluster of two nodes on this machine, of
which one is killed when half of the steps are there. Compared are the weights and the results of every step, times
aside. A step would be done twice where a second worker made it although it was finished; one that died in the middle
goes on from its checkpoint, and says so itself (parts).
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
from prunery.sweep import About, Ended, Engine, Local, Outcome, Tree, carry_out, cores, grown, read_sweep

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
TIMES = ("seconds", "images_per_second")


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
    for key in TIMES:
        result.get("train", {}).pop(key, None)
    return result, (step.folder / "weights.safetensors").read_bytes()


def with_a_lost_node(tree: Tree, runs: Runs, about: About, cpus: int) -> tuple[Ended, float, dict[str, Any]]:
    """Two nodes; when half of the steps are there, one is killed, with whatever it is making."""
    from ray.cluster_utils import Cluster

    from prunery.sweep.onray import OnRay

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus, "include_dashboard": False})
    other = cluster.add_node(num_cpus=cpus)
    os.environ["RAY_ADDRESS"] = cluster.address
    lost: dict[str, Any] = {}

    def heard(outcome: Outcome, ended: Ended) -> None:
        if not lost and len(ended.made) >= len(tree.nodes) // 2:
            lost["after_steps"] = len(ended.made)
            cluster.remove_node(other, allow_graceful=False)

    try:
        ended, seconds = carried(tree, runs, OnRay(about, cpus, 0.0), heard)
    finally:
        cluster.shutdown()
    return ended, seconds, lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", nargs="?", type=Path)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--ray", action="store_true")
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
    here, there = Runs(folder / "local"), Runs(folder / "ray")
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
    if given.ray:
        about = About(str(there.root), about.data, about.folder, "cpu", sweep.cpus, 5.0)
        ended, seconds, lost = with_a_lost_node(tree, there, about, sweep.cpus)
        assert lost, "a node was killed"
        same = [contents(Step(here.path(n))) == contents(Step(there.path(n))) for n in tree.nodes.values()]
        assert all(same), f"{same.count(False)} steps differ"
        assert sorted(ended.made + ended.found) == sorted(tree.nodes), "every step is there, and was made once"
        tries = sum(n - 1 for n in ended.tries.values())
        parts = sum(Step(there.path(n)).env["parts"] - 1 for n in tree.nodes.values())
        told["ray"] = {
            "nodes": 2, "seconds": round(seconds, 1), "killed_after_steps": lost["after_steps"],
            "made": len(ended.made), "begun_again": tries, "gone_on_from_a_checkpoint": parts,
            "steps_equal_to_local": len(same),
        }  # fmt: skip
    return told


if __name__ == "__main__":
    main()
