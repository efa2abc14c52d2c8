"""ResNet-18 (CIFAR), 32 images at once, float32, nine tenths of the weights zeros: one thread and two.

DeepSparse 1.8.0 (withdrawn in 2025) takes part where it is installed in an environment of its own; see contest.py.
Outputs are compared with PyTorch first (1e-4 of the largest); contestants take turns.
"""

import sys

import numpy as np
from claim import arguments, claim, finish
from contest import Contest, deepsparse, network, prunable, pruned, table

SHAPE, IMAGES = (3, 32, 32), 32


def main() -> None:
    asked = arguments(__doc__, against="onnxruntime,openvino", turns="")
    turns = int(asked.turns or (3 if asked.quick else 7))
    names = ["torch"] if asked.quick else asked.against.split(",")
    made = network("resnet18", SHAPE)
    pruned(prunable(made), 0.1, "uniform")
    x = np.random.default_rng(0).standard_normal((IMAGES, *SHAPE)).astype(np.float32)
    rows, found, what = [], [], "ResNet-18, 32 images, 90% zeros"
    for threads in (1, 2):
        contest = entered(made, x, threads, names)
        contest.run(turns, 200)
        rows += contest.rows(f"{threads} thread{'s' if threads > 1 else ''}")
        print(table(contest.rows(f"{threads} threads")), file=sys.stderr, flush=True)
        wanted = {"onnxruntime": 4.5, "deepsparse": 1.0, "torch": 1.0}
        for other, least in wanted.items():
            if other in contest.times:
                value, spread = contest.faster("prunery", other)
                told = f"times as fast as {other}, {threads} thread(s)"
                found.append(claim(what, value, told, spread, turns, least, value >= least))
    found.append(doubled(made, x, turns))
    finish(found, table(rows), asked)


def entered(made, x: np.ndarray, threads: int, names: list[str]) -> Contest:
    contest = Contest(made, x, threads)
    contest.ours()
    contest.rivals(names)
    if (other := deepsparse(made, x, threads)) and "torch" not in names:
        contest.enter("deepsparse", other)
    return contest


def doubled(made, x: np.ndarray, turns: int) -> dict:
    """Two threads against one, in turns."""
    contest = Contest(made, x, 1)
    packed = contest.ours("one thread")
    contest.enter("two threads", lambda x: packed(x, 2))
    contest.run(turns, 200)
    value, spread = contest.faster("two threads", "one thread")
    text = "ResNet-18, 32 images: two threads"
    return claim(text, value, "times as fast as one", spread, turns, 1.8, value >= 1.8)


if __name__ == "__main__":
    main()
