"""Global magnitude pruning of 100 million weights to 10 %, against torch.nn.utils.prune.

Both rank all weights of nine layers of different sizes together and keep the same number. Each turn of each
contestant is a process of its own, so that the peak of its memory is its own: what the process held at most beyond the
network. Before anything is timed, both masks are compared weight by weight: they may differ only among weights of one
and the same size, of which each may keep others.
"""

import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from claim import arguments, claim, columns, finish, ratios, turns
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from prunery.masks import prunable
from prunery.pruning import prune
from prunery.spec import Prune

DENSITY = 0.1
FASTER, SMALLER = 10.0, 0.5
LINEAR = [(4096, 4096)] * 4 + [(8192, 2048), (2048, 4096), (1024, 4096)]
CONV = [(512, 512, 3), (256, 512, 3)]
DEVIATIONS = [0.02, 0.01, 0.03, 0.02, 0.05, 0.015, 0.025, 0.04, 0.06]
"""of the weights of each layer, so that one ranking cuts them differently"""


@dataclass(frozen=True)
class Turn:
    """One pruning in one process."""

    seconds: float
    peak_mb: float


def built(share: int) -> nn.ModuleList:
    """The layers, or as many with `share` times fewer weights; filled in place, so that building them has no peak."""
    side = round(share**0.5)
    layers = [nn.Linear(i // side, o // side, bias=False, device="meta") for o, i in LINEAR]
    layers += [nn.Conv2d(i // side, o // side, k, bias=False, device="meta") for o, i, k in CONV]
    network = nn.ModuleList(layers).to_empty(device="cpu").requires_grad_(False)
    rng = torch.Generator().manual_seed(0)
    for weight, deviation in zip(network.parameters(), DEVIATIONS, strict=True):
        weight.normal_(0, deviation, generator=rng)
    return network


def weights_of(share: int) -> int:
    return sum(p.numel() for p in built(share).parameters())


def ours(network: nn.ModuleList) -> list[Tensor]:
    return list(prune(prunable(network), None, Prune(density=DENSITY)).values())


def theirs(network: nn.ModuleList) -> list[Tensor]:
    total = sum(layer.weight.numel() for layer in network)
    layers = [(layer, "weight") for layer in network]
    torch_prune.global_unstructured(layers, torch_prune.L1Unstructured, amount=total - round(DENSITY * total))
    return [layer.weight_mask for layer in network]


WAYS: dict[str, Callable[[nn.ModuleList], list[Tensor]]] = {"ours": ours, "theirs": theirs}


def pruned(name: str, share: int, keep: Path | None = None) -> Turn:
    """Build, prune, tell; and keep the mask as bits, if asked."""
    network = built(share)
    before, started = _peak_mb(), time.perf_counter()
    masks = WAYS[name](network)
    turn = Turn(time.perf_counter() - started, _peak_mb() - before)
    held = sum(m.nbytes for m in masks) / 2**20
    assert turn.peak_mb > 0.9 * held, f"a peak of {turn.peak_mb:.0f} MB is less than the masks' own {held:.0f} MB"
    if keep:
        np.save(keep, np.packbits(np.concatenate([m.bool().numpy().ravel() for m in masks])))
    return turn


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def alone(work: Callable[..., Any], *given: Any) -> Any:
    """In a fresh process. It inherits this one's peak as its own, so nothing large may ever happen here."""
    with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (torch.get_num_threads(),)) as pool:
        return pool.apply(work, given)


def verify(share: int) -> int:
    """The same weights are kept, up to ties; says how many the two masks place differently among equals."""
    with TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.npy" for name in WAYS}
        for name, file in files.items():
            alone(pruned, name, share, file)
        return alone(compared, share, files)


def compared(share: int, files: dict[str, Path]) -> int:
    sizes = torch.cat([p.flatten().abs() for p in built(share).parameters()])
    masks = {n: torch.from_numpy(np.unpackbits(np.load(f), count=len(sizes))).bool() for n, f in files.items()}
    assert all(int(m.count_nonzero()) == round(DENSITY * len(sizes)) for m in masks.values()), "the counts differ"
    apart = masks["ours"] != masks["theirs"]
    assert len(sizes[apart].unique()) <= 1, "the masks differ by more than ties"
    assert sizes[masks["ours"]].min() >= sizes[~masks["ours"]].max(), "a smaller weight was kept"
    return int(apart.count_nonzero()) // 2


def measured(share: int, repeats: int) -> dict[str, list[Turn]]:
    found: dict[str, list[Any]] = turns({name: lambda name=name: alone(pruned, name, share) for name in WAYS}, repeats)
    return found


def main() -> None:
    asked = arguments("global magnitude pruning of 100 M weights, against torch.nn.utils.prune")
    share, repeats = (4, 1) if asked.quick else (1, 3)
    weights = alone(weights_of, share)
    ties = verify(share)
    found = measured(share, repeats)
    seconds = {n: [t.seconds for t in each] for n, each in found.items()}
    peaks = {n: [t.peak_mb for t in each] for n, each in found.items()}
    faster, faster_spread = ratios(seconds["theirs"], seconds["ours"])
    smaller, smaller_spread = ratios(peaks["ours"], peaks["theirs"])
    what = f"global magnitude pruning of {weights / 1e6:.1f} M weights to {DENSITY:.0%}, against torch.nn.utils.prune"
    claims = [
        claim(f"{what}: speed", faster, "times", faster_spread, repeats, f">= {FASTER:g}", faster >= FASTER),
        claim(
            f"{what}: peak memory", smaller, "of theirs", smaller_spread, repeats, f"<= {SMALLER}", smaller <= SMALLER
        ),
    ]
    rows = [["contestant", "seconds", "peak MB"]]
    rows += [[n, sorted(seconds[n])[repeats // 2], sorted(peaks[n])[repeats // 2]] for n in WAYS]
    finish(claims, columns(rows), asked, more=f"The masks differ in {ties} places, all among weights of one size.")


if __name__ == "__main__":
    main()
