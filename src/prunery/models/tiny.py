"""Tiny networks for 32x32 images: nothing works on the whole image, and most weights are 1x1.

A stem halves the image; a block is a depthwise 3x3 convolution, a 1x1 convolution to twice the channels and one back,
added to its input. Every stage behind the first halves the image once more.
"""

from torch import Tensor, nn

from .small import Shape

EXPANSION = 2


class TinyBlock(nn.Module):
    """Depthwise, wider, narrower; around it the input, averaged and with more channels of zeros where shapes change."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        inner = EXPANSION * after
        self.depthwise = nn.Conv2d(before, before, 3, stride, padding=1, groups=before, bias=False)
        self.norm1 = nn.BatchNorm2d(before)
        self.widen = nn.Conv2d(before, inner, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.relu = nn.ReLU()
        self.narrow = nn.Conv2d(inner, after, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(after)
        self.more = after - before
        self.pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.depthwise(x))
        y = self.norm3(self.narrow(self.relu(self.norm2(self.widen(y)))))
        short = self.pool(x)
        if self.more > 0:
            short = nn.functional.pad(short, (0, 0, 0, 0, 0, self.more))
        return y + (short if self.more >= 0 else short[:, : self.more])


class Tiny(nn.Module):
    """Stem, stages of blocks, mean, linear layer."""

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], input: Shape, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(input[0], widths[0], 3, 2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        before, blocks = widths[0], list[nn.Module]()
        for stage, (after, depth) in enumerate(zip(widths, depths, strict=True)):
            for i in range(depth):
                blocks.append(TinyBlock(before, after, 2 if stage and not i else 1))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.ReLU()
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.relu(self.norm(self.stem(x))))
        return self.linear(self.flatten(self.mean(self.last(x))))
