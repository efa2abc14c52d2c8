"""Fake quantisation with learned steps (Esser et al. 1902.08153): layers that train with small whole numbers.

A quantised layer divides its inputs and its weights each by a step, rounds both to whole numbers of so many bits,
multiplies these, and scales the sum: `y = (qx * qw) sx sw + bias`. Steps are parameters. Whole numbers up to 256 are
exact in bfloat16 and their sums in float32, so in evaluation the same numbers come out of any arithmetic that is exact
for whole numbers (`integer.py`). Zero is a whole number: what is pruned stays zero.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..spec import Refused, choose
from .rounding import kernels_for

SMALLEST = 1e-8
"""of steps"""
EXACT = 2**24
"""whole numbers that float32 holds"""


@dataclass(frozen=True)
class Bits:
    """What a layer computes with."""

    weight: int
    """bits of a weight, sign included; 1 is -1 and 1"""
    input: int
    """bits of an input; 0: whatever comes"""
    per: str = "channel"
    """one step of weights for each output channel, or one for a whole layer (tensor)"""
    signed: bool = True
    """whether inputs may be negative"""
    ternary: bool = False
    """of two bits of a weight only -1, 0 and 1"""
    clusters: bool = False
    """weights are not whole numbers but share so few values, of which zero is one"""
    folded: bool = False
    """whether a multiplier for each output stands for steps and normalisation"""

    @property
    def weights(self) -> tuple[int, int]:
        """The smallest and the largest weight."""
        if self.weight == 1 or self.ternary:
            return -1, 1
        return -(2 ** (self.weight - 1)), 2 ** (self.weight - 1) - 1

    @property
    def inputs(self) -> tuple[int, int]:
        """The smallest and the largest input."""
        if not self.signed:
            return 0, 2**self.input - 1
        return (-1, 1) if self.input == 1 else (-(2 ** (self.input - 1)), 2 ** (self.input - 1) - 1)


class Step(nn.Parameter):
    """A learned step: not a weight, so it does not decay."""


class Rounded(torch.autograd.Function):
    """x / step as whole numbers within bounds; backwards as if nothing had been rounded."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: int, high: int, binary: bool) -> Tensor:
        ctx.bounds, ctx.kernels = (low, high), None if binary else kernels_for(x, step)
        ctx.save_for_backward(x, step)
        if ctx.kernels:
            return ctx.kernels.forward(x, step, low, high)
        u = x / step
        return torch.where(u < 0, -1.0, 1.0).to(u.dtype).mul_(u != 0) if binary else u.round().clamp_(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x, step = ctx.saved_tensors
        if ctx.kernels and not torch.is_grad_enabled():  # create_graph: the gradient must itself have one
            return *ctx.kernels.backward(grads[0], x, step, *ctx.bounds), None, None, None
        u = x / step
        inside = torch.ops.aten.hardtanh_backward(grads[0], u, *ctx.bounds).div_(step)
        return inside, -_summed(inside * u, step), None, None, None


class Halved(torch.autograd.Function):
    """A scale as bfloat16 holds it, so that training in half precision and evaluation use the same one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.bfloat16().float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class Damped(torch.autograd.Function):
    """Itself, with a gradient that is smaller by a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clamp(min=SMALLEST)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.factor, None


def _summed(gradient: Tensor, step: Tensor) -> Tensor:
    """Over all axes that the step does not have."""
    axes = [i for i in range(gradient.ndim) if step.ndim == 0 or step.shape[i] == 1]
    return gradient.sum(axes).to(step.dtype).view_as(step)  # added up in single precision, without a copy in it


class Quantiser(nn.Module):
    """Numbers to whole numbers, with a step that is learned."""

    def __init__(self, bounds: tuple[int, int], binary: bool, steps: tuple[int, ...], batched: bool) -> None:
        super().__init__()
        self.low, self.high, self.binary, self.batched = *bounds, binary, batched
        self.step = Step(torch.ones(steps))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The whole numbers, and what one of them stands for."""
        numbers = x.numel() / (max(len(x), 1) if self.batched else self.step.numel())
        step = Damped.apply(self.step, 1 / (max(numbers, 1.0) * self.high) ** 0.5)
        return Rounded.apply(x, step, self.low, self.high, self.binary), step


class Codebook(nn.Module):
    """Weights that share a few values, which are learned (Han et al. 1510.00149); the code 0 is zero."""

    codes: Tensor | None

    def __init__(self, count: int, shape: torch.Size | None) -> None:
        super().__init__()
        self.values = Step(torch.zeros(count))
        self.register_buffer("codes", None if shape is None else torch.zeros(shape, dtype=torch.uint8))

    def forward(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The weights, and one; without codes of its own, those that the weights are."""
        values = torch.cat([self.values.new_zeros(1), self.values])
        return values[self.coded(weight)], self.values.new_ones(())

    def coded(self, weight: Tensor) -> Tensor:
        """A code for each weight."""
        return (weight if self.codes is None else self.codes).long()


class _Quantised(nn.Module):
    """What both kinds of layers share."""

    bits: Bits
    weight: Any
    bias: Any
    input_quantiser: Quantiser | None
    weight_quantiser: Quantiser | Codebook
    multiplier: Tensor | None
    behind: nn.Module | None
    """what the layer does after its sums, where it is several in one"""
    products: Any
    """the layer's own way to multiply and add, of inputs and weights"""

    def wear(self, bits: Bits) -> None:
        """Quantisers for so many bits; steps are 1 until they are found or loaded."""
        shape = (len(self.weight), *[1] * (self.weight.ndim - 1)) if bits.per == "channel" else ()
        self.bits = bits
        self.weight_quantiser = (
            Codebook(2**bits.weight - 1, None if bits.folded else self.weight.shape)
            if bits.clusters
            else Quantiser(bits.weights, bits.weight == 1, shape, batched=False)
        )
        inputs = Quantiser(bits.inputs, bits.signed and bits.input == 1, (), batched=True) if bits.input else None
        self.input_quantiser = inputs
        multiplier = torch.ones(len(self.weight)) if bits.folded else None
        self.register_buffer("multiplier", multiplier)

    def operands(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs and weights as whole numbers, and what a product of two is worth, for each output."""
        whole, sx = self.input_quantiser(x) if self.input_quantiser else (x, torch.ones((), device=x.device))
        weight, sw = self.weight_quantiser(self.weight)
        if self.multiplier is not None:
            return whole, weight, self.multiplier
        return whole, weight, Halved.apply((sx * sw).flatten().expand(len(weight)))

    @property
    def whole(self) -> bool:
        """Whether its sums are of whole numbers."""
        return self.input_quantiser is not None and not isinstance(self.weight_quantiser, Codebook)

    def largest(self, weight: Tensor) -> int:
        """What a sum of whole numbers cannot exceed."""
        reach = max(map(abs, self.bits.inputs))
        return int(weight.detach().double().abs().flatten(1).sum(1).max()) * reach if len(weight) else 0

    def exactly(self, x: Tensor, weight: Tensor, groups: int, axis: int) -> Tensor:
        """The products of whole numbers, added up without rounding: in doubles where float32 might round a sum.

        Convolutions in doubles are slow, so inputs are halved until each part is exact, unless they go to groups; x has
        its channels on the axis."""
        most = max(map(abs, self.bits.inputs)) * max(map(abs, self.bits.weights)) * weight[:1].numel()
        if not self.whole or most < EXACT or self.largest(weight) < EXACT:
            return self.products(x, weight)
        if groups > 1 or weight.shape[1] == 1:
            return self.products(x.double(), weight.double())
        first, second = zip(x.chunk(2, axis), weight.chunk(2, 1), strict=True)
        return self.exactly(*first, groups, axis).double() + self.exactly(*second, groups, axis)

    def trained(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs as whole numbers, and weights with the scale in them: as good while training, and much faster."""
        whole, weight, scale = self.operands(x)
        return whole, weight * scale.view(-1, *[1] * (weight.ndim - 1))

    def scaled(self, sums: Tensor, scale: Tensor) -> Tensor:
        """Sums of whole numbers as numbers, with the bias; outputs are the axis behind the batch."""
        shape = (-1, *[1] * (sums.ndim - 2))
        y = sums * scale.to(sums.dtype).view(shape)
        return y if self.bias is None else y + self.bias.to(sums.dtype).view(shape)


class QuantConv2d(_Quantised, nn.Conv2d):
    """A convolution of whole numbers."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            y = self._conv_forward(*self.trained(x), self.bias)
        else:
            whole, weight, scale = self.operands(x)
            y = self.scaled(self.sums(whole, weight), scale)
        return y if self.behind is None else self.behind(y)

    def sums(self, x: Tensor, weight: Tensor) -> Tensor:
        """The products of whole numbers, added up and rounded once, if at all."""
        return self.exactly(x, weight, self.groups, 1).to(x.dtype)

    def products(self, x: Tensor, weight: Tensor) -> Tensor:
        """As torch adds them up."""
        return self._conv_forward(x, weight, None)


class QuantLinear(_Quantised, nn.Linear):
    """A linear layer of whole numbers."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return F.linear(*self.trained(x), self.bias)
        whole, weight, scale = self.operands(x)
        return self.scaled(self.sums(whole, weight).movedim(-1, 1), scale).movedim(1, -1)

    def sums(self, x: Tensor, weight: Tensor) -> Tensor:
        """The products of whole numbers, added up and rounded once, if at all."""
        return self.exactly(x, weight, 1, -1).to(x.dtype)

    def products(self, x: Tensor, weight: Tensor) -> Tensor:
        """As torch adds them up."""
        return F.linear(x, weight)


def wear_(network: nn.Module, plan: dict[str, Bits]) -> None:
    """Put quantisers on layers, in place; the network's own tensors stay."""
    for name, bits in plan.items():
        made = _quantised(network.get_submodule(choose(name, dict(network.named_modules()), "the layer")), name)
        made.wear(bits)
        network.set_submodule(name, made)


def _quantised(layer: nn.Module, name: str) -> Any:
    """The layer as one that computes with whole numbers; `apart` takes a block's convolution from what is behind it."""
    behind: nn.Module | None = getattr(layer, "behind", None)
    if callable(getattr(layer, "apart", None)):
        layer, *rest = layer.apart()  # type: ignore[operator]
        behind = nn.Sequential(*rest)
    if type(layer).forward is nn.Linear.forward or isinstance(layer, QuantLinear):
        made: Any = QuantLinear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")  # type: ignore[arg-type]
    elif type(layer).forward is nn.Conv2d.forward or isinstance(layer, QuantConv2d):
        sides = {
            k: getattr(layer, k) for k in ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
        }
        made = QuantConv2d(layer.in_channels, layer.out_channels, bias=layer.bias is not None, device="meta", **sides)  # type: ignore[arg-type]
    else:
        seen = f"{name} ({type(layer).__name__}) cannot be quantised"
        raise Refused(f"{seen}; expected Conv2d and Linear layers: leave it out with a pattern such as {name}=0/0")
    made.weight, made.bias, made.behind = layer.weight, layer.bias, behind
    return made.train(layer.training)


def described(network: nn.Module) -> dict[str, dict[str, Any]]:
    """What each quantised layer computes with, in words that a file can hold."""
    return {n: asdict(m.bits) for n, m in quantised_layers(network).items()}


def is_quantised(layer: nn.Module) -> bool:
    """Whether a layer computes with whole numbers."""
    return isinstance(layer, QuantConv2d | QuantLinear)


def quantised_layers(network: nn.Module) -> dict[str, "QuantConv2d | QuantLinear"]:
    """By name."""
    return {n: m for n, m in network.named_modules() if isinstance(m, QuantConv2d | QuantLinear)}


def plan_of(table: Any, where: str) -> dict[str, Bits]:
    """What `described` said, read back from a file that a stranger may have written."""
    if not isinstance(table, dict):
        raise Refused(f"{where}: quantised is {type(table).__name__}; expected a table of layers")
    return {str(name): _bits(told, f"{where}: quantised.{name}") for name, told in table.items()}


def _bits(told: Any, where: str) -> Bits:
    kinds = {"weight": int, "input": int, "per": str, "signed": bool, "ternary": bool}
    kinds |= {"clusters": bool, "folded": bool}
    wrong = (
        not isinstance(told, dict) or set(told) != set(kinds) or any(type(told[k]) is not t for k, t in kinds.items())
    )
    if wrong or not 1 <= told["weight"] <= 8 or not 0 <= told["input"] <= 8 or told["per"] not in ("channel", "tensor"):
        raise Refused(f"{where} is not allowed; expected what prunery wrote: copy the file again")
    return Bits(**told)


Quantised = QuantConv2d | QuantLinear
