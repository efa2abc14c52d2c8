"""Where a network's time goes: milliseconds, multiply-adds, parameters and density, block by block or layer by layer.

Times are of PyTorch's forward pass in evaluation mode. Hooks before and after each part read the clock, in turns with
the whole pass without hooks; what is told are medians. What lies between the parts (sums of branches, functions) is a
row of its own, so the rows add up to the pass with hooks; the pass without them says what the clock itself costs.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..masks import Mask
from ..models import block_names
from ..runtime import Layer, Packed
from ..spec import Refused
from ..train import frozen
from .count import Row, count

BETWEEN = "(between)"
WARM = 2


@dataclass(frozen=True)
class Part:
    """One block or layer, its numbers for the whole batch."""

    name: str
    type: str
    ms: float
    multiply_adds: int | None
    kept_multiply_adds: int
    parameters: int | None
    """a packed file knows neither, only what its kernels make"""
    kept: int | None
    density: float | None
    """kept over prunable weights; nothing where there are none"""


@dataclass(frozen=True)
class Profile:
    """The parts, and how long the whole takes without anybody looking."""

    parts: list[Part]
    whole_ms: float
    repeats: int

    @property
    def sum_ms(self) -> float:
        return sum(part.ms for part in self.parts)

    @property
    def difference(self) -> float:
        """What the sum is above (or below) the whole, as a share of it."""
        return self.sum_ms / self.whole_ms - 1


def profile(
    network: nn.Module,
    input: tuple[int, int, int],
    batch: int = 1,
    masks: Mask | None = None,
    repeats: int = 20,
    layers: bool = False,
) -> Profile:
    """Every block of a network, or every layer; on the threads that PyTorch is set to."""
    names = _leaves(network) if layers else block_names(network)
    rows = _counted(network, input, batch, masks)
    x = torch.randn(batch, *input, generator=torch.Generator().manual_seed(0))
    with _looked_at(network, names) as spans:
        whole, times = _timed(network, x.to(_like(network)), spans, repeats)
    parts = [_part(n, network, rows, times.get(n, 0.0)) for n in names if n in times or _inside(rows, n)]
    rest = [r for r in rows if not any(_of(r.name, n) for n in names)]
    between = _sums(BETWEEN, "", times[BETWEEN], rest)
    return Profile([*parts, between], whole, repeats)


def _leaves(network: nn.Module) -> list[str]:
    return [n for n, m in network.named_modules() if not any(True for _ in m.children())]


def _like(network: nn.Module) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("cpu"))


def _counted(network: nn.Module, input: tuple[int, int, int], batch: int, masks: Mask | None) -> list[Row]:
    try:
        return count(network, input, batch, masks)
    except Refused:
        raise
    except Exception as error:
        size, reason = "x".join(map(str, input)), " ".join(str(error).split())[:200] or type(error).__name__
        raise Refused(f"the network cannot take inputs of {size} ({reason}); choose another --input") from None


def _of(name: str, block: str) -> bool:
    return name == block or block == "" or name.startswith(f"{block}.")


def _inside(rows: list[Row], block: str) -> bool:
    return any(_of(r.name, block) and r.parameters for r in rows)


def _part(name: str, network: nn.Module, rows: list[Row], ms: float) -> Part:
    kind = type(network.get_submodule(name)).__name__
    return _sums(name or "(all)", kind, ms, [r for r in rows if _of(r.name, name)])


def _sums(name: str, type_: str, ms: float, rows: list[Row]) -> Part:
    fields = ("multiply_adds", "kept_multiply_adds", "parameters", "kept", "prunable", "prunable_kept")
    work, kept_work, parameters, kept, prunable, left = (sum(getattr(r, f) for r in rows) for f in fields)
    return Part(name, type_, ms, work, kept_work, parameters, kept, left / prunable if prunable else None)


@contextmanager
def _looked_at(network: nn.Module, names: list[str]) -> Iterator["_Spans"]:
    """Hooks that only work while the spans are open, and evaluation mode without gradients."""
    spans, handles = _Spans(), []
    for name in names:
        module = network.get_submodule(name)
        handles += [module.register_forward_pre_hook(spans.begin(name)), module.register_forward_hook(spans.end(name))]
    try:
        with frozen(network):
            yield spans
    finally:
        for handle in handles:
            handle.remove()


class _Spans:
    """Seconds of each part in one pass; a part that is called twice takes both."""

    def __init__(self) -> None:
        self.open, self.seconds, self.began = False, dict[str, float](), dict[str, float]()

    def begin(self, name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            if self.open:
                self.began[name] = time.perf_counter()

        return hook

    def end(self, name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            if self.open:
                took = time.perf_counter() - self.began[name]
                self.seconds[name] = self.seconds.get(name, 0.0) + took

        return hook


def _timed(network: nn.Module, x: Tensor, spans: _Spans, repeats: int) -> tuple[float, dict[str, float]]:
    """Median milliseconds of the whole pass unwatched, and of each part watched, pass by pass in turns."""
    whole: list[float] = []
    seen: list[dict[str, float]] = []
    for turn in range(WARM + repeats):
        spans.open = False
        unwatched = _clocked(network, x)
        spans.open, spans.seconds = True, {}
        watched = _clocked(network, x)
        if turn >= WARM:
            whole.append(unwatched)
            seen.append(spans.seconds | {BETWEEN: max(0.0, watched - sum(spans.seconds.values()))})
    names = {name for each in seen for name in each}
    medians = {n: 1e3 * statistics.median(each.get(n, 0.0) for each in seen) for n in names}
    return 1e3 * statistics.median(whole), medians


def _clocked(network: nn.Module, x: Tensor) -> float:
    start = time.perf_counter()
    network(x)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - start


def packed_profile(
    packed: Packed, network: nn.Module | None, batch: int = 1, repeats: int = 20, layers: bool = False
) -> Profile:
    """The steps of a packed file, added up over the blocks of the network that it was made of, where that is known.

    Of each step the fastest repeat, as the engine measures it, and so of the whole.
    """
    many = packed.memory(True)["images"]
    if batch not in (1, many):
        raise Refused(f"--batch = {batch}: this file computes 1 or {many} images at a time; expected one of the two")
    steps = packed.explain(batch > 1, repeats)
    x = torch.randn(batch, *packed.input_shape, generator=torch.Generator().manual_seed(0)).numpy()
    x = x.astype(packed.input_type)
    whole = min(_seconds(lambda: packed(x, 1)) for _ in range(WARM + repeats))
    names = block_names(network) if network is not None and not layers else []
    groups: dict[str, list[Layer]] = {}
    for step in steps:
        groups.setdefault(next((n for n in names if _of(step.name, n)), step.name), []).append(step)
    return Profile([_steps(name, group, batch) for name, group in groups.items()], 1e3 * whole, repeats)


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _steps(name: str, group: list[Layer], batch: int) -> Part:
    """What a packed file knows: the products that its kernels make, and the density of a part of one layer."""
    kernels = ", ".join(dict.fromkeys(step.kernel for step in group))
    ms = sum(step.measured_us or 0.0 for step in group) / 1e3
    worked = [step for step in group if step.multiply_adds]
    made = batch * round(sum(step.multiply_adds for step in worked))
    return Part(name, kernels, ms, None, made, None, None, worked[0].density if len(worked) == 1 else None)
