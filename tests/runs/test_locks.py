"""Several processes and one step: made once, whoever dies on the way."""

import multiprocessing
import os
import random
import signal
import time
import warnings

import pytest
from makers import full, held, made_for_ever, made_slowly, node

from prunery.runs import CHECKPOINT, ENV, RESULT, SPEC, WEIGHTS, Runs, lock

SPAWN = multiprocessing.get_context("spawn")


def until(condition, seconds=60):
    """Waits for it."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_processes_that_want_the_same_step_make_it_once(tmp_path):
    processes = [SPAWN.Process(target=made_slowly, args=(str(tmp_path / "runs"), 1.0, str(tmp_path))) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [p.exitcode for p in processes] == [0, 0, 0]
    (maker,) = tmp_path.glob("made-*")
    assert [f"made-{p.read_text()}" for p in tmp_path.glob("done-*")] == [maker.name] * 3
    assert all("another process is making it; waiting" in p.read_text() for p in tmp_path.glob("waited-*"))
    assert not list((tmp_path / "runs" / ".work").iterdir())


def test_a_killed_holder_keeps_nothing(tmp_path):
    process = SPAWN.Process(target=held, args=(str(tmp_path / "runs"), str(tmp_path / "held")))
    process.start()
    until((tmp_path / "held").exists)
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    heard = []
    step = Runs(tmp_path / "runs").once(node(), full, heard.append)
    assert heard == []
    assert [r["step"] for r in step.metrics()] == [1, 0, 1, 2]  # this maker does not call restore(), training does
    assert not list((tmp_path / "runs" / ".work").iterdir())


def test_one_who_waits_takes_over_from_a_killed_holder(tmp_path):
    process = SPAWN.Process(target=held, args=(str(tmp_path / "runs"), str(tmp_path / "held")))
    process.start()
    until((tmp_path / "held").exists)
    step = Runs(tmp_path / "runs").once(node(), full, lambda _: os.kill(process.pid, signal.SIGKILL))
    process.join(60)
    assert step.result == {"density": 1.0}


def test_a_lock_is_free_again_after_a_failure(tmp_path):
    with pytest.raises(ZeroDivisionError), lock(tmp_path / "x.lock", print):
        raise ZeroDivisionError
    heard = []
    with lock(tmp_path / "x.lock", heard.append):
        assert (tmp_path / "x.lock").exists()
    assert heard == []
    assert not (tmp_path / "x.lock").exists()


def test_killed_at_any_moment_leaves_whole_steps_only(tmp_path):
    """kill -9 at fifteen random instants or more; every folder that counts as a step is complete and reads back."""
    chance, number, runs = random.Random(0), 1, Runs(tmp_path / "runs")
    runs.once(node(), full)  # what a process does only once is done: the children are quick
    for kill in range(30):
        if kill >= 15 and number > 1:
            break
        with warnings.catch_warnings(action="ignore"):  # of the threads of a test worker, which the child does not use
            child = os.fork()
        if child == 0:
            try:
                made_for_ever(str(runs.root), number)
            finally:
                os._exit(1)
        time.sleep(chance.uniform(0.0, 0.15 * (1 + kill // 15)))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = list(runs.root.glob("init-*"))
        for folder in found:
            assert {p.name for p in folder.iterdir()} - {CHECKPOINT} == {SPEC, "metrics.jsonl", WEIGHTS, ENV, RESULT}
        number = len(found)
    assert number > 1
    for step in runs.steps():
        assert step.state().weights["w"].numel() == 30_000
        assert step.result == {"density": 1.0}
    left = runs.once(node(number), full)
    assert left.name == node(number).name
    # A holder that died between its last rename and its farewell leaves an empty lock file, which nobody minds.
    assert [p for p in (runs.root / ".work").iterdir() if p.suffix != ".lock"] == []
