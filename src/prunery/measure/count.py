"""Parameters and multiply-adds, layer by layer. The definition, ours and tested, since no two counters agree:

- *multiply-adds* are the products of convolutions, linear layers and matrix products (attention's too), for the whole
  batch: for each output number as many as the sum behind it has terms, those that meet padding included;
- *bias adds* stand apart: one for each output number of a convolution or linear layer that has a bias;
- element-wise arithmetic, normalisation, activations, pooling and resampling count nothing;
- *kept* multiply-adds are those that meet a kept weight: in a convolution or linear layer every weight is used equally
  often, so the share is exact; a weight that is zero without a mask saying so is kept.

What is counted is what the network really computes (functional calls included), each operation in the innermost module
that was running; each row holds its own share and not that of the modules inside it, so a total is a sum over rows.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..masks import PRUNABLE, Mask
from ..models import probe
from ..spec import Refused, choose

aten = torch.ops.aten
FLOAT32 = 4


@dataclass(frozen=True)
class Row:
    """One call of one module; a second call of the same module has a row without parameters."""

    name: str
    type: str
    depth: int
    index: int
    output: tuple[int, ...]
    parameters: int
    kept: int
    multiply_adds: int
    kept_multiply_adds: int
    bias_adds: int
    prunable: int
    prunable_kept: int
    trainable: int = 0
    input: tuple[int, ...] = ()


def count(network: nn.Module, input: tuple[int, ...], batch: int = 1, masks: Mask | None = None) -> list[Row]:
    """A row for each call of a module in the order of execution, the network first, modules never called last."""
    _match(masks or {}, network)
    kept = {name: (int(mask.sum()), mask.numel()) for name, mask in (masks or {}).items()}
    runs: list[_Run] = []

    @contextmanager
    def watch(seen: nn.Module) -> Iterator[None]:
        runs.append(_Run(seen, kept))
        with runs[-1].hooked(), _Products(runs[-1]):
            yield

    probe(network, input, batch, watch)
    return runs[-1].rows()


def totals(rows: list[Row]) -> dict[str, Any]:
    """The sums over all rows, and the bytes that a dense float32 network needs."""
    names = ("parameters", "trainable", "multiply_adds", "kept_multiply_adds", "bias_adds", "prunable", "prunable_kept")
    sums = {name: sum(getattr(row, name) for row in rows) for name in names}
    return sums | {
        "kept_parameters": sum(row.kept for row in rows),
        "density": sums["prunable_kept"] / sums["prunable"] if sums["prunable"] else 1.0,
        "input_bytes": FLOAT32 * math.prod(rows[0].input),
        # As torchinfo has it: the outputs of layers with parameters, once forward and once for their gradients.
        "forward_bytes": 2 * FLOAT32 * sum(math.prod(row.output) for row in rows if row.parameters and row.output),
        "params_bytes": FLOAT32 * sums["parameters"],
    }


def _match(masks: Mask, network: nn.Module) -> None:
    shapes = {name: p.shape for name, p in network.named_parameters(remove_duplicate=False)}
    for name, mask in masks.items():
        expected = shapes[choose(name, shapes, "a mask's name")]
        if mask.shape != expected:
            raise Refused(f"the mask of {name} has shape {list(mask.shape)}; expected its weight's, {list(expected)}")


@dataclass
class _Call:
    """A module's call while it runs."""

    name: str
    module: nn.Module
    depth: int
    index: int
    input: tuple[int, ...]
    output: tuple[int, ...] = ()
    tally: Counter[str] = field(default_factory=Counter)


class _Run:
    """One forward pass: the calls so far, and those that have not returned."""

    def __init__(self, network: nn.Module, kept: dict[str, tuple[int, int]]) -> None:
        self.network = network
        self.names = {module: name for name, module in network.named_modules()}
        parameters = dict(network.named_parameters(remove_duplicate=False))
        self.kept = {id(parameters[name]): numbers for name, numbers in kept.items()}
        self.stored = {_storage(parameters[name]): numbers for name, numbers in kept.items()}
        self.parameters = set(map(_storage, parameters.values()))
        self.linear: Tensor | None = None
        self.calls: list[_Call] = []
        self.open: list[_Call] = []
        self.indices: Counter[int] = Counter()

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Every module reports when it begins and when it ends, also by an error that somebody catches."""
        handles = [m.register_forward_pre_hook(self.enter) for m in self.names]
        handles += [m.register_forward_hook(self.leave, always_call=True) for m in self.names]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        call = self.call(module, len(self.open), _shape(args))
        self.open.append(call)

    def call(self, module: nn.Module, depth: int, input: tuple[int, ...] = ()) -> _Call:
        self.indices[depth] += 1
        self.calls.append(_Call(self.names[module], module, depth, self.indices[depth] if depth else 0, input))
        return self.calls[-1]

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.open.pop().output = _shape(output)

    def multiplied(self, products: int, bias_adds: int, operands: tuple[Tensor, ...]) -> None:
        """Credit the innermost call with an operation on these operands."""
        if not self.open:
            return
        kept, size = self._share(operands, self.open[-1].module)
        more = {"products": products, "kept": products * kept // size if size else 0, "biases": bias_adds}
        self.open[-1].tally.update(more)

    def _share(self, operands: tuple[Tensor, ...], module: nn.Module) -> tuple[int, int]:
        """Kept and all weights of the masked operand: a parameter, or what its layer made of it (standardised, say)."""
        found = next((self.stored[s] for s in map(_storage, operands) if s in self.stored), None)
        own = self.kept.get(id(getattr(module, "weight", None)))
        return found or (own if own and any(t.numel() == own[1] for t in operands) else (1, 1))

    def rows(self) -> list[Row]:
        """What was seen, and then the modules with parameters of their own that nobody called."""
        called = {call.module for call in self.calls}
        for module in self.names:
            if module not in called and any(True for _ in module.parameters(recurse=False)):
                self.call(module, depth=1)
        seen: set[int] = set()
        return [self._row(call, seen) for call in self.calls]

    def _row(self, call: _Call, seen: set[int]) -> Row:
        """Parameters belong to the first call that has them."""
        own = {n: p for n, p in call.module.named_parameters(recurse=False) if id(p) not in seen}
        seen.update(map(id, own.values()))
        kept = {n: self.kept.get(id(p), (p.numel(), 0))[0] for n, p in own.items()}
        prunable = isinstance(call.module, PRUNABLE) and "weight" in own
        return Row(
            call.name, type(call.module).__name__, call.depth, call.index, call.output,
            sum(p.numel() for p in own.values()), sum(kept.values()),
            call.tally["products"], call.tally["kept"], call.tally["biases"],
            own["weight"].numel() if prunable else 0, kept["weight"] if prunable else 0,
            sum(p.numel() for p in own.values() if p.requires_grad), call.input,
        )  # fmt: skip


def _shape(value: Any) -> tuple[int, ...]:
    """Of a tensor, or of the first one in what a module takes or gives."""
    if isinstance(value, Tensor):
        return tuple(value.shape)
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return next((s for s in map(_shape, values) if s), ())


def _storage(tensor: Tensor) -> int:
    """The memory behind a tensor and all its views; a parameter is known by it even when it comes transposed."""
    return tensor.untyped_storage()._cdata


class _Products(TorchDispatchMode):
    """Sees every operation that the network ends up with."""

    def __init__(self, run: _Run) -> None:
        super().__init__()
        self.run = run

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        rule = RULES.get(func.overloadpacket)
        if rule:
            products, bias_adds = rule(self.run, out, *args)
            if products or bias_adds:
                self.run.multiplied(products, bias_adds, tuple(a for a in args if isinstance(a, Tensor)))
        return out


def _convolution(run: _Run, out: Tensor, x: Tensor, weight: Tensor, bias: Any = None, *more: Any) -> tuple[int, int]:
    """Each output has weight[0].numel() terms; transposed, each input goes into as many."""
    transposed = more[3]
    return (x if transposed else out).numel() * weight[0].numel(), out.numel() if bias is not None else 0


def _matmul(run: _Run, out: Tensor, a: Tensor, b: Tensor, *more: Any) -> tuple[int, int]:
    run.linear = out if {_storage(a), _storage(b)} & run.parameters else None
    return out.numel() * a.shape[-1], 0


def _addmm(run: _Run, out: Tensor, start: Tensor, a: Tensor, b: Tensor, *more: Any) -> tuple[int, int]:
    """What a linear layer with a bias becomes; a start that is no vector is element-wise arithmetic."""
    return out.numel() * a.shape[-1], out.numel() if start.dim() == 1 else 0


def _attention(run: _Run, out: Any, q: Tensor, k: Tensor, v: Tensor, *more: Any) -> tuple[int, int]:
    """Queries with keys, then their weights with values."""
    return q.numel() * k.shape[-2] + q[..., 0].numel() * k.shape[-2] * v.shape[-1], 0


def _add(run: _Run, out: Tensor, a: Any, b: Any, *more: Any) -> tuple[int, int]:
    """A linear layer on many axes adds its bias in a step of its own, right after the product with its weight."""
    product, run.linear = run.linear, None
    vector = product is not None and isinstance(b, Tensor) and b.dim() == 1 and _storage(a) == _storage(product)
    return 0, out.numel() if vector else 0


RULES: dict[Any, Callable[..., tuple[int, int]]] = {
    aten.convolution: _convolution, aten.mm: _matmul, aten.bmm: _matmul, aten.mv: _matmul, aten.dot: _matmul,
    aten.addmm: _addmm, aten.baddbmm: _addmm, aten.addmv: lambda run, out, start, a, b, *more: _matmul(run, out, a, b),
    aten.add: _add, aten.add_: _add,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention, aten._scaled_dot_product_flash_attention: _attention,
    aten._scaled_dot_product_efficient_attention: _attention, aten._scaled_dot_product_cudnn_attention: _attention,
}  # fmt: skip
