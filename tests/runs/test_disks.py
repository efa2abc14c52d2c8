"""Disks that say no: full, read-only, a file where a folder should be. One line, and nothing half-written."""

import errno
import os
import subprocess
import sys

import pytest
import torch
from makers import full, node

from prunery.runs import CHECKPOINT, WEIGHTS, Runs, State, Work, write_file, write_json
from prunery.spec import Refused


def failing(monkeypatch, name, number, after=0):
    """os.NAME fails with an errno from its n-th call on."""
    real, calls = getattr(os, name), []

    def call(*args, **kwargs):
        calls.append(args)
        if len(calls) > after:
            raise OSError(number, os.strerror(number))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, call)


FAULTS = [
    ("fsync", errno.ENOSPC, "the disk is full"), ("fsync", errno.EDQUOT, "the disk is full"),
    ("fsync", errno.EIO, "Input/output error"), ("replace", errno.ENOSPC, "the disk is full"),
    ("replace", errno.EROFS, "read-only"), ("replace", errno.EACCES, "read-only"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "number", "text"), FAULTS)
def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch, name, number, text):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with monkeypatch.context() as patch:
        failing(patch, name, number)
        with pytest.raises(Refused, match=f"{path} cannot be written: .*{text}.*choose another"):
            write_json(path, {"a": 2})
    assert os.listdir(tmp_path) == ["x.json"]
    assert '"a": 1' in path.read_text()


@pytest.mark.parametrize("after", range(14))
def test_a_disk_that_fills_up_at_any_moment_leaves_a_whole_step_or_none(runs, monkeypatch, after):
    with monkeypatch.context() as patch:
        failing(patch, "fsync", errno.ENOSPC, after)
        with pytest.raises(Refused, match="the disk is full; free some space, or choose another folder"):
            runs.once(node(), full)
    assert all(s.state().weights["w"].numel() == 30_000 for s in runs.steps())
    assert runs.once(node(), full).result == {"density": 1.0}


def test_a_file_where_a_folder_should_be(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    for root in (file, file / "below", file / "below" / "that"):
        with pytest.raises(Refused, match=f"{file} is a file; expected a folder"):
            Runs(root).once(node(), full)
    with pytest.raises(Refused, match=f"{file} is a file; expected a folder"):
        write_file(file / "page.html", b"")
    assert file.read_text() == "x"


def test_the_metrics_and_the_checkpoint_say_no_too(tmp_path):
    work = Work(tmp_path / "gone")
    for write in (lambda: work.log({"a": 1}), lambda: work.checkpoint({}, {}), lambda: work.save(State({}))):
        with pytest.raises(Refused, match=r"gone.* cannot be written: "):
            write()


TRUE_DISK = """
import sys
sys.path.insert(0, {tests!r})
import torch
from makers import node
from prunery.cli.main import guarded
from prunery.runs import Runs, State

def make(work):
    work.log({{"step": 1}})
    work.checkpoint({{"w": torch.zeros(1000)}}, {{"step": 1}})
    work.save(State({{"w": torch.zeros({numbers})}}))

sys.exit(guarded(lambda: Runs({root!r}).once(node(), make) and 0))
"""


def on_a_disk(folder, options, numbers):
    """The outcome of making a step in a file system of its own, mounted where only the process sees it."""
    folder.mkdir()
    script = TRUE_DISK.format(tests=os.path.dirname(__file__), numbers=numbers, root=str(folder / "runs"))
    listed = 'code=$?; ls -A "$0"/runs/.work/* 2>/dev/null; exit $code'
    mount = f'mount -t tmpfs -o {options} none "$1" && shift && "$@"; {listed}'
    command = ["unshare", "-rm", "sh", "-c", mount, str(folder), str(folder), sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def mountable(tmp_path):
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(tmp_path)]
    try:
        return subprocess.run(probe, capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.fixture
def mounting(tmp_path):
    if not mountable(tmp_path):
        pytest.skip("this machine does not let a user mount a file system (unshare -rm)")


@pytest.mark.usefixtures("mounting")
def test_a_truly_full_disk(tmp_path):
    done = on_a_disk(tmp_path / "disk", "size=200k", 100_000)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert f"{WEIGHTS} cannot be written: the disk is full; free some space" in done.stderr
    assert CHECKPOINT in done.stdout  # where the next run takes up
    assert f"\n{WEIGHTS}" not in done.stdout
    assert ".tmp" not in done.stdout


@pytest.mark.usefixtures("mounting")
def test_a_truly_read_only_disk(tmp_path):
    done = on_a_disk(tmp_path / "disk", "ro", 10)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "disk/runs cannot be written: it is read-only for you; expected a folder that can be written" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(Refused, match="read-only for you"):
            Runs(tmp_path / "runs").once(node(), full)
    finally:
        tmp_path.chmod(0o700)


def test_weights_of_a_step_that_was_saved_before_the_disk_filled_stay(runs):
    step = runs.once(node(), full)
    assert torch.equal(step.state().weights["w"], torch.arange(30_000.0))
