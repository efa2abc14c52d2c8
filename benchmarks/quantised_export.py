"""Claim: networks of few bits keep their accuracy as bytes in ONNX Runtime and OpenVINO, within 0.2 points.

ResNet-20 in 8 and 4 bits (results/few_bits) and as floats, exported to both: plain, and for ONNX Runtime with 512
training images to calibrate what convolutions write for readers of floats. Accuracy is counted in each engine on
CIFAR-10's 10,000 test images (--quick: 500), against our own evaluation of the same images; beside it the share of
images with the same answer, the file's bytes, and how many of ONNX Runtime's convolutions are of whole numbers.
"""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from claim import arguments, claim, columns, finish
from torch import nn

from prunery import data
from prunery.chain import opened
from prunery.engine.export import BYTES, FORMATS, installed
from prunery.spec import Data
from prunery.train import frozen

HERE = Path(__file__).parent.parent / "results"
FILES = {
    "floats": HERE / "resnet20_cifar10" / "resnet20.safetensors",
    "8 bits": HERE / "few_bits" / "resnet20_8bit.safetensors",
    "4 bits": HERE / "few_bits" / "resnet20_4bit.safetensors",
}
WAYS = {"onnx": "onnx", "onnx, calibrated": "onnx", "openvino": "openvino"}
BATCH, TYPICAL, QUICK = 100, 512, 500
POINTS, SHARE = 0.2, 0.35
"""what may be lost, and of the floats' bytes"""


class Row(NamedTuple):
    """One file in one engine."""

    bits: str
    way: str
    ours: float
    theirs: float
    alike: float
    bytes: int
    whole: str

    @property
    def cells(self) -> list[Any]:
        accuracies = [f"{100 * x:.2f}" for x in (self.ours, self.theirs, self.alike)]
        return [self.bits, self.way, *accuracies, f"{self.bytes:,}", self.whole]


def main() -> None:
    asked = arguments(__doc__, data_dir="data")
    for extra, packages in (("onnx", ("onnxscript", *BYTES)), ("openvino", ("openvino",))):
        installed(extra, *packages)
    torch.set_num_threads(2)
    splits = data.load(Data(name="cifar10"), Path(asked.data_dir))
    count = QUICK if asked.quick else len(splits.test.y)
    typical = torch.randperm(len(splits.train.y), generator=torch.Generator().manual_seed(0))[:TYPICAL]
    shown = [data.inputs(x, splits) for x in splits.train.x[typical].split(BATCH)]
    x, y = data.inputs(splits.test.x[:count], splits), splits.test.y[:count].numpy()
    rows = [row for bits, file in FILES.items() for row in measured(bits, opened(file)[0].eval(), x, y, shown)]
    head = ["ResNet-20", "engine", "ours, %", "there, %", "same answers, %", "bytes", "whole convolutions"]
    finish(claims(rows, count), columns([head, *(row.cells for row in rows)]), asked)


def measured(bits: str, network: nn.Module, x: torch.Tensor, y: np.ndarray, shown: list[torch.Tensor]) -> list[Row]:
    """A network as it is, and in every engine."""
    with frozen(network):
        ours = np.concatenate([network(part).argmax(1).numpy() for part in x.split(BATCH)])
    rows = []
    for way, kind in WAYS.items():
        calibrated = "calibrated" in way
        if calibrated and bits == "floats":
            continue
        name, export, run = FORMATS[kind]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            export(network, x[:1], path, **({"calibration": shown} if calibrated else {}))
            call = run(path)
            theirs = np.concatenate([np.asarray(call(part.numpy())).argmax(1) for part in x.split(BATCH)])
            size = sum(file.stat().st_size for file in Path(folder).iterdir())
            whole = convolutions(path) if kind == "onnx" else ""
        right = [float((answers == y).mean()) for answers in (ours, theirs)]
        rows.append(Row(bits, way, *right, float((ours == theirs).mean()), size, whole))
    return rows


def convolutions(path: Path) -> str:
    """Those of whole numbers among all that ONNX Runtime makes of a file."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path.with_name("optimised"))
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    Path(options.optimized_model_filepath).unlink()
    whole = found["QLinearConv"] + found["ConvInteger"]
    return f"{whole} of {whole + found['Conv'] + found['FusedConv']}"


def claims(rows: list[Row], count: int) -> list[dict]:
    """Accuracy of all files of few bits; bytes against floats."""
    found, few = [], [row for row in rows if row.bits != "floats"]
    for row in few:
        lost = 100 * (row.ours - row.theirs)
        text = f"ResNet-20 in {row.bits}, exported, {row.way}: test accuracy lost against our own evaluation"
        spread = f"{100 * row.theirs:.2f} of {100 * row.ours:.2f} %; {100 * row.alike:.1f} % the same answers"
        found.append(claim(text, lost, "points", spread, count, POINTS, lost <= POINTS))
    floats = {row.way: row.bytes for row in rows if row.bits == "floats"}
    share = max(row.bytes / floats[row.way.partition(",")[0]] for row in few if row.way.startswith("onnx"))
    found.append(claim("ONNX files of few bits against floats, the largest", share, "of their bytes", None, 4, SHARE,
                       share <= SHARE))  # fmt: skip
    return found


if __name__ == "__main__":
    main()
