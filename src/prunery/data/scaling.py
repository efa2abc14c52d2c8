"""Pixels to inputs. No paper of the lottery says which it used, and they lead to different results."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .sets import Splits

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TINY = 1e-12

Scaling = Callable[[Tensor, Tensor, Tensor], Tensor]
"""float32 [n, C, H, W] in 0..255, which it may overwrite; mean and deviation of the set [C, 1, 1] in 0..1"""


def channel(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Bit for bit torchvision's ToTensor and Normalize; a channel that never varies becomes zero."""
    return x.div_(255).sub_(mean).div_(torch.where(deviation > 0, deviation, 1))


def unit(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """0..1"""
    return x.div_(255)


def raw(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """0..255"""
    return x


def imagenet(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """As the published weights of torchvision and timm expect them."""
    return channel(x, *(x.new_tensor(v).view(3, 1, 1) for v in IMAGENET))


def image(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Each image standardised over all its pixels; the floor under the deviation is tf.image's, for constant images."""
    x.sub_(x.mean((1, 2, 3), keepdim=True))
    spread = x.square().mean((1, 2, 3), keepdim=True).sqrt_()
    return x.div_(spread.clamp_min_(x[0].numel() ** -0.5))


def pixel_l2(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Each pixel's channels as a vector of length one; black stays zero."""
    return x.div_(x.square().sum(1, keepdim=True).sqrt_().clamp_min_(TINY))


def image_l2(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Each image as a vector of length one; black stays zero."""
    return x.div_(x.square().sum((1, 2, 3), keepdim=True).sqrt_().clamp_min_(TINY))


SCALINGS: dict[str, Scaling] = {f.__name__: f for f in (channel, unit, image, pixel_l2, image_l2, raw, imagenet)}


def scaled(x: Tensor, splits: Splits) -> Tensor:
    """Pixels of any type to inputs; a float tensor is overwritten."""
    column = (-1, 1, 1)
    return SCALINGS[splits.spec.scaling](x.float(), splits.mean.view(column), splits.deviation.view(column))


def resized(x: Tensor, side: int) -> Tensor:
    """Every image side x side, smoothed where it shrinks; as they are where side is 0 or theirs already."""
    if side == 0 or x.shape[2:] == (side, side):
        return x
    return F.interpolate(x.float(), size=(side, side), mode="bilinear", antialias=True)


def inputs(x_uint8: Tensor, splits: Splits) -> Tensor:
    """What a network sees of these images. Hand in a batch at a time where images are resized: all at once is large."""
    return scaled(resized(x_uint8, splits.spec.resize), splits)
