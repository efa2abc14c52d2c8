"""Two machines that share nothing but a store, one of them lost half-way."""

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
from prunery.runs import Remote, Runs, Store
from prunery.spec import recipe
from prunery.sweep import About, Local, carry_out, grown
from prunery.train import Ways


@pytest.fixture
def store(folder):
    found = Store(f"file://{folder}/store")
    found.begin()
    return found


def machine(folder, store, name):
    """A folder of its own, and workers there."""
    about = About(str(folder / name), str(folder / "data"), str(folder / "of-the-driver"), "cpu", 1, 0.0, store.url)
    return Remote(folder / name, store), Local(about, 1)


def carried(tree, runs, engine, heard=lambda *_: None):
    return carry_out(tree, tree.there(runs), engine, 0, lambda: False, heard)


def results(root):
    """What steps say of themselves, times aside."""
    found = {}
    for step in Runs(root).steps():
        result = json.loads(json.dumps(step.result))
        for key in ("seconds", "images_per_second"):
            result.get("train", {}).pop(key, None)
        rows = [{k: v for k, v in row.items() if "seconds" not in k} for row in step.metrics()]
        found[step.name] = result, rows, (step.folder / "weights.safetensors").read_bytes()
    return found


def test_a_machine_lost_half_way_loses_nothing(sweep, folder, store):
    """Its worker is killed in the middle of the finetuning; another machine finishes, from its checkpoint."""
    flag = folder / "slowly"
    (folder / "own.py").write_text(SLOW.format(flag=str(flag)))
    settings = [f'model.name="{folder}/own.py:slow"', "finetune.steps=8"]
    a, engine = machine(folder, store, "a")
    swept = sweep('[sweep]\n"prune.density" = [0.5, 0.1]\n', *settings)
    tree = grown(swept, Place(a, folder))
    flag.touch()

    def kill():
        """As soon as the store has a checkpoint of a finetuning."""
        last = {n.name for c in tree.chains for label, n in c.nodes.items() if label == "finetune"}
        for _ in range(4800):
            if any((folder / "store" / ".work" / f"{name}.zip").exists() for name in last):
                break
            time.sleep(0.05)
        flag.unlink()
        os.kill(engine.workers[0].process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    first = carried(tree, a, engine)
    killer.join()
    assert list(first.failed.values()) == ["its process died (signal 9)"]
    assert store.steps() == set(first.made)

    b, engine = machine(folder, store, "b")
    second = carried(tree, b, engine)
    assert not second.failed
    assert set(first.made).isdisjoint(second.made)
    assert sorted((*first.made, *second.made)) == sorted(tree.nodes)
    (lost,) = first.failed
    assert Runs(b.root).find(lost).env["parts"] == 2
    for name in tree.nodes:
        a.fetch(name)
        b.fetch(name)

    for density in (0.5, 0.1):
        asked = recipe(tomllib.loads(RECIPE), [*settings, f"prune.density={density}"])
        chain.run(asked, Place(Runs(folder / "plain"), folder, Ways(threads=1)))
    assert results(a.root) == results(b.root) == results(folder / "plain")


def test_a_machine_without_the_store_says_so(sweep, folder):
    from prunery.sweep import Task
    from prunery.sweep.engine import carried_out

    tree = grown(sweep("seeds = 1"), Place(Runs(folder / "runs"), folder))
    about = About(str(folder / "a"), "", str(folder), "cpu", 1, 1.0, f"file://{folder}/elsewhere")
    outcome = carried_out(Task.of(next(iter(tree.nodes.values()))), about, lambda: False, print)
    assert "expected one that all machines share" in outcome.error
    assert not outcome.again
