"""The deeper networks for 32x32 images: residual networks (He et al. 2015) and the lottery paper's VGG-19."""

from functools import partial

from torch import Tensor, nn

from .small import Chain, Shape, normed


class Block(nn.Module):
    """Two 3x3 convolutions around which the input is added; names as in the well-known CIFAR code (kuangliu)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = shortcut(before, after, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(inner)) + self.shortcut(x))


def shortcut(before: int, after: int, stride: int) -> nn.Sequential:
    """The input itself, or a 1x1 convolution of it where the shape changes (type B)."""
    if stride == 1 and before == after:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))


class ResNet(nn.Module):
    """Stages of blocks; each stage after the first halves the image, and so does the stem where its stride is 2."""

    def __init__(
        self, widths: tuple[int, ...], blocks: int | tuple[int, ...], input: Shape, classes: int, stride: int = 1
    ) -> None:
        super().__init__()
        depths = (blocks,) * len(widths) if isinstance(blocks, int) else blocks
        self.conv1 = nn.Conv2d(input[0], widths[0], 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu1 = nn.ReLU()
        before = widths[0]
        for i, after in enumerate(widths):
            first = Block(before, after, stride=1 if i == 0 else 2)
            more = (Block(after, after, 1) for _ in range(depths[i] - 1))
            self.add_module(f"layer{i + 1}", nn.Sequential(first, *more))
            before = after
        self.stages = len(widths)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.bn1(self.conv1(x)))
        for i in range(self.stages):
            x = self.get_submodule(f"layer{i + 1}")(x)
        return self.linear(self.flatten(self.mean(x)))


resnet20 = partial(ResNet, (16, 32, 64), 3)
resnet18 = partial(ResNet, (64, 128, 256, 512), 2)
strided_resnet = partial(ResNet, stride=2)
"""with nothing at full resolution"""


class VGG19(Chain):
    """Sixteen normalised 3x3 convolutions and a single linear layer: 20,024,000 weights on CIFAR-10."""

    def __init__(self, input: Shape, classes: int) -> None:
        layers: list[nn.Module] = []
        before = input[0]
        for stage, (repeats, after) in enumerate([(2, 64), (2, 128), (4, 256), (4, 512), (4, 512)]):
            layers += [nn.MaxPool2d(2)] if stage else []
            for _ in range(repeats):
                layers += normed(before, after)
                before = after
        super().__init__([*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes)])
