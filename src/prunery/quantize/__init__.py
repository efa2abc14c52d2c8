"""Weights -> integers and scales, after training; a zero stays a zero."""

from .weights import integers, quantize

__all__ = ["integers", "quantize"]
