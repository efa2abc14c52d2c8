"""Names to networks: our own, those of torchvision and timm, and the user's; with their first weights."""

from .architecture import describe, reshape_
from .build import MODELS, build, default_input
from .outline import block_names
from .own import own_file
from .shadow import probe
from .weights import fit, read_weights

__all__ = [
    "MODELS", "block_names", "build", "default_input", "describe", "fit", "own_file", "probe", "read_weights",
    "reshape_",
]  # fmt: skip
