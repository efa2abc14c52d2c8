"""(weights, mask, density) -> smaller mask; criteria, structures, scopes and schedules are tables; surgery removes."""

from .criteria import CRITERIA
from .dynamic import MOVES, moving
from .evidence import COLLECTORS, Evidence, collect
from .folding import fold_batchnorm, pairs
from .groups import Group, groups, unit_mask
from .interchange import from_state_dict, from_torch, plain_, to_torch_
from .kinds import KINDS, kinds
from .lowrank import factorise
from .methods import METHODS, Plan
from .prune import needs, prune, work
from .schedules import SCHEDULES
from .scopes import SCOPES
from .select import best
from .shrink import shrink
from .structures import STRUCTURES
from .whole import Known, alone, eligible, pruned

__all__ = [
    "COLLECTORS", "CRITERIA", "KINDS", "METHODS", "MOVES", "SCHEDULES", "SCOPES", "STRUCTURES", "Evidence",
    "Group", "Known", "Plan", "alone", "best", "collect", "eligible", "factorise", "fold_batchnorm", "from_state_dict",
    "from_torch", "groups", "kinds", "moving", "needs", "pairs", "plain_", "prune", "pruned", "shrink", "to_torch_",
    "unit_mask", "work",
]  # fmt: skip
