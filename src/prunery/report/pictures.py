"""Pictures of a first layer before and after a step: filters, masks and maps as small PNG files inside the page."""

import base64
import hashlib
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

FILTERS, MAPS, IMAGES, ACROSS = 64, 8, 4, 8
"""of a layer that are shown, of an image, of a step; filters in a row"""
PIXELS = 1 << 14
"""of all filters of a layer that are shown: where they are large, fewer are"""
BUDGET = 4_000_000
"""bytes of all pictures of a page"""
Drawn = dict[str, Any]
KEPT = (31, 118, 188)
GREY = 128


@dataclass(frozen=True)
class Look:
    """A step's first layer: weights [n, channels, rows, columns], which are kept, and its maps of some images."""

    layer: str
    filters: np.ndarray
    kept: np.ndarray
    maps: np.ndarray
    """[images, n, rows, columns]; n is 0 where the layer makes none"""
    images: np.ndarray
    """uint8 [images, channels, rows, columns], as the data set has them"""
    labels: tuple[str, ...]
    """the class of each image"""


def gallery(drawn: Iterable[tuple[str, Drawn]]) -> dict[str, Any]:
    """The pictures of each step, by its name, up to the budget; images that steps share are there once."""
    found: dict[str, Any] = {"steps": {}, "images": {}, "full": False}
    spent = 0
    for name, about in drawn:
        images = {_key(uri): uri for uri in about["images"]}
        new = {k: uri for k, uri in images.items() if k not in found["images"]}
        spent += sum(map(len, [about["filters"], about["masks"], *about["maps"], *new.values()]))
        if spent > BUDGET:
            found["full"] = True
            break
        found["images"] |= new
        found["steps"][name] = about | {"images": list(images)}
    return found


def _key(uri: str) -> str:
    return hashlib.sha256(uri.encode()).hexdigest()[:12]


def draw(look: Look) -> Drawn:
    """Everything that a page shows of a step's first layer; what a diverged run left that is no number is as zero."""
    weights, made = (np.nan_to_num(a, nan=0, posinf=0, neginf=0) for a in (look.filters, look.maps))
    n, channels, rows, columns = weights.shape
    shown = min(n, FILTERS, max(ACROSS, PIXELS // max(rows * columns, 1)))
    filters, kept = weights[:shown], look.kept[:shown]
    largest = float(np.abs(weights).max(initial=0.0))
    return {
        "layer": look.layer, "shape": [n, channels, rows, columns], "shown": shown, "across": min(ACROSS, shown),
        "largest": largest, "kept": int(look.kept.sum()), "of": int(look.kept.size),
        "empty": int((~look.kept.reshape(n, -1).any(1)).sum()) if n else 0,
        "filters": _sheet([_signed(f, largest) for f in filters]), "masks": _sheet([_share(k) for k in kept]),
        "maps": [_maps(image[:MAPS]) for image in made[:IMAGES]] if made.size else [],
        "shown_maps": min(MAPS, made.shape[1]), "size": list(made.shape[2:]),
        "images": _images(look), "labels": list(look.labels[:IMAGES]),
    }  # fmt: skip


def _signed(filter: np.ndarray, largest: float) -> np.ndarray:
    """Zero is grey, the largest weight of the layer white or black; three channels are red, green and blue."""
    scaled = GREY + filter / (largest or 1.0) * (GREY - 1)
    return _colour(scaled if len(filter) == 3 else scaled.mean(0, keepdims=True))


def _share(kept: np.ndarray) -> np.ndarray:
    """How many of a place's channels are kept: from nearly nothing to full blue."""
    alpha = np.where(kept.mean(0) > 0, 70 + 185 * kept.mean(0), 28)
    return np.dstack([np.full(kept.shape[1:], c) for c in KEPT] + [alpha]).astype(np.uint8)


def _maps(maps: np.ndarray) -> str:
    """The maps of one image on one scale, from the least number to the largest."""
    low, high = float(maps.min()), float(maps.max())
    return _sheet([_colour((m[None] - low) / ((high - low) or 1.0) * 255) for m in maps])


def _images(look: Look) -> list[str]:
    return [_png(_colour(_smaller(image).astype(np.float64))) for image in look.images[:IMAGES]]


def _smaller(image: np.ndarray, most: int = 64) -> np.ndarray:
    """Every second, third, ... pixel of a large image."""
    every = -(-max(image.shape[1:]) // most)
    return image[:, ::every, ::every]


def _colour(values: np.ndarray) -> np.ndarray:
    """[1 or 3 channels, rows, columns] in 0..255 as RGBA; of other images the first channel is shown."""
    values = values.round().clip(0, 255).astype(np.uint8)
    red, green, blue = values if len(values) == 3 else (values[0],) * 3
    return np.dstack([red, green, blue, np.full(red.shape, 255, np.uint8)])


def _sheet(cells: list[np.ndarray]) -> str:
    """Cells side by side, a clear line between them."""
    across = min(ACROSS, len(cells))
    if not across or not cells[0].size:
        return ""
    rows, columns = cells[0].shape[0] + 1, cells[0].shape[1] + 1
    sheet = np.zeros((-(-len(cells) // across) * rows - 1, across * columns - 1, 4), np.uint8)
    for i, cell in enumerate(cells):
        top, left = i // across * rows, i % across * columns
        sheet[top : top + rows - 1, left : left + columns - 1] = cell
    return _png(sheet)


def _png(pixels: np.ndarray) -> str:
    """RGBA pixels as a PNG file in a data address."""
    height, width = pixels.shape[:2]
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], 1)
    head = struct.pack(">2I5B", width, height, 8, 6, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts)
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode()
