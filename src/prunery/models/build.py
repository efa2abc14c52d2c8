"""From what is asked to a network with its first weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..runs import checksum
from ..spec import Model, Refused, choose, quote
from . import library
from .architecture import reshape_
from .deep import VGG19, ResNet, resnet18, resnet20, strided_resnet
from .init import initialise_, seeded
from .own import is_own, own_file, own_network
from .shadow import probe
from .small import (
    Conv2,
    Conv2Dropout,
    Conv4,
    Conv4Dropout,
    Conv6,
    Conv6Dropout,
    ConvNet,
    LeNet5,
    LeNet300100,
    Shape,
)  # fmt: skip
from .tiny import Tiny
from .weights import fit, read_architecture, read_weights

TORCHVISION = ("vgg16_bn", "mobilenet_v2", "efficientnet_b0")
MODELS: dict[str, Callable[..., nn.Module]] = {
    "convnet": ConvNet, "lenet_300_100": LeNet300100, "lenet5": LeNet5, "conv2": Conv2, "conv4": Conv4, "conv6": Conv6,
    "conv2_dropout": Conv2Dropout, "conv4_dropout": Conv4Dropout, "conv6_dropout": Conv6Dropout,
    "resnet20": resnet20, "resnet18": resnet18, "vgg19": VGG19,
    **{name: partial(library.torchvision_network, name) for name in TORCHVISION},
}  # fmt: skip
STAGED: dict[str, Callable[..., nn.Module]] = {
    "resnet": ResNet, "strided_resnet": strided_resnet, "tiny": Tiny,
}  # fmt: skip
"""networks whose widths and depths are settings"""
INPUTS: dict[str, tuple[Shape, int]] = {
    "convnet": ((1, 8, 8), 10), "lenet_300_100": ((1, 28, 28), 10), "lenet5": ((1, 28, 28), 10),
    **dict.fromkeys(TORCHVISION, library.IMAGENET),
}  # fmt: skip
CIFAR10: tuple[Shape, int] = ((3, 32, 32), 10)


def build(spec: Model, seed: int, say: Callable[[str], None] = lambda line: None) -> nn.Module:
    """The network of a complete spec, drawn from the seed; `say` hears what a file of weights brought."""
    if len(spec.input) != 3 or not spec.classes:
        raise Refused("model.input and model.classes are not known; give both, or data that they follow from")
    input = (spec.input[0], spec.input[1], spec.input[2])
    with seeded(seed), _fitting(spec.name, input):
        network = _make(spec, input)
        _check(network, spec.name, input, spec.classes)
    if not (spec.weights == "pretrained" and _source(spec.name) == "timm"):
        initialise_(network, spec.init, seed)
    for line in _load(network, spec):
        say(line)
    return network


def default_input(name: str) -> tuple[Shape, int]:
    """The input and classes that a network is shown with when nothing else is said."""
    source, _, rest = name.partition(":")
    ask = {"torchvision": library.torchvision_input, "timm": library.timm_input}.get(source)
    return ask(rest) if ask and rest else INPUTS.get(name, CIFAR10)


def _source(name: str) -> str:
    """Where a network comes from: torchvision, timm, or nothing when it is ours or the user's."""
    return "torchvision" if name in TORCHVISION else name.partition(":")[0] if ":" in name and not is_own(name) else ""


def _make(spec: Model, input: Shape) -> nn.Module:
    source, _, name = spec.name.partition(":")
    if source == "timm" and name:
        make = library.timm_pretrained if spec.weights == "pretrained" else library.timm_network
        return make(name, input, spec.classes)
    if source == "torchvision" and name:
        return library.torchvision_network(name, input, spec.classes)
    if is_own(spec.name):
        _unchanged(spec)
        return own_network(spec.name, input, spec.classes)
    if spec.name in STAGED:
        if not spec.widths:
            raise Refused(
                f"model.name = {quote(spec.name)} needs model.widths and model.depths, such as [16, 32] and [3, 3]"
            )
        return STAGED[spec.name](spec.widths, spec.depths, input=input, classes=spec.classes)
    if spec.widths:
        raise Refused(f"model.widths is for {', '.join(STAGED)}, not for {quote(spec.name)}; leave it out")
    choose(spec.name, [*MODELS, *STAGED, "torchvision:NAME", "timm:NAME", "FILE.py:FUNCTION"], "model.name")
    return MODELS[spec.name](input=input, classes=spec.classes)


def _unchanged(spec: Model) -> None:
    """A file that was edited since its step was named would make another network under the same name."""
    path = Path(own_file(spec.name)).expanduser()
    found = checksum(path) if spec.code_sha256 and path.is_file() else spec.code_sha256
    if found != spec.code_sha256:
        raise Refused(
            f"{path} has changed since this run began (SHA-256 {found[:12]}..., expected {spec.code_sha256[:12]}...); "
            "put it back, or start a new run"
        )


@contextmanager
def _fitting(name: str, input: Shape) -> Iterator[None]:
    """What a library says about images that its network cannot take, in one line."""
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        seen, reason = _text(input), " ".join(str(error).split())[:200] or type(error).__name__
        raise Refused(
            f"{name} cannot take images of {seen} ({reason}); choose another network, or other images (data.resize)"
        ) from None


def _check(network: nn.Module, name: str, input: Shape, classes: int) -> None:
    """Refuses a network that cannot take the images or does not answer with the classes."""
    output = _shape(probe(network, input, 2))
    if output != [2, classes]:
        seen = f"{output} for 2 images of {_text(input)}"
        wanted = f"[2, {classes}], a row of scores for each image"
        raise Refused(f"{name} gives {seen}; expected {wanted} (prunery show --classes N: of another number)")


def _text(input: Shape) -> str:
    return "x".join(map(str, input))


def _shape(output: Any) -> Any:
    return list(output.shape) if isinstance(output, Tensor) else type(output).__name__


def _load(network: nn.Module, spec: Model) -> list[str]:
    """The weights that the spec names, in the network; what there is to report."""
    if not spec.weights:
        return []
    if spec.weights != "pretrained":
        path = Path(spec.weights).expanduser()
        tensors = read_weights(path, spec.weights_sha256)
        if made := read_architecture(path):
            reshape_(network, made, spec.weights)
        return fit(network, tensors, spec.weights)
    return _pretrained(network, spec.name)


def _pretrained(network: nn.Module, name: str) -> list[str]:
    """The weights that the network's library publishes; timm's came with the network."""
    source = _source(name)
    if source == "timm":
        return [f"pretrained weights of {name} loaded"]
    if source != "torchvision":
        raise Refused(f'model.weights = "pretrained": {quote(name)} has no published weights; expected a file')
    if hasattr(network, "transform_input"):
        # The published Inception weights want the pixels of the framework that they come from.
        network.transform_input = True  # type: ignore[assignment]
    return fit(network, library.torchvision_weights(name.removeprefix("torchvision:")), f"pretrained {name}")
