"""Folders of runs without a network: specs and figures as steps leave them."""

import json

from prunery.spec import Data, Init, Model, Node, Prune, Train, dumps

DATA = Data(name="mnist")
INIT = Node(Init(model=Model(name="lenet5", input=(1, 28, 28), classes=10)))


def chain(number=0, density=0.1):
    """init, train, prune"""
    train = Node(Train(data=DATA, seed=number, lr=0.001 * (number + 1)), INIT)
    return [INIT, train, Node(Prune(data=DATA, density=density), train)]


def write(root, node, accuracy=0.9, seconds=2.0, started=0.0, **figures):
    """The folder of a finished step."""
    folder = root / node.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.toml").write_text(dumps(node.spec))
    env = {
        "name": node.name, "parent": node.parent.name if node.parent else None, "started": started, "seconds": seconds,
        "parts": 1, "machine": {"cpu": "a processor", "cores": 2}, "versions": {"torch": "2"}, "commit": "abc",
        "threads": 1, "isa": "avx2",
    }  # fmt: skip
    (folder / "env.json").write_text(json.dumps(env))
    result = {"density": 1.0, "bytes": 100, "layers": [{"name": "fc", "density": 0.5}], **figures}
    if accuracy is not None:
        result["test"] = {"accuracy": accuracy, "standard_error": 0.01, "n": 100, "loss": 0.5}
    (folder / "result.json").write_text(json.dumps(result))
    return folder
