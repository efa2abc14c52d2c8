"""(weights, mask, density) -> smaller mask. Criteria and scopes are tables; `prune` composes them."""

from .criteria import CRITERIA
from .prune import prune
from .scopes import SCOPES

__all__ = ["CRITERIA", "SCOPES", "prune"]
