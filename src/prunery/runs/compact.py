"""A state as few bytes: pruned weights as one bit a place and the kept values; half precision or integers by choice."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .files import read_tensors
from .state import State

if TYPE_CHECKING:
    from torch import Tensor

BITS, SHAPE, VALUES = "bits:", "shape:", "values:"


def pack(state: State, half: bool = True) -> "dict[str, Tensor]":
    """Tensors to write; what `unpack` gives back are the weights as stored."""
    packed = {"scale:" + n: s for n, s in state.scales.items()}
    for name, weight in state.weights.items():
        values = _values(weight, state.scales.get(name), half)
        packed |= _sparse(name, values, state.masks[name]) if name in state.masks else {VALUES + name: values}
    return packed


def unpack(packed: "dict[str, Tensor]") -> State:
    """The state that a file of `pack` holds, in float32 where it was floating point."""
    state = State({}, {}, {k.removeprefix("scale:"): v for k, v in packed.items() if k.startswith("scale:")})
    for key, values in packed.items():
        if key.startswith(VALUES):
            name = key.removeprefix(VALUES)
            if BITS + name in packed:
                state.masks[name] = _places(packed[BITS + name], packed[SHAPE + name].tolist())
            state.weights[name] = _weight(values, state.masks.get(name), state.scales.get(name))
    return state


def read_state(path: Path) -> tuple[State, dict[str, Any]]:
    """The state in a file, compact or not, and what the file says of it."""
    tensors, about = read_tensors(path)
    compact = any(k.startswith(VALUES) for k in tensors)
    return (unpack(tensors) if compact else State.of(tensors)), about


def _values(weight: "Tensor", scale: "Tensor | None", half: bool) -> "Tensor":
    import torch

    if scale is not None:
        return torch.round(weight / scale).to(torch.int8)
    return weight.half() if half and weight.is_floating_point() else weight


def _sparse(name: str, values: "Tensor", mask: "Tensor") -> "dict[str, Tensor]":
    import numpy as np
    import torch

    bits = torch.from_numpy(np.packbits(mask.flatten().numpy()))
    return {VALUES + name: values[mask], BITS + name: bits, SHAPE + name: torch.tensor(mask.shape)}


def _places(bits: "Tensor", shape: list[int]) -> "Tensor":
    import math

    import numpy as np
    import torch

    return torch.from_numpy(np.unpackbits(bits.numpy(), count=math.prod(shape)).astype(bool)).view(shape)


def _weight(values: "Tensor", mask: "Tensor | None", scale: "Tensor | None") -> "Tensor":
    import torch

    values = values.float() if values.dtype in (torch.int8, torch.float16) else values
    if mask is not None:
        values = torch.zeros(mask.shape).masked_scatter_(mask, values)
    return values if scale is None else values * scale
