"""Step folders to things to look at: one self-contained page, figures, the table of claims. Never imports torch."""

from .claims import Claim, as_text, cells, claims, results_table
from .comparison import as_markdown, write_comparison, write_sensitivity
from .comparison import cells as comparison_cells
from .figures import front_figure, profile_figure, write_figures
from .page import write_report

__all__ = [
    "Claim", "as_markdown", "as_text", "cells", "claims", "comparison_cells", "front_figure", "profile_figure",
    "results_table", "write_comparison", "write_figures", "write_report", "write_sensitivity",
]  # fmt: skip
