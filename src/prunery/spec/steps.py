"""The steps of a chain as frozen dataclasses. A default, once released, never changes: names leave defaults out."""

import ast
import inspect
import math
import textwrap
from dataclasses import dataclass, fields
from functools import cache
from itertools import pairwise
from typing import Any, ClassVar, Literal, get_type_hints

from .check import Count, Density, NotNegative, Positive, Share, Whole, check
from .errors import Refused, quote

MOST_NUMBERS, MOST_CLASSES = 2**26, 2**20
"""of one input, and of answers: a stranger's file asks for a network of this size before anything else is known"""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Anything that can be asked for; its fields are checked when it is made."""

    kind: ClassVar[str] = "spec"

    def __post_init__(self) -> None:
        for name, hint in hints(type(self)).items():
            object.__setattr__(self, name, check(getattr(self, name), hint, f"{self.kind}.{name}"))


def hints(cls: type) -> dict[str, Any]:
    """The fields of a spec with their annotations, ranges included."""
    return _hints(cls)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    found = get_type_hints(cls, include_extras=True)
    return {f.name: found[f.name] for f in fields(cls)}


def helps(cls: type) -> dict[str, str]:
    """The text behind each field of a spec: its `--help`."""
    return _helps(cls)


@cache
def _helps(cls: Any) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
    return {
        a.target.id: " ".join(b.value.value.split())  # type: ignore[union-attr,attr-defined]
        for a, b in pairwise(body)
        if isinstance(a, ast.AnnAssign) and isinstance(b, ast.Expr)
    }


@dataclass(frozen=True, kw_only=True)
class Data(Spec):
    """Which images, scaled and varied how."""

    kind: ClassVar[str] = "data"
    name: str = "digits"
    """digits, mnist, fashion_mnist, cifar10, cifar100, folder:PATH (one sub-folder per class) or hf:NAME"""
    scaling: Literal["channel", "unit", "image", "pixel_l2", "image_l2", "raw", "imagenet"] = "channel"
    """pixels to inputs: standardised per channel, 0..1, standardised per image, unit length per pixel or per image,
    raw 0..255, or with ImageNet's mean and deviation"""
    flip: bool = False
    """mirror half of the training images"""
    crop: Whole = 0
    """pad training images by this many pixels and cut out a random window"""
    cutout: Whole = 0
    """blank a random square of this many pixels in each training image"""
    resize: Whole = 0
    """side in pixels that all images are resized to; 0 keeps their own"""
    validation: Whole | None = None
    """images held out of the training set; the set's own number (5,000, or a tenth of a small set) when not given"""
    split_seed: Whole = 42
    """seed of the permutation that chooses the held-out images"""
    sha256: str = ""
    """checksum of the images of folder:PATH or hf:NAME as they were decoded; filled in when not given"""


@dataclass(frozen=True, kw_only=True)
class Model(Spec):
    """Which network, with which weights at the start."""

    kind: ClassVar[str] = "model"
    name: str = "convnet"
    """lenet5, conv6, resnet20, ...; torchvision:NAME; timm:NAME; or path/to/file.py:function"""
    input: tuple[Count, ...] = ()
    """channels, height and width of one input; taken from the data when not given"""
    classes: Whole = 0
    """number of classes; taken from the data when 0"""
    widths: tuple[Count, ...] = ()
    """of resnet, strided_resnet and tiny: channels of each stage; every stage behind the first halves the image"""
    depths: tuple[Count, ...] = ()
    """of resnet, strided_resnet and tiny: blocks of each stage"""
    init: Literal[
        "default", "glorot_normal", "glorot_uniform", "kaiming_normal", "kaiming_uniform", "lecun_normal", "orthogonal"
    ] = "default"
    """how weights are drawn; default is the network's own way"""
    weights: str = ""
    """a file of weights to start from (.safetensors or .pth), or pretrained: the library's own, downloaded"""
    weights_sha256: str = ""
    """checksum of that file; filled in when not given"""
    code_sha256: str = ""
    """checksum of the user's own file.py; filled in when not given"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.input) not in (0, 3):
            shape = quote(list(self.input))
            raise Refused(f"model.input = {shape} is not allowed; expected [channels, height, width]")
        if len(self.widths) != len(self.depths):
            seen = f"model.widths = {quote(list(self.widths))} with model.depths = {quote(list(self.depths))}"
            raise Refused(f"{seen}: expected as many of both, a width and a depth for each stage")
        if math.prod(self.input) > MOST_NUMBERS or self.classes > MOST_CLASSES:
            seen = f"model.input = {quote(list(self.input))} with model.classes = {self.classes}"
            raise Refused(f"{seen} is too large; expected at most {MOST_NUMBERS} numbers and {MOST_CLASSES} classes")


@dataclass(frozen=True, kw_only=True)
class Init(Spec):
    """The first step: a network with its initial weights."""

    kind: ClassVar[str] = "init"
    model: Model = Model()
    """the network and where its weights come from"""
    seed: Whole = 0
    """seed of the initial weights"""


@dataclass(frozen=True, kw_only=True)
class Train(Spec):
    """Weights to better weights; masked weights stay exactly zero."""

    kind: ClassVar[str] = "train"
    data: Data = Data()
    """images to learn from"""
    epochs: NotNegative = 10.0
    """passes over the training images; parts of a pass are allowed"""
    steps: Whole | None = None
    """optimiser steps; given instead of epochs"""
    batch: Count = 128
    """images in a step"""
    optimizer: Literal["sgd", "adam", "adamw", "adadelta"] = "sgd"
    """the rule that turns gradients into steps"""
    lr: Positive = 0.1
    """learning rate; the peak where the schedule varies it"""
    momentum: Share = 0.9
    """of sgd"""
    nesterov: bool = False
    """sgd looks ahead along its momentum"""
    beta1: Share = 0.9
    """of adam and adamw: memory of the mean gradient"""
    beta2: Share = 0.999
    """of adam and adamw: memory of the squared gradient"""
    eps: Positive | None = None
    """of adam, adamw and adadelta: what keeps the division finite; PyTorch's own value when not given"""
    weight_decay: NotNegative = 0.0
    """pull of the weights to zero (decoupled for adamw)"""
    decay_all: bool = True
    """decay biases and normalisation weights too"""
    schedule: Literal["constant", "step", "multistep", "cosine", "onecycle"] = "constant"
    """learning rate over time"""
    step_epochs: Positive = 30.0
    """of step: epochs between drops"""
    milestones: tuple[Positive, ...] = ()
    """of multistep: epochs at which the rate drops"""
    gamma: Positive = 0.1
    """of step and multistep: factor of each drop"""
    warmup: NotNegative = 0.0
    """epochs of linear rise from zero; of onecycle: epochs to the peak"""
    final_lr: NotNegative = 0.0
    """of cosine and onecycle: share of lr at the end"""
    label_smoothing: Share = 0.0
    """share of the target spread over all classes"""
    mixup: NotNegative = 0.0
    """blend pairs of images with a Beta(mixup, mixup) weight; 0 is off"""
    ema: Share = 0.0
    """keep an average of the weights with this memory per step and end with it; 0 is off"""
    clip: NotNegative = 0.0
    """largest norm of the whole gradient; 0 is off"""
    teacher: str = ""
    """an earlier step (its label or name) or a saved checkpoint whose outputs the network imitates"""
    teacher_sha256: str = ""
    """checksum of that checkpoint; filled in when not given"""
    distill: Share = 0.9
    """share of the loss that comes from the teacher"""
    temperature: Positive = 4.0
    """softening of the teacher's outputs"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """arithmetic of the forward and backward pass; weights stay float32"""
    channels_last: bool = False
    """memory layout of images; pays for convolutional networks"""
    eval_every: Whole = 0
    """steps between evaluations; 0 evaluates after each epoch"""
    test_every_eval: bool = False
    """evaluate the test set each time too, not only at the end (the lottery's curves need it)"""
    keep: Literal["last", "best"] = "last"
    """weights to end with: the last ones, or those at the smallest validation loss"""
    seed: Whole = 0
    """seed of the data order, augmentation and dropout"""
    sparse: Literal["static", "set", "rigl", "gradual"] = "static"
    """what training does to the masks: nothing; drop the smallest weights and grow others at random (SET) or where the
    gradient is largest (RigL), as many as before; or prune by magnitude to `density` on the way, on a cubic curve"""
    sparse_every: Count = 100
    """steps between changes of the masks"""
    sparse_share: Share = 0.3
    """of set and rigl: share of each layer's weights that is moved at first; falls to nothing along a cosine"""
    sparse_until: Share = 0.75
    """share of the steps after which the masks stay"""
    density: Density = 0.1
    """of gradual: the share of the prunable weights that is left in the end"""
    bn_l1: NotNegative = 0.0
    """weight of the sum of batch normalisation's absolute scales in the loss (network slimming)"""
    freeze: tuple[str, ...] = ()
    """layers that do not learn, normalisation's statistics included: names or patterns such as features.*; a module's
    name means all in it"""
    freeze_blocks: Whole = 0
    """as `freeze`, by depth: the first so many of the network's blocks, as prunery profile counts them"""
    unfreeze: tuple[str, ...] = ()
    """what of it learns from some epoch on, such as 2=features.8"""
    unfreeze_every: NotNegative = 0.0
    """epochs after which one more of the frozen blocks learns, the last of them first; 0 leaves them frozen"""
    measure: bool = True
    """evaluate the result; false for a step on the way to another"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.schedule == "multistep" and not self.milestones:
            raise Refused("train.milestones is empty; expected the epochs of multistep's drops, such as [80, 120]")
        if self.nesterov and not self.momentum:
            raise Refused("train.nesterov = true needs momentum; set train.momentum above 0, or nesterov = false")
        if self.steps is not None:  # then epochs say nothing, and must not change the name
            object.__setattr__(self, "epochs", 10.0)
        if self.sparse != "static" and self.keep == "best":
            raise Refused(
                'train.keep = "best" would end with weights of older masks; expected keep = "last" with train.sparse'
            )
        if self.keep == "best" and self.data.validation == 0:
            raise Refused('train.keep = "best" needs validation images, data.validation is 0; expected 1 or more')
        self._freezing()

    def _freezing(self) -> None:
        """Nothing thaws that was not frozen, and masks do not move under frozen weights."""
        for entry in self.unfreeze:
            thaw(entry)
        if self.unfreeze and not self.freezes:
            raise Refused("train.unfreeze thaws what is frozen; expected train.freeze or train.freeze_blocks with it")
        if self.unfreeze_every and not self.freeze_blocks:
            seen = f"train.unfreeze_every = {self.unfreeze_every:g} thaws blocks, and train.freeze_blocks is 0"
            raise Refused(f"{seen}; expected 1 or more of them, or train.unfreeze for names")
        if self.freezes and self.sparse != "static":
            seen = f"train.sparse = {quote(self.sparse)} moves masks, also of frozen layers"
            raise Refused(f'{seen}; expected sparse = "static" with train.freeze')

    @property
    def freezes(self) -> bool:
        """Whether anything is frozen at first."""
        return bool(self.freeze or self.freeze_blocks)


def thaw(entry: str) -> tuple[float, str]:
    """One line of train.unfreeze: from which epoch on, and what."""
    text, equals, pattern = entry.partition("=")
    try:
        epoch = float(text)
    except ValueError:
        epoch = -1.0
    if not equals or not pattern or not 0 <= epoch < math.inf:
        raise Refused(f"train.unfreeze: {quote(entry)} is not allowed; expected EPOCH=LAYER, such as 2=features.8")
    return epoch, pattern


@dataclass(frozen=True, kw_only=True)
class Prune(Spec):
    """A mask to a smaller mask; exact by count."""

    kind: ClassVar[str] = "prune"
    data: Data = Data()
    """images to measure the result on"""
    density: Density = 0.1
    """share that is kept of the weights (or filters, channels, blocks) of all layers that are not excluded; with the
    budget multiply_adds, of the first network's work"""
    criterion: Literal[
        "magnitude", "random", "l1", "l2", "snip", "taylor", "movement", "grasp", "synflow", "activation", "apoz",
        "wanda", "bn_scale", "thinet", "large_final", "small_final", "large_init", "small_init",
        "large_init_large_final",
        "small_init_small_final", "magnitude_increase", "distance", "large_final_same_sign",
    ] = "magnitude"  # fmt: skip
    """what makes a weight worth keeping"""
    scope: Literal["global", "layer", "uniform", "erk", "lamp", "flops", "sensitivity", "table"] = "global"
    """rank all together; the same share of each layer; that but the first layer whole; Erdos-Renyi-kernel; LAMP; by
    what a weight's work costs; as each layer bears it; or as `table` says"""
    exclude: tuple[str, ...] = ()
    """layers that are left whole: names, patterns such as fc*, or kind: and one of depthwise, pointwise, squeeze, stem,
    head"""
    seed: Whole = 0
    """of the random criterion, and of the images and places that are sampled"""
    structure: Literal["weight", "filter", "channel", "coupled", "1x4", "2:4", "1:4", "4:8", "1:2"] = "weight"
    """what goes together: single weights; a layer's filters or input channels; channels with all layers that share
    them, so that they can be removed; four neighbouring input channels; or N of every M of them stay"""
    budget: Literal["units", "multiply_adds"] = "units"
    """what density is a share of"""
    table: tuple[str, ...] = ()
    """of scope table: layers and their densities, such as conv*=0.5"""
    layers: tuple[str, ...] = ()
    """prune only these now, and what is coupled with them (the scope counts the others too); all when empty"""
    keep_first: bool = False
    """leave whole, as if excluded, the layer that the network's class makes first"""
    keep_last: bool = False
    """leave whole, as if excluded, the layer that the network's class makes last"""
    allow_empty: bool = False
    """a layer may lose everything"""
    schedule: Literal["oneshot", "geometric", "cubic", "linear"] = "oneshot"
    """densities of the rounds, if there are several"""
    rounds: Count = 1
    """prune in so many rounds, looking at the network anew before each (SynFlow: geometric, 100)"""
    batches: Count = 8
    """batches of training images that data-driven criteria look at"""
    batch: Count = 64
    """images in each"""
    reweight: bool = True
    """of thinet: scale what is kept by least squares"""
    measure: bool = True
    """evaluate the result; false for a step on the way to another"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if ":" in self.structure:  # the structure says the density itself
            n, m = map(int, self.structure.split(":"))
            if self.density not in (n / m, 0.1):
                seen = f"prune.density = {self.density:g} contradicts structure {self.structure}"
                raise Refused(f"{seen}; expected {n / m:g}, or leave it out")
            object.__setattr__(self, "density", n / m)
            if self.scope != "global" or self.rounds > 1 or self.budget != "units":
                seen = f"prune.structure = {quote(self.structure)} fixes every count itself"
                raise Refused(f"{seen}; leave out scope, budget and rounds")
        if (self.scope == "table") != bool(self.table):
            raise Refused(
                'prune.table and scope = "table" go together; expected entries such as "conv*=0.5", or another scope'
            )
        for entry in self.table:
            _entry(entry)
        if self.rounds > 1 and self.schedule == "oneshot":
            raise Refused(
                f'prune.rounds = {self.rounds} needs a schedule; expected schedule = "geometric", cubic or linear'
            )
        if self.criterion == "thinet" and self.structure != "coupled":
            raise Refused(
                'prune.criterion = "thinet" judges channels that other layers read; expected structure = "coupled"'
            )
        if self.structure not in ("weight",) and self.scope == "lamp":
            raise Refused('prune.scope = "lamp" ranks single weights; expected structure = "weight"')


def _entry(entry: str) -> None:
    """One line of prune.table."""
    pattern, equals, text = entry.rpartition("=")
    try:
        density = float(text)
    except ValueError:
        density = 0.0
    if not equals or not pattern or not 0 < density <= 1:
        raise Refused(f"prune.table: {quote(entry)} is not allowed; expected LAYER=DENSITY, above 0 and at most 1")


@dataclass(frozen=True, kw_only=True)
class Shrink(Spec):
    """Removes what masks have killed: a really smaller network with equal outputs."""

    kind: ClassVar[str] = "shrink"
    data: Data = Data()
    """images to measure the result on"""
    multiple: Count = 1
    """round widths up to a multiple of this, with channels that would have gone"""
    fold: bool = False
    """fold batch normalisation into the layers before it, without loss; ends training of the usual kind"""
    measure: bool = True
    """evaluate the result; false for a step on the way to another"""


@dataclass(frozen=True, kw_only=True)
class Factorise(Spec):
    """Layers into products of smaller ones: truncated SVD for linear layers, Tucker-2 for convolutions."""

    kind: ClassVar[str] = "factorise"
    data: Data = Data()
    """images to measure the result on"""
    by: Literal["multiply_adds", "energy", "rank"] = "multiply_adds"
    """what `keep` is a share of: the network's work, each layer's squared singular values, or the full rank"""
    keep: Density = 0.5
    """the share that stays"""
    layers: tuple[str, ...] = ("*",)
    """which layers: names or patterns"""


@dataclass(frozen=True, kw_only=True)
class Reset(Spec):
    """Masks stay, weights go back: to an earlier step's, or to freshly drawn ones."""

    kind: ClassVar[str] = "reset"
    data: Data = Data()
    """images to measure the result on"""
    to: str = "init"
    """an earlier step (its label or name) whose weights to take; or fresh: drawn anew from the seed"""
    seed: Whole = 0
    """of fresh weights"""
    measure: bool = True
    """evaluate the result; false for a step on the way to another"""


@dataclass(frozen=True, kw_only=True)
class Quantize(Spec):
    """Weights, and activations if asked, to whole numbers and scales; zeros stay zeros."""

    kind: ClassVar[str] = "quantize"
    data: Data = Data()
    """images to measure the result on, and to find the scales of activations with"""
    bits: Literal[1, 2, 3, 4, 5, 6, 7, 8] = 8
    """bits of a weight, sign included; 1 is -1 and 1, with activations or learned"""
    per: Literal["channel", "tensor"] = "channel"
    """one scale for each output channel, or one for a whole layer"""
    activations: Literal[0, 1, 2, 3, 4, 5, 6, 7, 8] = 0
    """bits of what each layer reads; 0 leaves it as it is and rounds the weights once. Otherwise scales are parameters,
    training behind this step is quantisation-aware, and pack makes whole numbers of the network"""
    learned: bool = False
    """train the scales of weights where activations are left alone; with a single bit this is BinaryConnect"""
    ternary: bool = False
    """of two bits of a weight only -1, 0 and 1"""
    clusters: bool = False
    """weights share 2^bits values, zero among them, found by k-means and learned, instead of multiples of a scale"""
    first: Literal[0, 1, 2, 3, 4, 5, 6, 7, 8] = 8
    """bits of the first layer, which reads pixels, weights and inputs alike; 0: as all others"""
    last: Literal[0, 1, 2, 3, 4, 5, 6, 7, 8] = 8
    """the same of the last layer"""
    depthwise: Literal[0, 1, 2, 3, 4, 5, 6, 7, 8] = 0
    """bits of weights of depthwise convolutions, and at least so many of what they read; 0: as all others"""
    layers: tuple[str, ...] = ()
    """exceptions, such as "layer1.*=4/4": bits of weights and of what is read; 0/0 leaves a layer as it is"""
    batches: Count = 8
    """batches of training images that the scales of activations are found with"""
    batch: Count = 64
    """images in each"""
    measure: bool = True
    """evaluate the result; false for a step on the way to another"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.activations and not self.learned:
            changed = [
                n
                for n in ("ternary", "clusters", "first", "last", "depthwise", "layers")
                if getattr(self, n) != _default(n)
            ]
            if changed or self.bits == 1:
                what = f"quantize.{changed[0]}" if changed else "quantize.bits = 1"
                raise Refused(
                    f"{what} needs activations or learned; expected quantize.activations between 1 and 8 with it"
                )
        if self.ternary and self.bits != 2:
            raise Refused(f"quantize.ternary needs two bits, bits = {self.bits}; expected bits = 2")
        if self.clusters and self.ternary:
            raise Refused("quantize.clusters and quantize.ternary exclude each other; choose one")
        for entry in self.layers:
            layer_bits(entry)


def _default(name: str) -> Any:
    return next(f.default for f in fields(Quantize) if f.name == name)


def layer_bits(entry: str) -> tuple[str, tuple[int, int]]:
    """One line of quantize.layers: a pattern, bits of weights, bits of inputs."""
    pattern, equals, text = entry.rpartition("=")
    bits = [int(t) if t in tuple("012345678") else -1 for t in text.split("/")]
    if not equals or not pattern or len(bits) != 2 or min(bits) < 0 or (0 in bits) != (bits == [0, 0]):
        seen = f"quantize.layers: {quote(entry)} is not allowed"
        raise Refused(f"{seen}; expected LAYER=W/A with 1 to 8 bits each, such as layer1.*=4/4, or 0/0")
    return pattern, (bits[0], bits[1])


@dataclass(frozen=True, kw_only=True)
class Pack(Spec):
    """The network as one small file: kept weights only, their places as bits."""

    kind: ClassVar[str] = "pack"
    data: Data = Data()
    """images to measure the result on"""
    values: Literal["float32", "float16"] = "float16"
    """how kept weights are stored where they are not quantised; outputs are measured with what was stored"""


STEPS: dict[str, type[Spec]] = {cls.kind: cls for cls in (Init, Train, Prune, Reset, Shrink, Factorise, Quantize, Pack)}
