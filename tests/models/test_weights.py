"""A file of weights into a network: everything fits but perhaps the head, or nothing is loaded."""

import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import efficientnet_b0

from prunery.models import build, fit, read_weights
from prunery.runs import State
from prunery.spec import Model, Refused


def lenet(weights="", seed=1, **more):
    return Model(**{"name": "lenet5", "input": (1, 28, 28), "classes": 10, "weights": str(weights)} | more)


@pytest.fixture
def state():
    return build(lenet(), 0).state_dict()


def same(network, state):
    return all(torch.equal(v, state[k]) for k, v in network.state_dict().items())


WRAPPED = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model": lambda s: {"model": s},
    "nested": lambda s: {"model": {"state_dict": s}},
    "module": lambda s: {f"module.{k}": v for k, v in s.items()},
    "compiled": lambda s: {"net": {f"module._orig_mod.{k}": v for k, v in s.items()}},
}


@pytest.mark.parametrize("how", WRAPPED)
def test_pth(tmp_path, state, how):
    torch.save(WRAPPED[how](state), tmp_path / "w.pth")
    assert same(build(lenet(tmp_path / "w.pth"), 1), state)


def test_safetensors_with_masks(tmp_path, state):
    masks = {k: torch.ones_like(v, dtype=torch.bool) for k, v in state.items() if v.dim() > 1}
    save_file(State(state, masks).tensors(), tmp_path / "w.safetensors")
    assert same(build(lenet(tmp_path / "w.safetensors"), 1), state)


def test_half_precision_is_reported(tmp_path, state):
    save_file({k: v.half() for k, v in state.items()}, tmp_path / "w.safetensors")
    lines = []
    network = build(lenet(tmp_path / "w.safetensors"), 1, lines.append)
    assert same(network, {k: v.half().float() for k, v in state.items()})
    assert lines == [f"10 of 10 tensors loaded from {tmp_path / 'w.safetensors'}", "stored as float16, now float32"]


def test_efficientnet_gets_a_new_head(tmp_path):
    """Torchvision's own keys and shapes, 1000 classes, into ten classes."""
    torch.manual_seed(0)
    theirs = efficientnet_b0().state_dict()
    torch.save(theirs, tmp_path / "efficientnet_b0.pth")
    lines = []
    spec = Model(name="efficientnet_b0", input=(3, 64, 64), classes=10, weights=str(tmp_path / "efficientnet_b0.pth"))
    network, fresh = build(spec, 0, lines.append), build(Model(name=spec.name, input=spec.input, classes=10), 0)
    for key, value in network.state_dict().items():
        assert torch.equal(value, (fresh.state_dict() if key.startswith("classifier.1.") else theirs)[key])
    assert lines[0].startswith(f"{len(theirs) - 2} of {len(theirs)} tensors loaded from")
    assert lines[1] == "classifier.1: new head of 10 classes (the file has 1000); it keeps its initial weights"


def test_batches_that_nobody_counted():
    """Torchvision publishes batch normalisation without its counters."""
    network, other = (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for _ in range(2))
    tensors = {k: v for k, v in other.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert fit(network, tensors, "a file") == ["6 of 7 tensors loaded from a file"]
    assert torch.equal(network[0].weight, other[0].weight)


class Holder(nn.Module):
    def __init__(self):
        super().__init__()
        self.module = nn.Linear(2, 3)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("make", [Holder, lambda: nn.Sequential(nn.Linear(2, 3))])
def test_prefixes_go_unless_the_network_has_a_child_of_that_name(make, prefix, tmp_path):
    network, theirs = make(), make()
    torch.save({prefix + k: v for k, v in theirs.state_dict().items()}, tmp_path / "w.pth")
    assert fit(network, read_weights(tmp_path / "w.pth"), "w.pth", head=False) == ["2 of 2 tensors loaded from w.pth"]
    assert same(network, theirs.state_dict())


CHANGES = {
    "1 missing (fc2.bias)": lambda s: s.pop("fc2.bias"),
    "4 unexpected (a, b, c, ...)": lambda s: s.update({k: torch.ones(1) for k in "abcd"}),
    "1 of another shape (fc1.weight [3, 2], expected [300, 256])": lambda s: s.update({"fc1.weight": torch.ones(3, 2)}),
    "2 of another shape": lambda s: s.update({"fc3.bias": torch.ones(3), "conv1.bias": torch.ones(3)}),
    "holds NaN in conv1.bias": lambda s: s["conv1.bias"].fill_(float("nan")),
}  # fmt: skip


@pytest.mark.parametrize("expected", CHANGES)
def test_anything_else_is_refused_and_nothing_changed(state, expected):
    network = build(lenet(), 1)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    CHANGES[expected](state)
    with pytest.raises(Refused) as caught:
        fit(network, state, "w.pth")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert same(network, before)


def test_a_wider_layer_is_no_head(state):
    """A file of another width differs in two layers."""
    state |= {"fc2.weight": torch.ones(90, 300), "fc2.bias": torch.ones(90), "fc3.weight": torch.ones(10, 90)}
    with pytest.raises(Refused, match="3 of another shape"):
        fit(build(lenet(), 1), state, "w.pth")


def _torch_bytes(tmp_path, value):
    torch.save(value, tmp_path / "x")
    return (tmp_path / "x").read_bytes()


BROKEN = {
    "empty": (lambda t: b"", "not a whole PyTorch file"),
    "text": (lambda t: b"<!DOCTYPE html><html>404</html>", "not a whole PyTorch file|plain tensors"),
    "half": (lambda t: _torch_bytes(t, {"a": torch.ones(999)})[:900], "not a whole PyTorch file"),
    "whole network": (lambda t: _torch_bytes(t, nn.Linear(2, 2)), "can run code"),
    "numbers": (lambda t: pickle.dumps([1, 2]), "can run code|names and tensors"),
    "no tensors": (lambda t: _torch_bytes(t, {"epoch": 3, "acc": 0.5}), "a dict of epoch, acc"),
    "a list": (lambda t: _torch_bytes(t, [torch.ones(2)]), "holds a list"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(tmp_path, name):
    make, pattern = BROKEN[name]
    path = tmp_path / "w.pth"
    path.write_bytes(make(tmp_path))
    with pytest.raises(Refused, match=pattern) as caught:
        build(lenet(path), 0)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_broken_safetensors(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"\x80" + b"\0" * 20)
    with pytest.raises(Refused, match=r"w\.safetensors is not a whole safetensors file"):
        build(lenet(tmp_path / "w.safetensors"), 0)


def test_missing_file():
    with pytest.raises(Refused, match=r"nowhere\.pth does not exist"):
        build(lenet("nowhere.pth"), 0)


def test_checksum(tmp_path, state):
    torch.save(state, tmp_path / "w.pth")
    right = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()
    assert same(build(lenet(tmp_path / "w.pth", weights_sha256=right), 1), state)
    with pytest.raises(Refused, match=r"w\.pth has changed"):
        build(lenet(tmp_path / "w.pth", weights_sha256="0" * 64), 1)


def fails(*args, **kwargs):
    raise OSError("no route to host\nand more")


def test_pretrained_without_a_network(monkeypatch):
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fails)
    monkeypatch.setattr("timm.create_model", fails)
    for name, where in [("mobilenet_v2", "https://download.pytorch.org/models/mobilenet_v2-"),
                        ("timm:resnet10t", "https://huggingface.co/timm/resnet10t.")]:  # fmt: skip
        with pytest.raises(Refused, match="no route to host") as caught:
            build(Model(name=name, input=(3, 64, 64), classes=10, weights="pretrained"), 0)
        assert where in str(caught.value)
        assert "--set model.weights=FILE" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_pretrained_weights_are_used(monkeypatch):
    published = {}

    def download(*args, **kwargs):
        torch.manual_seed(1)
        published.update(efficientnet_b0().state_dict())
        return published

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    spec = Model(name="torchvision:efficientnet_b0", input=(3, 64, 64), classes=10, weights="pretrained")
    network = build(spec, 0)
    assert torch.equal(network.features[0][0].weight, published["features.0.0.weight"])


def test_the_published_file_is_taken_from_where_the_refusal_says(monkeypatch, tmp_path):
    """The real file's name, keys and shapes; nothing between its place and the network is stood in for."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", fails)
    spec = Model(name="efficientnet_b0", input=(3, 64, 64), classes=10, weights="pretrained")
    with pytest.raises(Refused, match="put it at ") as caught:
        build(spec, 0)
    place = Path(str(caught.value).split("put it at ")[1].split(", or")[0])
    assert place == tmp_path / "hub/checkpoints/efficientnet_b0_rwightman-7f5810bc.pth"
    torch.manual_seed(2)
    theirs = efficientnet_b0().state_dict()
    place.parent.mkdir(parents=True, exist_ok=True)
    torch.save(theirs, place)
    lines = []
    network = build(spec, 0, lines.append).state_dict()
    assert all(torch.equal(network[k], v) for k, v in theirs.items() if not k.startswith("classifier.1."))
    assert "new head of 10 classes (the file has 1000)" in lines[1]


def test_a_file_of_timms_hub_gets_a_new_head(tmp_path):
    """safetensors with the hub's own note in its header."""
    name, file = "timm:mobilenetv3_small_050", tmp_path / "model.safetensors"
    theirs = build(Model(name=name, input=(3, 32, 32), classes=1000), 3).state_dict()
    save_file(theirs, file, {"format": "pt"})
    lines = []
    network = build(Model(name=name, input=(3, 32, 32), classes=10, weights=str(file)), 0, lines.append).state_dict()
    assert all(torch.equal(network[k], v) for k, v in theirs.items() if not k.startswith("classifier."))
    assert "classifier: new head of 10 classes (the file has 1000)" in lines[1]


def test_nothing_is_published_for_ours():
    with pytest.raises(Refused, match="has no published weights"):
        build(lenet("pretrained"), 0)
