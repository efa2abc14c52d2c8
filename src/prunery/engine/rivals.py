"""The same network in other run times: what a packed file is measured against."""

import copy
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..quantize import quantised_layers
from ..spec import Refused, choose
from .export import ONNX, installed, to_onnx, to_openvino

Call = Callable[[np.ndarray], np.ndarray]
Images = list[np.ndarray]
CALIBRATION = 64
"""images that the rivals' quantisation may look at"""


def rival(name: str, network: nn.Module, example: np.ndarray, threads: int, images: Images | None = None) -> Call:
    """A network as a function of arrays in another run time; `images` calibrate where it is quantised."""
    ready(name, "against")
    if images is None:
        images = [np.random.default_rng(0).standard_normal(example.shape).astype(np.float32) for _ in range(8)]
    return RIVALS[name](network.eval(), example, threads, images)


NEEDED = {"onnxruntime": ("onnx", *ONNX), "openvino": ("openvino", "openvino", "nncf")}
"""by a rival's first word: the extra that brings its packages along, and these"""


def ready(name: str, option: str) -> None:
    """Refuses a name that is unknown, and one whose packages are missing."""
    source = choose(name, RIVALS, option).partition("-")[0]
    if source in NEEDED:
        extra, *packages = NEEDED[source]
        installed(extra, *(p for p in packages if p != "nncf" or quantised(name)))


def _torch(network: nn.Module, example: np.ndarray, threads: int, _: Images) -> Call:
    laid = copy.deepcopy(network).to(memory_format=torch.channels_last) if example.ndim == 4 else network
    return partial(_called, laid, threads)


def _compiled(network: nn.Module, example: np.ndarray, threads: int, _: Images) -> Call:
    from torch._inductor import config

    config.freezing = True
    return partial(_called, torch.compile(network), threads)


def _called(network: Any, threads: int, x: np.ndarray) -> np.ndarray:
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    with torch.inference_mode():
        return network(torch.from_numpy(x)).numpy()


def written(name: str, network: nn.Module, example: np.ndarray, images: Images, folder: Path) -> Path:
    """The file that a rival reads; `images` calibrate where it is quantised."""
    source, _, _ = name.partition("-")
    if quantised(name) and quantised_layers(network):
        raise Refused(f"{name} finds steps of its own, and the network has learned some; name {source} instead")
    x = torch.from_numpy(example)
    if source == "onnxruntime":
        path = to_onnx(network, x, folder / "network.onnx")
        return _quantised_onnx(path, images) if quantised(name) else path
    path = to_openvino(network, x, folder / "network.xml")
    return _quantised_openvino(path, images) if quantised(name) else path


def size(path: Path) -> int:
    """Bytes of such a file, with those that lie beside it."""
    return sum(p.stat().st_size for p in (path, path.with_suffix(".bin"), Path(f"{path}.data")) if p.exists())


def _onnxruntime(path: Path, threads: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def _quantised_onnx(path: Path, images: Images) -> Path:
    """Static quantisation as its documentation advises for x86: activations in unsigned, weights in signed bytes."""
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self, name: str) -> None:
            self.left = iter({name: x} for x in images)

        def get_next(self) -> Any:
            return next(self.left, None)

    import onnx

    ready, done = path.with_name("ready.onnx"), path.with_name("int8.onnx")
    quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
    reader = Reader(onnx.load(str(ready), load_external_data=False).graph.input[0].name)
    quantize_static(
        str(ready), str(done), reader, per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8
    )
    return done


def _openvino(path: Path, threads: int) -> Call:
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    import openvino

    core = openvino.Core()
    request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()
    return lambda x: request.infer([x], share_inputs=True, share_outputs=True)[0]


def _quantised_openvino(path: Path, images: Images) -> Path:
    import nncf
    import openvino

    done = path.with_name("int8.xml")
    model = openvino.Core().read_model(path)
    openvino.save_model(nncf.quantize(model, nncf.Dataset(images)), done, compress_to_fp16=False)
    return done


OPENED = {"onnxruntime": _onnxruntime, "openvino": _openvino}


def _from_file(name: str, network: nn.Module, example: np.ndarray, threads: int, images: Images) -> Call:
    with tempfile.TemporaryDirectory() as folder:
        path = written(name, network, example, images, Path(folder))
        return OPENED[name.partition("-")[0]](path, threads)


RIVALS: dict[str, Callable[[nn.Module, np.ndarray, int, Images], Call]] = {
    "torch": _torch,
    "compile": _compiled,
    **{name: partial(_from_file, name) for name in ("onnxruntime", "onnxruntime-int8", "openvino", "openvino-int8")},
}


def quantised(name: str) -> bool:
    """Whether a rival computes in bytes, so that its outputs are only near the network's."""
    return name.endswith("-int8")


def calibration(batches: Iterable[np.ndarray]) -> Images:
    """As many images as quantisation may look at."""
    found: Images = []
    for batch in batches:
        found.append(batch)
        if sum(map(len, found)) >= CALIBRATION:
            break
    return found
