"""All that a step's result says of its network."""

from typing import Any

from torch import nn

from ..data import Splits
from ..masks import Mask
from ..train import evaluate
from .count import Row, count, totals


def summary(network: nn.Module, mask: Mask, input: tuple[int, ...], splits: Splits | None = None) -> dict[str, Any]:
    """Sizes and work of the masked network, and its accuracy where there are images to measure it on."""
    rows = count(network, input, masks=mask)
    all_ = totals(rows)
    sizes = {k: all_[k] for k in ("parameters", "kept_parameters", "multiply_adds", "kept_multiply_adds", "density")}
    return accuracies(network, splits) | sizes | {"layers": [_layer(r, network) for r in rows if r.prunable]}


def accuracies(network: nn.Module, splits: Splits | None) -> dict[str, Any]:
    """Test and validation figures, in full precision whatever the training used."""
    if splits is None:
        return {}
    test, validation = (evaluate(network, part, splits) for part in (splits.test, splits.validation))
    sizes = {"train": len(splits.train.y), "validation": len(splits.validation.y), "test": len(splits.test.y)}
    data = {"name": splits.spec.name, "classes": list(splits.facts.classes)} | sizes
    return {"test": test and test.as_dict(), "validation": validation and validation.as_dict(), "data": data}


def _layer(row: Row, network: nn.Module) -> dict[str, Any]:
    shape = list(network.get_submodule(row.name).weight.shape)  # type: ignore[arg-type]
    return {
        "name": row.name,
        "type": row.type,
        "shape": shape,
        "output": list(row.output),
        "parameters": row.parameters,
        "prunable": row.prunable,
        "kept": row.prunable_kept,
        "density": row.prunable_kept / row.prunable,
        "multiply_adds": row.multiply_adds,
        "kept_multiply_adds": row.kept_multiply_adds,
    }
