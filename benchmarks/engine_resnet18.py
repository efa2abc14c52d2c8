"""ResNet-18 (CIFAR) for one image on one thread in float32: zeros turned into milliseconds.

Masks are uniform in every convolution but the first (and, at a tenth, the smallest weights of each layer as well); the
first convolution and the last layer stay dense. Every contestant's outputs are compared with PyTorch (1e-4 of the
largest) before it is timed; all take turns on one thread. The second table is a roofline: for each layer of the packed
network at a tenth, how much of the core's measured peak of multiply-adds its kernel reaches, alone.
"""

import sys

import numpy as np
from claim import arguments, claim, columns, finish
from contest import Contest, deepsparse, network, prunable, pruned, table

from prunery.native import peak_gflops

SHAPE = (3, 32, 32)
DENSITIES = {1.0: None, 0.5: None, 0.3: None, 0.2: 2.6, 0.1: 5.0, 0.05: 9.0, 0.02: 15.0}
"""and how many times as fast as ONNX Runtime the engine is to be"""
INT8 = 1.3


def main() -> None:
    asked = arguments(__doc__, against="torch,compile,onnxruntime,onnxruntime-int8,openvino,openvino-int8", turns="")
    turns = int(asked.turns or (3 if asked.quick else 9))
    names = ["torch"] if asked.quick else asked.against.split(",")
    cases = [("uniform", d) for d in ((0.1,) if asked.quick else DENSITIES)]
    cases += [] if asked.quick else [("magnitude", 0.1)]
    rows, found, roofline = [], [], ""
    for how, density in cases:
        contest = entered(how, density, names)
        contest.run(turns)
        rows += contest.rows(f"{how} {density:g}")
        print(table(contest.rows(f"{how} {density:g}")), file=sys.stderr, flush=True)
        found += claims(contest, how, density, turns, names)
        if (how, density) == ("uniform", 0.1):
            roofline = roof(contest)
    finish(found, table(rows), asked, more="```\n" + roofline + "\n```")


def entered(how: str, density: float, names: list[str]) -> Contest:
    made = network("resnet18", SHAPE)
    pruned(prunable(made), density, how)
    contest = Contest(made, images(1), 1)
    contest.ours()
    contest.rivals(names, [images(1, seed) for seed in range(16)])
    if "onnxruntime" in names and (other := deepsparse(made, contest.x, 1)):
        contest.enter("deepsparse", other)
    return contest


def images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, *SHAPE)).astype(np.float32)


def claims(contest: Contest, how: str, density: float, turns: int, names: list[str]) -> list[dict]:
    made = []
    wanted = DENSITIES.get(density) if "onnxruntime" in names else None
    what = f"ResNet-18, one image, one thread, float32, {1 - density:.0%} zeros ({how})"
    if wanted:
        value, spread = contest.faster("prunery", "onnxruntime")
        made.append(claim(what, value, "times as fast as ONNX Runtime", spread, turns, wanted, value >= wanted))
    if density == 0.1 and "onnxruntime-int8" in names:
        value, spread = contest.faster("prunery", "onnxruntime-int8")
        made.append(claim(what, value, "times as fast as ONNX Runtime int8", spread, turns, INT8, value >= INT8))
    if "onnxruntime" not in names:
        value, spread = contest.faster("prunery", "torch")
        made.append(claim(what, value, "times as fast as PyTorch", spread, turns, 1.0, value >= 1))
    return made


def roof(contest: Contest) -> str:
    """Each layer's share of the peak, timed alone, the best of many."""
    peak = peak_gflops()
    rows = [["layer", "kernel", "density", "Mmult-adds", "us", "GFLOP/s", "of the peak"]]
    layers = contest.packed["prunery"].explain(repeats=200)
    for layer in layers:
        if layer.multiply_adds:
            speed = 2e-3 * layer.multiply_adds / layer.measured_us
            work, took = layer.multiply_adds / 1e6, layer.measured_us
            rows.append([layer.name, layer.kernel, layer.density, work, took, speed, f"{speed / peak:.0%}"])
    took, work = sum(x.measured_us for x in layers), sum(x.multiply_adds for x in layers)
    rows.append(["all steps", "", "", work / 1e6, took, 2e-3 * work / took, f"{2e-3 * work / took / peak:.0%}"])
    limit = work / (peak / 2 * 1e3)
    return columns(rows) + f"\npeak {peak:.1f} GFLOP/s: the multiply-adds alone would take {limit:.0f} us at best"


if __name__ == "__main__":
    main()
