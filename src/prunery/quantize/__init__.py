"""Weights, and activations, to whole numbers and scales: after training, or trained themselves; zeros stay zeros."""

from .calibrate import quantised_
from .fake import Bits, Codebook, Quantiser, Step, described, is_quantised, plan_of, quantised_layers, wear_
from .integer import folded, in_integers, whole_weights
from .plan import planned
from .weights import integers, quantize

__all__ = [
    "Bits", "Codebook", "Quantiser", "Step", "described", "folded", "in_integers", "integers", "is_quantised",
    "plan_of", "planned", "quantised_", "quantised_layers", "quantize", "wear_", "whole_weights",
]  # fmt: skip
