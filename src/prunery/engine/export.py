"""The same network as an ONNX or OpenVINO file, for other engines: run there, and compared, before it is handed out."""

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..runs import to_write
from ..spec import Refused, install
from .capture import quiet
from .given import an_example, evaluated, of_floats
from .trial import EQUAL, answer, difference

ONNX = ("onnx", "onnxscript", "onnxruntime")
Run = Callable[[np.ndarray], np.ndarray]


class Format(NamedTuple):
    """Another engine: how its file is written, for any number of images or just the example's, and how it runs."""

    name: str
    write: Callable[[nn.Module, Tensor, Path, bool], None]
    run: Callable[[Path], Run]


def to_onnx(network: nn.Module, example: Tensor, path: str | Path) -> Path:
    """The network in evaluation mode as an ONNX file for any number of images, if it can be exported for that."""
    network, example = of_floats(network, "to_onnx"), an_example(example, "to_onnx")
    installed("onnx", *ONNX)
    path = to_write(path, "network.onnx", make=True)
    return _exported(network, example, path, Format("ONNX", _write_onnx, _onnxruntime))


def to_openvino(network: nn.Module, example: Tensor, path: str | Path) -> Path:
    """The network in evaluation mode as an OpenVINO file (.xml, with a .bin beside it) for any number of images."""
    network, example = of_floats(network, "to_openvino"), an_example(example, "to_openvino")
    installed("openvino", "openvino")
    path = to_write(path, "network.xml", make=True)
    if path.suffix != ".xml":
        raise Refused(f"{path} is not a name for an OpenVINO network; expected one that ends with .xml")
    return _exported(network, example, path, Format("OpenVINO", _write_openvino, _openvino))


def installed(extra: str, *packages: str) -> None:
    """Refuses where a package is missing, and says how to get it."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise Refused(f"{', '.join(missing)} cannot be imported; {install(extra, *packages)}")


def _exported(network: nn.Module, example: Tensor, path: Path, format: Format) -> Path:
    """A file that is written aside, compared with the network, and only then put in its place."""
    network = evaluated(network, f"to_{format.name.lower()}")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as folder:
        made = Path(folder) / path.name
        wrong = _tried(network, example, made, format, any_number=True)
        if wrong and _tried(network, example, made, format, any_number=False):
            raise Refused(f"{type(network).__name__} cannot be exported to {format.name}: {wrong}; nothing was written")
        for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name):
            file.replace(path.with_name(file.name))
    return path


def _tried(network: nn.Module, example: Tensor, made: Path, format: Format, any_number: bool) -> str:
    """What is wrong with a file, in a few words; nothing if it computes what the network does."""
    for left in made.parent.iterdir():
        left.unlink()
    try:
        with quiet(), torch.no_grad():
            format.write(network, example, made, any_number)
            return _differs(network, format.run(made), [example, *_random(example, any_number)])
    except Exception as error:  # exporters and other engines say no in their own ways
        return " ".join(str(error).split())[:200] or type(error).__name__


def _random(example: Tensor, any_number: bool) -> list[Tensor]:
    """Random images as many as the example's, and one more where the file is for any number."""
    generator = torch.Generator().manual_seed(1)
    counts = (len(example), len(example) + any_number)
    return [torch.randn(n, *example.shape[1:], generator=generator) for n in counts]


def _differs(network: nn.Module, run: Run, batches: list[Tensor]) -> str:
    """By how much the file's results are not the network's; nothing where they are."""
    for images in batches:
        seen = difference(torch.from_numpy(np.asarray(run(images.numpy()))), answer(network, images))
        if not seen <= EQUAL:
            return f"it differs from the network by {seen:.1e} of the largest result (allowed {EQUAL:g})"
    return ""


def _write_onnx(network: nn.Module, example: Tensor, path: Path, any_number: bool) -> None:
    images = example[:1].repeat(2, *[1] * (example.ndim - 1)) if any_number else example
    dynamic: Any = ({0: torch.export.Dim("images", min=1)},) if any_number else None
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["results"]}
    program = torch.onnx.export(network, (images,), dynamo=True, dynamic_shapes=dynamic, verbose=False, **names)
    assert program is not None
    program.save(path)


def _onnxruntime(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {session.get_inputs()[0].name: images})[0]


def _write_openvino(network: nn.Module, example: Tensor, path: Path, any_number: bool) -> None:
    """Weights stay in float32."""
    import openvino

    shape = [-1 if any_number else len(example), *example.shape[1:]]
    model = openvino.convert_model(network, example_input=example, input=shape)
    openvino.save_model(model, path, compress_to_fp16=False)


def _openvino(path: Path) -> Run:
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: compiled(images)[0]
