"""Laws of radix selection: exactly what a stable sort of everything together would keep, without sorting anything."""

import math

import pytest
import torch

from prunery.pruning import select
from prunery.pruning.select import best
from prunery.spec import Refused

TINY = 1e-42  # a denormal


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=rng(seed))


def drawn(values, *shape):
    return torch.tensor(values)[torch.randint(len(values), shape, generator=rng(3))]


def raw_bits(n):
    """Any bits at all, as far as they are numbers."""
    bits = torch.randint(-(2**31), 2**31, (n,), generator=rng(4)).to(torch.int32)
    found = bits.view(torch.float32)
    return found[~found.isnan()]


SCORES = {
    "random": [normal(7, 5), normal(3, 2, 3, 3, seed=1), normal(11, seed=2)],
    "one": [normal(40)],
    "sizes": [normal(90) * 0.01, normal(3), normal(50) * 100],
    "ties": [drawn([0.0, 1.0, 2.0], 30), drawn([1.0, 2.0], 9, 4)],
    "equal": [torch.full((13,), 0.5), torch.full((2, 9), 0.5)],
    "zeros": [torch.zeros(20), torch.zeros(3, 3)],
    "negative": [-normal(30).abs(), -normal(21, seed=1).abs() - 5],
    "signed zeros": [drawn([0.0, -0.0, 1.0, -1.0], 40), drawn([-0.0, 0.0], 25)],
    "infinite": [drawn([math.inf, -math.inf, 0.0, 3.0], 30), drawn([math.inf, 1e38], 9), normal(9)],
    "denormal": [drawn([TINY, -TINY, 0.0, 2 * TINY, 1e-45], 50), normal(9) * TINY],
    "extremes": [drawn([torch.finfo(torch.float32).max, torch.finfo(torch.float32).min, 1.0], 20), normal(5) * 1e38],
    "neighbours": [(torch.randint(0, 40, (60,), generator=rng()) + 0x3F7FFFF0).to(torch.int32).view(torch.float32)],
    "halves": [(torch.randint(0, 4, (60,), generator=rng()) + 0x3F80FFFE).to(torch.int32).view(torch.float32)],
    "any bits": [raw_bits(120), raw_bits(40)[7:]],
    "empty parts": [torch.zeros(0), normal(8), torch.zeros(0, 3), normal(5, seed=2)],
    "scalar": [torch.tensor(3.0), normal(4)],
    "transposed": [normal(6, 9).T, normal(4, 3, 3, 3).to(memory_format=torch.channels_last), normal(20)[::2]],
    "half": [normal(30).half(), normal(30, seed=1).bfloat16(), normal(9, seed=2).double()],
    "nothing": [],
}
CHUNKS = [7, 1 << 18]


def sorted_best(parts, alive, keep):
    """The oracle: everything put together, sorted, cut."""
    flat = torch.cat([p.reshape(-1).float() for p in parts]) if parts else torch.zeros(0)
    there = torch.cat([a.reshape(-1) for a in alive]) if parts else torch.zeros(0, dtype=torch.bool)
    places = there.nonzero().flatten()
    kept = places[flat[places].argsort(descending=True, stable=True)[:keep]]
    mask = torch.zeros(len(flat), dtype=torch.bool).index_fill_(0, kept, True)
    pieces = mask.split([p.numel() for p in parts]) if parts else []
    return [m.view(p.shape) for m, p in zip(pieces, parts, strict=True)]


def same(found, expected):
    return len(found) == len(expected) and all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))


def counts(total):
    return sorted({0, 1, 2, total // 3, total // 2, total - 1, total} & set(range(total + 1)))


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("name", SCORES)
def test_it_keeps_what_a_stable_sort_would(name, chunk, monkeypatch):
    monkeypatch.setattr(select, "CHUNK", chunk)
    parts = SCORES[name]
    whole = [torch.ones(p.shape, dtype=torch.bool) for p in parts]
    for keep in counts(sum(p.numel() for p in parts)):
        assert same(best(parts, [None] * len(parts), keep), sorted_best(parts, whole, keep))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("name", SCORES)
def test_the_dead_never_win(name, share, monkeypatch):
    monkeypatch.setattr(select, "CHUNK", 16)
    parts = SCORES[name]
    alive = [torch.rand(p.shape, generator=rng(8)) < share for p in parts]
    for keep in counts(sum(int(a.sum()) for a in alive)):
        found = best(parts, alive, keep)
        assert same(found, sorted_best(parts, alive, keep))
        assert sum(int(m.sum()) for m in found) == keep


def test_a_large_random_case_with_ties_across_chunks():
    parts = [(normal(600_000) * 50).round() / 50, (normal(400_000, seed=1) * 50).round() / 50]
    alive = [None, torch.rand(400_000, generator=rng(2)) < 0.5]
    whole = [torch.ones(600_000, dtype=torch.bool), alive[1]]
    for keep in (1, 100_000, 555_555):
        assert same(best(parts, alive, keep), sorted_best(parts, whole, keep))


@pytest.mark.parametrize("name", SCORES)
def test_a_score_of_each_chunk_is_a_score_of_all(name, monkeypatch):
    monkeypatch.setattr(select, "CHUNK", 5)
    parts = SCORES[name]
    none = [None] * len(parts)
    for keep in counts(sum(p.numel() for p in parts)):
        assert same(best(parts, none, keep, torch.abs), best([p.abs() for p in parts], none, keep))


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("name", [n for n in SCORES if n != "infinite"])
def test_every_part_keeps_its_best_when_asked(name, share, monkeypatch):
    """As if the best place of each part were infinitely good."""
    monkeypatch.setattr(select, "CHUNK", 7)
    parts = [p.float() for p in SCORES[name]]
    alive = [torch.rand(p.shape, generator=rng(8)) < share for p in parts]
    guarded = [p.clone(memory_format=torch.contiguous_format) for p in parts]
    for p, a in zip(guarded, alive, strict=True):
        if a.any():
            p.view(-1)[p.masked_fill(~a, -math.inf).argmax()] = math.inf
    least = sum(bool(a.any()) for a in alive)
    for keep in [k for k in counts(sum(int(a.sum()) for a in alive)) if k >= least]:
        assert same(best(parts, alive, keep, every=True), sorted_best(guarded, alive, keep))


def test_infinite_scores_do_not_take_the_place_that_a_part_is_sure_of():
    found = best([torch.full((4,), math.inf), torch.tensor([-math.inf, -1.0])], [None, None], 2, every=True)
    assert [m.tolist() for m in found] == [[True, False, False, False], [False, True]]


def test_nothing_given_is_changed():
    part, there = normal(50), torch.rand(50, generator=rng()) < 0.5
    before = part.clone(), there.clone()
    best([part], [there], 10)
    best([part], [there], 10, every=True)
    assert torch.equal(part, before[0])
    assert torch.equal(there, before[1])


def test_parameters_are_ranked_as_they_are():
    part = torch.nn.Parameter(torch.tensor([1.0, -3.0, 2.0]))
    (mask,) = best([part], [None], 1, torch.abs)
    assert mask.tolist() == [False, True, False]
    assert not mask.requires_grad


NAN = math.nan
REFUSED = {
    "nan": ([torch.tensor([1.0, NAN])], [None], 1, "1 scores are not numbers"),
    "negative nan": ([-torch.tensor([1.0, NAN])], [None], 1, "not numbers"),
    "too many": ([torch.ones(3)], [None], 4, "4 are to be kept of 3"),
    "more than live": ([torch.ones(3)], [torch.tensor([True, False, False])], 2, "2 are to be kept of 1"),
    "fewer than none": ([torch.ones(3)], [None], -1, "-1 are to be kept"),
    "other shape": ([torch.ones(3)], [torch.ones(2, 2, dtype=torch.bool)], 3, r"shape \[2, 2\]; expected"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_ranked_is_refused_in_one_line(name):
    parts, alive, keep, said = REFUSED[name]
    with pytest.raises(Refused, match=said) as caught:
        best(parts, alive, keep)
    assert "\n" not in str(caught.value)


def test_every_part_cannot_keep_its_best_when_fewer_are_kept():
    with pytest.raises(Refused, match="expected from 2 to 6"):
        best([torch.ones(3), torch.ones(3)], [None, None], 1, every=True)


def test_a_dead_place_may_hold_anything():
    (mask,) = best([torch.tensor([NAN, 1.0, 2.0])], [torch.tensor([False, True, True])], 1)
    assert mask.tolist() == [False, False, True]
