"""The exact best of many scores: radix selection over all of them together, in chunks, with neither a sort nor a copy.

The bits of a float32, read as a whole number with the places below its sign turned over where it is negative, are in
the order of the numbers. So two histograms of sixteen bits each find the last score that wins, and how many that are
equal to it win too: three passes over the scores, whatever they are.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ..spec import Refused

CHUNK = 1 << 18
"""scores looked at in one go: few enough to stay in the processor's cache"""
HALF = 1 << 16
DEAD = -(1 << 31)
"""below the image of minus infinity"""

Score = Callable[[Tensor], Tensor]


def itself(scores: Tensor) -> Tensor:
    return scores


def best(
    parts: Sequence[Tensor],
    alive: Sequence[Tensor | None],
    keep: int,
    score: Score = itself,
    every: bool = False,
) -> list[Tensor]:
    """Masks of the `keep` largest scores over all parts together; of equal scores, the earlier.

    Compared as float32; the dead never win. `score` is applied to each chunk (`torch.abs` ranks weights by magnitude
    without a copy of them); with `every`, the best living place of each part is sure to win.
    """
    with one_thread():
        return _best(parts, alive, keep, score, every)


@contextmanager
def one_thread() -> Iterator[None]:
    """For a while: where chunks are small, or others work beside us, threads that wait for each other cost more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _best(
    parts: Sequence[Tensor], alive: Sequence[Tensor | None], keep: int, score: Score, every: bool
) -> list[Tensor]:
    masks = [torch.zeros(p.shape, dtype=torch.bool, device=p.device) for p in parts]
    sure = _tops(parts, alive, score) if every else {}
    _check(parts, alive, keep, len(sure))

    def images() -> Iterator[tuple[int, int, Tensor]]:
        for i, (part, there) in enumerate(zip(parts, alive, strict=True)):
            for start, image in _images(part, there, score):
                if i in sure and start <= sure[i] < start + len(image):
                    image[sure[i] - start] = DEAD
                yield i, start, image

    if keep > len(sure):
        _mark(masks, images(), *_last(lambda: (image for _, _, image in images()), keep - len(sure)))
    for i, place in sure.items():
        masks[i].view(-1)[place] = True
    return masks


def _check(parts: Sequence[Tensor], alive: Sequence[Tensor | None], keep: int, sure: int) -> None:
    left = sum(p.numel() if a is None else int(a.count_nonzero()) for p, a in zip(parts, alive, strict=True))
    if not sure <= keep <= left:
        raise Refused(f"best: {keep} are to be kept of {left} that are left; expected from {sure} to {left}")


def _images(part: Tensor, alive: Tensor | None, score: Score) -> Iterator[tuple[int, Tensor]]:
    """By chunk, where it starts and whole numbers in the order of its scores."""
    if alive is not None and alive.shape != part.shape:
        raise Refused(f"best: alive has shape {list(alive.shape)}; expected that of its scores, {list(part.shape)}")
    values, there = part.detach().reshape(-1), None if alive is None else alive.reshape(-1)
    for start in range(0, len(values), CHUNK):
        piece = slice(start, start + CHUNK)
        dead = None if there is None else ~there[piece]
        yield start, _image(score(values[piece]).float(), dead)


def _image(scores: Tensor, dead: Tensor | None) -> Tensor:
    if bool(scores.amax().isnan()):  # amax hands a NaN on, whatever else there is
        broken = scores.isnan() if dead is None else scores.isnan() & ~dead
        if bool(broken.any()):
            raise Refused(f"best: {int(broken.sum())} scores are not numbers; expected numbers, infinity among them")
    bits = (scores + 0.0).view(torch.int32)  # -0 becomes +0, its equal
    image = bits.bitwise_xor_((bits >> 31).bitwise_and_(0x7FFFFFFF))
    return image if dead is None else image.masked_fill_(dead, DEAD)


def _last(images: Callable[[], Iterator[Tensor]], keep: int) -> tuple[int, int]:
    """An image above which all win, and how many that are equal to it win, the first ones."""
    upper = _histogram((image >> 16).add_(HALF // 2) for image in images())
    top, wanted = _reach(upper, keep)
    base = (top - HALF // 2) * HALF
    lower = _histogram(image.clamp(base - 1, base + HALF).sub_(base - 1) for image in images())
    low, ties = _reach(lower[1:-1], wanted)
    return (base + low, ties) if ties < int(lower[1 + low]) else (base + low - 1, 0)


def _histogram(digits: Iterator[Tensor]) -> Tensor:
    counts = torch.zeros(HALF + 2, dtype=torch.int64)
    for each in digits:
        counts += torch.bincount(each, minlength=HALF + 2).cpu()
    return counts


def _reach(counts: Tensor, keep: int) -> tuple[int, int]:
    """From the top, the bin in which the sum reaches `keep`, and how many of that bin are wanted."""
    sums = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(sums, keep))
    found = len(counts) - 1 - place
    return found, keep - int(sums[place] - counts[found])


def _mark(masks: list[Tensor], images: Iterator[tuple[int, int, Tensor]], last: int, ties: int) -> None:
    """Everything above the last score, and the first `ties` that are equal to it."""
    for i, start, image in images:
        here = masks[i].view(-1)[start : start + len(image)]
        torch.gt(image, last, out=here)
        if ties:
            equal = (image == last).nonzero().flatten()[:ties]
            here[equal] = True
            ties -= len(equal)


def _tops(parts: Sequence[Tensor], alive: Sequence[Tensor | None], score: Score) -> dict[int, int]:
    """The place of the best in each part that has a living one, the earliest of equals."""
    found = {}
    for i, (part, there) in enumerate(zip(parts, alive, strict=True)):
        tops = [(int(image.amax()), start) for start, image in _images(part, there, score)]
        top, start = max(tops, key=lambda t: t[0], default=(DEAD, 0))
        if top > DEAD:
            piece = slice(start, start + CHUNK)
            dead = None if there is None else ~there.reshape(-1)[piece]
            image = _image(score(part.detach().reshape(-1)[piece]).float(), dead)
            found[i] = int((image == top).nonzero()[0]) + start
    return found
