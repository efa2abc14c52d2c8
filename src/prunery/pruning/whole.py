"""A whole network in, its mask out: what is to be seen is looked at, then pruned, in as many rounds as asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ..arguments import a_plain_network, copied, hooked
from ..masks import Mask, apply_, computed, ones, prunable
from ..spec import Prune, Refused, quote
from . import thinet
from .evidence import Batches, Evidence, collect, losses
from .groups import Group, groups, unit_mask
from .kinds import by_kind
from .prune import needs, prune, usual, work
from .schedules import SCHEDULES
from .structures import STRUCTURES, turned

TRIED = (0.75, 0.5, 0.3, 0.15)
"""densities at which a layer's sensitivity is measured"""


@dataclass(frozen=True)
class Known:
    """What there is to judge by, beside the network: data, the first weights, and the work that was there at first."""

    batches: Batches
    initial: dict[str, Tensor] | None = None
    full: float | None = None


def eligible(network: nn.Module, how: Prune) -> dict[str, Tensor]:
    """The weights that may be pruned: neither excluded by name nor kept as the first or last layer."""
    how = by_kind(network, how)
    weights = prunable(network, how.exclude)
    _plainly(network, how)
    names = list(prunable(network))
    if names and not weights:
        raise Refused(f"prune.exclude = {quote(', '.join(how.exclude))} leaves no layer to prune; expected fewer names")
    ends = ({names[0]} if how.keep_first and names else set()) | ({names[-1]} if how.keep_last and names else set())
    found = {n: w for n, w in weights.items() if n not in ends}
    if weights and not found:
        raise Refused("prune: keep_first and keep_last leave no layer to prune; expected one of them, or more layers")
    return found


def _plainly(network: nn.Module, how: Prune) -> None:
    """Refuses layers whose weights are no parameters, unless they are excluded; of PyTorch's masks others speak."""
    for name in computed(network, how.exclude):
        layer = name.removesuffix("weight").removesuffix(".")
        module = network.get_submodule(layer)
        if not hooked(module):
            way = "parametrize.remove_parametrizations" if is_parametrized(module) else "remove_weight_norm or its like"
            seen = f"prune: the weight of {layer or 'the network'} is parametrised, computed anew at each call"
            raise Refused(f"{seen}; torch.nn.utils.{way} first, or exclude it")


def pruned(
    network: nn.Module, mask: Mask, how: Prune, known: Known, rng: torch.Generator,
    saw: Callable[[float, Evidence], None] = lambda density, seen: None,
) -> tuple[Mask, dict[str, Tensor]]:  # fmt: skip
    """The mask, and the weights that pruning changed (ThiNet scales those that read the kept channels).

    `saw` is told each round's density and what it was judged by.
    """
    network = copied(a_plain_network(network, "prune"), "prune").eval()
    how = by_kind(network, how)
    changed: dict[str, Tensor] = {}
    weights = eligible(network, how)
    coupled = _open(network, how, known) if how.structure == "coupled" else []
    mean = usual(weights, mask, how, coupled) if coupled else {}
    for density in _steps(network, mask, how, known, coupled):
        now = replace(how, density=density)
        seen = _evidence(network, mask, now, known, coupled, rng) | {"usual": mean}
        saw(density, seen)
        new = prune(weights, mask, now, seen, coupled, rng)
        changed |= _reweighted(network, mask, new, now, known, coupled, rng)
        mask = mask | new
        parameters = dict(network.named_parameters())
        for n, w in changed.items():
            parameters[n].data.copy_(w)
        apply_({n: parameters[n].data for n in mask}, mask)
    return mask, {n: w * mask[n].to(w.device) if n in mask else w for n, w in changed.items()}


def _steps(network: nn.Module, mask: Mask, how: Prune, known: Known, coupled: Sequence[Group]) -> list[float]:
    """The densities of the rounds, from what is left to what is asked."""
    if how.schedule == "oneshot" or how.rounds == 1:
        return [how.density]
    left = _left(network, mask, how, known, coupled)
    return SCHEDULES[how.schedule](min(max(left, how.density), 1.0), how.density, how.rounds)


def _left(network: nn.Module, mask: Mask, how: Prune, known: Known, coupled: Sequence[Group]) -> float:
    """The density now, counted as the request counts it; of layers that each have their own, the smallest."""
    if how.budget == "multiply_adds":
        seen = collect(network, {"places", "shapes"}, known.batches)
        return work(mask, seen) / (known.full or work({}, seen))
    weights = eligible(network, how)
    mask = ones(weights) | mask
    if how.structure == "coupled":
        alive = [thinet.kept_units(g, mask) for g in _free(coupled, weights)]
    else:
        groups_ = collect(network, {"transposed"}, [])["transposed"] if how.structure != "weight" else {}
        laid = (turned(mask[n], int(groups_[n])) if n in groups_ else mask[n] for n in weights)
        alive = [STRUCTURES[how.structure].split(m).any(1) for m in laid]
    shares = [float(a.float().mean()) for a in alive if a.numel()]
    each = how.scope == "layer" and shares
    return min(shares) if each else sum(int(a.sum()) for a in alive) / max(sum(a.numel() for a in alive), 1)


def _free(coupled: Sequence[Group], weights: dict[str, Tensor]) -> list[Group]:
    """Groups whose units may go: all layers that make them may be pruned."""
    return [g for g in coupled if not g.protected and all(n in weights for n in g.makers)]


def _open(network: nn.Module, how: Prune, known: Known) -> list[Group]:
    if not known.batches:
        raise Refused(
            "prune: coupled channels are found by running the network; expected data, or an example of its input"
        )
    return groups(network, known.batches[0][0][:1])


def _evidence(
    network: nn.Module, mask: Mask, how: Prune, known: Known, coupled: Sequence[Group], rng: torch.Generator
) -> Evidence:
    wanted = needs(how)
    seen = collect(network, wanted, known.batches, known.initial)
    if known.full is not None:
        seen["full"] = {"": torch.tensor(known.full, dtype=torch.float64)}
    if "removal" in wanted:
        seen["removal"] = thinet.removal(network, _free(coupled, eligible(network, how)), known.batches, rng)
    if "sensitivity" in wanted:
        seen["sensitivity"] = _curves(_alone(network, mask, how, seen, known, coupled, rng))
    return seen


Trials = dict[str, dict[float, tuple[float, float]]]
"""layer -> density -> loss and accuracy; the untouched network under "" at 1"""


def alone(
    network: nn.Module, mask: Mask, how: Prune, known: Known, tried: Sequence[float], rng: torch.Generator
) -> Trials:
    """What the network is worth with one layer (or group of coupled channels) pruned, all others as they are."""
    coupled = _open(network, how, known) if how.structure == "coupled" else []
    plain = replace(how, scope="global", budget="units", table=())
    seen = _evidence(network, mask, plain, known, coupled, rng)
    return _alone(network, mask, how, seen, known, coupled, rng, tried)


def _alone(
    network: nn.Module, mask: Mask, how: Prune, seen: Evidence, known: Known, coupled: Sequence[Group],
    rng: torch.Generator, tried: Sequence[float] = TRIED,
) -> Trials:  # fmt: skip
    weights = eligible(network, how)
    names = [g.name for g in _free(coupled, weights)] if how.structure == "coupled" else list(weights)
    trials: dict[str, Mask] = {"": {}}
    for n in names:
        for d in tried:
            one = replace(how, scope="table", budget="units", layers=(), table=(f"{_plain(n)}={d}",))
            trials[f"{n}={d}"] = prune(weights, mask, one, seen, coupled, rng)
    found = losses(network, known.batches, trials)
    return {"": {1.0: found[""]}} | {n: {d: found[f"{n}={d}"] for d in tried} for n in names}


def _curves(trials: Trials) -> dict[str, Tensor]:
    """By layer, rows of density and what the loss rises by."""
    whole = trials[""][1.0][0]
    return {n: torch.tensor([[d, loss - whole] for d, (loss, _) in found.items()]) for n, found in trials.items() if n}


def _plain(name: str) -> str:
    """A name as a pattern that means itself."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _reweighted(
    network: nn.Module, mask: Mask, new: Mask, how: Prune, known: Known, coupled: Sequence[Group], rng: torch.Generator
) -> dict[str, Tensor]:  # fmt: skip
    """ThiNet's least squares, layer by layer as the paper does, for the groups that lost channels now."""
    if how.criterion != "thinet" or not how.reweight:
        return {}
    twin, found = copied(network, "prune"), {}
    parameters = dict(twin.named_parameters())
    for group in _free(coupled, eligible(network, how)):
        keep = thinet.kept_units(group, new)
        if bool(keep.all()):
            continue
        factors = thinet.reweighted(twin, group, keep, known.batches, rng)
        for n, w in factors.items():
            parameters[n].data.copy_(w)
            found[n] = w
        # The layers behind are judged without what has gone here.
        gone = unit_mask(group, keep, {n: tuple(p.shape) for n, p in parameters.items()})
        apply_({n: parameters[n].data for n in gone}, gone)
    return found
