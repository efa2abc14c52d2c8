"""The score of the game "90 % on CIFAR-10 with as little as can be", layer by layer, in every edition of its rules.

    score = (1 - (p_s + p_u)) q_w / 32 w / 5.6e6  +  (1 - p_s) max(q_w, q_a) / 32 f / reference

Bits are each layer's own, as in the file. A weight that is zero is pruned (p_u); channels that are gone are no longer
in w and f, so p_s is 0. All else that a network needs is charged too: biases, multipliers, normalisation, steps.

- `2.8e8`: f counts multiply-adds, the rules since 2025; `8.3e8` the same over the older reference;
- `8.3e8, 2 operations`: a multiply-add is two floating point operations;
- `profile.py`: the rules of 2021: products cost their bits, additions 32, normalisation three operations a number,
  ReLU and average pooling one;
- `strict`: as the MicroNet challenge counts: only products of kept weights, additions at the width that their sums
  need, a bit for each place of a pruned layer, and what is done to single numbers at sixteen bits.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..masks import PRUNABLE
from ..models import probe
from ..quantize import Codebook, Quantiser, quantised_layers, whole_weights
from ..spec import Refused, quote
from .count import Row, count

FLOAT, SHORT = 32, 16
W, F28, F83 = 5.6e6, 2.8e8, 8.3e8
PROFILE_W, PROFILE_F = 5_586_981.0, 834_362_880.0
"""ResNet-18 in half precision, exactly, as profile.py of 2021 has it"""


@dataclass(frozen=True)
class Line:
    """What one layer holds and does; layers without weights have none of the first five."""

    name: str
    type: str
    weights: int = 0
    kept: int = 0
    weight_bits: int = 0
    input_bits: int = 0
    multiply_adds: int = 0
    terms: int = 0
    """of each sum"""
    outputs: int = 0
    """numbers that it makes of one image"""
    others: int = 0
    """numbers beside the weights: biases, multipliers, normalisation, steps"""
    other_bits: int = FLOAT

    @property
    def bits(self) -> int:
        """Of a product."""
        return max(self.weight_bits, self.input_bits)

    @property
    def storage(self) -> float:
        """In numbers of 32 bits."""
        return (self.kept * self.weight_bits + self.others * self.other_bits) / 32

    @property
    def work(self) -> float:
        """Multiply-adds of 32 bits."""
        return self.multiply_adds * self.bits / 32


@dataclass(frozen=True)
class Account:
    """A network's lines; its score in each edition is a sum over them."""

    lines: tuple[Line, ...]

    @property
    def weights(self) -> int:
        return sum(line.weights for line in self.lines)

    @property
    def p_u(self) -> float:
        """The share of the weights that are zero."""
        return 1 - sum(line.kept for line in self.lines) / self.weights

    @property
    def score(self) -> float:
        """In the edition that we quote."""
        return sum(self.scores()[CURRENT])

    def scores(self) -> dict[str, tuple[float, float]]:
        """(parameters, operations) in every edition."""
        return {
            name: (sum(map(params, self.lines)), sum(map(ops, self.lines))) for name, (params, ops) in RULES.items()
        }


def account(network: nn.Module, input: tuple[int, ...], floats: int = FLOAT) -> Account:
    """What a network is charged with; numbers that are not quantised have so many bits."""
    if floats not in (SHORT, FLOAT):
        raise Refused(f"numbers of {floats} bits are not allowed here; expected 16 or 32")
    elements = _Elements()

    @contextmanager
    def watch(seen: nn.Module) -> Iterator[None]:
        elements.inside = dict.fromkeys(quantised_layers(seen).values(), 0)
        with elements.watched():
            yield

    rows = count(network, input)
    probe(network, input, 1, watch)
    lines = [line for row in rows if (line := _line(network, row, floats))]
    if not any(line.weights for line in lines):
        raise Refused("the network has no convolution and no linear layer; expected one with weights to count")
    return Account((*lines, Line("(numbers by themselves)", "ReLU, sums", outputs=elements.numbers, other_bits=floats)))


def _line(network: nn.Module, row: Row, floats: int) -> Line | None:
    """A layer with parameters of its own, or one that the rules of 2021 charge."""
    module = network.get_submodule(row.name)
    outputs = _numbers(row.output)
    if isinstance(module, PRUNABLE):
        return _layer(row, module, outputs, floats)
    own = sum(p.numel() for p in module.parameters(recurse=False))
    if isinstance(module, Quantiser | Codebook):
        return None  # its layer is charged for it
    if own or type(module).__name__ in FREE:
        return Line(row.name, row.type, outputs=outputs, others=own, other_bits=floats)
    return None


def _layer(row: Row, module: Any, outputs: int, floats: int) -> Line:
    quantised = quantised_layers(module).get("")
    weight: Tensor = module.weight.detach()
    line = Line(
        row.name, row.type, weight.numel(), int(torch.count_nonzero(weight)), floats, floats, row.multiply_adds,
        weight[0].numel(), outputs, 0 if module.bias is None else module.bias.numel(), floats,
    )  # fmt: skip
    if row.parameters == 0:  # a layer that runs again brings nothing new
        line = replace(line, weights=0, kept=0, others=0)
    if quantised is None:
        return line
    bits = quantised.bits
    learned = sum(p.numel() for p in quantised.weight_quantiser.parameters())
    steps = (
        bool(bits.input) + (0 if bits.folded and not bits.clusters else learned) + (len(weight) if bits.folded else 0)
    )
    kept = int(torch.count_nonzero(whole_weights(quantised)))
    return replace(
        line, kept=kept, weight_bits=bits.weight, input_bits=bits.input or floats, others=line.others + steps,
        other_bits=SHORT if bits.folded else floats,
    )  # fmt: skip


def _numbers(shape: tuple[int, ...]) -> int:
    """Of one image's output."""
    return int(torch.Size(shape[1:]).numel()) if shape else 0


FREE = ("ReLU", "ReLU6", "AvgPool2d", "AdaptiveAvgPool2d")
"""layers without parameters that profile.py charges, with an operation for each number"""


class _Elements:
    """Counts what is done to single numbers outside of layers that count themselves."""

    def __init__(self) -> None:
        self.numbers = 0
        self.inside: dict[Any, int] = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        depth = [0]
        handles = [m.register_forward_pre_hook(lambda *_: depth.__setitem__(0, depth[0] + 1)) for m in self.inside]
        handles += [m.register_forward_hook(lambda *_: depth.__setitem__(0, depth[0] - 1)) for m in self.inside]
        try:
            with _Single(self, depth):
                yield
        finally:
            for handle in handles:
                handle.remove()


class _Single(TorchDispatchMode):
    """Sees every operation; those on single numbers are added up."""

    def __init__(self, elements: _Elements, depth: list[int]) -> None:
        super().__init__()
        self.elements, self.depth = elements, depth

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not self.depth[0] and func.overloadpacket in SINGLE and isinstance(out, Tensor):
            self.elements.numbers += out.numel()
        return out


aten = torch.ops.aten
SINGLE = {
    aten.relu, aten.relu_, aten.add, aten.add_, aten.mul, aten.mul_, aten.sigmoid, aten.silu, aten.silu_, aten.hardtanh,
    aten.hardtanh_, aten.clamp, aten.hardswish, aten.hardswish_, aten.div, aten.sub, aten.gelu, aten.tanh,
}  # fmt: skip


# --- the editions -----------------------------------------------------------------------------------------------------


def _profile_ops(line: Line) -> float:
    """Products at their bits, additions at 32; three for each normalised number, one for a ReLU or a mean."""
    if not line.terms:
        return (3 if "Norm" in line.type else 1 if line.type in FREE else 0) * line.outputs / PROFILE_F
    adds = line.multiply_adds - line.outputs
    return (line.multiply_adds * line.bits / 32 + adds) / PROFILE_F


def _strict_params(line: Line) -> float:
    places = line.weights / 32 if line.kept < line.weights else 0
    return (line.storage + places) / PROFILE_W


def _strict_ops(line: Line) -> float:
    """Products and additions of kept weights alone; multiplier, bias and rounding of each output at sixteen bits."""
    if not line.terms:
        per = 4 if "Norm" in line.type else 1 if line.name.startswith("(") else 0
        return per * line.outputs * line.other_bits / 32 / PROFILE_F
    products = line.multiply_adds * line.kept / line.weights if line.weights else line.multiply_adds
    whole = (
        line.other_bits if line.bits >= SHORT else line.weight_bits + line.input_bits + (line.terms - 1).bit_length()
    )
    sums = max(0.0, products - line.outputs) * min(whole, 32)
    each = 3 if line.bits < SHORT else 1
    return (products * line.bits + sums + each * line.outputs * line.other_bits) / 32 / PROFILE_F


CURRENT, PLAYED = "2.8e8", "cifar10"
RULES: dict[str, tuple[Callable[[Line], float], Callable[[Line], float]]] = {
    CURRENT: (lambda line: line.storage / W, lambda line: line.work / F28),
    "8.3e8": (lambda line: line.storage / W, lambda line: line.work / F83),
    "8.3e8, 2 operations": (lambda line: line.storage / W, lambda line: 2 * line.work / F83),
    "profile.py": (lambda line: line.storage / PROFILE_W, _profile_ops),
    "strict": (_strict_params, _strict_ops),
}


def as_dict(scores: dict[str, tuple[float, float]]) -> dict[str, dict[str, float]]:
    """Every edition's two parts and their sum, by name."""
    return {k: {"parameters": p, "operations": f, "score": p + f} for k, (p, f) in scores.items()}


# --- by hand ----------------------------------------------------------------------------------------------------------

WORDS = {
    "p_s": "share of the weights in structures that are gone", "p_u": "share of all weights that are zero besides",
    "q_w": "bits of a weight", "q_a": "bits of an activation", "w": "weights of the whole network",
    "f": "multiply-adds of the whole network",
}  # fmt: skip
DEFAULTS = {"p_s": 0.0, "p_u": 0.0, "q_w": 32.0, "q_a": 32.0}


def formula(values: dict[str, float]) -> dict[str, tuple[float, float]]:
    """The formula itself, for those who have counted already: (parameters, operations) by edition."""
    v = DEFAULTS | values
    for key in WORDS:
        if key not in v:
            raise Refused(f"{key} is missing ({WORDS[key]}); expected p_s, p_u, q_w, q_a, w and f")
    for key, low, high in (
        ("p_s", 0, 1),
        ("p_u", 0, 1),
        ("q_w", 1, 32),
        ("q_a", 1, 32),
        ("w", 1, 1e12),
        ("f", 1, 1e15),
    ):
        if not low <= v[key] <= high:
            raise Refused(f"{key} = {v[key]:g} is not allowed ({WORDS[key]}); expected {low} to {high:g}")
    if v["p_s"] + v["p_u"] > 1:
        seen = f"p_s + p_u = {v['p_s'] + v['p_u']:g} is more than all weights"
        raise Refused(f"{seen}; expected at most 1: p_u is a share of all weights, not of those that p_s leaves")
    params = (1 - v["p_s"] - v["p_u"]) * v["q_w"] / 32 * v["w"] / W
    work = (1 - v["p_s"]) * max(v["q_w"], v["q_a"]) / 32 * v["f"]
    return {
        CURRENT: (params, work / F28), "8.3e8": (params, work / F83), "8.3e8, 2 operations": (params, 2 * work / F83)
    }  # fmt: skip


def values_of(text: str) -> dict[str, float]:
    """p_u=0.5,q_w=8,w=2.7e5 as numbers."""
    found: dict[str, float] = {}
    for part in filter(None, re.split(r"[,\s]+", re.sub(r"\s*=\s*", "=", text))):
        key, equals, number = part.partition("=")
        if key in found:
            raise Refused(f"{key} is there twice; expected each of {', '.join(WORDS)} once")
        try:
            found[key] = float(number)
        except ValueError:
            equals = ""
        if not equals or key not in WORDS:
            raise Refused(f"{quote(part)} is not allowed; expected {', '.join(WORDS)} with numbers, such as q_w=8")
    return found
