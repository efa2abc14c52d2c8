"""The 1,797 handwritten digits that scikit-learn carries: real images, no network, no files of ours."""

from pathlib import Path

import numpy as np
import torch

from .classes import DIGITS
from .sets import Images, Published, Source
from .splits import fifth


def source(name: str, root: Path, resize: int) -> Source:
    return Source("", read)


def read() -> Published:
    from sklearn.datasets import load_digits

    found = load_digits()
    x = torch.from_numpy(np.round(found.images * (255 / 16)).astype(np.uint8))[:, None]
    y = torch.from_numpy(found.target).long()
    everything, test = Images(x, y), fifth(y)
    return Published.of(DIGITS, everything.at(~test), everything.at(test))
