"""Claim: training steps of LeNet-300-100 cost what their density asks for, summed over the lottery's 28 levels.

One replica on one core, MNIST, batch 60, Adam 1.2e-3; level l keeps 0.8^l of fc1 and fc2 and 0.9^l of the output layer,
at random (masks pruned by magnitude take the same time). The contestants are the same step in torch, one thread,
tensors in memory, masks multiplied into gradients and weights, once with torch's Adam as it comes and once with its
fastest, the fused one; neither depends on density. A step from torch's own state is compared at every level first.
Times are the thread's CPU time, because the machine may be shared.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from claim import arguments, claim, columns, finish, ratios, turns

from prunery import native
from prunery.data import Images, load
from prunery.masks import Mask, apply_
from prunery.models import build
from prunery.spec import Data, Model
from prunery.tickets import Replica, Rule, Snapshot, orders

LEVELS, BATCH, RATE = 28, 60, 1.2e-3
STEPS = 100  # in one stretch
AGREE = 3e-4  # of the norm of a tensor's update: Adam divides gradients near zero by themselves
LADDER, LADDER_FUSED, LADDER_MS, DENSE_MS, SPARSEST_MS = 10.0, 8.0, 6.6, 0.6, 0.04
VALIDATION, EVERY = 5000, 100  # images, and steps between looks at them


class Torch:
    """The ordinary way; images are floats from 0 to 1."""

    def __init__(self, masks: Mask, images: Images, fused: bool = True) -> None:
        self.network = build(Model(name="lenet_300_100", input=(1, 28, 28), classes=10), 0)
        self.images, self.masks = images, masks
        self.named = dict(self.network.named_parameters())
        apply_({n: self.named[n].data for n in masks}, masks)
        self.keeps = {n: m.float() for n, m in masks.items()}
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=RATE, fused=fused)
        self.steps = 0

    def step(self, index: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        F.cross_entropy(self.network(self.images.x[index]), self.images.y[index]).backward()
        for name, keep in self.keeps.items():
            self.named[name].grad.mul_(keep)
        self.optimizer.step()
        with torch.no_grad():
            for name, keep in self.keeps.items():
                self.named[name].mul_(keep)
        self.steps += 1

    def snapshot(self) -> Snapshot:
        moments = [
            {
                n: self.optimizer.state[p][k].clone() if self.steps else torch.zeros_like(p)
                for n, p in self.named.items()
            }
            for k in ("exp_avg", "exp_avg_sq")
        ]
        return Snapshot({n: p.detach().clone() for n, p in self.named.items()}, *moments, self.steps)


def masks_at(level: int) -> Mask:
    rng = torch.Generator().manual_seed(level)
    masks = {}
    for name, shape, rate in (("fc1", (300, 784), 0.8), ("fc2", (100, 300), 0.8), ("fc3", (10, 100), 0.9)):
        size = shape[0] * shape[1]
        masks[f"{name}.weight"] = (torch.randperm(size, generator=rng) < round(size * rate**level)).view(shape)
    return masks


def check(level: int, images: Images, floats: Images) -> float:
    """The largest difference of a tensor's update, in parts of it."""
    reference = Torch(masks_at(level), floats)
    batches = orders(level, len(images), BATCH, 0, 6)
    for row in batches[:5]:
        reference.step(row)
    before = reference.snapshot()
    replica = Replica(before, reference.masks, Rule(), BATCH)
    replica.train(images, batches[5:], [RATE])
    reference.step(batches[5])
    ours, theirs = replica.snapshot().weights, reference.snapshot().weights
    return max(float((ours[n] - w).norm() / (w - before.weights[n]).norm().clamp_min(1e-12)) for n, w in theirs.items())


def ms(act: Callable[[], object], times: int) -> float:
    start = time.thread_time()
    act()
    return 1e3 * (time.thread_time() - start) / times


def torch_ms(contestant: Torch, batches: torch.Tensor) -> float:
    def stretch() -> None:
        for row in batches:
            contestant.step(row)

    return ms(stretch, len(batches))


def main() -> None:
    asked = arguments(__doc__ or "", data="data")
    torch.set_num_threads(1)
    splits = load(Data(name="mnist", scaling="unit"), Path(asked.data))
    images, validation = splits.train, splits.validation.at(torch.arange(VALIDATION))
    floats = Images(images.x / 255, images.y)
    worst = max(check(level, images, floats) for level in range(LEVELS))
    assert worst < AGREE, f"a step differs from torch's by {worst:.2g} of itself"
    batches = orders(0, len(images), BATCH, 0, STEPS)
    plain, fused = (Torch(masks_at(0), floats, fused=fused) for fused in (False, True))
    replicas = [
        Replica(Torch(masks_at(level), floats).snapshot(), masks_at(level), Rule(), BATCH) for level in range(LEVELS)
    ]
    contestants: dict[str, Callable[[], float]] = {"torch": partial(torch_ms, plain, batches)}
    contestants["torch, fused"] = partial(torch_ms, fused, batches)
    for level, replica in enumerate(replicas):
        stretch = partial(replica.train, images, batches, [RATE] * STEPS)
        contestants[f"{level}"] = partial(ms, stretch, STEPS)
        contestants[f"look {level}"] = partial(ms, partial(replica.evaluate, validation), 1)
    turns(contestants, 1)  # warms up
    found = turns(contestants, 3 if asked.quick else 15)
    report(found, replicas, worst, asked)


def report(found: dict[str, list[float]], replicas: list[Replica], worst: float, asked) -> None:
    levels = range(LEVELS)
    ladder = [sum(turn) for turn in zip(*(found[f"{level}"] for level in levels), strict=True)]
    looks = [sum(turn) for turn in zip(*(found[f"look {level}"] for level in levels), strict=True)]
    rows: list[list[object]] = [
        ["level", "fc density", "kernels", "us a step", "best", f"{VALIDATION} images, ms", "share"]
    ]
    for level in levels:
        step, look = median(found[f"{level}"]), median(found[f"look {level}"])
        kernels = "".join(k[0] for k in replicas[level].kernels)
        rows.append([level, 0.8**level, kernels, 1e3 * step, 1e3 * min(found[f"{level}"]), look, look / EVERY / step])
    rows.append(
        ["sum", "", "", 1e3 * median(ladder), 1e3 * min(ladder), median(looks), median(looks) / EVERY / median(ladder)]
    )
    words = [
        f"kernels of fc1, fc2, fc3: s sparse, d dense, for {native.instruction_set()};",
        f"torch: {median(found['torch']):.2f} ms a step, with the fused Adam {median(found['torch, fused']):.2f};",
        f"share: a look at {VALIDATION} validation images every {EVERY} steps, in parts of those steps;",
        f"largest difference from torch's own step: {worst:.2g} of a tensor's update",
    ]
    n = len(ladder)

    def below(text: str, values: list[float], target: float) -> dict:
        value = median(values)
        return claim(text, value, "ms", f"{min(values):.3g} to {max(values):.3g}", n, target, value <= target)

    def faster(text: str, other: str, target: float) -> dict:
        value, spread = ratios([LEVELS * t for t in found[other]], ladder)
        return claim(text, value, "times faster", spread, n, target, value >= target)

    claims = [
        faster("28 levels, a step each, against a torch loop on one thread", "torch", LADDER),
        faster("28 levels, a step each, against a torch loop with the fused Adam", "torch, fused", LADDER_FUSED),
        below("28 levels, a step each, one core", ladder, LADDER_MS),
        below("a step with all weights", found["0"], DENSE_MS),
        below("a step of the last level (0.24 % of fc weights)", found[f"{LEVELS - 1}"], SPARSEST_MS),
    ]
    finish(claims, columns(rows) + "\n" + "\n".join(words), asked)


if __name__ == "__main__":
    main()
