"""How many weights each level keeps, and which: the largest of each layer, or of all layers of a kind."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..masks import Mask, size
from ..pruning import best
from ..spec import Lottery, choose, own_rates

Shapes = Mapping[str, tuple[int, ...]]
"""The prunable weights by name, the network's last layer last."""


def kinds(shapes: Shapes) -> dict[str, str]:
    """What each layer is to the pruning: conv, fc or output."""
    inner = {name: "conv" if len(shape) > 2 else "fc" for name, shape in shapes.items()}
    return inner | dict.fromkeys(list(shapes)[-1:], "output")


def rated(shapes: Mapping[str, object], lottery: Lottery) -> dict[str, float]:
    """The layers with a rate of their own, by the names of their weights; names that there are not are refused."""
    layers = {n.removesuffix(".weight"): n for n in shapes}
    rates = own_rates(lottery.rate_layers)
    return {layers[choose(layer, layers, "lottery.rate_layers: the layer")]: rate for layer, rate in rates.items()}


def counts(shapes: Shapes, lottery: Lottery, level: int) -> dict[tuple[str, ...], int]:
    """The weights that are left at a level, for each group of layers that are ranked together."""
    found, own = kinds(shapes), rated(shapes, lottery)
    rates = {"conv": lottery.rate_conv, "fc": lottery.rate_fc, "output": lottery.rate_output}
    sizes = {name: torch.Size(shape).numel() for name, shape in shapes.items()}
    together = {name: name if lottery.scope == "layer" or name in own else kind for name, kind in found.items()}
    groups: dict[str, list[str]] = {}
    for name, group in together.items():
        groups.setdefault(group, []).append(name)
    return {
        tuple(names): _left(sum(sizes[n] for n in names), own.get(names[0], rates[found[names[0]]]), level)
        for names in groups.values()
    }


def _left(weights: int, rate: float, level: int) -> int:
    """Counted from all of them, so that rounding does not add up; one stays."""
    return max(1, round(weights * (1 - rate) ** level))


def density(shapes: Shapes, lottery: Lottery, level: int) -> float:
    """The paper's P_m."""
    all_ = sum(torch.Size(shape).numel() for shape in shapes.values())
    return sum(counts(shapes, lottery, level).values()) / all_


def pruned(weights: Mapping[str, Tensor], mask: Mask, lottery: Lottery, level: int) -> Mask:
    """The weights of `mask` that are largest after training, exactly as many as the level keeps; ties: the earlier."""
    found: Mask = {}
    for group, keep in counts({n: tuple(m.shape) for n, m in mask.items()}, lottery, level).items():
        masks = best([weights[n] for n in group], [mask[n] for n in group], keep, torch.abs)
        found |= dict(zip(group, masks, strict=True))
    assert size(found) == size(mask)
    return {name: found[name] for name in mask}
