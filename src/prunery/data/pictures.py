"""A decoded picture to bytes of one size: what is kept, what is converted, what is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..spec import Refused

GREY = ("1", "L", "LA")
COLOUR = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")


def pixels(image: Any, where: str, resize: int) -> np.ndarray:
    """uint8 [H, W] of a grey picture, [H, W, 3] of any other; squared to `resize` where that is not 0."""
    image = ImageOps.exif_transpose(image)
    if image.mode not in GREY + COLOUR:
        raise Refused(f"{where} has pixels of kind {image.mode}; expected 8 bits a channel: convert it to an 8-bit PNG")
    if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
        raise Refused(f"{where} has transparent pixels; expected opaque ones: put it on a background")
    image = image.convert("L" if image.mode in GREY else "RGB")
    return np.array(image.resize((resize, resize), Image.Resampling.BILINEAR) if resize else image)


@contextmanager
def readable(where: str) -> Iterator[None]:
    """Pillow has an exception for every way in which a picture can be broken."""
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        why = " ".join(str(error).replace(repr(where), "it").split())[:160] or type(error).__name__
        raise Refused(f"{where} cannot be read as an image ({why}); repair or remove it") from None


def stack(pictures: list[np.ndarray], names: list[str]) -> Tensor:
    """uint8 [n, C, H, W]: one channel if all are grey, three otherwise."""
    height, width = pictures[0].shape[:2]
    for picture, name in zip(pictures, names, strict=True):
        if picture.shape[:2] != (height, width):
            seen = f"{picture.shape[1]}x{picture.shape[0]} pixels, {names[0]} {width}x{height}"
            raise Refused(f"{name} has {seen}; set data.resize to bring all images to one size")
    channels = max(1 if p.ndim == 2 else 3 for p in pictures)
    x = torch.empty(len(pictures), channels, height, width, dtype=torch.uint8)
    for row, picture in zip(x, pictures, strict=True):
        row.copy_(torch.from_numpy(picture).view(height, width, -1).permute(2, 0, 1))  # grey fills all channels
    return x
