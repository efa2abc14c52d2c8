"""True worker processes: what they make is what one process makes; one that dies loses nothing."""

import json
import os
import signal
import threading
import time
import tomllib

import pytest
from small_sweeps import RECIPE, SLOW

from prunery import chain
from prunery.chain import Place
from prunery.runs import Runs, asked
from prunery.spec import recipe
from prunery.sweep import About, Local, Task, carry_out, grown
from prunery.train import Ways


def about(folder, every=0.0):
    return About(str(folder / "runs"), str(folder / "data"), str(folder), "cpu", 1, every)


def carried(folder, tree, engine, retries=0, stopping=lambda: False, heard=lambda *_: None):
    runs = Runs(folder / "runs")
    with asked(runs.root, "s", "s", {label: name for name, label in tree.labels().items()}):
        return carry_out(tree, tree.there(runs), engine, retries, stopping, heard)


def results(folder):
    """What steps say of themselves, times aside."""
    found = {}
    for step in Runs(folder / "runs").steps():
        result = json.loads(json.dumps(step.result))
        for key in ("seconds", "images_per_second"):
            result.get("train", {}).pop(key, None)
        found[step.name] = result, (step.folder / "weights.safetensors").read_bytes()
    return found


def test_processes_make_what_one_process_makes(sweep, folder, tmp_path):
    swept = sweep('[sweep]\n"prune.density" = [0.5, 0.1]\n')
    tree = grown(swept, Place(Runs(folder / "runs"), folder))
    ended = carried(folder, tree, Local(about(folder), 2))
    assert sorted(ended.made) == sorted(tree.nodes)
    assert not ended.failed
    assert all(step.env["parts"] == 1 for step in Runs(folder / "runs").steps())
    alone = tmp_path / "alone"
    for density in (0.5, 0.1):
        place = Place(Runs(alone / "runs"), folder)

        chain.run(
            recipe(tomllib.loads(RECIPE), [f"prune.density={density}"]), Place(place.runs, folder, Ways(threads=1))
        )
    assert results(folder) == results(alone)
    again = carried(folder, tree, Local(about(folder), 2))
    assert (again.made, len(again.found)) == ([], len(tree.nodes))


def test_a_killed_worker_loses_nothing_and_a_failure_is_one_line(sweep, folder):
    """The worker is killed in the middle of a training; its next try goes on from the checkpoint."""
    flag = folder / "slowly"
    (folder / "own.py").write_text(SLOW.format(flag=str(flag)))
    settings = [f'model.name="{folder}/own.py:slow"', "train.steps=12"]
    swept = sweep('[sweep]\n"prune.density" = [0.5]\n', *settings)
    tree = grown(swept, Place(Runs(folder / "runs"), folder))
    flag.touch()
    engine = Local(about(folder), 1)
    told = []

    def kill():
        """As soon as there is a checkpoint of the first training."""
        train = next(n for n in tree.nodes if n.startswith("train-"))
        checkpoint = folder / "runs" / ".work" / train / "checkpoint.safetensors"
        for _ in range(2400):
            if checkpoint.exists():
                break
            time.sleep(0.05)
        flag.unlink()
        os.kill(engine.workers[0].process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    ended = carried(folder, tree, engine, retries=1, heard=lambda o, e: told.append(o))
    killer.join()
    assert sorted(ended.made) == sorted(tree.nodes)
    assert [o.error for o in told if o.error] == ["its process died (signal 9)"]
    parts = {s.name: s.env["parts"] for s in Runs(folder / "runs").steps()}
    assert sorted(parts.values()) == [1, 1, 1, 2]
    assert engine.workers == []


@pytest.mark.parametrize("task", ["other", "refused", "breaks"])
def test_whatever_goes_wrong_is_an_outcome(task, sweep, folder):
    from prunery.sweep.engine import carried_out

    (folder / "runs" / ".asked").mkdir(parents=True)
    tree = grown(sweep("seeds = 1"), Place(Runs(folder / "runs"), folder))
    good = Task.of(next(iter(tree.nodes.values())))
    where = os.getcwd()
    try:
        if task == "other":
            outcome = carried_out(Task("init-000000000000", good.specs), about(folder), lambda: False, print)
            assert "same version of prunery" in outcome.error
        elif task == "refused":
            lonely = About(str(folder / "elsewhere"), "", str(folder), "cpu", 1, 1.0)
            outcome = carried_out(good, lonely, lambda: False, print)
            assert "all machines share" in outcome.error
        else:
            last = Task.of(list(tree.nodes.values())[-1])  # what it starts from is not there
            outcome = carried_out(last, about(folder), lambda: False, print)
            assert "does not exist" in outcome.error
    finally:
        os.chdir(where)
    assert not outcome.made
    assert not outcome.again
