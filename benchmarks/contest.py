"""The engine against other run times: masks, contestants looked at before they are timed, and one table for all."""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claim import columns
from torch import Tensor, nn

from prunery.engine import pack
from prunery.engine.export import to_onnx
from prunery.engine.rivals import Call, calibration, quantised, rival
from prunery.measure.latency import Latency, latencies
from prunery.models import build
from prunery.runtime import Packed
from prunery.spec import Model, Refused

EQUAL = 1e-4
DEEPSPARSE = Path("~/.prunery-deepsparse/bin/python").expanduser()
"""It needs an environment of its own: python -m venv, then pip install deepsparse==1.8.0 'numpy<2'"""


def network(name: str, shape: tuple[int, int, int], classes: int = 10) -> nn.Module:
    """A network with random weights whose normalisations fit them."""
    made = build(Model(name=name, input=shape, classes=classes, init="kaiming_normal"), 0)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        made.train()(torch.randn(16, *shape, generator=torch.Generator().manual_seed(2)))
    return made.eval()


def prunable(made: nn.Module, what: Callable[[nn.Module], bool] | None = None) -> list[nn.Module]:
    """Convolutions and linear layers but the first and the last; depthwise ones stay whole."""
    layers = [m for m in made.modules() if isinstance(m, nn.Conv2d | nn.Linear)][1:-1]
    layers = [m for m in layers if not (isinstance(m, nn.Conv2d) and m.groups > 1)]
    return [m for m in layers if what is None or what(m)]


def pruned(layers: Iterable[nn.Module], density: float, how: str, block: int = 1) -> None:
    """Zeros in place: "uniform" at random, "magnitude" the smallest of each layer; blocks over input channels."""
    rng = torch.Generator().manual_seed(3)
    for layer in layers:
        w = layer.weight.data
        score = torch.rand(w.shape, generator=rng) if how == "uniform" else w.abs()
        keep = _kept(score, density, block if w.shape[1] % block == 0 else 1)
        layer.weight.data = w * keep


def _kept(score: Tensor, density: float, block: int) -> Tensor:
    """The highest scores; those of a block of input channels count together."""
    out, channels = score.shape[:2]
    sums = score.reshape(out, channels // block, block, -1).sum(2)
    count = max(1, round(density * sums.numel()))
    keep = torch.zeros(sums.numel(), dtype=torch.bool)
    keep[sums.flatten().argsort(descending=True, stable=True)[:count]] = True
    return keep.reshape(sums.shape)[:, :, None].expand(-1, -1, block, -1).reshape(score.shape)


@dataclass
class Contest:
    """One network at one batch size: contestants, how far each is from the network, and their times."""

    made: nn.Module
    x: np.ndarray
    threads: int
    calls: dict[str, Call] = field(default_factory=dict)
    difference: dict[str, float] = field(default_factory=dict)
    times: dict[str, Latency] = field(default_factory=dict)
    packed: dict[str, Packed] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with torch.no_grad():
            self.wanted = self.made(torch.from_numpy(self.x)).numpy()

    def enter(self, name: str, call: Call, near: float = EQUAL) -> None:
        """Once its outputs are the network's."""
        found = np.asarray(call(self.x)).reshape(self.wanted.shape)
        self.difference[name] = float(np.abs(found - self.wanted).max() / np.abs(self.wanted).max())
        if not self.difference[name] <= near:
            raise Refused(f"{name} differs from torch by {self.difference[name]:.1e} (allowed {near:g})")
        self.calls[name] = call

    def ours(self, name: str = "prunery", int8: bool = False, images: list[np.ndarray] | None = None) -> Packed:
        typical = [torch.from_numpy(i) for i in images or [self.x]] if int8 else None
        self.packed[name] = pack(self.made, torch.from_numpy(self.x[:1]), typical)
        self.enter(name, lambda x: self.packed[name](x, self.threads), 1.0 if int8 else EQUAL)
        return self.packed[name]

    def rivals(self, names: Iterable[str], images: list[np.ndarray] | None = None) -> None:
        for name in names:
            call = rival(name, self.made, self.x, self.threads, calibration(images or [self.x]))
            self.enter(name, call, 1.0 if quantised(name) else EQUAL)

    def run(self, turns: int, stretch_ms: float = 60.0) -> None:
        torch.set_num_threads(self.threads)
        timed = {n: partial(getattr(call, "timed", call), self.x) for n, call in self.calls.items()}
        self.times = latencies(timed, turns, stretch_ms)

    def faster(self, ours: str, theirs: str) -> tuple[float, str]:
        """How many times as long theirs takes, and the range over the turns."""
        ratio, low, high = self.times[ours].times_faster(self.times[theirs])
        return ratio, f"{low:.3g} to {high:.3g}"

    def rows(self, label: str, ours: str = "prunery") -> list[list[Any]]:
        return [
            [label, name, t.median_ms, t.best_ms, self.times[ours].times_faster(t)[0], f"{self.difference[name]:.0e}"]
            for name, t in self.times.items()
        ]


HEAD = ["network", "run time", "median ms", "best ms", "times ours", "difference"]


def table(rows: list[list[Any]]) -> str:
    return columns([HEAD, *rows])


class DeepSparse:
    """DeepSparse in a process of its own, which keeps the images: a timed run costs one byte to and fro."""

    def __init__(self, made: nn.Module, x: np.ndarray, threads: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = older(to_onnx(made, torch.from_numpy(x), Path(folder) / "network.onnx"))
            self.server = subprocess.Popen(
                [str(DEEPSPARSE), "-c", SERVER, str(path), str(len(x)), str(threads)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            )  # fmt: skip
            assert self.server.stdin is not None
            assert self.server.stdout is not None
            self.to, self.back = self.server.stdin, self.server.stdout
            if self.back.read(1) != b"o":
                raise Refused("DeepSparse did not start")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self._said(b"x" + json.dumps(x.shape).encode() + b"\n" + x.tobytes())
        self.timed()
        self._said(b"y")
        shape = json.loads(self.back.readline())
        return np.frombuffer(self.back.read(4 * int(np.prod(shape))), np.float32).reshape(shape)

    def timed(self, *_: Any) -> None:
        self._said(b"r")
        assert self.back.read(1) == b"d"

    def _said(self, word: bytes) -> None:
        self.to.write(word)
        self.to.flush()

    def __del__(self) -> None:
        self.server.kill()


SERVER = """
import json, sys, numpy as np, os
back = os.fdopen(os.dup(1), "wb", 0)
os.dup2(2, 1)  # it prints a welcome
import deepsparse
path, batch, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
engine = deepsparse.compile_model(path, batch_size=batch, num_cores=threads)
to = os.fdopen(0, "rb")
back.write(b"o")
while True:
    word = to.read(1)
    if word == b"x":
        shape = json.loads(to.readline())
        x = [np.frombuffer(to.read(4 * int(np.prod(shape))), np.float32).reshape(shape)]
    elif word == b"r":
        y = engine.run(x)
        back.write(b"d")
    elif word == b"y":
        back.write(json.dumps(y[0].shape).encode() + b"\\n" + y[0].tobytes())
    else:
        break
"""


def older(path: Path) -> Path:
    """The network as the last DeepSparse reads it: operators of version 17, which had one attribute less."""
    import onnx
    from onnx import version_converter

    model = version_converter.convert_version(onnx.load(path), 17)
    model.ir_version = 8
    for node in model.graph.node:
        for attribute in [a for a in node.attribute if a.name == "noop_with_empty_axes"]:
            node.attribute.remove(attribute)
    onnx.save(model, path)
    return path


def deepsparse(made: nn.Module, x: np.ndarray, threads: int) -> Call | None:
    """DeepSparse, where it is installed."""
    return DeepSparse(made, x, threads) if DEEPSPARSE.exists() else None
