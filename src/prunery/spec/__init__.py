"""What is asked for: frozen dataclasses, checked at birth; TOML in and out; the hash that names a step."""

from .check import check
from .errors import Refused, choose, quote
from .names import Node, chosen, digest
from .recipe import Recipe, Stage, in_a_row, read_recipe, recipe
from .steps import STEPS, Data, Init, Model, Pack, Prune, Quantize, Spec, Train, helps, hints
from .toml import build, dumps, loads, plain, read_toml

__all__ = [
    "STEPS", "Data", "Init", "Model", "Node", "Pack", "Prune", "Quantize", "Recipe", "Refused", "Spec", "Stage",
    "Train", "build", "check", "choose", "chosen", "digest", "dumps", "helps", "hints", "in_a_row", "loads", "plain",
    "quote", "read_recipe", "read_toml", "recipe",
]  # fmt: skip
