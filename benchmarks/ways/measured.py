"""A way made ready, compared with PyTorch, measured on the test images, and timed in turns with all others."""

import math
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunery.engine.rivals import Call
from prunery.measure.latency import Latency, latencies
from prunery.native import peak_gflops
from prunery.runtime import Packed
from prunery.spec import Refused

from .listed import BASE, Way
from .networks import Images, Net
from .runtimes import MAKERS, Ready, allowed, missing

BATCHES = (1, 60)


@dataclass(eq=False)
class Row:
    """What is known of a way."""

    way: Way
    net: Net
    bytes: int
    calls: dict[int, Call]
    packed: Packed | None = None
    hits: int = 0
    images: int = 1
    difference: dict[int, float] = field(default_factory=dict)
    times: dict[int, Latency] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.way.name

    @property
    def accuracy(self) -> float:
        return self.hits / self.images

    @property
    def standard_error(self) -> float:
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.images)

    def made(self, batch: int) -> float:
        """Products really made for one image: dense run times make all, ours says how many, DeepSparse skips zeros."""
        if self.packed is None:
            return self.net.kept if self.way.run_time == "DeepSparse" else self.net.multiply_adds
        return sum(step.multiply_adds for step in self.packed.explain(batch > 1))

    def ms(self, batch: int) -> float:
        return self.times[batch].median_ms

    def of_peak(self, batch: int, peak: float) -> float:
        """What the products take of a core that makes nothing but float32 multiply-adds."""
        return 2e-6 * self.made(batch) * batch / self.ms(batch) / peak

    def faster(self, other: "Row", batch: int) -> tuple[float, str]:
        ratio, low, high = self.times[batch].times_faster(other.times[batch])
        return ratio, f"{low:.3g} to {high:.3g}"


@dataclass
class Found:
    """All rows, what could not be run and why, and what all of it is measured against."""

    rows: list[Row]
    absent: dict[str, str]
    peak: float
    shares: dict[str, float]
    turns: int

    @property
    def base(self) -> Row:
        return self.by_name[BASE]

    @property
    def by_name(self) -> dict[str, Row]:
        return {row.name: row for row in self.rows}


def measured(ways: Iterable[Way], nets: dict[str, Net], images: Images, turns: int, stretch_ms: float = 60.0) -> Found:
    """Every way that can be run here, all in turns, on one thread."""
    peak, absent = peak_gflops(), dict[str, str]()
    rows = list(entered(ways, nets, images, absent))
    for batch in BATCHES:
        x = repeated(images, 0, batch)
        timed = {row.name: partial(getattr(row.calls[batch], "timed", row.calls[batch]), x) for row in rows}
        for name, latency in latencies(timed, turns, stretch_ms).items():
            next(row for row in rows if row.name == name).times[batch] = latency
    shares = {k: v for b in BATCHES for k, v in layers_of(nets["dense"].network, repeated(images, 0, b)).items()}
    return Found(rows, absent, max(peak, peak_gflops()), shares, turns)


def entered(ways: Iterable[Way], nets: dict[str, Net], images: Images, absent: dict[str, str]) -> Iterator[Row]:
    for way in ways:
        if way.network not in nets:
            absent[way.name] = f"the network {way.network} is not in the folder of runs"
        elif packages := missing(way.run_time):
            absent[way.name] = f"{', '.join(packages)} is not installed"
        else:
            yield ready(way, nets[way.network], images)


def ready(way: Way, net: Net, images: Images) -> Row:
    """Outputs are the network's, to rounding; accuracy is counted as this run time computes it."""
    with tempfile.TemporaryDirectory() as folder:
        made: Ready = MAKERS[way.run_time](net.network, images.typical, Path(folder))
        calls = {batch: made.at(repeated(images, 0, batch)) for batch in BATCHES}
    row = Row(way, net, made.bytes, calls, made.packed)
    for batch in BATCHES:
        row.difference[batch] = compared(row, repeated(images, 0, batch), batch)
    row.hits, row.images = right(calls[BATCHES[-1]], images), len(images.y)
    print(f"{way.name}: {row.accuracy:.2%}, {row.difference[BATCHES[-1]]:.0e} from torch", file=sys.stderr, flush=True)
    return row


def compared(row: Row, x: np.ndarray, batch: int) -> float:
    with torch.no_grad():
        wanted = row.net.network(torch.from_numpy(x)).numpy()
    found = np.asarray(row.calls[batch](x)).reshape(wanted.shape)
    difference = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if not difference <= allowed(row.way.run_time):
        raise Refused(f"{row.name} differs from torch by {difference:.1e} (allowed {allowed(row.way.run_time):g})")
    return difference


def right(call: Call, images: Images) -> int:
    """Test images that are named rightly; the last batch is filled up with the first images."""
    step, hits = BATCHES[-1], 0
    for first in range(0, len(images.y), step):
        answers = np.asarray(call(repeated(images, first, step))).reshape(step, -1).argmax(1)
        labels = images.y[first : first + step].numpy()
        hits += int((answers[: len(labels)] == labels).sum())
    return hits


def repeated(images: Images, first: int, number: int) -> np.ndarray:
    """Images from one on, over the end to the first again."""
    return images.x[torch.arange(first, first + number) % len(images.x)].numpy()


KINDS = {nn.Conv2d: "conv", nn.ReLU: "relu", nn.MaxPool2d: "pool", nn.Linear: "linear"}


def layers_of(network: nn.Module, x: np.ndarray) -> dict[str, float]:
    """Shares of PyTorch's time, channels last, by kind of layer, each timed alone on what really reaches it."""
    laid = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
    calls = {}
    with torch.inference_mode():
        for name, layer in network.to(memory_format=torch.channels_last).named_children():
            calls[name] = partial(layer, laid)
            laid = layer(laid)
        took = {name: t.median_ms for name, t in latencies(calls, 5, 10.0).items()}
    whole, modules = sum(took.values()), dict(network.named_children())
    network.to(memory_format=torch.contiguous_format)
    found = {f"{kind}{len(x)}": 0.0 for kind in KINDS.values()}
    for name, ms in took.items():
        if kind := KINDS.get(type(modules[name])):
            found[f"{kind}{len(x)}"] += ms / whole
    return found


def idle(packed: Packed, many: bool) -> float:
    """The share of the engine's time in steps that make no products."""
    steps = packed.explain(many, repeats=20)
    took: list[tuple[float, Any]] = [(step.measured_us or 0.0, step) for step in steps]
    return sum(us for us, step in took if not step.multiply_adds) / max(sum(us for us, _ in took), 1e-9)
