"""A network -> numbers: accuracy with its standard error, density, parameters, multiply-adds, bytes."""

from . import score
from .count import Row, count, totals
from .first import First, first_layer
from .profile import Part, Profile, packed_profile, profile
from .summary import summary
from .table import summary_text

__all__ = [
    "First", "Part", "Profile", "Row", "count", "first_layer", "packed_profile", "profile", "score", "summary",
    "summary_text", "totals",
]  # fmt: skip
