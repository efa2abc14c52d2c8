"""Training of fully connected networks at a cost that falls with the density of the weights (native/fcsteps.cpp).

A `Replica` is one network with its masks, packed for the kernels: thousands of optimiser steps in a call, evaluation
in between, and everything readable and writable as dense tensors, bit for bit. Calls release the interpreter's lock, so
replicas train side by side, one to a thread; a replica is for one thread at a time.

Layers are linear with a ReLU between them and softmax cross-entropy at the end; inputs are pixels, scaled and shifted
each by its own numbers. Steps are torch's up to rounding, and do not depend on how they are cut into calls.
"""

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from .. import native
from ..data import Images, Splits
from ..data.stream import generator
from ..masks import Mask
from ..spec import Refused, Train, choose
from ..train import Evaluation

KINDS = ("sgd", "momentum", "nesterov", "adam")  # in the order of Kind in fcsteps_rules.h
KERNELS = ("auto", "sparse", "dense")
ACTIVE = 0.5  # hidden units that are not zero, more or less
FEW = 32  # outputs that are too few for the dense kernel, which keeps them in vectors


def dense_from(lit: float, shifted: bool = False) -> float:
    """The density from which on the dense kernel is faster, where so many inputs are not zero: the line through what
    LeNet-300-100 was measured to need with MNIST's pixels (19 % lit) and hidden units, on AVX-512 and AVX2 alike.

    A shift costs the sparse kernel a vector of each input, whether it is lit or not.
    """
    return (0.08 + 1.35 * lit) * (0.7 if shifted else 1.0)


@dataclass(frozen=True)
class Rule:
    """The optimiser, with torch's meaning of every setting."""

    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    momentum: float = 0.0
    nesterov: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    decay_all: bool = True
    """decay biases too"""

    def __post_init__(self) -> None:
        choose(self.optimizer, ("sgd", "adam", "adamw"), "optimizer")
        if self.nesterov and not self.momentum:
            raise Refused("nesterov looks ahead along the momentum, which is 0; set momentum, or nesterov = false")

    @classmethod
    def of(cls, spec: Train) -> "Rule":
        """What a training step asks for; Refused where the kernels cannot do it."""
        defaults = {"label_smoothing": 0.0, "mixup": 0.0, "ema": 0.0, "clip": 0.0, "teacher": "", "bn_l1": 0.0}
        defaults |= {"precision": "float32"}
        other = [k for k, v in defaults.items() if getattr(spec, k) != v]
        if other or spec.optimizer not in ("sgd", "adam", "adamw"):
            what = f"train.{other[0]}" if other else f'train.optimizer = "{spec.optimizer}"'
            raise Refused(f"the sparse training steps know no {what}; leave it out, or train with torch")
        momentum = (spec.momentum, spec.nesterov) if spec.optimizer == "sgd" else (0.0, False)
        betas = (spec.beta1, spec.beta2, spec.eps or 1e-8)
        return cls(spec.optimizer, *momentum, *betas, spec.weight_decay, spec.decay_all)

    @property
    def kind(self) -> str:
        if self.optimizer != "sgd":
            return "adam"
        return "nesterov" if self.nesterov else "momentum" if self.momentum else "sgd"

    @property
    def moments(self) -> int:
        """Tensors that the optimiser keeps beside each weight."""
        return {"sgd": 0, "adam": 2}.get(self.kind, 1)


@dataclass
class Snapshot:
    """All that training goes on from. A moment that is missing is zero."""

    weights: dict[str, Tensor]
    first: dict[str, Tensor] = field(default_factory=dict)
    """Adam's mean gradients, or the momentum"""
    second: dict[str, Tensor] = field(default_factory=dict)
    """Adam's mean squares"""
    step: int = 0
    """steps made so far, which Adam's correction of its moments depends on"""


class Replica:
    """A network packed for training: `train` and `evaluate` as often as you like, `snapshot` to see it."""

    def __init__(
        self,
        start: Snapshot,
        masks: Mask,
        rule: Rule,
        batch: int,
        scale: float | Tensor = 1 / 255,
        shift: float | Tensor = 0.0,
        lit: float = 0.2,
        kernel: Literal["auto", "sparse", "dense"] = "auto",
        isa: str | None = None,
    ) -> None:
        """`lit`, the share of pixels that are not black, and `kernel` decide about speed, and how sums are rounded."""
        choose(kernel, KERNELS, "kernel")
        if batch < 1:
            raise Refused(f"batch = {batch} is too small; expected at least 1")
        self.rule, self.batch, self.step = rule, batch, start.step
        self.layers = chain(start.weights)
        self.names = list(start.weights)
        self._library = _open(isa)
        self._net = self._make(scale, shift)
        weakref.finalize(self, self._library.prunery_fc_free, self._net)
        self.kernels = list[str]()
        for number, name in enumerate(self.layers):
            mask = self._mask(name, masks)
            bound = dense_from(ACTIVE) if number else dense_from(lit, bool(torch.as_tensor(shift).any()))
            fits = len(mask) >= FEW and int(mask.sum()) >= bound * mask.numel()
            self.kernels.append(kernel if kernel != "auto" else "dense" if fits else "sparse")
            self._pack(number, name, start, mask)

    def train(self, images: Images, batches: Tensor, rates: Sequence[float] | Tensor) -> Tensor:
        """A step for each row of `batches`; their losses, each before its step.

        A row holds the numbers of its images, and -1 at the end where there are fewer; a rate belongs to each row.
        """
        batches = batches.to(torch.int32).contiguous()
        rates = torch.as_tensor(rates, dtype=torch.float64).contiguous()
        self._check_batches(batches, rates, len(images))
        x, y = self._pixels(images)
        losses = torch.empty(len(batches))
        arrays = [t.data_ptr() for t in (x, y, batches, rates)]
        self._library.prunery_fc_train(self._net, *arrays, self.step, len(batches), losses.data_ptr())
        self.step += len(batches)
        return losses

    def evaluate(self, images: Images) -> Evaluation | None:
        """Loss and accuracy over all images; None where there are none."""
        if not len(images):
            return None
        x, y = self._pixels(images)
        loss = ctypes.c_double()
        found = self._library.prunery_fc_evaluate(self._net, x.data_ptr(), y.data_ptr(), len(y), ctypes.byref(loss))
        return Evaluation(loss.value / len(y), found, len(y))

    def snapshot(self) -> Snapshot:
        """Weights and moments as dense tensors; pruned ones are exactly zero."""
        kinds = [{n: torch.empty(self._shape(n)) for n in self.names} for _ in range(1 + self.rule.moments)]
        for number, name in enumerate(self.layers):
            tensors = [[k.get(f"{name}.{part}") for k in kinds] for part in ("weight", "bias")]
            self._library.prunery_fc_write(self._net, number, *map(_pointers, tensors))
        weights, first, second = [*kinds, {}, {}][:3]
        return Snapshot(weights, first, second, self.step)

    def _make(self, scale: float | Tensor, shift: float | Tensor) -> int:
        rule, widths = self.rule, [next(iter(self.layers.values()))[1], *(shape[0] for shape in self.layers.values())]
        pixels = [torch.as_tensor(v, dtype=torch.float32).expand(widths[0]).contiguous() for v in (scale, shift)]
        bias_decay = rule.weight_decay if rule.decay_all else 0.0
        numbers = (rule.momentum, rule.beta1, rule.beta2, rule.eps, rule.weight_decay, bias_decay)
        kinds = (KINDS.index(rule.kind), rule.optimizer == "adamw")
        request = _Request(len(self.layers), self.batch, *kinds, *numbers)
        request.widths = (ctypes.c_int32 * len(widths))(*widths)
        request.scale, request.shift = (t.data_ptr() for t in pixels)
        return int(self._library.prunery_fc_make(ctypes.byref(request)))

    def _shape(self, name: str) -> tuple[int, ...]:
        layer, part = name.rsplit(".", 1)
        return self.layers[layer] if part == "weight" else self.layers[layer][:1]

    def _mask(self, name: str, masks: Mask) -> Tensor:
        shape = self.layers[name]
        mask = masks.get(f"{name}.weight", torch.ones(shape, dtype=torch.bool)).cpu().contiguous()
        if mask.shape != shape or mask.dtype != torch.bool:
            seen = f"{str(mask.dtype).removeprefix('torch.')} {list(mask.shape)}"
            raise Refused(f"the mask of {name}.weight is {seen}; expected bool {list(shape)}")
        return mask

    def _pack(self, number: int, name: str, start: Snapshot, mask: Tensor) -> None:
        self._library.prunery_fc_mask(self._net, number, mask.data_ptr(), self.kernels[number] == "dense")
        kinds, names = (start.weights, start.first, start.second), (f"{name}.weight", f"{name}.bias")
        tensors = [[_floats(k.get(n), n, self._shape(n)) for k in kinds] for n in names]
        self._library.prunery_fc_read(self._net, number, *map(_pointers, tensors))

    def _pixels(self, images: Images) -> tuple[Tensor, Tensor]:
        inputs, classes = next(iter(self.layers.values()))[1], [*self.layers.values()][-1][0]
        x, y = images.x.flatten(1).contiguous(), images.y.to(torch.int32).contiguous()
        if x.dtype != torch.uint8 or x.shape[1] != inputs or x.device.type != "cpu":
            seen = f"{str(x.dtype).removeprefix('torch.')}, {x.shape[1]} an image, on {x.device}"
            raise Refused(f"the pixels are {seen}; expected uint8, {inputs} an image for the first layer, on the CPU")
        if len(y) and not 0 <= int(y.min()) <= int(y.max()) < classes:
            raise Refused(f"labels go from {y.min()} to {y.max()}; expected 0 to {classes - 1}, the network's outputs")
        return x, y

    def _check_batches(self, batches: Tensor, rates: Tensor, images: int) -> None:
        steps, size = batches.shape if batches.ndim == 2 else (-1, -1)
        if size != self.batch or rates.shape != (steps,):
            seen = f"batches of shape {list(batches.shape)} with rates of shape {list(rates.shape)}"
            raise Refused(f"{seen}; expected [steps, {self.batch}] and [steps]")
        if steps and not (int(batches.max()) < images and int(batches[:, 0].min()) >= 0):
            raise Refused(f"a batch is empty or names an image beyond the {images} there are")


def train(
    start: Snapshot,
    masks: Mask,
    rule: Rule,
    images: Images,
    batches: Tensor,
    rates: Sequence[float] | Tensor,
    **options: Any,
) -> tuple[Snapshot, Tensor]:
    """Where a step for each row of `batches` leads, and the losses; `options` are those of `Replica`."""
    replica = Replica(start, masks, rule, batches.shape[1], **options)
    losses = replica.train(images, batches, rates)
    return replica.snapshot(), losses


def orders(seed: int, images: int, batch: int, first: int, steps: int) -> Tensor:
    """The batches of steps first, first + 1, ... as `data.Stream` draws them: int32 [steps, batch], -1 where short."""
    per_epoch = -(-images // batch)
    epochs = range(first // per_epoch, -(-(first + steps) // per_epoch))
    rows = torch.full((len(epochs), per_epoch * batch), -1, dtype=torch.int32)
    for row, epoch in zip(rows, epochs, strict=True):
        row[:images] = torch.randperm(images, generator=generator(seed, "stream", epoch))
    return rows.view(-1, batch)[first - per_epoch * epochs.start :][:steps].contiguous()


def affine(splits: Splits) -> tuple[Tensor, Tensor] | None:
    """Scale and shift of every pixel for the scaling that a set asks for; None where an image is scaled by itself."""
    channels, height, width = splits.facts.shape
    known = {"raw": (torch.ones(channels), torch.zeros(channels))}
    known["unit"] = known["raw"][0] / 255, known["raw"][1]
    deviation = torch.where(splits.deviation > 0, splits.deviation, 1)
    known["channel"] = 1 / (255 * deviation), -splits.mean / deviation
    if splits.spec.scaling not in known:
        return None
    scale, shift = (v.repeat_interleave(height * width) for v in known[splits.spec.scaling])
    return scale, shift


def chain(weights: dict[str, Tensor]) -> dict[str, tuple[int, int]]:
    """Each layer's name and its weight's shape, in order; Refused unless they make a chain."""
    for name, tensor in weights.items():
        layer, _, part = name.rpartition(".")
        known = tensor.ndim == 2 if part == "weight" else part == "bias" and f"{layer}.weight" in weights
        if not layer or not known:
            raise Refused(f"{name} {list(tensor.shape)} is of no fully connected layer; expected linear layers only")
    layers = {n.rpartition(".")[0]: tuple(t.shape) for n, t in weights.items() if t.ndim == 2}
    shapes = list(layers.values())
    if not shapes or any(before[0] != after[1] for before, after in pairwise(shapes)):
        raise Refused(f"layers of {shapes} (outputs, inputs) make no chain; expected each to read what the last gives")
    return layers  # type: ignore[return-value]


def _floats(tensor: Tensor | None, name: str, shape: Sequence[int]) -> Tensor | None:
    if tensor is None:
        return None
    if tensor.shape != torch.Size(shape) or tensor.dtype != torch.float32 or tensor.device.type != "cpu":
        seen = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} on {tensor.device}"
        raise Refused(f"{name} is {seen}; expected float32 {list(shape)} on the CPU")
    return tensor.detach().contiguous()


def _pointers(tensors: Sequence[Tensor | None]) -> Any:
    padded = [*tensors, None, None][:3]
    return (ctypes.c_void_p * 3)(*(None if t is None else t.data_ptr() for t in padded))


class _Request(ctypes.Structure):
    """The order of the fields is that of fcsteps.cpp."""

    _fields_ = (
        *((n, ctypes.c_int32) for n in ("layers", "batch", "kind", "decoupled")),
        *((n, ctypes.c_double) for n in ("momentum", "beta1", "beta2", "eps", "decay", "bias_decay")),
        ("widths", ctypes.POINTER(ctypes.c_int32)),
        ("scale", ctypes.c_void_p),
        ("shift", ctypes.c_void_p),
    )


def _open(isa: str | None) -> ctypes.CDLL:
    library = native.library(isa)
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    signatures = {
        "make": [pointer],
        "free": [pointer],
        "mask": [pointer, ctypes.c_int, pointer, ctypes.c_int],
        "read": [pointer, ctypes.c_int, pointer, pointer],
        "write": [pointer, ctypes.c_int, pointer, pointer],
        "train": [*[pointer] * 5, number, number, pointer],
        "evaluate": [*[pointer] * 3, number, pointer],
    }
    for name, arguments in signatures.items():
        function = getattr(library, f"prunery_fc_{name}")
        function.argtypes = arguments
        function.restype = {"make": pointer, "evaluate": number}.get(name)
    return library
