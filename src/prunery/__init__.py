"""Prunery: finds the small network inside a big one, proves what it kept, and runs it fast on an ordinary CPU."""

from importlib import import_module
from typing import Any

PUBLIC = {
    "chain": ("Place", "network_of", "opened", "run"),
    "engine": ("pack", "to_onnx", "to_openvino"),
    "report": ("write_figures", "write_report"),
    "runs": ("Runs", "Step"),
    "spec": (
        "Data", "Factorise", "Model", "Pack", "Prune", "Quantize", "Recipe", "Refused", "Reset", "Shrink", "Train",
        "in_a_row", "read_recipe", "recipe",
    ),
    "train": ("Ways",),
    "pruning": ("factorise", "fold_batchnorm", "groups", "plain_", "to_torch_"),
    "workbench": ("finetune", "load", "masks_of", "prune", "save", "score", "shrink"),
}  # fmt: skip
"""The public surface: what `from prunery import NAME` gives, and the room that it lives in."""
MODULES = ("runtime",)
"""rooms that are used under their own names: prunery.runtime.load"""
ROOMS = {name: room for room, names in PUBLIC.items() for name in names}
__all__ = list(ROOMS)


def __getattr__(name: str) -> Any:
    """Rooms are imported when they are asked for: `import prunery` alone takes no time and no torch."""
    if name in MODULES:
        return import_module(f".{name}", __name__)
    if name not in ROOMS:
        raise AttributeError(f"prunery has no {name}; it has {', '.join(sorted(ROOMS))}")
    return getattr(import_module(f".{ROOMS[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *ROOMS, *MODULES})
