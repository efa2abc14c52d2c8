"""EfficientNet-B0 on CIFAR-10: what each step of sparsification costs and gives, in four run times.

The networks are the finished steps of recipes/efficientnet_b0_small.toml (or --recipe) in --runs. Each runs on one
thread with one image and with 32, in PyTorch (channels last), ONNX Runtime, OpenVINO and the engine, from array to
array, all in turns; before that its outputs are compared with PyTorch's (floats: 1e-4 of the largest). Networks of
bytes are made of the same weights after training, with 320 training images to learn ranges from. Accuracy is over the
10,000 test images: of floats the step's own, of bytes counted in the run time itself (9,984, whole batches). Megabytes
are those of the file that it reads.
"""

import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claim import arguments, claim, columns, finish
from contest import EQUAL, Contest, prunable, pruned
from contest import network as untrained
from safetensors.torch import save_file
from torch import Tensor, nn
from ways.networks import RECIPES

from prunery import data
from prunery.chain import Place, filled, network_of
from prunery.engine.rivals import OPENED, Call, calibration, quantised, rival, size, written
from prunery.masks import prunable as weights_of
from prunery.measure import count, totals
from prunery.measure.latency import Latency
from prunery.report.figures import STYLE, save
from prunery.report.palette import LIGHT
from prunery.runs import Runs, Step
from prunery.spec import Refused, read_recipe

LABELS = {
    "dense": "dense", "dense_longer": "dense, trained longer", "half": "50 % of weights zeros",
    "fifth": "80 % of weights zeros", "tenth": "90 % of weights zeros", "blocks": "80 % zeros in blocks of 4",
    "channels70": "30 % of channels gone", "channels50": "50 % of channels gone",
    "both": "50 % of channels, 70 % zeros",
}  # fmt: skip
BATCHES, TYPICAL, POINT, TARGET = (1, 32), 320, 0.01, 2.0
OURS, OURS_INT8, BASE = "engine", "engine, int8", "onnxruntime"
BASELINES = ("dense", "dense_longer")
"""networks that nothing was taken from"""


@dataclass(frozen=True)
class Net:
    """A network under its label; accuracy is that of its floats."""

    label: str
    network: nn.Module
    step: str
    accuracy: float
    work: dict[str, float]


@dataclass(frozen=True)
class Images:
    """Test images with their labels, and typical ones, all as the networks see them; pixels wait as bytes."""

    splits: data.Splits | None
    x: Tensor
    y: Tensor
    typical: Tensor

    def parts(self, batch: int) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Whole batches of test images; what is left over is not looked at."""
        for x, y in zip(self.x.split(batch), self.y.split(batch), strict=True):
            if len(y) == batch:
                yield (data.inputs(x, self.splits) if self.splits else x).numpy(), y


@dataclass(frozen=True)
class Row:
    """One network in one run time."""

    net: Net
    run_time: str
    accuracy: float
    bytes: int
    times: dict[int, Latency]

    @property
    def name(self) -> str:
        return f"{LABELS[self.net.label]}, {self.run_time}"

    @property
    def sparse(self) -> bool:
        return self.net.label not in BASELINES


def main() -> None:
    asked = arguments(__doc__, runs="runs", data_dir="data", turns="", recipe="efficientnet_b0_small", settings="",
                      against="torch,onnxruntime,onnxruntime-int8,openvino,openvino-int8")  # fmt: skip
    torch.set_num_threads(1)
    turns = int(asked.turns or (2 if asked.quick else 9))
    if asked.quick:  # untrained, at 32 pixels: the benchmark itself is tried
        nets, images, names = stand_ins(), random_images(), ["torch"]
    else:
        nets, images = finished(asked)
        names = asked.against.split(",")
    rows = [row for net in nets for row in measured(net, images, names, turns, 5.0 if asked.quick else 60.0)]
    if asked.keep:
        asked.keep.mkdir(parents=True, exist_ok=True)
        drawn(rows, asked.keep)
    spec = "" if asked.quick else (RECIPES / f"{asked.recipe}.toml").read_text()
    more = "" if asked.quick else told(rows)
    finish(claims(rows, turns, asked.quick), columns(table(rows)), asked, spec, more)


# ---- networks and images


def finished(asked: Any) -> tuple[list[Net], Images]:
    """What the recipe has made; branches that are not there are left out, the dense network may not be."""
    place = Place(Runs(Path(asked.runs)), Path(asked.data_dir))
    recipe = filled(read_recipe(RECIPES / f"{asked.recipe}.toml", asked.settings.split()), place)
    nodes = recipe.nodes()
    there = {label: place.runs.path(nodes[label]) for label in LABELS if label in nodes}
    missing = [label for label, path in there.items() if not path.exists()]
    if "dense" in missing or "dense" not in there:
        seen = f"{asked.runs} does not hold the dense network of recipes/{asked.recipe}.toml"
        raise Refused(f"{seen}; make it: prunery run recipes/{asked.recipe}.toml --runs {asked.runs}")
    if missing:
        print(f"not there, so not measured: {', '.join(missing)}", file=sys.stderr)
    splits = data.load(recipe.data, Path(asked.data_dir))
    chosen = torch.randperm(len(splits.train.y), generator=torch.Generator().manual_seed(0))[:TYPICAL]
    images = Images(splits, splits.test.x, splits.test.y, data.inputs(splits.train.x[chosen], splits))
    shape = splits.facts.shape
    return [_opened(label, Step(path), shape) for label, path in there.items() if path.exists()], images


def _opened(label: str, step: Step, shape: tuple[int, int, int]) -> Net:
    return net(label, network_of(step)[0], shape, step.name, step.result["test"]["accuracy"])


def net(
    label: str, network: nn.Module, shape: tuple[int, int, int], step: str = "untrained", accuracy: float = 0.0
) -> Net:
    rows = count(network, shape, masks={n: w != 0 for n, w in weights_of(network).items()})
    return Net(label, network.eval(), step, accuracy, totals(rows))


def stand_ins() -> list[Net]:
    """A network of each kind, of random weights."""
    shape = (3, 32, 32)
    dense, sparse = untrained("efficientnet_b0", shape), untrained("efficientnet_b0", shape)
    pruned(prunable(sparse), 0.2, "magnitude")
    return [net("dense", dense, shape), net("fifth", sparse, shape)]


def random_images() -> Images:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, 32, 32, generator=rng)
    return Images(None, x, torch.randint(10, (64,), generator=rng), x[:32])


# ---- measuring


def measured(net: Net, images: Images, names: list[str], turns: int, stretch_ms: float) -> list[Row]:
    """One network everywhere: contestants of both batch sizes in turns, then the accuracy of those of bytes."""
    first, sizes = entered(net, images, names)
    contests = {batch: again(first, next(images.parts(batch))[0]) for batch in BATCHES}
    for contest in contests.values():
        contest.run(turns, stretch_ms)
    rows = []
    for name in contests[1].times:
        accuracy = counted(first.calls[name], images) if in_bytes(name) else net.accuracy
        times = {batch: contest.times[name] for batch, contest in contests.items()}
        rows.append(Row(net, name, accuracy, sizes[name], times))
        print("  ".join(map(str, cells(rows[-1], rows[-1]))), file=sys.stderr, flush=True)
    return rows


def in_bytes(name: str) -> bool:
    return quantised(name) or name == OURS_INT8


def entered(net: Net, images: Images, names: Iterable[str]) -> tuple[Contest, dict[str, int]]:
    """Every contestant once, for any number of images, and the bytes of the file that it reads."""
    contest = Contest(net.network, next(images.parts(1))[0], 1)
    contest.ours(OURS)
    contest.ours(OURS_INT8, int8=True, images=typical_of(images, BATCHES[-1]))
    sizes = {name: packed.nbytes for name, packed in contest.packed.items()}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            call, sizes[name] = opened(name, contest, images, Path(folder))
            contest.enter(name, call, 1.0 if in_bytes(name) else EQUAL)
    return contest, sizes


def opened(name: str, contest: Contest, images: Images, folder: Path) -> tuple[Call, int]:
    if name == "torch":
        path = folder / "weights.safetensors"
        save_file({n: t.contiguous() for n, t in contest.made.state_dict().items()}, path)
        return rival(name, contest.made, contest.x, contest.threads), path.stat().st_size
    path = written(name, contest.made, contest.x, calibration(typical_of(images, 1)), folder)
    return OPENED[name.partition("-")[0]](path, contest.threads), size(path)


def again(first: Contest, x: np.ndarray) -> Contest:
    """The same contestants with other images, their outputs looked at once more."""
    contest = Contest(first.made, x, first.threads)
    for name, call in first.calls.items():
        contest.enter(name, call, 1.0 if in_bytes(name) else EQUAL)
    return contest


def typical_of(images: Images, batch: int) -> list[np.ndarray]:
    return [x.numpy() for x in images.typical.split(batch) if len(x) == batch]


def counted(call: Any, images: Images) -> float:
    """Accuracy as the run time computes it."""
    hits = total = 0
    for x, y in images.parts(BATCHES[-1]):
        found = np.asarray(call(x)).reshape(len(y), -1).argmax(1)
        hits, total = hits + int((torch.from_numpy(found) == y).sum()), total + len(y)
    return hits / total


# ---- showing

HEAD = ["network", "run time", "accuracy %", "MB", "Mmult-adds", "kept"]
HEAD += ["ms, 1 image", "times as fast", "ms, 32 images", "times as fast"]


def base_of(rows: list[Row]) -> Row:
    """What others are compared with: the dense network in ONNX Runtime (in PyTorch where that was not run)."""
    dense = {row.run_time: row for row in rows if row.net.label == "dense"}
    return dense.get(BASE) or dense["torch"]


def best_whole(rows: list[Row]) -> float:
    """What is to be kept: the best of the networks that nothing was taken from, however long they were trained."""
    return max(row.accuracy for row in rows if not row.sparse)


def table(rows: list[Row]) -> list[list[Any]]:
    return [HEAD, *(cells(row, base_of(rows)) for row in rows)]


def cells(row: Row, base: Row) -> list[Any]:
    work = [f"{row.net.work[k] / 1e6:.1f}" for k in ("multiply_adds", "kept_multiply_adds")]
    line = [LABELS[row.net.label], row.run_time, f"{100 * row.accuracy:.2f}", f"{row.bytes / 1e6:.2f}", *work]
    for batch in BATCHES:
        line += [row.times[batch].median_ms, f"{faster(row, base, batch):.2f}"]
    return line


def faster(row: Row, base: Row, batch: int) -> float:
    """Networks are measured one after the other, so this is a ratio of medians and not of turns."""
    return base.times[batch].median_ms / row.times[batch].median_ms


def claims(rows: list[Row], turns: int, quick: bool) -> list[dict[str, Any]]:
    """The fastest sparse network within a point of dense, against ONNX Runtime's floats."""
    base = base_of(rows)
    floor = best_whole(rows) - POINT
    able = [row for row in rows if row.sparse and (quick or row.accuracy >= floor)]
    if not able:
        return [claim("sparse networks within a point of dense", 0, "of them", None, turns, 1, False)]
    found = []
    for batch in BATCHES:
        best = min(able, key=lambda row: row.times[batch].median_ms)
        text = f"EfficientNet-B0, batch {batch}, one thread, the fastest sparse network within a point of dense"
        text += f" ({100 * best_whole(rows):.2f} %): {best.name} ({100 * best.accuracy:.2f} %)"
        value, goal = faster(best, base, batch), TARGET if batch == 1 and not quick else None
        spread = f"{best.times[batch].best_ms:.3g} ms at best, {base.times[batch].best_ms:.3g} for the other"
        unit = f"times as fast as {base.name}"
        found.append(claim(text, value, unit, spread, turns, goal, goal is None or value >= goal))
    return found


def told(rows: list[Row]) -> str:
    steps = {row.net.label: row.net.step for row in rows}
    return "\n\n".join([
        "![milliseconds of each network in each run time](chain.svg)",
        f"Times as fast: against {base_of(rows).name}, medians over medians.",
        "The networks: " + ", ".join(f"{label} {step}" for label, step in steps.items()) + ".",
    ])  # fmt: skip


MARKS = {"torch": "s", "onnxruntime": "o", "openvino": "^", OURS: "D"}


def drawn(rows: list[Row], folder: Path) -> None:
    """A line a network, a mark a run time over milliseconds: hollow in bytes, faint where more than a point is lost."""
    from matplotlib import rc_context, style
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    nets = list(dict.fromkeys(row.net.label for row in rows))
    floats = {row.net.label: row.net.accuracy for row in rows}
    floor = best_whole(rows) - POINT
    with style.context("default"), rc_context(STYLE):
        figure = Figure(figsize=(8.6, 0.5 * len(nets) + 1.6), layout="constrained")
        for axis, batch in zip(figure.subplots(1, 2, sharey=True), BATCHES, strict=True):
            for row in rows:
                source = row.run_time.partition("-")[0].partition(",")[0]
                color = LIGHT[list(MARKS).index(source)]
                look = {
                    "mfc": "none" if in_bytes(row.run_time) else color,
                    "alpha": 1 if row.accuracy >= floor else 0.3,
                }
                axis.plot(
                    row.times[batch].median_ms, nets.index(row.net.label), MARKS[source], color=color, ms=6, **look
                )
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_xlabel(f"milliseconds for {batch} image{'s' * (batch > 1)}, one thread")
            axis.set_yticks(range(len(nets)), [f"{LABELS[n]}: {100 * floats[n]:.1f} %" for n in nets])
            axis.set_ylim(len(nets) - 0.5, -0.5)
        handles = [axis.plot([], [], m, color=LIGHT[i], label=n)[0] for i, (n, m) in enumerate(MARKS.items())]
        handles += axis.plot([], [], "o", color=LIGHT[4], mfc="none", label="in bytes")
        handles += axis.plot([], [], "o", color=LIGHT[4], alpha=0.3, label=f"under {100 * floor:.1f} %")
        figure.legend(handles=handles, loc="outside lower center", ncols=6)
        save(figure, folder, "chain")


if __name__ == "__main__":
    try:
        main()
    except Refused as refusal:
        sys.exit(f"{Path(__file__).name}: {refusal}")
