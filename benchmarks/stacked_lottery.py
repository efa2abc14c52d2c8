"""Network-steps per second of the lottery against the ways in which lotteries are trained today: LeNet-300-100, MNIST.

Ours is what the lottery runs, one network a thread. (a) an ordinary PyTorch loop over one network, images in memory as
floats, masks multiplied into gradients and weights; (b) the usual loop of lottery code: PIL images, torchvision's
transforms and a DataLoader, one network; (c) networks stacked in PyTorch: batched matrix products, fused Adam, masks
multiplied. None of the three depends on density: their time at level 0 is their time at every level, so the ladder
compares 28 of their steps with one of ours at each level. The last claim adds looks to both sides: at the validation
images every 100 steps, at the test images every 200. Before anything is timed, steps of (a) and (c) are compared with
ours.

PyTorch gets one thread by default (--torch-threads), with which these small networks are fastest on a busy machine; all
contestants may use both cores: (a), (b) and (c) run as one process a core, so nothing waits for anything else.
"""

import multiprocessing
import os
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from claim import arguments, claim, columns, finish, ratios, turns
from ladder_steps import BATCH, LEVELS, RATE, Torch, check, masks_at
from loop_vs_dataloader import Pictures
from torch import Tensor
from torchvision import transforms as T

from prunery.data import Images, Splits, load
from prunery.models import build
from prunery.spec import Data, Lottery, Model
from prunery.tickets import affine, orders
from prunery.tickets.start import Start
from prunery.tickets.table import Table

ORDINARY, DATALOADER = "(a) one network, in memory", "(b) one network, PIL and DataLoader"
STACKED, LOOKS = "(c) stacked, bmm", "(a), looks alone"
TARGETS = {ORDINARY: (5.0, 12.0), DATALOADER: (15.0, 40.0)}
"""times as fast at level 0, and summed over the ladder"""
STACK = 10
EVERY, TESTED = 100, 2
"""steps between looks at the 5,000 validation images; every second one sees the 10,000 test images too"""
AGREE = 3e-4


# --- the contestants: each makes steps for some time and says how many a second --------------------------------------


class Stacked:
    """Networks side by side in one tensor a layer, each with masks and a data order of its own."""

    def __init__(self, masks: dict[str, Tensor], images: Images, count: int) -> None:
        networks = [
            build(Model(name="lenet_300_100", input=(1, 28, 28), classes=10), i).state_dict() for i in range(count)
        ]
        self.weights = {n: torch.stack([s[n] for s in networks]) for n in networks[0]}
        self.keeps = {n: m.float().expand(count, *m.shape).contiguous() for n, m in masks.items()}
        for name, keep in self.keeps.items():
            self.weights[name].mul_(keep)
        self.parameters = {n: w.requires_grad_() for n, w in self.weights.items()}
        self.optimizer = torch.optim.Adam(list(self.parameters.values()), lr=RATE, fused=True)
        self.images, self.count = images, count

    def step(self, index: Tensor) -> None:
        """`index` holds a row of images for each network."""
        x, y = self.images.x[index].flatten(2), self.images.y[index]
        for number in (1, 2, 3):
            weight, bias = (self.parameters[f"fc{number}.{part}"] for part in ("weight", "bias"))
            x = torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
            x = x.relu() if number < 3 else x
        self.optimizer.zero_grad()
        (F.cross_entropy(x.flatten(0, 1), y.flatten()) * self.count).backward()
        for name, keep in self.keeps.items():
            self.parameters[name].grad.mul_(keep)
        self.optimizer.step()
        with torch.no_grad():
            for name, keep in self.keeps.items():
                self.parameters[name].mul_(keep)


def ordinary(images: Images, steps: int, seed: int) -> Callable[[], float]:
    network, rows = Torch(masks_at(0), images, fused=False), orders(seed, len(images), BATCH, 0, steps)
    return partial(rate, lambda: [network.step(row) for row in rows], steps)


def looking(images: Images, steps: int, seed: int) -> Callable[[], float]:
    """The first contestant's looks alone, as if every hundred steps had theirs: steps a second."""
    network = Torch(masks_at(0), images, fused=False).network

    def act() -> None:
        for part in range(TESTED + 2):  # all of these are 5,000 images; the test images are twice as many
            index = torch.arange(5000 * part, 5000 * (part + 1))
            with torch.no_grad():
                logits = network(images.x[index])
                F.cross_entropy(logits, images.y[index]), (logits.argmax(1) == images.y[index]).sum()

    return partial(rate, act, EVERY * TESTED)


def stacked(images: Images, steps: int, seed: int) -> Callable[[], float]:
    network = Stacked(masks_at(0), images, STACK)
    rows = torch.stack([orders(seed + i, len(images), BATCH, 0, steps) for i in range(STACK)], 1)
    return partial(rate, lambda: [network.step(row) for row in rows], steps * STACK)


def dataloader(images: Images, steps: int, seed: int) -> Callable[[], float]:
    """What open lottery code does: an image at a time, in the process itself."""
    network = Torch(masks_at(0), images, fused=False)
    pictures = Pictures(images, T.ToTensor())
    loader = torch.utils.data.DataLoader(pictures, batch_size=BATCH, shuffle=True)

    def act() -> None:
        for _, (x, y) in zip(range(steps), loader, strict=False):
            network.images = Images(x, y)
            network.step(torch.arange(len(y)))

    return partial(rate, act, steps)


def rate(act: Callable[[], object], steps: int) -> float:
    began = time.perf_counter()
    act()
    return steps / (time.perf_counter() - began)


# --- side by side -----------------------------------------------------------------------------------------------------


class Processes:
    """A contestant once a core, each in a process that waits between turns; the sum of their rates is its own."""

    def __init__(
        self, make: Callable[[Images, int, int], Callable[[], float]], root: Path, steps: int, how: tuple[int, int]
    ):
        context = multiprocessing.get_context("spawn")
        self.pipes = []
        for seed in range(how[0]):
            ours, theirs = context.Pipe()
            context.Process(target=serve, args=(theirs, make, root, steps, seed, how[1]), daemon=True).start()
            self.pipes.append(ours)
        for pipe in self.pipes:
            pipe.recv()  # it is ready

    def __call__(self) -> float:
        for pipe in self.pipes:
            pipe.send("go")
        return sum(pipe.recv() for pipe in self.pipes)


def serve(pipe, make, root: Path, steps: int, seed: int, threads: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    images = splits_of(root).train
    made = make(images if make is dataloader else Images(images.x / 255, images.y), steps, seed)
    pipe.send("ready")
    with suppress(EOFError):  # the other side has gone
        while pipe.recv() == "go":
            pipe.send(made())


class Ours:
    """A level's networks, one a thread, as the lottery trains them."""

    def __init__(self, table: Table, level: int, steps: int, threads: int) -> None:
        self.table, self.steps = table, steps
        theta = build(table.lottery.model, level).state_dict()
        self.replicas = [table.replica(Start(theta), masks_at(level), i) for i in range(threads)]

    def __call__(self, looks: bool = False) -> float:
        """Network-steps a second, with or without looks."""
        workers = [threading.Thread(target=self.train, args=(i, looks)) for i in range(len(self.replicas))]
        began = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return self.steps * len(workers) / (time.perf_counter() - began)

    def train(self, number: int, looks: bool) -> None:
        replica, splits = self.replicas[number], self.table.splits
        for i in range(0, self.steps, EVERY):
            replica.advance(i, [RATE] * min(EVERY, self.steps - i))
            if looks:
                replica.evaluate(splits.validation)
            if looks and i // EVERY % TESTED == 0:
                replica.evaluate(splits.test)


def splits_of(root: Path) -> Splits:
    return load(Data(name="mnist", scaling="unit"), root)


def table_of(splits: Splits) -> Table:
    scale, shift = affine(splits)
    lit = int(torch.count_nonzero(splits.train.x)) / splits.train.x.numel()
    lottery = Lottery(model=Model(name="lenet_300_100", input=(1, 28, 28), classes=10, init="glorot_normal"))
    return Table(lottery, splits, build(lottery.model, 0), scale, shift, lit)


# --- agreement --------------------------------------------------------------------------------------------------------


def check_stack(images: Images, floats: Images, table: Table) -> float:
    """A step of each stacked network, from the same weights, against ours: the largest difference of an update."""
    masks, worst = masks_at(7), 0.0
    network = Stacked(masks, floats, 3)
    before = {n: w.detach().clone() for n, w in network.weights.items()}
    rows = torch.stack([orders(i, len(images), BATCH, 0, 1)[0] for i in range(3)])
    network.step(rows)
    for i in range(3):
        start = {n: w[i] for n, w in before.items()}
        replica = table.replica(Start(start), masks, i)
        replica.advance(0, [RATE])
        for name, weight in replica.snapshot().weights.items():
            theirs = network.weights[name].detach()[i]
            worst = max(worst, float((weight - theirs).norm() / (theirs - start[name]).norm().clamp_min(1e-12)))
    return worst


def main() -> None:
    asked = arguments(__doc__ or "", data="data", threads=str(len(os.sched_getaffinity(0))), torch_threads="1")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    threads, root = int(asked.threads), Path(asked.data)
    splits = splits_of(root)
    images, floats = splits.train, Images(splits.train.x / 255, splits.train.y)
    table = table_of(splits)
    worst = max(check(0, images, floats), check(7, images, floats), check_stack(images, floats, table))
    assert worst < AGREE, f"a step differs from ours by {worst:.2g} of itself"
    steps, how = (60 if asked.quick else 300), (threads, int(asked.torch_threads))
    contestants: dict[str, Callable[[], float]] = {
        ORDINARY: Processes(ordinary, root, steps, how),
        DATALOADER: Processes(dataloader, root, steps // 2, how),
        STACKED: Processes(stacked, root, max(3, steps // STACK), how),
        LOOKS: Processes(looking, root, steps, how),
    }
    for level in range(LEVELS):
        contestants[f"{level}"] = made = Ours(table, level, 200 if asked.quick else 1000, threads)
        contestants[f"{level}, looks"] = partial(made, looks=True)
    found = turns(contestants, 1 if asked.quick else 7)
    report(found, worst, threads, asked)


def report(found: dict[str, list[float]], worst: float, threads: int, asked) -> None:
    levels, others = [f"{v}" for v in range(LEVELS)], (ORDINARY, DATALOADER, STACKED)
    summed = lambda names: [sum(1 / r for r in turn) for turn in zip(*(found[n] for n in names), strict=True)]  # noqa: E731
    ladder, looked = summed(levels), summed([f"{v}, looks" for v in levels])
    ladders = {name: [LEVELS / r for r in found[name]] for name in others}
    seen = [LEVELS * (1 / r + 1 / at) for r, at in zip(found[ORDINARY], found[LOOKS], strict=True)]
    rows: list[list[object]] = [["network-steps a second", "median", "28 levels, a step each, ms"]]
    rows += [[name, median(found[name]), 1e3 * median(ladders[name])] for name in others]
    rows += [["ours, level 0", median(found["0"]), ""], [f"ours, level {LEVELS - 1}", median(found[levels[-1]]), ""]]
    rows += [["ours, the ladder", LEVELS / median(ladder), 1e3 * median(ladder)]]
    rows += [["ours, the ladder with looks", LEVELS / median(looked), 1e3 * median(looked)]]
    rows += [["(a) with looks", LEVELS / median(seen), 1e3 * median(seen)]]
    claims = []
    for name in others:
        for text, over, under, target in (
            ("at level 0", found["0"], found[name], TARGETS.get(name, (1.0, 1.0))[0]),
            ("summed over 28 levels", ladders[name], ladder, TARGETS.get(name, (1.0, 1.0))[1]),
        ):
            value, spread = ratios(over, under)
            about = f"the lottery's steps against {name}, {text}"
            claims.append(claim(about, value, "times the network-steps", spread, len(over), target, value >= target))
    value, spread = ratios(seen, looked)
    about = f"the same with looks, against {ORDINARY} with looks, summed over 28 levels"
    claims.append(claim(about, value, "times the network-steps", spread, len(seen), 12.0, value >= 12))
    words = [
        f"{threads} side by side (ours: threads; the others: processes of {asked.torch_threads} PyTorch threads);",
        f"largest difference of a step: {worst:.2g} of a tensor's update",
    ]
    finish(claims, columns(rows) + "\n" + "\n".join(words), asked)


if __name__ == "__main__":
    main()
