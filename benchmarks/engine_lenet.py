"""LeNet-300-100 for one picture, one thread, from a numpy array to a numpy array: the overhead of a call counts.

Pictures of digits are mostly black, and behind a ReLU half of the numbers are zeros; the engine looks at the weights of
no input that is zero. So it is timed on a picture of which a fifth is lit, as MNIST's are, and on one lit everywhere.
All layers but the last are pruned.
"""

import sys

import numpy as np
from claim import arguments, claim, finish
from contest import Contest, network, pruned, table
from torch import nn

LIT = {"a fifth lit": 0.19, "all lit": 1.0}


def main() -> None:
    asked = arguments(__doc__, against="torch,onnxruntime,onnxruntime-int8,openvino", turns="")
    turns = int(asked.turns or (3 if asked.quick else 9))
    names = ["torch"] if asked.quick else asked.against.split(",")
    rows, found = [], []
    for label, lit in LIT.items():
        for density in (0.1, 0.02):
            contest = entered(lit, density, names)
            contest.run(turns, 20)
            rows += contest.rows(f"{label}, {1 - density:.0%} zeros")
            print(table(contest.rows(label)), file=sys.stderr, flush=True)
            other = "onnxruntime" if "onnxruntime" in contest.times else names[0]
            value, spread = contest.faster("prunery", other)
            text = f"LeNet-300-100, one picture ({label}), one thread, {1 - density:.0%} zeros"
            found.append(claim(text, value, f"times as fast as {other}", spread, turns, 1.0, value > 1))
    finish(found, table(rows), asked)


def entered(lit: float, density: float, names: list[str]) -> Contest:
    made = network("lenet_300_100", (1, 28, 28))
    pruned([m for m in made.modules() if isinstance(m, nn.Linear)][:-1], density, "uniform")
    rng = np.random.default_rng(0)
    x = (rng.random((1, 1, 28, 28)) * (rng.random((1, 1, 28, 28)) < lit)).astype(np.float32)
    contest = Contest(made, x, 1)
    contest.ours()
    contest.rivals(names)
    return contest


if __name__ == "__main__":
    main()
