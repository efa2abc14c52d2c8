"""The same network as an ONNX or OpenVINO file, for other engines: run there, and compared, before it is handed out."""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..quantize import quantised_layers
from ..runs import to_write
from ..spec import Refused, install
from .capture import quiet
from .given import a_batch, a_network, an_example, batches, evaluated
from .trial import EQUAL, answer, difference, lowered

ONNX = ("onnx", "onnxscript", "onnxruntime")
BYTES = ("onnx", "onnxruntime")
"""what networks with quantisers need: they are written without torch's exporter"""
TRIED = 32
"""images that a network with quantisers is tried on"""
Run = Callable[[np.ndarray], np.ndarray]
Save = Callable[[Any, Path], None]


class Format(NamedTuple):
    """Another engine: how its file is written, for any number of images or just the example's, how it runs, and how
    it is told from the network, in words, where it is not the same."""

    name: str
    write: Callable[[nn.Module, Tensor, Path, bool], None]
    run: Callable[[Path], Run]
    differs: Callable[[nn.Module, Run, Tensor, bool], str]


Batches = Iterable[Tensor | Sequence[Tensor]]


def to_onnx(network: nn.Module, example: Tensor, path: str | Path, calibration: Batches | None = None) -> Path:
    """The network in evaluation mode as an ONNX file for any number of images, if it can be exported for that.

    Layers with quantisers keep their steps: QuantizeLinear and DequantizeLinear around them, and weights of one byte.
    `calibration`, batches of typical inputs as for `pack`, makes bytes also of what their convolutions write for
    readers of floats: ONNX Runtime then computes all of them in integers, a little less exactly.
    """
    network, example = a_network(network, "to_onnx"), an_example(example, "to_onnx")
    few = bool(quantised_layers(network))
    typical = None if calibration is None else batches(calibration, example, "to_onnx")
    if typical is not None and not few:
        seen = "to_onnx: calibration is for networks with quantisers, and this one has none"
        raise Refused(f"{seen}; expected None, or a network from a quantize step with activations")
    installed("onnx", *(ONNX if not few else BYTES))
    path = to_write(path, "network.onnx", make=True)
    form = Format("ONNX", _write_onnx, _onnxruntime, _differs)
    return _exported(network, example, path, _in_bytes(network, example, form, _save_onnx, typical) if few else form)


def to_openvino(network: nn.Module, example: Tensor, path: str | Path) -> Path:
    """The network in evaluation mode as an OpenVINO file (.xml, with a .bin beside it) for any number of images.

    Layers with quantisers keep their steps and compute in bytes there.
    """
    network, example = a_network(network, "to_openvino"), an_example(example, "to_openvino")
    few = bool(quantised_layers(network))
    installed("openvino", "openvino")
    installed("onnx", *(BYTES[:1] if few else ()))
    path = to_write(path, "network.xml", make=True)
    if path.suffix != ".xml":
        raise Refused(f"{path} is not a name for an OpenVINO network; expected one that ends with .xml")
    form = Format("OpenVINO", _write_openvino, _openvino, _differs)
    return _exported(network, example, path, _in_bytes(network, example, form, _save_openvino) if few else form)


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
            return format.differs(network, format.run(made), example, any_number)
    except Exception as error:  # exporters and other engines say no in their own ways
        return " ".join(str(error).split())[:200] or type(error).__name__


def _random(example: Tensor, any_number: bool) -> list[Tensor]:
    """Random images as many as the example's, and one more where the file is for any number."""
    generator = torch.Generator().manual_seed(1)
    counts = (len(example), len(example) + any_number)
    return [torch.randn(n, *example.shape[1:], generator=generator) for n in counts]


def _differs(network: nn.Module, run: Run, example: Tensor, any_number: bool) -> str:
    """By how much the file's results are not the network's; nothing where they are."""
    for images in [example, *_random(example, any_number)]:
        seen = difference(torch.from_numpy(np.asarray(run(images.numpy()))), answer(network, images))
        if not seen <= EQUAL:
            return f"it differs from the network by {seen:.1e} of the largest result (allowed {EQUAL:g})"
    return ""


# ---- networks with quantisers


def _in_bytes(
    network: nn.Module, example: Tensor, form: Format, save: Save, typical: Iterable[Tensor] | None = None
) -> Format:
    """The same format for a network with quantisers, whose model is made here, once."""
    from . import qdq

    who = f"to_{form.name.lower()}"
    network, example = evaluated(network, who), a_batch(example, who)
    rest = iter(()) if typical is None else iter(typical)
    first = next(rest, None)
    if typical is not None and first is None:
        raise Refused(f"{who}: calibration gives no inputs; expected a batch or more")
    shown = (
        torch.randn(TRIED, *example.shape[1:], generator=torch.Generator().manual_seed(1)) if first is None else first
    )
    graph = lowered(network, example, alone=True)
    made = qdq.model(
        graph, tuple(example.shape[1:]), tuple(answer(network, example[:1]).shape[1:]),
        None if first is None else chain([first], rest),
    )  # fmt: skip
    return form._replace(
        write=lambda network, example, path, any_number: save(made, path),
        differs=lambda network, run, example, any_number: _far(network, run, [example, shown[:TRIED]]),
    )


def allowed(network: nn.Module) -> float:
    """How far a typical result in bytes may be from the network's, as a share of the largest.

    Both round the same numbers to the same steps. But where one lies halfway between two, the last bit of a float
    decides, and biases are whole numbers as well: results may differ by what one step of the fewest bits is worth.
    """
    read = [layer.bits.input for layer in quantised_layers(network).values() if layer.input_quantiser]
    return 0.02 + (2.0 ** -min(read) if read else 0.0)


def _far(network: nn.Module, run: Run, images: list[Tensor]) -> str:
    """By how much the image in the middle differs from the network's results, where that is too much."""
    seen, most = [], allowed(network)
    for x in images:
        found, wanted = torch.from_numpy(np.array(run(x.numpy()))), answer(network, x)
        if found.shape != wanted.shape:
            return f"it gives {list(found.shape)}, and the network {list(wanted.shape)}"
        seen.append((found - wanted).flatten(1).abs().amax(1) / wanted.abs().max().clamp(min=1e-30))
    if (median := float(torch.cat(seen).median())) <= most:
        return ""
    return f"half of all results differ from the network's by {median:.1e} of the largest or more (allowed {most:.2g})"


def _save_onnx(made: Any, path: Path) -> None:
    import onnx

    onnx.save(made, path)


def _save_openvino(made: Any, path: Path) -> None:
    """By way of ONNX, whose pairs OpenVINO takes for its own quantisers; weights stay as they are."""
    import onnx
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "network.onnx"
        onnx.save(made, source)
        openvino.save_model(openvino.convert_model(source), path, compress_to_fp16=False)


# ---- the engines


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


FORMATS: dict[str, tuple[str, Callable[..., Path], Callable[[Path], Run]]] = {
    "onnx": ("network.onnx", to_onnx, _onnxruntime),
    "openvino": ("network.xml", to_openvino, _openvino),
}
"""by name: what a file is called, who writes it, and who runs it"""
