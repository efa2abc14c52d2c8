"""Steps that fit: from the weights themselves, and from what layers see of typical images."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from .fake import SMALLEST, Bits, Codebook, Quantiser, quantised_layers, wear_

SAMPLE = 1 << 15
"""numbers of a layer's inputs that are looked at"""
CANDIDATES, ROUNDS = 80, 40
"""steps that are tried, up to the one that just reaches the largest number; rounds of k-means"""


def quantised_(network: nn.Module, plan: Mapping[str, Bits], batches: Iterable[Tensor]) -> None:
    """Quantisers on layers, in place, with steps of the smallest mean squared error; inputs that are never negative are
    taken to be so."""
    seen = inputs_of(network, plan, batches)
    wear_(network, {n: replace(bits, signed=bool((seen[n] < 0).any())) for n, bits in plan.items()})
    for name, layer in quantised_layers(network).items():
        if name in plan:
            if layer.input_quantiser:
                _fit_(layer.input_quantiser, seen[name].view(1, -1))
            rows = layer.weight.detach()
            if isinstance(layer.weight_quantiser, Codebook):
                _share_(layer.weight_quantiser, rows)
                continue
            _fit_(layer.weight_quantiser, rows.flatten(1) if layer.bits.per == "channel" else rows.view(1, -1))


def inputs_of(network: nn.Module, layers: Iterable[str], batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Some of the numbers that each layer reads, evenly spaced."""
    found: dict[str, list[Tensor]] = {n: [] for n in layers}

    def look(name: str, x: Tensor) -> None:
        flat = x.detach().float().flatten()
        found[name].append(torch.cat([flat[:: max(1, len(flat) // SAMPLE)], flat.max()[None], flat.min()[None]]))

    handles = [network.get_submodule(n).register_forward_pre_hook(lambda _, args, n=n: look(n, args[0])) for n in found]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()
            for x in batches:
                network(x)
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return {n: torch.cat(parts) if parts else torch.zeros(1) for n, parts in found.items()}


def _fit_(quantiser: Quantiser, rows: Tensor) -> None:
    """The best step of each row."""
    found = best_steps(rows, quantiser.low, quantiser.high, quantiser.binary)
    with torch.no_grad():
        quantiser.step.copy_(found.view(quantiser.step.shape))


def best_steps(rows: Tensor, low: int, high: int, binary: bool = False) -> Tensor:
    """For each row the step with the smallest mean squared error; a row of nothing has a step of 1."""
    if binary:
        count = (rows != 0).sum(1).clamp(min=1)
        return torch.where(rows.abs().sum(1) > 0, rows.abs().sum(1) / count, 1.0)
    reach = torch.maximum(rows.amax(1) / high, rows.amin(1) / low if low else torch.zeros(len(rows)))
    best, least = reach.clone(), torch.full_like(reach, float("inf"))
    for i in range(1, CANDIDATES + 1):
        step = (reach * i / CANDIDATES).clamp(min=SMALLEST)[:, None]
        error = ((rows / step).round().clamp(low, high) * step - rows).square().mean(1)
        best = torch.where(error < least, step[:, 0], best)
        least = torch.minimum(error, least)
    return torch.where(reach > 0, best, 1.0)


def _share_(book: Codebook, weight: Tensor) -> None:
    """Values and codes by k-means; what is zero stays zero."""
    values, codes = clustered(weight[weight != 0], len(book.values))
    with torch.no_grad():
        book.values.copy_(values)
        assert book.codes is not None
        book.codes.masked_scatter_(weight != 0, (codes + 1).to(torch.uint8))


def clustered(numbers: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """So many values and the nearest one's number for each: Lloyd's rounds from evenly spread ones."""
    if not len(numbers):
        return torch.zeros(count), torch.zeros(0, dtype=torch.int64)
    values = torch.linspace(float(numbers.min()), float(numbers.max()), count)
    for _ in range(ROUNDS):
        codes = torch.bucketize(numbers, (values[1:] + values[:-1]) / 2)
        sizes = torch.bincount(codes, minlength=count)
        means = torch.zeros(count).index_add_(0, codes, numbers) / sizes.clamp(min=1)
        values = torch.where(sizes > 0, means, values).sort().values
    return values, torch.bucketize(numbers, (values[1:] + values[:-1]) / 2)
