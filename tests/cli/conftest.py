"""The command line in this process, and a shelf of broken things to hand to it."""

import contextlib
import io
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from prunery.cli import main
from prunery.runs import write_tensors
from prunery.spec import Model, plain

SPACE = """
recipe = "good.toml"
target = "accuracy >= 0"
objective = "minimise density"
engine = "grid"
[space]
"train.lr" = [0.1, 0.2]
"""
GOOD = '[[step]]\nkind = "train"\nsteps = 1\n'


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def prunery():
    """`prunery WORDS` without a process of its own."""

    def call(*words: str) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stop:
            main(list(words))
        return Outcome(stop.value.code or 0, out.getvalue(), err.getvalue())

    return call


@pytest.fixture
def no_network(monkeypatch):
    """A machine that nobody answers."""

    def silence(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("socket.getaddrinfo", silence)


@pytest.fixture(scope="session")
def trained(prunery, tmp_path_factory):
    """A folder of runs with one finished chain, of which tests only read; and its last step's folder."""
    runs = tmp_path_factory.mktemp("trained") / "runs"
    recipe = runs.with_name("recipe.toml")
    recipe.write_text(GOOD + '[[step]]\nkind = "prune"\ndensity = 0.2\n[[step]]\nkind = "pack"\n')
    done = prunery("run", str(recipe), "--runs", str(runs), "--threads", "1", "--quiet")
    assert done.code == 0, done.err
    return runs


@pytest.fixture(scope="session")
def shelf(tmp_path_factory, trained):
    """Files and folders with something wrong, by name."""
    root = tmp_path_factory.mktemp("shelf")
    _pictures(root)
    _sets(root)
    _checkpoints(root, trained)
    _networks(root)
    _results(root)
    (root / "file").write_text("a file")
    (root / "empty.toml").write_text('name = "nothing"\n')
    (root / "syntax.toml").write_text("[[step]\nkind = 3\n")
    (root / "latin1.toml").write_bytes(b'name = "caf\xe9"\n')
    (root / "deep.toml").write_text("x = " + "[" * 5000)
    (root / "good.toml").write_text(GOOD)
    (root / "space.toml").write_text(SPACE)
    (root / "sweep.toml").write_text('recipe = "good.toml"\n[sweep]\n"train.lr" = [0.1, 0.2]\n')
    (root / "compare.toml").write_text(GOOD + GOOD.replace("steps", 'label = "retrain"\nsteps'))
    return root


def _pictures(root: Path) -> None:
    (root / "no_classes").mkdir()
    for name in ("one/ant", "holes/ant", "holes/bee", "bad/ant", "bad/bee", "sizes/ant", "sizes/bee"):
        (root / name).mkdir(parents=True)
    for i in range(3):
        for name in ("one/ant", "holes/ant", "bad/ant", "bad/bee", "sizes/ant"):
            Image.new("RGB", (8, 8), (i, i, i)).save(root / name / f"{i}.png")
        Image.new("RGB", (9, 7)).save(root / "sizes/bee" / f"{i}.png")
    (root / "bad/bee/1.png").write_bytes(b"no picture")


def _sets(root: Path) -> None:
    """A half MNIST, a damaged CIFAR-10, and a CIFAR-10 with a file missing."""
    mnist, cifar, part = root / "half/MNIST/raw", root / "torn/cifar-10-batches-py", root / "part/cifar-10-batches-py"
    for folder in (mnist, cifar, part):
        folder.mkdir(parents=True)
    for name in ("train", "t10k"):
        header = struct.pack(">4I", 0x803, 20, 28, 28)
        (mnist / f"{name}-images-idx3-ubyte").write_bytes(header + bytes(20 * 28 * 28 - 100))
        (mnist / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 20) + bytes(20))
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (cifar / name).write_bytes(b"\x80\x04\x95")
    (part / "data_batch_1").write_bytes(b"")


def _checkpoints(root: Path, trained: Path) -> None:
    good = next(trained.glob("train-*")) / "weights.safetensors"
    data = good.read_bytes()
    (root / "good.safetensors").write_bytes(data)
    (root / "torn.safetensors").write_bytes(data[: len(data) // 2])
    (root / "stranger.safetensors").write_bytes(b"no tensors at all, but some bytes")
    (root / "torn.pth").write_bytes(b"PK\x03\x04 and no more")
    about = {"model": plain(Model(name="lenet_300_100", input=(1, 28, 28), classes=10))}
    network = torch.nn.Sequential(torch.nn.Linear(4, 4))
    write_tensors(root / "other.safetensors", network.state_dict(), about)
    save_file(network.state_dict(), root / "nameless.safetensors")
    from prunery.models import build

    state = build(Model(name="convnet", input=(1, 8, 8), classes=10), 0).state_dict()
    state["fc1.weight"][0, 0] = np.nan
    save_file(state, root / "nan.safetensors")
    from prunery.engine import pack

    packed = pack(build(Model(name="convnet", input=(1, 8, 8), classes=10), 0).eval(), torch.zeros(1, 1, 8, 8))
    packed.save(root / "net.prunery")
    torch.save(network.state_dict(), root / "net.pt")
    (root / "torn.prunery").write_bytes(packed.data[:-100])
    (root / "empty.prunery").touch()
    lenet = build(Model(name="lenet_300_100", input=(1, 28, 28), classes=10), 0)
    teacher = plain(Model(name="lenet_300_100", input=(1, 28, 28), classes=10))
    write_tensors(root / "teacher.safetensors", lenet.state_dict(), {"model": teacher})


def _networks(root: Path) -> None:
    """Files of a user's own."""
    (root / "syntax.py").write_text("def net(:\n")
    (root / "own.py").write_text(
        "import torch\n"
        "def text(input, classes):\n    return 'no network'\n"
        "def breaks(input, classes):\n    return torch.nn.Linear(1 / 0, 2)\n"
        "def narrow(input, classes):\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))\n"
        "def misfit(input, classes):\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, classes))\n"
        "def bare(input, classes):\n"
        "    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d((1, 10)), torch.nn.Flatten())\n"
        "def loud(input, classes):\n    print('loud')\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))\n"
    )


def _results(root: Path) -> None:
    for name in ("no_results", "bad_results/one", "odd_results/one"):
        (root / name).mkdir(parents=True)
    (root / "bad_results/one/result.json").write_text('{"claims": [')
    (root / "odd_results/one/result.json").write_text('{"claims": [], "spec": "", "commit": "x", "extra": 1}')


@pytest.fixture
def environment():
    """For true processes: one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
