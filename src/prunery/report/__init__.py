"""Step folders to things to look at: one self-contained page, figures, the table of claims. Never imports torch."""

from .claims import Claim, as_text, cells, claims, results_table
from .comparison import as_markdown, write_comparison, write_sensitivity
from .comparison import cells as comparison_cells
from .figures import front_figure, profile_figure, write_figures
from .lineage import with_parents
from .more import More, measured
from .page import write_report
from .pictures import Drawn, Look, draw, gallery
from .serve import Site, address, served
from .times import readings

__all__ = [
    "Claim", "Drawn", "Look", "More", "Site", "address", "as_markdown", "as_text", "cells", "claims",
    "comparison_cells", "draw", "front_figure", "gallery", "measured", "profile_figure", "readings", "results_table",
    "served", "with_parents", "write_comparison", "write_figures", "write_report", "write_sensitivity",
]  # fmt: skip
