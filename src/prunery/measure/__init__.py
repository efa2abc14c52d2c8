"""A network -> numbers: accuracy with its standard error, density, parameters, multiply-adds, bytes."""

from . import score
from .count import Row, count, totals
from .summary import summary
from .table import summary_text

__all__ = ["Row", "count", "score", "summary", "summary_text", "totals"]
