"""EfficientNet in small, of torchvision's own blocks: a stem, expansions, depthwise filters, squeeze-and-excitation."""

from functools import partial

from torch import nn
from torchvision.models.efficientnet import EfficientNet, MBConvConfig


def small(input, classes):
    """27 thousand weights; strides as B0 has them in its first stages, shortcuts, a stage that does not expand."""
    settings = [MBConvConfig(1, 3, 1, 8, 8, 1, 1.0, 1.0), MBConvConfig(4, 3, 2, 8, 16, 2, 1.0, 1.0)]
    settings += [MBConvConfig(6, 5, 2, 16, 24, 2, 1.0, 1.0)]
    network = EfficientNet(settings, dropout=0.2, num_classes=classes, last_channel=64,
                           norm_layer=partial(nn.BatchNorm2d, eps=1e-3))  # fmt: skip
    network.features[0][0] = nn.Conv2d(input[0], 8, 3, 2, 1, bias=False)
    return network
