"""Claim: a step in bfloat16 costs no more than 1.25 times one in float32 where a processor has no instructions for it.

ResNet-20, the score game's tiny network and Conv-4, channels-last, a step each in turns, in processor time of one
thread: float32, bfloat16 as `precision = "bfloat16"` computes it here, and torch's own autocast. Checks first that the
first step's loss is near float32's. The claims tell whether the processor has instructions for bfloat16; where it has,
a step is to cost less than in float32, and where it has none, torch's own ways are what is to be avoided.
"""

import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from claim import arguments, claim, columns, finish, ratios, turns
from torch import nn

from prunery.models import build
from prunery.spec import Model
from prunery.train.half import arithmetic, has_bfloat16

TARGETS = {"has": 1.0, "lacks": 1.25}
BATCH, SLOW = 64, 5.0
"""images of a step; times as slow as float32 beyond which torch's own way is looked at in one turn only"""
NETWORKS = {
    "resnet20": Model(name="resnet20", input=(3, 32, 32), classes=10),
    "tiny": Model(name="tiny", widths=(48, 80), depths=(3, 4), input=(3, 32, 32), classes=10),
    "conv4": Model(name="conv4", input=(3, 32, 32), classes=10),
}
WAYS: dict[str, Callable[[], AbstractContextManager]] = {
    "float32": nullcontext,
    "bfloat16": partial(arithmetic, "bfloat16", "cpu"),
    "torch's own": partial(torch.autocast, "cpu", torch.bfloat16),
}


def stepper(network: nn.Module, x: torch.Tensor, y: torch.Tensor, way: Callable[[], AbstractContextManager]):
    network = copy.deepcopy(network).to(memory_format=torch.channels_last).train()
    rule = torch.optim.SGD(network.parameters(), 0.01, 0.9, fused=True)

    def step() -> tuple[float, float]:
        """Seconds, and the loss."""
        began = time.thread_time()
        with way():
            loss = F.cross_entropy(network(x).float(), y)
        rule.zero_grad()
        loss.backward()
        rule.step()
        return time.thread_time() - began, float(loss.detach())

    return step


def main() -> None:
    asked = arguments(__doc__)
    torch.set_num_threads(1)
    has = "has" if has_bfloat16() else "lacks"
    claims, rows = [], [["network", "float32, ms", "bfloat16, ms", "times", "torch's own, ms", "times"]]
    for name, model in NETWORKS.items():
        rng = torch.Generator().manual_seed(1)
        x = torch.randn(BATCH, *model.input, generator=rng).contiguous(memory_format=torch.channels_last)
        y = torch.randint(0, 10, (BATCH,), generator=rng)
        steps = {way: stepper(build(model, 0), x, y, WAYS[way]) for way in WAYS}
        first = {way: step() for way, step in steps.items()}  # warms up
        losses = [loss for _, loss in first.values()]
        assert max(losses) - min(losses) < 0.02 * min(losses), f"{name}: {losses}"
        once = first["torch's own"][0] > SLOW * first["float32"][0]
        contestants = {
            way: (lambda s=step: s()[0]) for way, step in steps.items() if not (once and way == "torch's own")
        }
        took = turns(contestants, 5 if asked.quick else 21)
        took.setdefault("torch's own", [first["torch's own"][0]])
        times, spread = ratios(took["bfloat16"], took["float32"])
        single, ours, theirs = (1e3 * median(took[way]) for way in WAYS)
        rows.append([name, single, ours, times, theirs, theirs / single])
        text = f"{name}: a training step in bfloat16 against one in float32, on a processor that {has} bfloat16"
        claims.append(claim(text, times, "times", spread, len(took["float32"]), TARGETS[has], times <= TARGETS[has]))
    finish(claims, columns(rows), asked)


if __name__ == "__main__":
    main()
