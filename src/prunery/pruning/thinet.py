"""ThiNet (Luo et al., 1707.06342): channels chosen by what the layers that read them lose, then reweighted.

The output of a reading layer is a sum over its input channels. Sampled at random places, the channels' shares are the
columns of X, and dropping the set T changes the output by the sum of T's columns: its square is a sum over the Gram
matrix of X. So the greedy choice (algorithm 1) and the least squares behind it (equation 7) need that matrix alone.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..masks import Mask
from ..spec import Refused
from .evidence import Batches, watching
from .groups import Group, Slice

SAMPLES = 10
"""places sampled in each image, as in the paper"""
RIDGE = 1e-6


def grams(network: nn.Module, group: Group, batches: Batches, rng: torch.Generator) -> dict[str, Tensor]:
    """By reading layer, the Gram matrix [units, units] of the channels' shares of its output."""
    readers = {s.parameter: s for s in group.slices if s.role == "in"}
    layers = {network.get_submodule(n.rpartition(".")[0]): n for n in readers}
    _readable(layers, group)
    found = {n: torch.zeros(group.units, group.units, dtype=torch.float64) for n in readers}

    def note(module: nn.Module, x: Tensor) -> None:
        name = layers[module]
        shares = _shares(module, readers[name], x.detach().float(), rng).double()
        found[name] += (shares.T @ shares).cpu()

    watching(network, list(layers), batches, note)
    usable = {n: g for n, g in found.items() if float(g.abs().max()) > 0}
    if not usable:
        raise Refused(f"thinet: no layer that reads {group.name} shows inputs; exclude it, or use criterion l1")
    return usable


def _readable(layers: dict[nn.Module, str], group: Group) -> None:
    """Layers whose output is a sum over the channels that they read."""
    for layer, name in layers.items():
        if not (isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)):
            kind = f"{type(layer).__name__}{' in groups' * (getattr(layer, 'groups', 1) > 1)}"
            raise Refused(
                f"thinet: {name.removesuffix('.weight')} reads {group.name} and is a {kind}; expected linear layers "
                f"and plain 2-d convolutions: exclude {group.name}, or use criterion l1"
            )


def _shares(module: nn.Module, part: Slice, x: Tensor, rng: torch.Generator) -> Tensor:
    """[samples, units]: what each unit adds to randomly chosen numbers of a layer's output."""
    if isinstance(module, nn.Linear):
        rows = x.flatten(0, -2)
        columns, weight = rows, module.weight.detach().float()
        filters = torch.randint(len(weight), (len(rows) * SAMPLES,), generator=rng)
        each = columns.repeat_interleave(SAMPLES, 0) * weight[filters]
        return each[:, part.places].sum(2)
    assert isinstance(module, nn.Conv2d)
    return _convolved(module, part, x, rng)


def _convolved(module: nn.Conv2d, part: Slice, x: Tensor, rng: torch.Generator) -> Tensor:
    """The window under each sampled place times its filter, summed within each channel."""
    (kh, kw), (sh, sw), (dh, dw) = module.kernel_size, module.stride, module.dilation
    padding = module.padding if isinstance(module.padding, tuple) else _same(module)
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    high, wide = (x.shape[2] - dh * (kh - 1) - 1) // sh + 1, (x.shape[3] - dw * (kw - 1) - 1) // sw + 1
    n = len(x) * SAMPLES
    image = torch.arange(len(x)).repeat_interleave(SAMPLES)
    top, left = (torch.randint(s, (n,), generator=rng) * step for s, step in ((high, sh), (wide, sw)))
    filters = torch.randint(module.out_channels, (n,), generator=rng)
    rows = top.view(-1, 1, 1) + torch.arange(kh).view(1, -1, 1) * dh
    columns = left.view(-1, 1, 1) + torch.arange(kw).view(1, 1, -1) * dw
    windows = x[image.view(-1, 1, 1), :, rows, columns].permute(0, 3, 1, 2)
    each = (windows * module.weight.detach().float()[filters]).sum((2, 3))
    return each[:, part.places].sum(2)


def _same(module: nn.Conv2d) -> tuple[int, int]:
    if module.padding == "valid":
        return 0, 0
    return tuple(d * (k - 1) // 2 for k, d in zip(module.kernel_size, module.dilation, strict=True))  # type: ignore[return-value]


def removal(network: nn.Module, groups: Sequence[Group], batches: Batches, rng: torch.Generator) -> dict[str, Tensor]:
    """By group, each unit's place in the order in which the greedy choice removes them: the first to go has 0."""
    return {g.name: _order(sum(_normed(m) for m in grams(network, g, batches, rng).values())) for g in groups}  # type: ignore[arg-type]


def _normed(gram: Tensor) -> Tensor:
    """Relative to the layer's own output, so that several readers have equal say."""
    return gram / gram.sum().abs().clamp_min(1e-12) if float(gram.sum()) > 0 else gram


def _order(gram: Tensor) -> Tensor:
    """Always the channel next whose going, with all that have gone, changes the output least."""
    cross = torch.zeros(len(gram), dtype=gram.dtype)  # what the removed ones share with each channel
    place = torch.full((len(gram),), -1.0)
    for i in range(len(gram)):
        rise = gram.diagonal() + 2 * cross
        j = int(rise.masked_fill(place >= 0, torch.inf).argmin())
        place[j] = i
        cross += gram[j]
    return place


def reweighted(
    network: nn.Module, group: Group, keep: Tensor, batches: Batches, rng: torch.Generator
) -> dict[str, Tensor]:
    """New weights of the reading layers: kept channels scaled so that their sum is nearest to the whole output."""
    weights = dict(network.named_parameters())
    found = {}
    for name, gram in grams(network, group, batches, rng).items():
        (part,) = [s for s in group.slices if s.role == "in" and s.parameter == name]
        factors = _least_squares(gram, keep)
        new = weights[name].detach().clone()
        shape = [1] * new.ndim
        shape[part.axis] = -1
        scale = torch.ones(new.shape[part.axis], dtype=torch.float64)
        scale[part.places[keep].flatten()] = factors.repeat_interleave(part.places.shape[1])
        found[name] = (new * scale.to(new).view(shape)).contiguous()
    return found


def _least_squares(gram: Tensor, keep: Tensor) -> Tensor:
    """argmin |X 1 - X_keep a|, with a touch of ridge towards a = 1 where channels say the same."""
    inner = gram[keep][:, keep]
    ridge = RIDGE * inner.diagonal().mean().clamp_min(1e-12) * torch.eye(len(inner), dtype=gram.dtype)
    target = gram[keep].sum(1) + ridge.diagonal()
    return torch.linalg.solve(inner + ridge, target)


def kept_units(group: Group, mask: Mask) -> Tensor:
    """Which units of a group a mask keeps."""
    (part, *_) = [s for s in group.slices if s.role == "out"]
    rows = mask[part.parameter].movedim(part.axis, 0)[part.places.flatten()]
    return rows.reshape(group.units, -1).any(1)
