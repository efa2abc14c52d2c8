"""A space of settings and a target -> trials, each an ordinary run of a recipe; the best of them."""

from .engines import ENGINES
from .space import Objective, Range, Space, Target, read_space
from .trial import Found, Trials, best, front

__all__ = ["ENGINES", "Found", "Objective", "Range", "Space", "Target", "Trials", "best", "front", "read_space"]
