"""The one way to a smaller mask: units ranked by a criterion, chosen by a scope, laid out by a structure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..masks import Mask, ones
from ..spec import Prune, Refused, choose, quote
from .criteria import CRITERIA, Criterion, magnitude, squared_sum
from .evidence import Evidence, seen_of
from .groups import Group, unit_mask
from .scopes import NEEDS as SCOPE_NEEDS
from .scopes import SCOPES, Kept, Ranking, hits
from .select import itself
from .structures import STRUCTURES, Structure, n_of_m, ratio, sizes


def prune(
    weights: dict[str, Tensor],
    mask: Mask | None = None,
    how: Prune = Prune(),  # noqa: B008
    seen: Evidence | None = None,
    groups: Sequence[Group] = (),
    rng: torch.Generator | None = None,
) -> Mask:
    """A mask that keeps exactly the share that `how` asks for; everything that it keeps was kept by `mask`.

    `weights` are those that may be judged and pruned; `groups` say which channels are coupled (structure "coupled",
    whose mask covers biases and normalisation too). With a budget of multiply-adds it keeps as much as fits.
    """
    request = _Request(weights, _whole(weights, mask or {}), how, seen or {}, rng or torch.Generator().manual_seed(0))
    _check(request)
    if shape := ratio(how.structure):
        new = {n: n_of_m(request.score(n), request.mask[n], *shape) for n in weights}
        return {n: m if chosen(n, how) else request.mask[n] for n, m in new.items()}
    ways = _coupled(request, groups) if how.structure == "coupled" else _layouts(request)
    return _result(ways, request)


def needs(how: Prune) -> set[str]:
    """What must have been seen of the network before it can be pruned like that."""
    found = {*CRITERIA[how.criterion].needs, *SCOPE_NEEDS.get(how.scope, ())}
    found |= {"shapes"} if how.structure == "coupled" else set()
    return found | ({"places", "shapes"} if how.budget == "multiply_adds" else set())


def chosen(name: str, how: Prune) -> bool:
    """Whether a layer is to be pruned now; the scope counts the others all the same."""
    return not how.layers or any(hits(name, p) for p in how.layers)


def table_of(how: Prune) -> dict[str, float]:
    """["conv*=0.5", "fc1=0.1"] as a dict."""
    return {p: float(d) for p, _, d in (entry.rpartition("=") for entry in how.table)}


@dataclass(frozen=True)
class _Request:
    """What is asked, of what, knowing what."""

    weights: dict[str, Tensor]
    mask: Mask
    how: Prune
    seen: Evidence
    rng: torch.Generator

    @property
    def criterion(self) -> Criterion:
        return CRITERIA[choose(self.how.criterion, CRITERIA, "prune.criterion")]

    def score(self, name: str) -> Tensor:
        """A score for each weight of one layer."""
        weight = self.weights[name].detach().cpu()
        seen = {k: v.cpu() for k, v in seen_of(self.seen, name, self.criterion.needs).items()}
        return self.criterion.score(weight if weight.dtype == torch.float32 else weight.float(), seen, self.rng)

    def cost(self, name: str) -> float:
        """Multiply-adds of one weight, where that matters."""
        return float(seen_of(self.seen, name, ("places",))["places"]) if "places" in self.seen else 1.0


@dataclass(frozen=True)
class _Ways:
    """Units to choose from, and the masks that a choice means."""

    ranking: Ranking
    masks: Callable[[Kept], Mask]


def _whole(weights: dict[str, Tensor], mask: Mask) -> Mask:
    """The mask with nothing pruned where it says nothing."""
    return {n: m.cpu() for n, m in (ones(weights) | mask).items()}


def _check(request: _Request) -> None:
    weights, how = request.weights, request.how
    if not weights:
        raise Refused("prune: the network has no prunable layer; expected at least one linear or convolutional layer")
    for n, m in request.mask.items():
        if n in weights and m.shape != weights[n].shape:
            raise Refused(f"the mask of {n} has shape {list(m.shape)}; expected its weight's, {list(weights[n].shape)}")
    broken = [n for n, w in weights.items() if w.numel() and not _finite(w)]
    if broken:
        raise Refused(f"prune: the weights of {broken[0]} are not all finite numbers; train again from an earlier step")
    for pattern in (*how.layers, *table_of(how)):
        if not any(hits(n, pattern) for n in weights):
            known = ", ".join(n.removesuffix(".weight") for n in weights)
            raise Refused(f'prune: "{pattern}" meets no layer; the prunable layers are {known}')


def _finite(weight: Tensor) -> bool:
    """Its least and largest value tell, in one quick pass."""
    if weight.is_complex():
        raise Refused("prune: complex weights have no order; exclude their layers")
    return all(math.isfinite(float(v)) for v in torch.aminmax(weight.detach()))


def _layouts(request: _Request) -> _Ways:
    """Each layer's weights as units of their own."""
    structure = STRUCTURES[request.how.structure]
    single = request.how.structure == "weight"
    mask = {n: request.mask[n] for n in request.weights}
    alive = {n: m.flatten() if single else structure.split(m).any(1) for n, m in mask.items()}
    shapes = {n: tuple(w.shape) for n, w in request.weights.items()}
    costs = {n: request.cost(n) * mask[n].numel() / max(alive[n].numel(), 1) for n in mask}
    # Of a hundred million single weights no copy is made: their magnitudes are taken in pieces, as they are ranked.
    lazy = single and request.criterion.score is magnitude
    scores = {n: _raw(w) if lazy else _unit_scores(request, structure, n) for n, w in request.weights.items()}
    ranking = _ranking(request, scores, alive, shapes, costs, torch.abs if lazy else itself)
    if single:
        return _Ways(ranking, lambda kept: {n: k.view(mask[n].shape) for n, k in kept.items()})
    return _Ways(ranking, lambda kept: {n: structure.join(k, mask[n].shape) & mask[n] for n, k in kept.items()})


def _raw(weight: Tensor) -> Tensor:
    return weight.detach().cpu().float().flatten()


def _unit_scores(request: _Request, structure: Structure, name: str) -> Tensor:
    scores = request.score(name)
    if structure is STRUCTURES["weight"]:
        return scores.abs().flatten() if request.criterion.reduce is squared_sum else scores.flatten()
    return request.criterion.reduce(structure.split(scores * request.mask[name]), sizes(structure, scores))


def _ranking(
    request: _Request,
    scores: Kept,
    alive: Kept,
    shapes: dict[str, tuple[int, ...]],
    costs: dict[str, float],
    rank: Callable[[Tensor], Tensor] = itself,
) -> Ranking:
    for n, s in scores.items():
        if rank is itself and s.numel() and bool(s.amax().isnan()):
            layer = n.removesuffix(".weight")
            raise Refused(
                f"prune: {request.how.criterion} is no number for {layer}; use other data or another criterion"
            )
    curves = {n: request.seen["sensitivity"][n] for n in alive} if request.how.scope == "sensitivity" else {}
    return Ranking(scores, alive, shapes, costs, curves, table_of(request.how), request.how.allow_empty, rank)


def _coupled(request: _Request, groups: Sequence[Group]) -> _Ways:
    """Channels that several layers share, judged by the weights that make them."""
    open_ = {g.name: g for g in groups if not g.protected and all(p in request.weights for p in _makers(g))}
    if not open_:
        why = "; ".join(f"{g.name}: {g.protected or 'excluded'}" for g in groups[:3]) or "it has none"
        raise Refused(f"prune: no channels of this network can go ({why}); expected other layers, or structure filter")
    shapes = {n: tuple(int(v) for v in s) for n, s in request.seen["shapes"].items()}
    scores = {n: _group_scores(request, g) for n, g in open_.items()}
    alive = {n: _group_alive(request.mask, g) for n, g in open_.items()}
    first = {n: shapes[_makers(g)[0]] for n, g in open_.items()}
    costs = {n: _group_cost(request, g, shapes) for n, g in open_.items()}

    def masks(kept: Kept) -> Mask:
        found = dict(request.mask)
        for n, keep in kept.items():
            for name, m in unit_mask(open_[n], keep, shapes).items():
                found[name] = found[name] & m if name in found else m
        return found

    return _Ways(_ranking(request, scores, alive, first, costs), masks)


def _makers(group: Group) -> list[str]:
    """The weights whose rows are the group's units."""
    return [s.parameter for s in group.slices if s.role == "out"]


def _rows(tensor: Tensor, group: Group, parameter: str) -> Tensor:
    """A parameter's entries by unit: [units, entries]."""
    (part,) = [s for s in group.slices if s.role == "out" and s.parameter == parameter]
    return tensor.movedim(part.axis, 0)[part.places.flatten()].reshape(group.units, -1)


def _group_scores(request: _Request, group: Group) -> Tensor:
    if "removal" in request.criterion.needs:
        return seen_of(request.seen, group.name, ("removal",))["removal"]
    rows = [_rows(request.score(p) * request.mask[p], group, p) for p in dict.fromkeys(_makers(group))]
    every = torch.cat(rows, 1)
    scores = request.criterion.reduce(every, torch.full((group.units,), float(every.shape[1])))
    # Weights of wide layers are small by their initialisation: raw norms would empty them first.
    return scores / scores.mean().clamp_min(1e-12) if request.criterion.score is magnitude else scores


def _group_alive(mask: Mask, group: Group) -> Tensor:
    return torch.cat([_rows(mask[p], group, p) for p in dict.fromkeys(_makers(group))], 1).any(1)


def _group_cost(request: _Request, group: Group, shapes: dict[str, tuple[int, ...]]) -> float:
    """Multiply-adds of one channel where it is made and where it is read, each whole."""
    if "places" not in request.seen:
        return 1.0
    weights = {s.parameter for s in group.slices if s.role in ("out", "in") and s.parameter in request.seen["places"]}
    return sum(request.cost(p) * float(torch.tensor(shapes[p]).prod()) for p in weights) / group.units


def _result(ways: _Ways, request: _Request) -> Mask:
    """The scope's choice, or the largest one that the budget of multiply-adds affords."""
    how, ranking = request.how, ways.ranking
    _possible(request, ranking)

    def at(density: float) -> Kept:
        return SCOPES[how.scope](ranking, density)

    kept_ = at(how.density) if how.budget == "units" else _affordable(at, ways, request)
    return ways.masks({n: k if chosen(n, how) else ranking.alive[n] for n, k in kept_.items()})


def _possible(request: _Request, ranking: Ranking) -> None:
    """Scores that rank channels within their own layer only cannot rank layers against each other."""
    how, left = request.how, sum(ranking.left.values())
    if "removal" in request.criterion.needs and how.scope in ("global", "flops", "lamp"):
        raise Refused(
            f"prune.scope = {quote(how.scope)} compares layers, thinet cannot; expected layer, table or sensitivity"
        )
    if how.budget == "units" and how.scope != "table" and _asked(ranking, how) > left:
        share = left / max(ranking.units, 1)
        raise Refused(
            f"prune.density = {how.density:g} would bring weights back: {share:.6g} are left; expected that or less"
        )


def _asked(ranking: Ranking, how: Prune) -> int:
    """How many units the request keeps in all, by the rounding of its scope."""
    if how.scope == "layer":
        return sum(max(ranking.least, round(how.density * a.numel())) for a in ranking.alive.values())
    return max(ranking.least * len(ranking.alive), round(how.density * ranking.units))


def _affordable(at: Callable[[float], Kept], ways: _Ways, request: _Request) -> Kept:
    """The largest density whose mask costs no more multiply-adds than asked; to one unit."""
    budget = request.how.density * _full(request)
    least = work(ways.masks(at(1e-9)), request.seen)
    if least > budget:
        seen = f"prune.density = {request.how.density:g} of the multiply-adds cannot be reached"
        raise Refused(
            f"{seen}: the least that keeps every layer is {least / _full(request):.4g}; expected that or more"
        )
    low, high = 1e-9, 1.0
    while (high - low) * ways.ranking.units > 0.5:
        middle = (low + high) / 2
        fits = work(ways.masks(at(middle)), request.seen) <= budget
        low, high = (middle, high) if fits else (low, middle)
    return at(low)


def _full(request: _Request) -> float:
    """The multiply-adds that the density is a share of: the whole network's, or those of the network it once was."""
    given = request.seen.get("full", {}).get("", None)
    return float(given) if given is not None else work({}, request.seen)


def work(mask: Mask, seen: Evidence) -> float:
    """Multiply-adds that meet a kept weight, for one input."""
    sizes_ = {n: float(torch.prod(seen["shapes"][n])) for n in seen["places"]}
    return sum(float(p) * (float(mask[n].sum()) if n in mask else sizes_[n]) for n, p in seen["places"].items())
