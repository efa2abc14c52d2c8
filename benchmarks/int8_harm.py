"""Claim: bytes made after training keep what a network with SiLU and squeeze-and-excitation says.

A small EfficientNet (half of B0's widths and depths, 32 pixels) is trained for a short while on CIFAR-10, after which
some channels are far larger than the rest, which one scale for a tensor does not suit (--steps 780: less so). It is
then packed in bytes in three ways: each range with the least error on its own numbers and nothing left in floats;
ranges with which the outputs move least; and, as `prunery pack --int8` does it, with what would move them most left in
floats. Compared are answers on all test images, and the time of one image in turns, on one thread. --quick trains 10
steps and compares 300.
"""

import time
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from claim import arguments, claim, columns, finish, ratios, turns
from torch import nn
from torchvision.models.efficientnet import EfficientNet, MBConvConfig

from prunery.data import Splits, inputs, load
from prunery.engine.calibrate import quantised_graph
from prunery.engine.file import write
from prunery.engine.graph import Graph
from prunery.engine.trial import lowered
from prunery.runtime import Packed, loads
from prunery.spec import Data

STEPS, BATCH, LR = 450, 64, 0.1
CALIBRATION = 512
AGREE, LOST = 90.0, 0.5
"""% of the answers, and points of accuracy"""
BLOCKS = [
    (1, 3, 1, 32, 16, 1), (6, 3, 2, 16, 24, 2), (6, 5, 2, 24, 40, 2), (6, 3, 1, 40, 80, 3), (6, 5, 1, 80, 112, 3),
    (6, 5, 2, 112, 192, 4), (6, 3, 1, 192, 320, 1),
]  # fmt: skip
WAYS = {
    "ranges by their own error": partial(quantised_graph, rules=["mse"], allowed=np.inf),
    "ranges by what outputs do": partial(quantised_graph, allowed=np.inf),
    "and the worst in floats": quantised_graph,
}


def trained(splits: Splits, steps: int) -> nn.Module:
    """The network after so many steps."""
    torch.manual_seed(0)
    half = partial(MBConvConfig, width_mult=0.5, depth_mult=0.5)
    network = EfficientNet([half(*b) for b in BLOCKS], 0.1, 0.0, num_classes=10, last_channel=640)
    network = network.to(memory_format=torch.channels_last).train()
    rule = torch.optim.SGD(network.parameters(), LR, 0.9, nesterov=True, weight_decay=5e-4, fused=True)
    rate = torch.optim.lr_scheduler.OneCycleLR(rule, LR, total_steps=steps)
    order = torch.randperm(len(splits.train.y))[: steps * BATCH]
    for batch in order.split(BATCH):
        x = inputs(splits.train.x[batch], splits).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(network(x), splits.train.y[batch])
        rule.zero_grad()
        loss.backward()
        rule.step()
        rate.step()
    return network.eval()


def answers(packed: Packed, x: torch.Tensor) -> np.ndarray:
    return np.concatenate([np.asarray(packed(part.numpy())) for part in x.split(256)])


def timed(packed: Packed, x: np.ndarray) -> float:
    began = time.thread_time()
    for _ in range(20):
        packed(x)
    return (time.thread_time() - began) / 20


def in_bytes(graph: Graph) -> tuple[int, int]:
    """Convolutions of bytes, and all."""
    convs = [op for op in graph.ops if op.kind == "conv"]
    return sum(graph.tensors[op.inputs[0]].type == "u8" for op in convs), len(convs)


def main() -> None:
    asked = arguments(__doc__, data_dir="data", steps=str(STEPS))
    torch.set_num_threads(1)
    splits = load(Data(name="cifar10"), Path(asked.data_dir))
    network = trained(splits, 10 if asked.quick else int(asked.steps))
    count = 300 if asked.quick else len(splits.test.y)
    x, y = inputs(splits.test.x[:count], splits), splits.test.y[:count].numpy()
    graph = lowered(network, x[:4])
    typical = [inputs(part, splits) for part in splits.train.x[:CALIBRATION].split(128)]
    graphs = {"floats": graph} | {name: way(graph, typical) for name, way in WAYS.items()}
    nets = {name: loads(write(g, {})) for name, g in graphs.items()}
    found = {name: answers(packed, x) for name, packed in nets.items()}
    took = turns({name: partial(timed, net, x[:1].numpy()) for name, net in nets.items()}, 3 if asked.quick else 15)
    rows = [["", "accuracy, %", "same answer, %", "error of outputs", "bytes", "convolutions", "ms", "times as fast"]]
    wanted, floats = found["floats"], took["floats"]
    for name, out in found.items():
        same, error = (out.argmax(1) == wanted.argmax(1)).mean(), np.square(out - wanted).mean() / wanted.var()
        some, all_of_them = in_bytes(graphs[name])
        cells = [f"{100 * (out.argmax(1) == y).mean():.2f}", f"{100 * same:.2f}", f"{error:.4f}"]
        size, speed = f"{len(nets[name].data):,}", ratios(floats, took[name])[0]
        rows.append([name, *cells, size, f"{some} of {all_of_them}", 1e3 * median(took[name]), speed])
    finish(claims(found, y), columns(rows), asked)


def claims(found: dict[str, np.ndarray], y: np.ndarray) -> list[dict]:
    wanted, ours = found["floats"].argmax(1), found["and the worst in floats"].argmax(1)
    same, lost = 100 * float((ours == wanted).mean()), 100 * float((wanted == y).mean() - (ours == y).mean())
    spread = f"one network of {100 * (wanted == y).mean():.2f} %"
    return [
        claim(
            "answers in bytes that are those in floats", same, "%", spread, len(y), f"at least {AGREE:g}", same >= AGREE
        ),
        claim("accuracy lost to bytes", lost, "points", spread, len(y), f"at most {LOST:g}", lost <= LOST),
    ]


if __name__ == "__main__":
    main()
