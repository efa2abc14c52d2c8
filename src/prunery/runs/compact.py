"""A state as few bytes: pruned weights as one bit a place and the kept values; half precision or integers by choice."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..spec import Refused
from .files import read_tensors
from .state import State, bits, places

if TYPE_CHECKING:
    from torch import Tensor

BITS, SHAPE, VALUES, LOW = "bits:", "shape:", "values:", "low:"
MOST_WIDTH, ABOUT = 7, 2
"""bits of a whole number that are packed; what is told of them before their shape"""


def pack(state: State, half: bool = True) -> "dict[str, Tensor]":
    """Tensors to write; what `unpack` gives back are the weights as stored."""
    packed = {"scale:" + n: s for n, s in state.scales.items()}
    for name, weight in state.weights.items():
        values = _values(weight, state.scales.get(name), half)
        packed |= _sparse(name, values, state.masks[name]) if name in state.masks else {VALUES + name: values}
        if name in state.scales:
            packed |= _low(name, packed[VALUES + name])
    return packed


def unpack(packed: "dict[str, Tensor]") -> State:
    """The state that a file of `pack` holds, in float32 where it was floating point."""
    state = State({}, {}, {k.removeprefix("scale:"): v for k, v in packed.items() if k.startswith("scale:")})
    for key, values in packed.items():
        if key.startswith(VALUES):
            name = key.removeprefix(VALUES)
            if LOW + name in packed:
                if name not in state.scales:
                    raise ValueError(f"the scales of {name} are missing")
                values = _risen(values, packed[LOW + name], name)
            if BITS + name in packed:
                state.masks[name] = _places(packed[BITS + name], packed.get(SHAPE + name), name)
            state.weights[name] = _weight(values, state.masks.get(name), state.scales.get(name), name)
    return state


def read_state(path: Path, sealed: bool = False) -> tuple[State, dict[str, Any]]:
    """The state in a file, compact or not, and what the file says of it; `sealed` files must have a checksum."""
    tensors, about = read_tensors(path, sealed)
    compact = any(k.startswith(VALUES) for k in tensors)
    try:
        return (unpack(tensors) if compact else State.of(tensors)), about
    except ValueError as error:
        raise Refused(f"{path} is damaged: {error}; make or copy it again") from None


def _values(weight: "Tensor", scale: "Tensor | None", half: bool) -> "Tensor":
    import torch

    if scale is not None:
        return torch.round(weight / scale).to(torch.int8)
    small = weight.half() if half and weight.is_floating_point() else weight
    short = weight.bfloat16() if half and weight.is_floating_point() else weight
    if not torch.equal(small.to(weight.dtype), weight) and torch.equal(short.to(weight.dtype), weight):
        return short
    # Half precision ends at 65504, which the variances of unscaled pixels exceed: such tensors stay as they are.
    return weight if bool((torch.isinf(small) & ~torch.isinf(weight)).any()) else small


def _sparse(name: str, values: "Tensor", mask: "Tensor") -> "dict[str, Tensor]":
    import torch

    return {
        VALUES + name: values[mask],
        BITS + name: bits(mask),
        SHAPE + name: torch.tensor(mask.shape, dtype=torch.int64),
    }


def _low(name: str, values: "Tensor") -> "dict[str, Tensor]":
    """Whole numbers in as few bits as they need, in a row; nothing where they need eight, or where there are none."""
    import numpy as np
    import torch

    flat = values.flatten().numpy().astype(np.int64)
    low, high = (int(flat.min()), int(flat.max())) if len(flat) else (-128, 127)
    width = max(1, (high - low).bit_length())
    if width > MOST_WIDTH:
        return {}
    bits_ = ((flat - low)[:, None] >> np.arange(width)) & 1
    packed = torch.from_numpy(np.packbits(bits_.astype(np.uint8).flatten()))
    return {VALUES + name: packed, LOW + name: torch.tensor([width, low, *values.shape], dtype=torch.int64)}


def _risen(packed: "Tensor", about: "Tensor", name: str) -> "Tensor":
    """What `_low` packed."""
    import math

    import numpy as np
    import torch

    told = [int(v) for v in about.flatten().tolist()] if not about.is_floating_point() else []
    if (
        len(told) < ABOUT
        or not 1 <= told[0] <= MOST_WIDTH
        or not -128 <= told[1] <= 127
        or min(told[2:], default=0) < 0
    ):
        raise ValueError(f"the bits of {name} say nothing of themselves")
    width, low, *shape = told
    count = math.prod(shape)
    if packed.dtype != torch.uint8 or packed.numel() != -(-count * width // 8):
        raise ValueError(f"{name} has {packed.numel()} bytes for {count} numbers of {width} bits")
    found = np.unpackbits(packed.flatten().numpy(), count=count * width).reshape(count, width)
    numbers = (found.astype(np.int64) << np.arange(width)).sum(1) + low
    return torch.from_numpy(numbers.astype(np.int8)).view(shape)


def _places(packed: "Tensor", shape: "Tensor | None", name: str) -> "Tensor":
    """The mask, once the file says its shape."""
    if shape is None or shape.is_floating_point():
        raise ValueError(f"the shape of {name} is missing")
    return places(packed, shape.flatten().tolist(), name)


def _weight(values: "Tensor", mask: "Tensor | None", scale: "Tensor | None", name: str) -> "Tensor":
    import torch

    whole = values.dtype == torch.int8 and scale is not None  # without a scale it is no weight, or its scale is lost
    values = values.float() if whole or values.dtype in (torch.float16, torch.bfloat16) else values
    if mask is not None:
        if values.numel() != int(mask.sum()):
            raise ValueError(f"{name} has {values.numel()} values for {int(mask.sum())} places")
        values = torch.zeros(mask.shape, dtype=values.dtype).masked_scatter_(mask, values)
    if scale is not None and (scale.ndim > values.ndim or any(s not in (1, w) for s, w in _pairs(scale, values))):
        raise ValueError(f"the scales of {name} have shape {list(scale.shape)} for weights of {list(values.shape)}")
    return values if scale is None else values * scale


def _pairs(scale: "Tensor", values: "Tensor") -> "zip[tuple[int, int]]":
    """Sides that broadcast against each other, the last first."""
    return zip(reversed(scale.shape), reversed(values.shape), strict=False)
