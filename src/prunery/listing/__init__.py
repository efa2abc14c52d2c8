"""What lies in a folder of runs: rows to filter, sort and export, and what nothing refers to. Never imports torch."""

from .export import as_csv, write_csv, write_parquet
from .expression import Expression
from .rows import Listing, listing
from .tracking import EXPERIMENT, Tracked, track
from .unused import Unused, remove, unused

__all__ = [
    "EXPERIMENT", "Expression", "Listing", "Tracked", "Unused", "as_csv", "listing", "remove", "track", "unused",
    "write_csv", "write_parquet",
]  # fmt: skip
