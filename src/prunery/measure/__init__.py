"""A network -> numbers: accuracy with its standard error, density, parameters, multiply-adds, bytes."""

from .count import Row, count, totals
from .summary import summary
from .table import summary_text

__all__ = ["Row", "count", "summary", "summary_text", "totals"]
