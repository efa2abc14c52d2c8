"""Step folders to things to look at: one self-contained page, figures, the table of claims. Never imports torch."""

from .claims import Claim, as_text, cells, claims, results_table
from .comparison import as_markdown, write_comparison, write_sensitivity
from .comparison import cells as comparison_cells
from .figures import front_figure, profile_figure, write_figures
from .more import More, measured
from .page import write_report
from .serve import Site, address, served

__all__ = [
    "Claim", "More", "Site", "address", "as_markdown", "as_text", "cells", "claims", "comparison_cells", "front_figure",
    "measured", "profile_figure", "results_table", "served", "write_comparison", "write_figures", "write_report",
    "write_sensitivity",
]  # fmt: skip
