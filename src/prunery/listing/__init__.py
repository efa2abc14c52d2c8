"""What lies in a folder of runs: rows to filter, sort and export, and what nothing refers to. Never imports torch."""

from .export import as_csv, write_csv, write_parquet
from .expression import Expression
from .rows import Listing, listing
from .unused import Unused, remove, unused

__all__ = [
    "Expression", "Listing", "Unused", "as_csv", "listing", "remove", "unused", "write_csv", "write_parquet",
]  # fmt: skip
