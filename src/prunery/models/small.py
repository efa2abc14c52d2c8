"""The small networks: ours for a first run, LeCun's of 1998, and Frankle and Carbin's (arXiv 1803.03635, figure 2)."""

from collections import Counter, OrderedDict
from collections.abc import Iterable
from itertools import pairwise

from torch import nn

from ..spec import Refused
from .blocks import ConvReLUPool

Shape = tuple[int, int, int]
NAMES = {
    ConvReLUPool: "conv", nn.Conv2d: "conv", nn.BatchNorm2d: "norm", nn.ReLU: "relu", nn.MaxPool2d: "pool",
    nn.AdaptiveAvgPool2d: "mean", nn.Flatten: "flatten", nn.Linear: "fc", nn.Dropout: "drop",
}  # fmt: skip


class Chain(nn.Sequential):
    """Layers one after the other, named by what they are: conv1, relu1, conv2, ..., fc1."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        counts: Counter[str] = Counter()
        named: OrderedDict[str, nn.Module] = OrderedDict()
        for layer in layers:
            kind = NAMES[type(layer)]
            counts[kind] += 1
            named[f"{kind}{counts[kind]}"] = layer
        super().__init__(named)


def normed(before: int, after: int) -> list[nn.Module]:
    """A 3x3 convolution that keeps the size, normalised."""
    return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]


def dense(*widths: int, dropout: float = 0.0) -> list[nn.Module]:
    """Linear layers with a ReLU between them, and where it is asked for dropout before each."""
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Dropout(dropout)] if dropout else []
        layers += [nn.Linear(before, after), nn.ReLU()]
    return layers[:-1]


class ConvNet(Chain):
    """Ours, for small images of any size, which a mean over places makes irrelevant: 93,728 weights on one channel."""

    def __init__(self, input: Shape, classes: int) -> None:
        body = [*normed(input[0], 32), *normed(32, 64), nn.MaxPool2d(2), *normed(64, 128)]
        super().__init__([*body, nn.AdaptiveAvgPool2d(1), *dense(128, classes)])


class LeNet300100(Chain):
    """LeNet-300-100: 266,200 weights on 28x28."""

    def __init__(self, input: Shape, classes: int) -> None:
        super().__init__(dense(input[0] * input[1] * input[2], 300, 100, classes))


class LeNet5(Chain):
    """Two 5x5 convolutions without padding, each halved by a max-pool, then 300 and 100 units."""

    def __init__(self, input: Shape, classes: int) -> None:
        _at_least(input, 16, "lenet5")
        height, width = (((side - 4) // 2 - 4) // 2 for side in input[1:])
        body = [ConvReLUPool(input[0], 6, 5), ConvReLUPool(6, 16, 5)]
        super().__init__([*body, *dense(16 * height * width, 300, 100, classes)])


class VGGLike(Chain):
    """Pairs of 3x3 convolutions with a max-pool after each pair, then 256 and 256 units."""

    widths: tuple[int, ...] = ()
    dropout = 0.0

    def __init__(self, input: Shape, classes: int) -> None:
        _at_least(input, 2 ** len(self.widths), type(self).__name__.lower())
        layers: list[nn.Module] = []
        before = input[0]
        for after in self.widths:
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
            layers += [nn.Conv2d(after, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            before = after
        height, width = (side // 2 ** len(self.widths) for side in input[1:])
        super().__init__([*layers, *dense(before * height * width, 256, 256, classes, dropout=self.dropout)])


class Conv2(VGGLike):
    widths = (64,)


class Conv4(VGGLike):
    widths = (64, 128)


class Conv6(VGGLike):
    widths = (64, 128, 256)


class Conv2Dropout(Conv2):
    """With the paper's dropout; where it lies the paper does not say."""

    dropout = 0.5


class Conv4Dropout(Conv4):
    dropout = 0.5


class Conv6Dropout(Conv6):
    dropout = 0.5


def _at_least(input: Shape, side: int, name: str) -> None:
    if min(input[1:]) < side:
        seen = "x".join(map(str, input))
        raise Refused(f"{name} cannot take images of {seen}; expected at least {side}x{side}: set data.resize = {side}")
