"""Networks with quantisers as ONNX and OpenVINO files: learned steps and bounds are kept, zeros stay zeros."""

import copy
from collections import Counter
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from prunery.engine import export, qdq, to_onnx, to_openvino
from prunery.engine.graph import ACTIVATIONS, KINDS, Op, Rounding
from prunery.models import build
from prunery.models.deep import ResNet
from prunery.quantize import Bits, planned, quantised_, quantised_layers, whole_weights
from prunery.spec import Model, Quantize, Refused

if not all(find_spec(name) for name in export.BYTES):
    pytest.skip("onnx is not installed", allow_module_level=True)

X = torch.randn(48, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 + 1


def chain():
    """Layers one behind the other, a depthwise one among them."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.Conv2d(8, 12, 1), nn.BatchNorm2d(12),
        nn.Conv2d(12, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


NETWORKS = {
    "chain": chain,
    "residual": lambda: ResNet((8, 16), 1, (3, 16, 16), 10),
    "lenet5": lambda: build(Model(name="lenet5", input=(3, 16, 16), classes=10), 0),
    "vectors": lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 30), nn.ReLU(), nn.Linear(30, 20), nn.Linear(20, 10)),
}
BITS = [(8, 8), (4, 4), (1, 2)]


def quantised(net, weight, input, density=0.6, **more):
    """Pruned at random, with statistics that are not those of a fresh network, a turned normalisation, quantisers."""
    for _ in range(3):
        net.train()(X)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.weight.data[::3] *= -1
        if isinstance(m, nn.Conv2d | nn.Linear):
            m.weight.data *= torch.rand(m.weight.shape) < density
    names = [n for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    quantised_(net.eval(), {n: Bits(weight, input, **more) for n in names}, [X])
    return net.eval()


def made(kind, weight, input, **more):
    torch.manual_seed(0)
    return quantised(NETWORKS[kind](), weight, input, **more)


def far(run, net, images=X):
    """Of each image the largest difference, as a share of the largest result of all."""
    with torch.no_grad():
        wanted = net(images)
    found = torch.from_numpy(np.array(run(images.numpy())))
    assert found.shape == wanted.shape
    return (found - wanted).flatten(1).abs().amax(1) / wanted.abs().max()


def kinds(path, tmp_path):
    """What ONNX Runtime makes of a file: how many nodes of each kind."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimised.onnx"), 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)


def held(path):
    """A file's constants."""
    import onnx
    from onnx import numpy_helper

    return {c.name: numpy_helper.to_array(c) for c in onnx.load(path).graph.initializer}


NEAR = {8: 0.005, 4: 0.003, 2: 0.02}
"""by bits of inputs; biases are whole numbers, finer ones where weights have fewer bits"""


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(("weight", "input"), BITS)
@pytest.mark.parametrize("per", ["channel", "tensor"])
def test_onnx_runtime_gives_the_results_of_evaluation(kind, weight, input, per, tmp_path):
    net = made(kind, weight, input, per=per)
    path = to_onnx(net, X[:2], tmp_path / "network.onnx")
    assert float(far(export._onnxruntime(path), net).median()) < NEAR[input]
    assert [p.name for p in tmp_path.iterdir()] == ["network.onnx"]


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(("weight", "input"), BITS)
def test_openvino_gives_the_results_of_evaluation(kind, weight, input, tmp_path):
    if not find_spec("openvino"):
        pytest.skip("openvino is not installed")
    net = made(kind, weight, input)
    path = to_openvino(net, X[:2], tmp_path / "network.xml")
    assert float(far(export._openvino(path), net).median()) < NEAR[input]
    assert {p.name for p in tmp_path.iterdir()} == {"network.xml", "network.bin"}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(("weight", "input"), BITS)
def test_with_typical_inputs_every_layer_computes_in_integers(kind, weight, input, tmp_path):
    net = made(kind, weight, input)
    path = to_onnx(net, X[:2], tmp_path / "network.onnx", [X])
    assert float(far(export._onnxruntime(path), net).median()) < {8: 0.01, 4: 0.05, 2: 0.2}[input]
    found = kinds(path, tmp_path)
    convolutions = sum(m.weight.ndim == 4 for m in quantised_layers(net).values())
    assert found["QLinearConv"] == convolutions
    assert found["MatMulIntegerToFloat"] == len(quantised_layers(net)) - convolutions
    assert not found.keys() & {"Conv", "FusedConv", "Gemm", "MatMul"}


def test_without_them_residuals_stay_floats_as_in_evaluation(tmp_path):
    net = made("residual", 4, 4)
    path = to_onnx(net, X[:2], tmp_path / "network.onnx")
    found = kinds(path, tmp_path)
    assert 0 < found["QLinearConv"] < sum(m.weight.ndim == 4 for m in quantised_layers(net).values())
    exact, near = far(export._onnxruntime(path), net), to_onnx(net, X[:2], tmp_path / "bytes.onnx", [X])
    assert exact.mean() < far(export._onnxruntime(near), net).mean()


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(("weight", "input"), BITS)
@pytest.mark.parametrize("calibration", [None, [X]])
def test_weights_are_signed_bytes_whose_zeros_are_those_of_the_network(kind, weight, input, calibration, tmp_path):
    net = made(kind, weight, input)
    constants = held(to_onnx(net, X[:2], tmp_path / "network.onnx", calibration))
    for name, layer in quantised_layers(net).items():
        stored, whole = constants[f"{name}.weight"], whole_weights(layer).int().numpy()
        stored = stored.T if whole.ndim == 2 else stored
        assert stored.dtype == np.int8
        stored = stored.astype(int)
        assert stored.shape == whole.shape
        assert not stored[(layer.weight == 0).numpy()].any()
        assert np.count_nonzero(stored) == np.count_nonzero(whole) > 0
        by = np.abs(stored).max() / np.abs(whole).max()
        assert np.abs(np.abs(stored) - by * np.abs(whole)).max() <= (1 if weight == 8 else 0)  # -128 turned is 127


def test_a_file_is_a_quarter_of_the_one_of_floats(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 300), nn.ReLU(), nn.Linear(300, 10))
    whole = 4 * sum(p.numel() for p in net.parameters())
    few = to_onnx(quantised(net, 4, 4), X[:2], tmp_path / "network.onnx")
    assert few.stat().st_size < 0.27 * whole


@pytest.mark.parametrize("bits", [1, 2, 4, 7, 8])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("first", [nn.Conv2d(3, 6, 3, 2, 1), nn.Linear(16, 6)])
def test_inputs_are_held_within_the_bounds_of_their_bits(bits, signed, first, tmp_path):
    """One layer alone: no rounding behind it, so results are equal."""
    if signed and bits == 1:
        pytest.skip("one bit with a sign is refused: below")
    images = X if isinstance(first, nn.Conv2d) else X[:, 0, 0]
    net = nn.Sequential(first).eval()
    quantised_(net, {"0": Bits(4, bits)}, [images if signed else images.abs()])
    assert quantised_layers(net)["0"].bits.signed is signed
    run = export._onnxruntime(to_onnx(net, images[:2], tmp_path / "network.onnx"))
    assert far(run, net, 10 * images).max() < 1e-5
    assert far(run, net, -10 * images).max() < 1e-5


# ---- everything that may stand between layers


class Pieces(nn.Module):
    """Two quantised layers and what is to be tried between them, beside it, and behind."""

    def __init__(self, between=None, join=None, channels=6):
        super().__init__()
        self.first, self.other = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 6, 1)
        self.between, self.join = between or nn.Identity(), join
        self.last = nn.Conv2d(channels, 5, 3)

    def forward(self, x):
        y = self.between(self.first(x))
        return self.last(y if self.join is None else self.join(y, self.other(x)))


def shuffled(y, z):
    return torch.cat([y, z], 1).view(len(y), 2, 6, 16, 16).transpose(1, 2).flatten(1, 2)


def gated(y, z):
    return y * torch.sigmoid(nn.functional.adaptive_avg_pool2d(z, 1))


def normalised(y, z):
    return (y + z) * torch.arange(1.0, 7).view(1, 6, 1, 1) - 0.5


BETWEEN = {
    "none": nn.Identity(), "relu": nn.ReLU(), "relu6": nn.ReLU6(), "hard_swish": nn.Hardswish(),
    "hard_sigmoid": nn.Hardsigmoid(), "silu": nn.SiLU(), "sigmoid": nn.Sigmoid(), "gelu": nn.GELU(), "tanh": nn.Tanh(),
    "leaky_relu": nn.LeakyReLU(0.2), "elu": nn.ELU(0.7),
    "max_pool": nn.MaxPool2d(3, 2, 1), "max_pool over the edge": nn.MaxPool2d(2, 3, ceil_mode=True),
    "avg_pool": nn.AvgPool2d(3, 2, 1), "avg_pool without padding": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "avg_pool over the edge": nn.AvgPool2d(4, 3, 1, ceil_mode=True),
    "batch_norm": nn.Sequential(nn.ReLU(), nn.BatchNorm2d(6)),
}  # fmt: skip
JOINS = {
    "add": (torch.add, 6), "mul": (torch.mul, 6), "concat": (lambda y, z: torch.cat([y, z], 1), 12),
    "gather": (shuffled, 12), "global_pool": (gated, 6), "affine": (normalised, 6),
}  # fmt: skip
PIECES = {
    **{name: lambda module=module: Pieces(copy.deepcopy(module)) for name, module in BETWEEN.items()},
    **{name: lambda how=how: Pieces(nn.ReLU(), *how) for name, how in JOINS.items()},
    "softmax": lambda: nn.Sequential(Pieces(), nn.Flatten(), nn.Linear(980, 7), nn.Softmax(1)),
}


@pytest.mark.parametrize("name", PIECES)
@pytest.mark.parametrize("calibration", [None, [X]])
def test_what_stands_between_layers(name, calibration, tmp_path):
    torch.manual_seed(0)
    net = PIECES[name]()
    net = quantised(net, 8, 8, density=1.0)
    run = export._onnxruntime(to_onnx(net, X[:2], tmp_path / "network.onnx", calibration))
    assert float(far(run, net).median()) < (0.02 if calibration else 0.01)


def test_there_is_a_piece_for_every_operation_and_activation():
    tried = {*PIECES, "conv", "linear", "activate", "flatten"}
    assert tried >= {*qdq.OPERATIONS, *qdq.ACTIVATIONS, *qdq.LAYER}
    assert set(qdq.ACTIVATIONS) == set(ACTIVATIONS)
    assert {*qdq.OPERATIONS, *qdq.LAYER} == {*KINDS} - {"quantize", "dequantize"}


def test_layers_of_floats_among_quantised_ones_stay_so(tmp_path):
    torch.manual_seed(0)
    net = chain().eval()
    quantised_(net, {"4": Bits(4, 4), "7": Bits(8, 8)}, [X])
    constants = held(path := to_onnx(net, X[:2], tmp_path / "network.onnx"))
    assert {constants[f"{n}.weight"].dtype.name for n in ("0", "9", "13")} == {"float32"}
    assert {constants[f"{n}.weight"].dtype.name for n in ("4", "7")} == {"int8"}
    assert float(far(export._onnxruntime(path), net).median()) < 0.005


HOW = {
    "ternary": ({"bits": 2, "ternary": True, "learned": True}, "int8"),
    "weights alone": ({"bits": 8, "learned": True}, "int8"),
    "clusters": ({"bits": 3, "clusters": True, "learned": True}, "float32"),
    "clusters that read bytes": ({"bits": 3, "activations": 8, "clusters": True}, "float32"),
}


@pytest.mark.parametrize(("how", "dtype"), HOW.values(), ids=HOW)
def test_weights_of_few_bits_behind_floats_and_those_that_share_values(how, dtype, tmp_path):
    torch.manual_seed(0)
    net = NETWORKS["residual"]().eval()
    quantised_(net, planned(net, Quantize(**how)), [X])
    path = to_onnx(net.eval(), X[:2], tmp_path / "network.onnx")
    assert {held(path)[f"{name}.weight"].dtype.name for name in quantised_layers(net)} == {dtype}
    assert float(far(export._onnxruntime(path), net).max()) < (0.01 if how.get("activations") else 1e-4)


# ---- what is refused


def one_line(call, *texts):
    with pytest.raises(Refused) as refused:
        call()
    assert "\n" not in str(refused.value)
    assert all(text in str(refused.value) for text in texts), refused.value


def test_signs_are_refused_in_a_line(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    quantised_(net, {"0": Bits(1, 1)}, [X])
    one_line(lambda: to_onnx(net, X[:2], tmp_path / "network.onnx"), "0 reads one bit with a sign", "two bits")
    assert list(tmp_path.iterdir()) == []


def test_calibration_without_images_is_refused(tmp_path):
    net = made("vectors", 8, 8)
    one_line(lambda: to_onnx(net, X[:2], tmp_path / "n.onnx", []), "calibration gives no inputs", "a batch or more")


WRONG = {
    "bounds": ("bounds", lambda r, activation: (qdq.zero_of(r), qdq.zero_of(r) + 2)),
    "weights": ("finer", lambda op, r: (lambda w, s, b: (w, 1.5 * s, b))(*qdq_finer(op, r))),
    "biases": ("finer", lambda op, r: (lambda w, s, b: (w, s, None))(*qdq_finer(op, r))),
}
qdq_finer = qdq.finer


@pytest.mark.parametrize(("name", "instead"), WRONG.values(), ids=WRONG)
def test_a_file_that_computes_something_else_is_refused_and_leaves_nothing(name, instead, tmp_path, monkeypatch):
    net = made("chain", 4, 4)
    monkeypatch.setattr(qdq, name, instead)
    one_line(
        lambda: to_onnx(net, X[:2], tmp_path / "network.onnx"), "half of all results differ", "nothing was written"
    )
    assert list(tmp_path.iterdir()) == []


def test_weights_are_doubled_while_bytes_and_the_counting_of_old_processors_have_room():
    op = Op("conv", "x", [0], 1, weight=np.array([[-8, 7], [0, 1]], np.float32), scales=np.array([0.5, 0.25]))
    for r, by in ((Rounding(1.0, 0, 15), 16), (Rounding(1.0, 0, 255), 8), (Rounding(1.0, -8, 7), 8)):
        weight, scales, bias = qdq.finer(op, r)
        assert weight.tolist() == [[-8 * by, 7 * by], [0, by]]
        assert scales.tolist() == [0.5 / by, 0.25 / by]
        assert bias is None
        assert 2 * np.abs(weight.astype(int)).max() * (qdq.zero_of(r) + r.high) <= 2**15
    eight = replace_weight(op, [[-128, 127], [0, 0]])
    assert qdq.finer(eight, Rounding(1.0, 0, 255))[0].tolist() == [[-128, 127], [0, 0]]
    assert not qdq.finer(replace_weight(op, [[0, 0], [0, 0]]), Rounding(1.0, 0, 15))[0].any()


def replace_weight(op, rows):
    return Op(op.kind, op.name, op.inputs, op.output, weight=np.array(rows, np.float32), scales=op.scales)
