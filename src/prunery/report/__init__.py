"""Step folders to things to look at: one self-contained page, figures, the table of claims. Never imports torch."""

from .claims import Claim, as_text, cells, claims, results_table
from .figures import write_figures
from .page import write_report

__all__ = ["Claim", "as_text", "cells", "claims", "results_table", "write_figures", "write_report"]
