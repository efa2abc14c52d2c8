"""Run times: a network becomes what each of them reads from disk, and then a call for batches of one size.

A call goes from a numpy array of float32 images to a numpy array: what a run time does to lay the images out in its own
way is part of its time.
"""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from contest import DEEPSPARSE, deepsparse
from safetensors.torch import save_file
from torch import Tensor, nn

from prunery.engine import pack
from prunery.engine.rivals import OPENED, Call, size, written
from prunery.runtime import Packed

LAST = torch.channels_last


@dataclass(frozen=True)
class Ready:
    """A network in a run time: bytes on disk, and a call for images as many as the example's, on one thread."""

    bytes: int
    at: Callable[[np.ndarray], Call]
    packed: Packed | None = None
    """of our own engine"""


Maker = Callable[[nn.Module, Tensor, Path], Ready]
"""from a network, typical images and an empty folder"""


# ---- PyTorch


def called(function: Callable[[Tensor], Tensor], laid: Callable[[Tensor], Tensor] = lambda x: x) -> Call:
    def call(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return function(laid(torch.from_numpy(x))).float().numpy()

    return call


def on_disk(network: nn.Module, folder: Path) -> int:
    """Bytes of the weights in a file."""
    path = folder / "weights.safetensors"
    save_file({n: t.contiguous() for n, t in network.state_dict().items()}, path)
    return path.stat().st_size


def last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=LAST)


def half(x: Tensor) -> Tensor:
    return x.to(torch.bfloat16, memory_format=LAST)


def plain(network: nn.Module, typical: Tensor, folder: Path) -> Ready:
    own = copied(network)
    return Ready(on_disk(own, folder), lambda x: called(own))


def channels_last(network: nn.Module, typical: Tensor, folder: Path) -> Ready:
    own = copied(network).to(memory_format=LAST)
    return Ready(on_disk(own, folder), lambda x: called(own, last))


def bfloat16(network: nn.Module, typical: Tensor, folder: Path) -> Ready:
    own = copied(network).to(torch.bfloat16).to(memory_format=LAST)
    return Ready(on_disk(own, folder), lambda x: called(own, half))


def torchscript(network: nn.Module, typical: Tensor, folder: Path) -> Ready:
    """Traced, frozen and optimised: all convolutions in oneDNN's own layout from end to end."""
    path = folder / "traced.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is on its way out
        traced = torch.jit.trace(copied(network), typical[:2])
        torch.jit.save(traced, path)
        frozen = torch.jit.optimize_for_inference(torch.jit.freeze(traced.eval()))
    return Ready(path.stat().st_size, lambda x: called(frozen))


def compiled(network: nn.Module, typical: Tensor, folder: Path) -> Ready:
    return Ready(on_disk(network, folder), lambda x: called(inductor(copied(network))))


def compiled_bfloat16(network: nn.Module, typical: Tensor, folder: Path) -> Ready:
    own = copied(network).to(torch.bfloat16).to(memory_format=LAST)
    return Ready(on_disk(own, folder), lambda x: called(inductor(copied(own)), half))


def inductor(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """torch.compile with frozen weights, for one size of batch."""
    from torch._inductor import config

    config.freezing = True
    return torch.compile(network, dynamic=False)


def copied(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).eval()


class Fused(nn.Module):
    """Convolutions and linear layers as the operators that torch.compile calls: weights laid out once, ReLU inside."""

    def __init__(self, network: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.steps: list[Callable[[Tensor], Tensor]] = []
        layers = list(network.children())
        for layer, after in zip(layers, [*layers[1:], None], strict=True):
            if not isinstance(layer, nn.ReLU):
                self.steps.append(fused(layer, isinstance(after, nn.ReLU), x))
                x = self.steps[-1](x)

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


def fused(layer: nn.Module, relu: bool, x: Tensor) -> Callable[[Tensor], Tensor]:
    ops, ending = torch.ops.mkldnn, "relu" if relu else "none"
    if isinstance(layer, nn.Conv2d):
        how = list(layer.padding), list(layer.stride), list(layer.dilation), layer.groups
        weight = ops._reorder_convolution_weight(layer.weight.detach(), *how, list(x.shape))
        return lambda x: ops._convolution_pointwise(x, weight, layer.bias, *how, ending, [], "")
    if isinstance(layer, nn.Linear):
        weight = ops._reorder_linear_weight(layer.weight.detach(), len(x))
        return lambda x: ops._linear_pointwise(x, weight, layer.bias, ending, [], "")
    return layer


def fused_relu(network: nn.Module, typical: Tensor, folder: Path) -> Ready:
    own = copied(network).to(memory_format=LAST)

    def at(x: np.ndarray) -> Call:
        with torch.inference_mode():
            return called(Fused(own, last(torch.from_numpy(x))), last)

    return Ready(on_disk(own, folder), at)


# ---- other run times, and ours


def onnxruntime(network: nn.Module, typical: Tensor, folder: Path, name: str = "onnxruntime") -> Ready:
    path = written(name, copied(network), typical[:2].numpy(), one_by_one(typical), folder)
    return Ready(size(path), lambda x: OPENED["onnxruntime"](path, 1))


def onnxruntime_int8(network: nn.Module, typical: Tensor, folder: Path) -> Ready:
    return onnxruntime(network, typical, folder, "onnxruntime-int8")


def openvino(
    network: nn.Module, typical: Tensor, folder: Path, name: str = "openvino", precision: str = "f32"
) -> Ready:
    """Compiled for one size of batch, which it does better than for any."""
    path = written(name, copied(network), typical[:2].numpy(), one_by_one(typical), folder)

    def at(x: np.ndarray) -> Call:
        from openvino import Core

        settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        core = Core()
        model = core.read_model(path)
        model.reshape(list(x.shape))
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        return lambda x: request.infer([x], share_inputs=True, share_outputs=True)[0]

    return Ready(size(path), at)


def openvino_bfloat16(network: nn.Module, typical: Tensor, folder: Path) -> Ready:
    return openvino(network, typical, folder, precision="bf16")


def openvino_int8(network: nn.Module, typical: Tensor, folder: Path) -> Ready:
    return openvino(network, typical, folder, "openvino-int8")


def one_by_one(typical: Tensor) -> list[np.ndarray]:
    return list(np.split(typical.numpy(), len(typical)))


def in_deepsparse(network: nn.Module, typical: Tensor, folder: Path) -> Ready:
    """The run time that was withdrawn in 2025, in an environment of its own."""
    path = written("onnxruntime", copied(network), typical[:2].numpy(), [], folder)

    def at(x: np.ndarray) -> Call:
        call = deepsparse(copied(network), x, 1)
        assert call is not None
        return call

    return Ready(size(path), at)


def engine(network: nn.Module, typical: Tensor, folder: Path, int8: bool = False) -> Ready:
    packed = pack(network, typical[:1], typical.split(64) if int8 else None)
    packed.save(folder / "network.prunery")
    return Ready((folder / "network.prunery").stat().st_size, lambda x: lambda x: packed(x, 1), packed)


def engine_int8(network: nn.Module, typical: Tensor, folder: Path) -> Ready:
    return engine(network, typical, folder, int8=True)


MAKERS: dict[str, Maker] = {
    "torch": plain,
    "torch, channels last": channels_last,
    "torch, TorchScript": torchscript,
    "torch, ReLU fused": fused_relu,
    "torch.compile": compiled,
    "torch, bfloat16": bfloat16,
    "torch.compile, bfloat16": compiled_bfloat16,
    "ONNX Runtime": onnxruntime,
    "ONNX Runtime, int8": onnxruntime_int8,
    "OpenVINO": openvino,
    "OpenVINO, bfloat16": openvino_bfloat16,
    "OpenVINO, int8": openvino_int8,
    "DeepSparse": in_deepsparse,
    "engine": engine,
    "engine, int8": engine_int8,
}
NEAR = {"bfloat16": 5e-2, "int8": 1.0}
"""how far outputs may be from PyTorch's, as a share of the largest: these round, and accuracy says how it ends"""
EQUAL = 1e-4
PACKAGES = {"ONNX": ("onnx", "onnxscript", "onnxruntime"), "OpenVINO": ("openvino",), "OpenVINO, int8": ("nncf",)}


def allowed(run_time: str) -> float:
    return next((far for word, far in NEAR.items() if word in run_time), EQUAL)


def missing(run_time: str) -> list[str]:
    """What has to be installed first."""
    wanted = [p for name, packages in PACKAGES.items() if run_time.startswith(name) for p in packages]
    absent = [p for p in wanted if find_spec(p) is None]
    if run_time == "DeepSparse":
        absent = [p for p in PACKAGES["ONNX"] if find_spec(p) is None]
        absent += [] if DEEPSPARSE.exists() else ["deepsparse==1.8.0, in an environment of its own,"]
    return absent
