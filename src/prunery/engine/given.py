"""What callers hand over to be packed or exported: networks, examples, batches; refused before any work if wrong."""

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from .. import arguments
from ..spec import Refused

ENOUGH = 4096
"""images to learn ranges from: more of them change nothing, and some of what was seen of each batch stays in memory"""


def a_network(network: Any, who: str) -> nn.Module:
    """A module with values, all of which are numbers."""
    network = arguments.a_network(network, who)
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if torch.nn.parameter.is_lazy(tensor):
            raise Refused(f"{who}: {name} has no shape yet; run the network once: network(example)")
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            raise Refused(f"{who}: {name} holds NaN; expected a network from a training that did not diverge")
    return network


def evaluated(network: nn.Module, who: str = "pack") -> nn.Module:
    """A copy in evaluation mode, in float32 and on the CPU."""
    try:
        return arguments.copied(network, who).eval().float().cpu()
    except Refused as error:
        if not (layer := arguments.hooked(network)):
            raise
        seen = f"{who}: {layer} is pruned by torch.nn.utils.prune, whose tensors cannot be copied here"
        raise Refused(f"{seen}; make the network plain first: masks = prunery.plain_(network)") from error


def an_example(example: Any, who: str) -> Tensor:
    """A batch of inputs, as floats on the CPU."""
    return floats(arguments.an_example(example, who), f"{who}: example")


def a_batch(example: Any, who: str) -> Tensor:
    """A batch of images or of vectors, which is what the engine has operations for."""
    example = an_example(example, who)
    if example.ndim in (2, 4) and 0 not in example.shape:
        return example
    seen = f"{who}: example has shape {list(example.shape)}"
    alone = "; of one input alone a batch is example[None]" if example.ndim in (1, 3) else ""
    raise Refused(f"{seen}; expected a batch of images [B, C, H, W] or of vectors [B, F]{alone}")


def floats(x: Tensor, what: str, most: int | None = None) -> Tensor:
    """Numbers as a network takes them, whose scale nobody but the caller knows; of a batch the first `most` images."""
    if x.is_meta or x.layout is not torch.strided:
        kind = "on the meta device, without values" if x.is_meta else f"of the layout {x.layout}"
        raise Refused(f"{what} is {kind}; expected a dense tensor with values")
    if not x.is_floating_point():
        seen = f"{what} holds {str(x.dtype).removeprefix('torch.')}"
        raise Refused(f"{seen}; expected floats, scaled as in training, such as images.float() / 255")
    x = (x if most is None else x[:most]).detach().to("cpu", torch.float32)
    if not bool(x.isfinite().all()):
        raise Refused(f"{what} holds NaN or infinity; expected finite numbers")
    return x


def batches(calibration: Any, example: Tensor, who: str) -> Iterable[Tensor]:
    """Batches of inputs like the example, each looked at as it comes; of pairs, (images, labels), the images."""
    if not isinstance(calibration, Iterable) or isinstance(calibration, Tensor | str | bytes | dict | nn.Module):
        seen = f"{who}: calibration is a {type(calibration).__name__}"
        advice = ": [images], or images.split(64)" if isinstance(calibration, Tensor) else ", such as a DataLoader"
        raise Refused(f"{seen}; expected batches of inputs{advice}")
    return _looked_at(calibration, [*example.shape[1:]], who)


def _looked_at(calibration: Iterable[Any], shape: list[int], who: str) -> Iterator[Tensor]:
    images = 0
    for number, batch in zip(count(1), calibration, strict=False):
        x = batch[0] if isinstance(batch, tuple | list) and batch else batch
        what = f"{who}: calibration's batch {number}"
        if not isinstance(x, Tensor):
            raise Refused(
                f"{what} is a {type(batch).__name__}; expected a tensor of inputs, or a pair (inputs, labels)"
            )
        if not x.ndim or [*x.shape[1:]] != shape:
            wanted = f"[{', '.join(map(str, ['batch', *shape]))}], like the example"
            raise Refused(f"{what} has shape {list(x.shape)}; expected {wanted}")
        if len(x):
            yield floats(x, what, ENOUGH - images)
        images += len(x)
        if images >= ENOUGH:
            return
