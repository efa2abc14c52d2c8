"""The one way to a smaller mask: units ranked by a criterion, chosen by a scope, laid out by a structure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..masks import Mask, ones
from ..spec import Prune, Refused, choose, quote
from .criteria import CRITERIA, Criterion, drawn, magnitude, squared_sum
from .evidence import Evidence, Found, seen_of
from .groups import Group, unit_mask
from .scopes import NEEDS as SCOPE_NEEDS
from .scopes import SCOPES, Kept, Ranking, hits
from .select import itself
from .structures import STRUCTURES, Structure, n_of_m, ratio, sizes, turned


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
    request = _request(weights, mask, how, seen, rng)
    _check(request)
    if shape := ratio(how.structure):
        scores = {n: request.facing(n, request.score(n)) for n in weights}
        _numbers(scores, how)
        new = {n: request.facing(n, n_of_m(s, request.facing(n, request.mask[n]), *shape)) for n, s in scores.items()}
        return {n: m if chosen([n], how) else request.mask[n] for n, m in new.items()}
    ways = _coupled(request, groups) if how.structure == "coupled" else _layouts(request)
    return _result(ways, request)


def usual(weights: dict[str, Tensor], mask: Mask, how: Prune, groups: Sequence[Group]) -> Found:
    """By group of coupled channels, the mean score of those that are left, where magnitude is judged relative to it.

    Whoever prunes in rounds hands it to each of them: the largest channels are left, and their mean only grows.
    """
    request = _request(weights, mask, how)
    return {n: _mean(request, g) for n, g in _open(request, groups).items()} if request.relative else {}


def needs(how: Prune) -> set[str]:
    """What must have been seen of the network before it can be pruned like that."""
    found = {*CRITERIA[how.criterion].needs, *SCOPE_NEEDS.get(how.scope, ())}
    found |= {"shapes"} if how.structure == "coupled" else {"transposed"} if how.structure != "weight" else set()
    return found | ({"places", "shapes"} if how.budget == "multiply_adds" else set())


def chosen(names: Sequence[str], how: Prune) -> bool:
    """Whether a layer, or layers whose channels go together, are to be pruned now; the scope counts the others too."""
    return not how.layers or any(hits(n, p) for n in names for p in how.layers)


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

    @property
    def relative(self) -> bool:
        """Whether a coupled channel is judged by how it compares with the others of its group."""
        return self.criterion.score is magnitude

    def facing(self, name: str, tensor: Tensor) -> Tensor:
        """What has a weight's sides, with output channels first whatever the layer; and back."""
        groups = self.seen.get("transposed", {}).get(name)
        return tensor if groups is None else turned(tensor, int(groups))

    def living(self, name: str, scores: Tensor) -> Tensor:
        """Nothing for what is pruned. Chance looks at no weight, so a unit that has lost some is as likely to win."""
        return scores if self.criterion.reduce is drawn else scores * self.mask[name]

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
    makers: dict[str, list[str]]
    """by layer or group, the layers whose units they are"""


def _request(
    weights: dict[str, Tensor], mask: Mask | None, how: Prune, seen: Evidence | None = None,
    rng: torch.Generator | None = None,
) -> _Request:  # fmt: skip
    return _Request(weights, _whole(weights, mask or {}), how, seen or {}, rng or torch.Generator().manual_seed(0))


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
    facing = {n: m if single else request.facing(n, m) for n, m in mask.items()}
    alive = {n: m.flatten() if single else structure.split(m).any(1) for n, m in facing.items()}
    shapes = {n: tuple(w.shape) for n, w in request.weights.items()}
    costs = {n: request.cost(n) * mask[n].numel() / max(alive[n].numel(), 1) for n in mask}
    # Of a hundred million single weights no copy is made: their magnitudes are taken in pieces, as they are ranked.
    lazy = single and request.criterion.score is magnitude
    scores = {n: _raw(w) if lazy else _unit_scores(request, structure, n) for n, w in request.weights.items()}
    makers = {n: [n] for n in mask}
    ranking = _ranking(request, scores, alive, shapes, costs, makers, torch.abs if lazy else itself)

    def masks(kept: Kept) -> Mask:
        if single:
            return {n: k.view(mask[n].shape) for n, k in kept.items()}
        return {n: request.facing(n, structure.join(k, facing[n].shape)) & mask[n] for n, k in kept.items()}

    return _Ways(ranking, masks, makers)


def _raw(weight: Tensor) -> Tensor:
    return weight.detach().cpu().float().flatten()


def _unit_scores(request: _Request, structure: Structure, name: str) -> Tensor:
    scores = request.score(name)
    if structure is STRUCTURES["weight"]:
        return scores.abs().flatten() if request.criterion.reduce is squared_sum else scores.flatten()
    laid = request.facing(name, request.living(name, scores))
    return request.criterion.reduce(structure.split(laid), sizes(structure, laid))


def _ranking(
    request: _Request,
    scores: Kept,
    alive: Kept,
    shapes: dict[str, tuple[int, ...]],
    costs: dict[str, float],
    makers: dict[str, list[str]],
    rank: Callable[[Tensor], Tensor] = itself,
) -> Ranking:
    if rank is itself:
        _numbers(scores, request.how)
    curves = {n: request.seen["sensitivity"][n] for n in alive} if request.how.scope == "sensitivity" else {}
    return Ranking(scores, alive, shapes, costs, curves, _densities(request.how, makers), request.how.allow_empty, rank)


def _numbers(scores: Kept, how: Prune) -> None:
    """Refuses what has no order."""
    for n, s in scores.items():
        if s.numel() and bool(s.amax().isnan()):
            layer = n.removesuffix(".weight")
            raise Refused(f"prune: {how.criterion} is no number for {layer}; use other data or another criterion")


def _densities(how: Prune, makers: dict[str, list[str]]) -> dict[str, float]:
    """Of scope table, by layer or group: that of the first pattern that fits; layers that go together have one."""
    entries, found = table_of(how), {}
    for n, members in makers.items():
        fitting = {m: [d for p, d in entries.items() if hits(m, p)] for m in members}
        first = {m.removesuffix(".weight"): d[0] for m, d in fitting.items() if d}
        for m, d in first.items():
            other, given = next(iter(first.items()))
            if d != given:
                seen = f"prune.table: {other} = {given:g} and {m} = {d:g}, whose channels go together"
                raise Refused(f"{seen}; expected one density for both")
            found[n] = d
    return found


def _coupled(request: _Request, groups: Sequence[Group]) -> _Ways:
    """Channels that several layers share, judged by the weights that make them."""
    open_ = _open(request, groups)
    if not open_:
        why = "; ".join(f"{g.name}: {g.protected or 'excluded'}" for g in groups[:3]) or "it has none"
        raise Refused(f"prune: no channels of this network can go ({why}); expected other layers, or structure filter")
    _meets(request.how, open_, groups)
    shapes = {n: tuple(int(v) for v in s) for n, s in request.seen["shapes"].items()}
    scores = {n: _group_scores(request, g) for n, g in open_.items()}
    alive = {n: _group_alive(request.mask, g) for n, g in open_.items()}
    first = {n: shapes[g.makers[0]] for n, g in open_.items()}
    costs = {n: _group_cost(request, g, shapes) for n, g in open_.items()}

    def masks(kept: Kept) -> Mask:
        found = dict(request.mask)
        for n, keep in kept.items():
            for name, m in unit_mask(open_[n], keep, shapes).items():
                found[name] = found[name] & m if name in found else m
        return found

    makers = {n: g.makers for n, g in open_.items()}
    return _Ways(_ranking(request, scores, alive, first, costs, makers), masks, makers)


def _open(request: _Request, groups: Sequence[Group]) -> dict[str, Group]:
    """By name, the groups whose units may go: all layers that make them may be pruned."""
    return {g.name: g for g in groups if not g.protected and all(p in request.weights for p in g.makers)}


def _meets(how: Prune, open_: dict[str, Group], groups: Sequence[Group]) -> None:
    """Refuses names of layers none of which makes channels that can go. One that is down to its last has done so."""
    patterns = [*how.layers, *table_of(how)]
    named = [g for g in groups if any(hits(m, p) for m in (g.name, *g.makers) for p in patterns)]
    if patterns and not any(g.name in open_ or g.units == 1 for g in named):
        why = "; ".join(f"{g.name}: {g.protected or 'a layer that goes along is excluded'}" for g in named[:3])
        seen = f'prune: "{patterns[0]}" meets no channels that can go ({why or "it makes none"})'
        raise Refused(f"{seen}; expected one of {', '.join(open_)}, or layers that go along with it")


def _rows(tensor: Tensor, group: Group, parameter: str) -> Tensor:
    """A parameter's entries by unit: [units, entries]."""
    (part,) = [s for s in group.slices if s.role == "out" and s.parameter == parameter]
    return tensor.movedim(part.axis, 0)[part.places.flatten()].reshape(group.units, -1)


def _group_scores(request: _Request, group: Group) -> Tensor:
    if "removal" in request.criterion.needs:
        return seen_of(request.seen, group.name, ("removal",))["removal"]
    scores = _raw_scores(request, group)
    # Weights of wide layers are small by their initialisation: raw norms would empty them first.
    return scores / _mean(request, group, scores).clamp_min(1e-12) if request.relative else scores


def _raw_scores(request: _Request, group: Group) -> Tensor:
    """What is in a unit's rows, by weight; columns of channels that have gone elsewhere count for no unit."""
    every = torch.cat([_rows(request.living(p, request.score(p)), group, p) for p in dict.fromkeys(group.makers)], 1)
    there = int(_group_mask(request.mask, group).any(0).sum())
    return request.criterion.reduce(every, torch.full((group.units,), float(there or every.shape[1])))


def _mean(request: _Request, group: Group, scores: Tensor | None = None) -> Tensor:
    """Of the units that are left; what the rounds before have gone by, where there were any."""
    if group.name in request.seen.get("usual", {}):
        return request.seen["usual"][group.name]
    scores, alive = _raw_scores(request, group) if scores is None else scores, _group_alive(request.mask, group)
    return scores[alive].mean() if bool(alive.any()) else scores.new_zeros(())


def _group_mask(mask: Mask, group: Group) -> Tensor:
    return torch.cat([_rows(mask[p], group, p) for p in dict.fromkeys(group.makers)], 1)


def _group_alive(mask: Mask, group: Group) -> Tensor:
    return _group_mask(mask, group).any(1)


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
    return ways.masks({n: k if chosen(ways.makers[n], how) else ranking.alive[n] for n, k in kept_.items()})


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
