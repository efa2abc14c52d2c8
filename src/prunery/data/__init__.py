"""Names and folders to tensors on the device, and a seeded stream of batches; one file per source."""

from .registry import DATASETS, PREFIXES, Dataset, checksum, describe, facts, found, load, named
from .scaling import SCALINGS, inputs
from .sets import Facts, Images, Splits
from .stream import Stream

__all__ = [
    "DATASETS", "PREFIXES", "SCALINGS", "Dataset", "Facts", "Images", "Splits", "Stream", "checksum", "describe",
    "facts", "found", "inputs", "load", "named",
]  # fmt: skip
