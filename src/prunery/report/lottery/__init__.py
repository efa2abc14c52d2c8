"""A lottery's records to things to look at: the paper's figures, and its claims with what became of them."""

from .claims import MISS, NOT_RUN, PASS, Verdict, as_markdown, scored
from .claims import cells as claim_cells
from .figures import papers_figures, write_figures
from .results import Interval, Results
from .written import differs, write_lottery

__all__ = [
    "MISS", "NOT_RUN", "PASS", "Interval", "Results", "Verdict", "as_markdown", "claim_cells", "differs",
    "papers_figures", "scored", "write_figures", "write_lottery",
]  # fmt: skip
