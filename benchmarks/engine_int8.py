"""ResNet-18 (CIFAR) in bytes, end to end, one image, one thread: unstructured zeros, and blocks of four inputs.

Weights are signed bytes with a scale for each output channel, activations unsigned bytes calibrated on a few batches,
for our engine and the others alike; ours is compared bit by bit with an integer reference before anything is
timed. All contestants take turns on one thread. The weights are random, so nothing is said of accuracy.
"""

import sys

import numpy as np
import torch
from claim import arguments, claim, finish
from contest import Contest, network, prunable, pruned, table

from prunery.engine import graph_of
from prunery.engine.interpret import interpret
from prunery.spec import Refused

SHAPE = (3, 32, 32)
CASES = {"1x4": (4, {"onnxruntime-int8": 3.5, "onnxruntime": 15.0}), "unstructured": (1, {"onnxruntime-int8": 1.4})}


def main() -> None:
    asked = arguments(__doc__, against="onnxruntime,onnxruntime-int8,openvino-int8", density="0.1", turns="")
    turns = int(asked.turns or (3 if asked.quick else 9))
    names = ["torch"] if asked.quick else asked.against.split(",")
    rows, found = [], []
    for how, (block, wanted) in CASES.items():
        contest = entered(block, float(asked.density), names)
        contest.run(turns)
        rows += contest.rows(how)
        print(table(contest.rows(how)), file=sys.stderr, flush=True)
        what = f"ResNet-18 int8, one image, one thread, {1 - float(asked.density):.0%} zeros, {how}"
        for other, least in (wanted if not asked.quick else {"torch": 1.0}).items():
            if other in contest.times:
                value, spread = contest.faster("prunery", other)
                found.append(claim(what, value, f"times as fast as {other}", spread, turns, least, value >= least))
    finish(found, table(rows), asked)


def entered(block: int, density: float, names: list[str]) -> Contest:
    made = network("resnet18", SHAPE)
    pruned(prunable(made), density, "uniform", block)
    batches = [np.random.default_rng(seed).standard_normal((8, *SHAPE)).astype(np.float32) for seed in range(8)]
    contest = Contest(made, batches[0][:1], 1)
    packed = contest.ours(int8=True, images=batches)
    exact = np.asarray(interpret(graph_of(packed), torch.from_numpy(batches[1])))
    if not np.array_equal(packed(batches[1]), exact.reshape(packed(batches[1]).shape)):
        raise Refused("the engine's bytes are not the reference's")
    contest.rivals(names, [x for batch in batches for x in np.split(batch, len(batch))])
    return contest


if __name__ == "__main__":
    main()
