"""What is asked for: frozen dataclasses, checked at birth; TOML in and out; the hash that names a step."""

from .changes import no_seed
from .check import check
from .errors import Refused, choose, install, quote
from .lottery import SMOOTH, SOURCE, Draw, Lottery, own_rates
from .lottery_file import LOTTERIES, read_lottery
from .names import Node, chosen, digest
from .recipe import Recipe, Stage, in_a_row, read_recipe, recipe
from .steps import (
    STEPS,
    Data,
    Factorise,
    Init,
    Model,
    Pack,
    Prune,
    Quantize,
    Reset,
    Shrink,
    Spec,
    Train,
    helps,
    hints,
    layer_bits,
    thaw,
)  # fmt: skip
from .toml import build, dumps, loads, plain, read_toml

__all__ = [
    "LOTTERIES", "SMOOTH", "SOURCE", "STEPS", "Data", "Draw", "Factorise", "Init", "Lottery", "Model", "Node", "Pack",
    "Prune", "Quantize", "Recipe", "Refused", "Reset", "Shrink", "Spec", "Stage", "Train", "build", "check", "choose",
    "chosen", "digest", "dumps", "helps", "hints", "in_a_row", "install", "layer_bits", "loads", "no_seed",
    "own_rates", "plain", "quote", "read_lottery", "read_recipe", "read_toml", "recipe", "thaw",
]  # fmt: skip
