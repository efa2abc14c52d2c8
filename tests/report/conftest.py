"""Step folders with made-up numbers, laid by the real Runs."""

import math
import random
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from prunery.runs import Runs, Step, Work
from prunery.spec import Data, Init, Model, Node, Pack, Prune, Quantize, Train

LAYERS = {
    "conv1": ("Conv2d", [16, 1, 3, 3], [1, 16, 8, 8]), "conv2": ("Conv2d", [32, 16, 3, 3], [1, 32, 4, 4]),
    "fc1": ("Linear", [64, 512], [1, 64]), "fc2": ("Linear", [10, 64], [1, 10]),
}  # fmt: skip
# How much less than the whole a layer keeps, as its exponent: the first and the last stay denser.
FIRMNESS = {"conv1": 0.4, "conv2": 0.8, "fc1": 1.15, "fc2": 0.5}


@dataclass
class Fake:
    """The numbers of one step."""

    accuracy: float
    density: float = 1.0
    bits: int = 32
    seconds: float = 2.0

    def result(self, spec) -> dict:
        layers = [self.layer(*row) for row in LAYERS.items()]
        total = {k: sum(layer[k] for layer in layers) for k in layers[0] if isinstance(layers[0][k], int)}
        error = math.sqrt(self.accuracy * (1 - self.accuracy) / 360)
        return {
            "test": {"accuracy": self.accuracy, "standard_error": error, "n": 360, "loss": 2.5 * (1 - self.accuracy)},
            "validation": {"accuracy": self.accuracy - 0.004, "standard_error": error, "n": 144, "loss": 0.1},
            "density": self.density, "parameters": total["parameters"], "kept_parameters": total["kept"],
            "multiply_adds": total["multiply_adds"], "kept_multiply_adds": total["kept_multiply_adds"],
            "bytes": 1200 + total["kept"] * self.bits // 8, "layers": layers,
            "score": {"2.8e8": {"parameters": 0.01, "operations": 0.02, "score": 0.03 * self.density * self.bits}},
            "data": {"name": "digits", "classes": list("0123456789"), "train": 1293, "validation": 144, "test": 360},
        }  # fmt: skip

    def layer(self, name: str, about: tuple) -> dict:
        kind, shape, output = about
        prunable = math.prod(shape)
        density = min(1.0, self.density ** FIRMNESS[name])
        work = prunable * (math.prod(output[2:]) or 1)
        return {
            "name": name, "type": kind, "shape": shape, "output": output, "parameters": prunable + shape[0],
            "prunable": prunable, "kept": round(density * prunable), "density": density, "multiply_adds": work,
            "kept_multiply_adds": round(density * work),
        }  # fmt: skip

    def rows(self, spec, seed: int) -> list[dict]:
        draw, steps = random.Random(seed), int(spec.epochs * 11)
        wild = [draw.gauss(0, 0.06) for _ in range(steps)]
        return [self.row(spec, i + 1, steps, wild[i]) for i in range(steps)]

    def row(self, spec, step: int, steps: int, noise: float) -> dict:
        part = step / steps
        floor, fall = 3 * (1 - self.accuracy), 5 + 4 * self.density
        loss = (floor + 2.2 * math.exp(-fall * part)) * (1 + noise)
        values = {
            "step": step,
            "epoch": step / 11,
            "lr": spec.lr * 0.5 * (1 + math.cos(math.pi * part)),
            "train_loss": loss,
        }
        values |= {"train_accuracy": max(0.1, 1 - loss / 2.4), "seconds": self.seconds * part}
        rises = 0.08 + floor + 1.9 * math.exp(-fall * part) + 0.05 * part + noise / 8
        known = {"val_loss": rises, "val_accuracy": self.accuracy * (1 - math.exp(-2 * fall * part)) + noise / 40}
        return values | (known if step % 11 == 0 or step == steps else {})


def make(runs: Runs, node: Node, fake: Fake, **more) -> Step:
    """One step's real folder with made-up numbers."""

    def work(work: Work) -> None:
        result = fake.result(node.spec)
        if node.spec.kind == "init":
            result = {k: v for k, v in result.items() if k not in ("test", "validation", "data")}
        if node.spec.kind == "train":
            rows = fake.rows(node.spec, len(node.chain()) + node.spec.seed)
            for row in rows:
                work.log(row)
            early = min((r for r in rows if "val_loss" in r), key=lambda r: r["val_loss"])["step"]
            rate = {"images_per_second": 64000, "early_stop_step": early}
            result["train"] = {"steps": len(rows), "seconds": fake.seconds, **rate}
        work.seconds_before = fake.seconds
        work.result(result | more)

    return runs.once(node, work)


def tree(root: Path, data: Data | None = None, name: str = "convnet") -> list[Step]:
    """Ten steps: init, dense, two pruned branches and a random control, finetuned; one quantised and packed."""
    runs, data = Runs(root), data or Data(name="digits")
    init = Node(Init(model=Model(name=name, input=(1, 8, 8), classes=10)))
    dense = Node(Train(data=data, epochs=12, lr=0.2, schedule="cosine", weight_decay=0.0005), init)
    steps = [make(runs, init, Fake(0.1)), make(runs, dense, Fake(0.9861, seconds=4.1))]
    for density, before, after in ((0.3, 0.93, 0.9861), (0.1, 0.71, 0.9833)):
        prune = Node(Prune(data=data, density=density, scope="layer"), dense)
        tune = Node(Train(data=data, epochs=6, lr=0.05, schedule="cosine"), prune)
        steps += [make(runs, prune, Fake(before, density, seconds=0.1)), make(runs, tune, Fake(after, density))]
    control = Node(Prune(data=data, density=0.1, criterion="random"), dense)
    retrain = Node(Train(data=data, epochs=6, lr=0.05, schedule="cosine"), control)
    steps += [make(runs, control, Fake(0.14, 0.1, seconds=0.1)), make(runs, retrain, Fake(0.9472, 0.1))]
    quantize = Node(Quantize(data=data, bits=8), tune)
    packed = Node(Pack(data=data), quantize)
    steps.append(make(runs, quantize, Fake(0.9806, 0.1, bits=8, seconds=0.3)))
    return [*steps, make(runs, packed, Fake(0.9806, 0.1, bits=6, seconds=0.2))]


@pytest.fixture(scope="session")
def fake() -> SimpleNamespace:
    """The makers above, for tests that lay folders of their own."""
    return SimpleNamespace(tree=tree, make=make, numbers=Fake)


@pytest.fixture(scope="session")
def steps(tmp_path_factory) -> list[Step]:
    return tree(tmp_path_factory.mktemp("runs"))
