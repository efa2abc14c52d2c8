"""What callers hand to `pack` and the exporters: taken, or refused in one line that says what to do, before work."""

import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune
from torch.utils.data import DataLoader, TensorDataset

import prunery
from prunery import native
from prunery.engine import export, given, pack, to_onnx, to_openvino
from prunery.engine.trial import difference
from prunery.quantize import Bits, quantised_
from prunery.refused import Refused
from prunery.spec import install

if not native.available():
    pytest.skip("the compiled library is missing", allow_module_level=True)

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.zeros(2, dtype=torch.int64)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))


def with_nan():
    made = network()
    made[3].bias.data[1] = torch.nan
    return made


def locked(pruned=False):
    """Of a kind that nothing can copy."""
    made = network()
    made.lock = threading.Lock()
    if pruned:
        torch_prune.l1_unstructured(made[0], "weight", 0.5)
    return made


def one_line(call, *words):
    with pytest.raises(Refused) as refused:
        call()
    said = str(refused.value)
    assert "\n" not in said
    assert len(said) < 500
    for word in words:
        assert word in said


NETWORKS = [
    (nn.Linear, ("pack: ", "the class Linear", "expected")),
    ("resnet18", ("resnet18", 'prunery.load("resnet18")')),
    (None, ("NoneType", "torch.nn.Module")),
    (nn.Linear(3, 2, device="meta"), ("meta device", "expected")),
    (nn.LazyLinear(2), ("no shape yet", "network(example)")),
    (with_nan(), ("3.bias holds NaN", "expected")),
    (locked(), ("cannot be copied", "copy.deepcopy")),
    (locked(pruned=True), ("0 is pruned by torch.nn.utils.prune", "masks = prunery.plain_(network)")),
]


@pytest.mark.parametrize(("wrong", "words"), NETWORKS, ids=range(len(NETWORKS)))
def test_networks_that_cannot_be_packed(wrong, words):
    one_line(lambda: pack(wrong, X), *words)


EXAMPLES = [
    (None, ("example is None", "a batch")),
    (X.numpy(), ("torch.from_numpy",)),
    ([X], ("a list", "one tensor")),
    (X[:0], ("[0, 3, 8, 8]", "one input or more")),
    (X[0], ("[3, 8, 8]", "[B, C, H, W]", "example[None]")),
    (torch.randn(2, 3, 4, 5, 6), ("[2, 3, 4, 5, 6]", "[B, C, H, W]")),
    (X.to(torch.uint8), ("holds uint8", "expected floats")),
    (X.cfloat(), ("holds complex64", "expected floats")),
    (X * torch.nan, ("NaN", "finite")),
    (X.to("meta"), ("meta device", "values")),
    (X.to_sparse(), ("sparse", "dense")),
    (torch.randn(2, 4, 8, 8), ("Sequential cannot take inputs of [2, 4, 8, 8]", "expected an example of the size")),
]


@pytest.mark.parametrize(("wrong", "words"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_examples_that_do_not_fit(wrong, words):
    one_line(lambda: pack(network(), wrong), *words)


@pytest.mark.parametrize("example", [X.double(), X.bfloat16(), X.clone().requires_grad_()])
def test_floats_of_any_kind_are_an_example(example):
    assert pack(network(), example).input_shape == (3, 8, 8)


CALIBRATIONS = [
    (X, ("calibration is a Tensor", "[images]")),
    ("images", ("calibration is a str", "DataLoader")),
    ({"a": X}, ("calibration is a dict", "batches")),
    (TensorDataset(X, Y), ("TensorDataset", "DataLoader")),
    ([], ("no images", "a batch or more")),
    ([X[:0]], ("no images",)),
    ([X, X[:, :2]], ("batch 2 has shape [2, 2, 8, 8]", "[batch, 3, 8, 8]")),
    ([X[0]], ("batch 1 has shape [3, 8, 8]", "[batch, 3, 8, 8]")),
    ([X.to(torch.uint8)], ("batch 1 holds uint8", "floats")),
    ([X * torch.nan], ("batch 1 holds NaN",)),
    ([X.numpy()], ("batch 1 is a ndarray", "a tensor")),
    ([{"images": X}], ("batch 1 is a dict", "(inputs, labels)")),
]


@pytest.mark.parametrize(("wrong", "words"), CALIBRATIONS, ids=range(len(CALIBRATIONS)))
def test_calibrations_that_do_not_fit(wrong, words):
    one_line(lambda: pack(network(), X, wrong), *words)


def test_pairs_and_loaders_calibrate_as_their_images_do():
    made = network()
    wanted = pack(made, X, [X]).data
    loader = DataLoader(TensorDataset(X, Y), 2)
    for batches in ([(X, Y)], [[X, Y]], loader, (x for x in [X]), [X.double()]):
        assert pack(made, X, batches).data == wanted


def test_enough_images_are_enough(monkeypatch):
    monkeypatch.setattr(given, "ENOUGH", 5)
    assert [len(x) for x in given.batches((X for _ in iter(int, 1)), X, "pack")] == [2, 2, 1]
    assert [len(x) for x in given.batches([torch.cat([X] * 5)], X, "pack")] == [5]


@pytest.mark.parametrize("values", ["float16", "f8", None, 16])
def test_values_are_one_of_two(values):
    one_line(lambda: pack(network(), X, values=values), "pack: values", "choose one of f32, f16")


def test_what_torch_has_pruned_is_packed_as_it_is():
    made = network()
    torch_prune.l1_unstructured(made[0], "weight", 0.5)
    made.kept = [made(X)]  # a tensor that deepcopy alone refuses
    assert difference(pack(made, X)(X), made(X)) < 1e-5


class Course(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 3)

    def forward(self, x):
        return self.inner(x) if x.sum() > 0 else self.inner(-x)


def test_a_refusal_is_all_that_is_said(capfd):
    """torch.export prints the graph as far as it came, and logs."""
    capfd.readouterr()
    one_line(lambda: pack(Course(), torch.randn(2, 4)), "torch.export cannot follow Course", "do", "values")
    assert capfd.readouterr() == ("", "")


def test_loggers_speak_again_afterwards():
    import logging

    from prunery.engine.capture import quiet

    before = logging.getLogger("torch").level
    with pytest.raises(ZeroDivisionError), quiet():
        raise ZeroDivisionError
    assert logging.getLogger("torch").level == before


WHERE = [(".", "is a folder"), ("", "is no file's name"), (None, "is no file's name"), ("x" * 300, "at most 255")]


@pytest.mark.parametrize("to", [to_onnx, to_openvino])
@pytest.mark.parametrize(("path", "words"), WHERE)
def test_exported_files_have_names(to, path, words, monkeypatch):
    monkeypatch.setattr(export, "installed", lambda *_: None)
    one_line(lambda: to(network(), X, path), words, "expected")


@pytest.mark.parametrize("to", [to_onnx, to_openvino])
def test_exporters_look_at_what_they_are_given(to, tmp_path):
    path = tmp_path / "network.xml"
    one_line(lambda: to(nn.Linear, X, path), f"{to.__name__}: ", "the class Linear")
    one_line(lambda: to(network(), None, path), f"{to.__name__}: example is None")
    one_line(lambda: to(network(), X.to(torch.uint8), path), "holds uint8")
    one_line(lambda: to(with_nan(), X, path), "3.bias holds NaN")
    assert list(tmp_path.iterdir()) == []


def test_calibration_is_for_quantisers(tmp_path):
    one_line(lambda: to_onnx(network(), X, tmp_path / "network.onnx", [X]), "to_onnx: calibration", "quantisers")
    few = network()
    quantised_(few, {"3": Bits(4, 4)}, [X])
    one_line(lambda: to_onnx(few, X, tmp_path / "network.onnx", X), "to_onnx: calibration is a Tensor", "batches")
    assert list(tmp_path.iterdir()) == []


def test_advice_is_for_pip_and_for_a_checkout(tmp_path, monkeypatch):
    def said():
        text = install("onnx", *export.ONNX)
        assert text.startswith("install onnx, onnxscript, onnxruntime: ")
        return text.partition(": ")[2]

    monkeypatch.setattr("sys.prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr("sys.executable", str(tmp_path / ".venv" / "bin" / "python"))
    monkeypatch.chdir(tmp_path)
    assert said() == "pip install 'prunery[onnx]'"
    (tmp_path / "src" / "prunery").mkdir(parents=True)
    (tmp_path / "requirements.lock").touch()
    assert said() == "uv pip install onnx onnxscript onnxruntime"
    (tmp_path / ".tools" / "bin").mkdir(parents=True)
    (tmp_path / ".tools" / "bin" / "uv").touch()
    assert said() == ".tools/bin/uv pip install onnx onnxscript onnxruntime"
    monkeypatch.chdir(tmp_path / "src")
    packages = "onnx onnxscript onnxruntime"
    assert said() == f"../.tools/bin/uv pip install --python ../.venv/bin/python {packages}"


def test_one_class_catches_every_refusal():
    assert prunery.Refused is Refused
    assert issubclass(prunery.runtime.Broken, Refused)
    assert issubclass(native.NativeMissing, Refused)
    with pytest.raises(prunery.Refused):
        prunery.runtime.load("nothing.prunery")
