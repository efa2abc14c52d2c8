"""A recipe over lists and ranges of settings: a tree of chains, made by several processes or machines at once."""

from .cost import Cost, total
from .engine import About, Engine, Outcome, Task
from .local import Local, cores
from .plan import Sweep, read_sweep
from .results import rows, table
from .schedule import Ended, carry_out
from .tree import Chain, Tree, grown

__all__ = [
    "About", "Chain", "Cost", "Ended", "Engine", "Local", "Outcome", "Sweep", "Task", "Tree", "carry_out", "cores",
    "grown", "read_sweep", "rows", "table", "total",
]  # fmt: skip
