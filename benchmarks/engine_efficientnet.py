"""EfficientNet-B0 and MobileNetV2 at 224 x 224, one image, one thread, float32, a tenth of the pointwise weights.

Only 1x1 convolutions are pruned (uniform masks): depthwise ones, squeeze-and-excitation, the first convolution and the
last layer stay dense. End to end, outputs compared with PyTorch first (1e-4 of the largest), contestants in turns.
"""

import sys

import numpy as np
from claim import arguments, claim, finish
from contest import Contest, network, prunable, pruned, table
from torch import nn

SHAPE = (3, 224, 224)
NETWORKS = {"efficientnet_b0": 2.5, "mobilenet_v2": None}


def pointwise(layer: nn.Module) -> bool:
    """Squeeze-and-excitation's are 1x1 too, but see one pixel."""
    return isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.bias is None


def main() -> None:
    asked = arguments(__doc__, against="onnxruntime,onnxruntime-int8,openvino", density="0.1", turns="")
    turns = int(asked.turns or (3 if asked.quick else 9))
    names = ["torch"] if asked.quick else asked.against.split(",")
    rows, found = [], []
    for name, least in list(NETWORKS.items())[: 1 if asked.quick else None]:
        contest = entered(name, float(asked.density), names)
        contest.run(turns)
        rows += contest.rows(name)
        print(table(contest.rows(name)), file=sys.stderr, flush=True)
        other = "onnxruntime" if "onnxruntime" in contest.times else names[0]
        value, spread = contest.faster("prunery", other)
        text = f"{name} at 224, one image, one thread, float32, 90% of pointwise weights zeros"
        goal = least if other == "onnxruntime" else 1.0
        found.append(claim(text, value, f"times as fast as {other}", spread, turns, goal, not goal or value >= goal))
    finish(found, table(rows), asked)


def entered(name: str, density: float, names: list[str]) -> Contest:
    made = network(name, SHAPE, 1000)
    pruned(prunable(made, pointwise), density, "uniform")
    contest = Contest(made, np.random.default_rng(0).standard_normal((1, *SHAPE)).astype(np.float32), 1)
    contest.ours()
    contest.rivals(names)
    return contest


if __name__ == "__main__":
    main()
