"""Claim: a training step with fake quantisation of weights and activations costs at most twice the plain step.

The score game's tiny network (48 channels at 16x16, 80 at 8x8) and ResNet-20 in bfloat16, LeNet-5 in single precision,
where its plain step is a fused kernel; 3 bits for weights and activations, channels-last, a step each in turns, in
processor time of one thread. `prunery score` of a ResNet-20 on 10,000 images is set against one evaluation of the same
network. Checks first that evaluation of a quantised network gives the bits of integer arithmetic, and that LeNet-5's
plain step takes its kernel.
"""

import copy
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from claim import arguments, claim, columns, finish, ratios, turns
from torch import nn

from prunery.data import Facts, Images, Splits
from prunery.measure.score import account
from prunery.models import build
from prunery.models.blocks import ConvReLUPool
from prunery.pruning import pairs
from prunery.quantize import folded, in_integers, is_quantised, planned, quantised_
from prunery.spec import Data, Model, Quantize
from prunery.train import evaluate
from prunery.train.half import arithmetic

TARGET = 2.0
BATCH, STEPS = 128, 3
PRECISIONS = {"tiny": "bfloat16", "resnet20": "bfloat16", "lenet5": "float32"}
NETWORKS = {
    "tiny": Model(name="tiny", widths=(48, 80), depths=(3, 4), input=(3, 32, 32), classes=10),
    "resnet20": Model(name="resnet20", input=(3, 32, 32), classes=10),
    "lenet5": Model(name="lenet5", input=(1, 28, 28), classes=10),
}


def quantised(network: nn.Module, x: torch.Tensor) -> nn.Module:
    made = copy.deepcopy(network)
    quantised_(made, planned(made, Quantize(bits=3, activations=3)), [x])
    return made


def stepper(network: nn.Module, x: torch.Tensor, y: torch.Tensor, precision: str) -> Callable[[], float]:
    network = network.to(memory_format=torch.channels_last).train()
    rule = torch.optim.SGD(network.parameters(), 0.01, 0.9, fused=True)

    def step() -> None:
        with arithmetic(precision, "cpu"):
            loss = F.cross_entropy(network(x).float(), y)
        rule.zero_grad()
        loss.backward()
        rule.step()

    def timed() -> float:
        began = time.thread_time()
        for _ in range(STEPS):
            step()
        return 1e3 * (time.thread_time() - began) / STEPS

    return timed


def check(network: nn.Module, x: torch.Tensor) -> None:
    made = quantised(network, x).eval()
    whole = folded(made, dict(pairs(made, x[:2], is_quantised)))
    with torch.no_grad(), in_integers(whole):
        exact = whole(x)
    assert torch.equal(exact, whole(x)), "evaluation is not integer arithmetic"


def scoring(network: nn.Module, splits: Splits) -> tuple[Callable[[], float], Callable[[], float]]:
    def timed(run: Callable[[], object]) -> float:
        began = time.thread_time()
        run()
        return time.thread_time() - began

    both = lambda: (account(network, (3, 32, 32)), evaluate(network, splits.test, splits))  # noqa: E731
    return partial(timed, both), partial(timed, lambda: evaluate(network, splits.test, splits))


def main() -> None:
    asked = arguments(__doc__ or "")
    torch.set_num_threads(1)
    claims, rows = [], [["network", "plain, ms", "quantised, ms", "times"]]
    for name, model in NETWORKS.items():
        network = build(model, 0)
        rng = torch.Generator().manual_seed(1)
        x = torch.randn(BATCH, *model.input, generator=rng).contiguous(memory_format=torch.channels_last)
        y = torch.randint(0, 10, (BATCH,), generator=rng)
        check(network, x[:16])
        if name == "lenet5":
            first = next(m for m in network.modules() if isinstance(m, ConvReLUPool))
            assert first.train().path(x) == "native", "the plain step is not the fused kernel"
        precision = PRECISIONS[name]
        contestants = {
            "plain": stepper(copy.deepcopy(network), x, y, precision),
            "quantised": stepper(quantised(network, x), x, y, precision),
        }
        turns(contestants, 1)  # warms up
        took = turns(contestants, 3 if asked.quick else 15)
        times, spread = ratios(took["quantised"], took["plain"])
        rows.append([name, median(took["plain"]), median(took["quantised"]), times])
        text = f"{name} in {precision}: a training step with 3/3 bits against the plain one"
        claims.append(claim(text, times, "times the plain step", spread, len(took["plain"]), TARGET, times <= TARGET))
    images = Images(torch.randint(0, 256, (1000 if asked.quick else 10_000, 3, 32, 32), dtype=torch.uint8),
                    torch.zeros(1000 if asked.quick else 10_000, dtype=torch.int64))  # fmt: skip
    facts = Facts("noise", (3, 32, 32), tuple("0123456789"))
    splits = Splits(Data(name="cifar10"), facts, images, images, images, torch.zeros(3), torch.ones(3))
    score, evaluation = scoring(build(NETWORKS["resnet20"], 0), splits)
    took = turns({"score": score, "evaluation": evaluation}, 1 if asked.quick else 5)
    times, spread = ratios(took["score"], took["evaluation"])
    rows.append(["score of resnet20, s", median(took["evaluation"]), median(took["score"]), times])
    text = "prunery score of ResNet-20 on 10,000 images against one evaluation"
    claims.append(claim(text, times, "times the evaluation", spread, len(took["score"]), 1.2, times <= 1.2))
    finish(claims, columns(rows), asked)


if __name__ == "__main__":
    main()
