"""Exported files compute what the network does, in their own run time, and nothing is left of those that do not."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from prunery.engine import export, to_onnx, to_openvino
from prunery.engine.interpret import Interpreted
from prunery.engine.trial import difference, lowered
from prunery.models import build
from prunery.spec import Model, Refused

ONNX = all(find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
OPENVINO = find_spec("openvino") is not None


def onnxruntime(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda x: session.run(["results"], {"images": x})[0]


def openvino(path):
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda x: compiled(x)[0]


KINDS = {
    "onnx": (to_onnx, "network.onnx", onnxruntime, ONNX),
    "openvino": (to_openvino, "network.xml", openvino, OPENVINO),
}


@pytest.fixture(params=KINDS)
def kind(request):
    to, name, run, there = KINDS[request.param]
    if not there:
        pytest.skip(f"{request.param} is not installed")
    return to, name, run


def network():
    """Small, with normalisation and an activation that exporters spell out."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Hardswish(), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(128, 5))


def test_files_take_any_number_of_images(kind, tmp_path):
    to, name, run = kind
    wanted, example = network(), torch.randn(1, 3, 8, 8)
    path = to(wanted, example, tmp_path / "new" / name)
    assert path == tmp_path / "new" / name
    wanted.eval()
    for count in (1, 2, 5):
        x = torch.randn(count, 3, 8, 8)
        assert difference(torch.from_numpy(np.array(run(path)(x.numpy()))), wanted(x)) < 1e-5


def test_networks_of_the_house_and_their_graphs(kind, tmp_path):
    to, name, run = kind
    made, example = build(Model(name="lenet5", input=(1, 28, 28), classes=10), 0), torch.randn(2, 1, 28, 28)
    again = Interpreted(lowered(made, example))
    files = [to(one, example, tmp_path / f"{i}-{name}") for i, one in enumerate((made, again))]
    wanted = made.eval()(example)
    assert all(difference(torch.from_numpy(np.array(run(f)(example.numpy()))), wanted) < 1e-5 for f in files)


class Fixed(nn.Module):
    """For just so many images."""

    def forward(self, x):
        if len(x) != 2:
            raise ValueError("two images, please")
        return x.reshape(2, -1) * 2


def test_a_file_for_a_fixed_number_of_images_is_better_than_none(kind, tmp_path):
    to, name, run = kind
    x = torch.randn(2, 3, 4, 4)
    path = to(Fixed(), x, tmp_path / name)
    assert difference(torch.from_numpy(np.array(run(path)(x.numpy()))), Fixed()(x)) < 1e-6


def test_what_differs_is_refused_and_leaves_nothing(kind, tmp_path, monkeypatch):
    to, name, _ = kind
    (tmp_path / name).write_text("before")
    monkeypatch.setattr(export, "answer", lambda network, images: torch.zeros(len(images), 5))
    with pytest.raises(Refused, match=r"cannot be exported to .* differs from the network by") as refused:
        to(network(), torch.randn(2, 3, 8, 8), tmp_path / name)
    assert "\n" not in str(refused.value)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "before"


class Listing(nn.Module):
    def forward(self, x):
        return x[:, torch.tensor(x.flatten().tolist()).argsort()[:1]]


def test_what_cannot_be_exported_is_refused_in_a_line(tmp_path):
    if not ONNX:
        pytest.skip("onnx is not installed")
    with pytest.raises(Refused, match="Listing cannot be exported to ONNX") as refused:
        to_onnx(Listing(), torch.randn(2, 3), tmp_path / "network.onnx")
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_openvino_files_are_named_as_they_are(tmp_path):
    if not OPENVINO:
        pytest.skip("openvino is not installed")
    with pytest.raises(Refused, match=r"ends with \.xml"):
        to_openvino(network(), torch.randn(2, 3, 8, 8), tmp_path / "network.bin")


MISSING = [(to_onnx, "onnxruntime"), (to_openvino, "openvino")]


@pytest.mark.parametrize(("to", "missing"), MISSING)
def test_extras_that_are_missing_are_told(to, missing, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == missing else sys)
    with pytest.raises(Refused, match=rf"{missing} cannot be imported; install .*{missing}: .*pip install "):
        to(network(), torch.randn(2, 3, 8, 8), tmp_path / "network.xml")
    assert list(tmp_path.iterdir()) == []
