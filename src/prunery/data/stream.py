"""The training batches: a seeded permutation and a slice. Any step can be asked for, so resuming needs only its number.

Augmentation counts in pixels of what the network sees: resize first, then crop (the border is black, as in
torchvision's RandomCrop before Normalize), flip, scaling, and last cutout, whose square is zero after the scaling
(DeVries & Taylor 2017).
"""

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor

from ..spec import Data
from .scaling import resized, scaled
from .sets import Splits


class Stream:
    """`stream(step)` is a batch of training images, augmented and scaled, with its labels.

    An epoch is one permutation; its last batch is smaller where the batch size does not divide the set.
    """

    def __init__(self, splits: Splits, batch: int, seed: int) -> None:
        self.splits, self.batch, self.seed = splits, batch, seed
        self.steps_per_epoch = -(-len(splits.train) // batch)
        self._epoch, self._draws = -1, dict[str, Tensor]()

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        epoch, part = divmod(step, self.steps_per_epoch)
        draws = {k: v[part * self.batch : (part + 1) * self.batch] for k, v in self._drawn(epoch).items()}
        train, spec = self.splits.train, self.splits.spec
        x = resized(train.x.index_select(0, draws["order"]), spec.resize)
        if spec.crop or spec.flip:
            x = windows(x, spec.crop, draws["top"], draws["left"], draws["mirror"])
        x = scaled(x, self.splits)
        if spec.cutout:
            blank_(x, spec.cutout, draws["y"], draws["x"])
        return x, train.y.index_select(0, draws["order"])

    def _drawn(self, epoch: int) -> dict[str, Tensor]:
        """All chance of an epoch, drawn at once and kept while the epoch lasts."""
        if epoch != self._epoch:
            rng = generator(self.seed, "stream", epoch)
            chance = draw(len(self.splits.train), self.splits.facts.shape, self.splits.spec, rng)
            self._draws = {k: v.to(self.splits.train.y.device) for k, v in chance.items()}
            self._epoch = epoch
        return self._draws


def generator(seed: int, purpose: str, epoch: int) -> torch.Generator:
    """Always the CPU's, so that every device sees the same stream."""
    digest = hashlib.sha256(f"{seed} {purpose} {epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def draw(n: int, shape: tuple[int, int, int], spec: Data, rng: torch.Generator) -> dict[str, Tensor]:
    """All of it whatever the spec uses: the order of images stays the same when augmentation is switched on."""
    _, height, width = shape
    order = torch.randperm(n, generator=rng)
    limits = {"mirror": 2, "top": 2 * spec.crop + 1, "left": 2 * spec.crop + 1, "y": height, "x": width}
    chance = {k: torch.randint(limit, (n,), generator=rng) for k, limit in limits.items()}
    return {"order": order, **chance, "mirror": chance["mirror"].bool() & spec.flip}


def windows(x: Tensor, border: int, top: Tensor, left: Tensor, mirror: Tensor) -> Tensor:
    """Each image in a black border, cut at its own place, then mirrored or not.

    One gather of whole rows does it, from the images and their mirror images side by side in memory.
    """
    n, channels, height, width = x.shape
    framed = F.pad(x, (border,) * 4)
    both = torch.cat([framed, framed.flip(3)]).reshape(-1)
    line = width + 2 * border
    plane = line * (height + 2 * border)
    image = torch.arange(n, device=x.device) + n * mirror
    corner = image * channels * plane + top * line + torch.where(mirror, 2 * border - left, left)
    planes = torch.arange(0, channels * plane, plane, device=x.device)[:, None]
    lines = torch.arange(0, height * line, line, device=x.device)
    starts = corner[:, None, None] + planes + lines
    rows = both.as_strided((both.numel() - width + 1, width), (1, 1))  # every run of `width` pixels there is
    return rows.index_select(0, starts.view(-1)).view(x.shape)


def blank_(x: Tensor, side: int, centre_y: Tensor, centre_x: Tensor) -> None:
    """Zero a square around each image's centre, in place; what reaches over the edge is lost."""
    rows, columns = (_within(x.shape[d], c, side) for d, c in ((2, centre_y), (3, centre_x)))
    x.masked_fill_((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def _within(length: int, centre: Tensor, side: int) -> Tensor:
    """bool [n, length]: the places that the square covers."""
    offset = torch.arange(length, device=centre.device) - centre[:, None] + side // 2
    return (offset >= 0) & (offset < side)
