"""Channels that are gone, on somebody else's run time: multiply-adds saved beside milliseconds saved in ONNX Runtime.

Five networks lose the same share of every group of coupled channels and are really made smaller (`shrink`), once as
they come and once with widths rounded up to multiples of 8. Each is exported to ONNX, compared with PyTorch (1e-4 of
the largest output) and timed on one thread at batch 1, all in turn; a gain is the median of the turn-by-turn ratios to
the dense network. The weights are random: which channels go does not matter for time, and nothing is said of accuracy.
ONNX Runtime's own profile of each network says where multiply-adds and milliseconds part.
"""

import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from claim import arguments, claim, columns, finish, ratios, turns
from torch import Tensor, nn

from prunery.masks import Mask
from prunery.measure import count
from prunery.models import build, default_input
from prunery.pruning import Group, groups, shrink, unit_mask
from prunery.spec import Model

try:
    import onnx
    import onnxruntime as ort
    import onnxscript  # noqa: F401  (torch.onnx.export needs it)

    MISSING = None
except ImportError as error:
    MISSING = error.name

NETWORKS = ("resnet18", "resnet20", "mobilenet_v2", "efficientnet_b0", "vgg16_bn")
DENSITIES, MULTIPLES = (0.7, 0.5, 0.3), (1, 8)
EQUAL = 1e-4
TARGET = 2.0
STRETCH_MS = 60.0


@dataclass
class Facts:
    """Where a network's time goes, by ONNX Runtime's profile: shares only, since profiling takes time of its own."""

    us: dict[str, float]
    """microseconds in convolutions, depthwise ones, matrix products, and all other operators"""
    operators: int
    convolutions: int
    blocked: int
    """convolutions in ONNX Runtime's blocked layout of channels"""

    def share(self, kind: str) -> float:
        return self.us.get(kind, 0.0) / sum(self.us.values())


@dataclass
class Contestant:
    """A network in ONNX Runtime."""

    density: float
    multiple: int
    run: Callable[[], Any]
    facts: Facts
    difference: float
    work: dict[str, float]
    """multiply-adds by kind of operator"""
    uneven: int
    """convolutions whose number of outputs is no multiple of 8"""
    megabytes: float
    """of weights"""

    @property
    def label(self) -> str:
        rounded = f", in {self.multiple}s" if self.multiple > 1 else ""
        return "dense" if self.density == 1 else f"{self.density:g}{rounded}"

    @property
    def multiply_adds(self) -> float:
        return sum(self.work.values())


def main() -> None:
    asked = arguments(__doc__, only="", repeats="")
    if MISSING:
        sys.exit(f"{MISSING} is missing; install what this benchmark needs: pip install 'prunery[onnx]'")
    torch.set_num_threads(1)
    names = ["resnet20"] if asked.quick else [n for n in NETWORKS if asked.only in n]
    densities = (0.5,) if asked.quick else DENSITIES
    repeats = int(asked.repeats or (5 if asked.quick else 15))
    found = {}
    for name in names:
        found[name] = timed(contestants(name, densities), repeats)
        if not asked.json:
            print(f"{name}: {', '.join(f'{c.label} {g[0]:.3g}x' for c, _, g in found[name])}", flush=True)
    told = "\n".join(reasons(found))
    if not asked.json:
        print(told + "\n")
    finish(claims(found, repeats), table(found), asked, more=told)


def contestants(name: str, densities: tuple[float, ...]) -> list[Contestant]:
    """The dense network and its smaller ones."""
    shape, classes = default_input(name)
    network = settled(build(Model(name=name, input=shape, classes=classes), 0), shape)
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    free = [g for g in groups(network, x) if not g.protected]
    made = [contestant(network, x, 1.0, 1)]
    for density in densities:
        masks = masked(network, free, density)
        made += [contestant(shrink(network, masks, x, m)[0], x, density, m) for m in MULTIPLES]
    return made


def settled(network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Normalisations that fit random weights, so that signals neither die nor grow on their way."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(torch.randn(8, *shape, generator=torch.Generator().manual_seed(2)))
    return network.eval()


def masked(network: nn.Module, free: list[Group], density: float) -> Mask:
    """The first units of each group stay."""
    shapes = {n: tuple(p.shape) for n, p in network.named_parameters()}
    masks: Mask = {}
    for group in free:
        keep = torch.arange(group.units) < max(1, round(density * group.units))
        for n, m in unit_mask(group, keep, shapes).items():
            masks[n] = masks[n] & m if n in masks else m
    return masks


def contestant(network: nn.Module, x: Tensor, density: float, multiple: int) -> Contestant:
    """Exported, compared with PyTorch, profiled, and ready to run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        program = torch.onnx.export(network, (x,), dynamo=True, verbose=False)
        assert program is not None
        program.save(path)
        session = opened(path)
        facts = profiled(path, x)
    feed = {session.get_inputs()[0].name: x.numpy()}
    with torch.no_grad():
        want = network(x)
    difference = float((torch.from_numpy(session.run(None, feed)[0]) - want).abs().max() / want.abs().max())
    if not difference <= EQUAL:
        sys.exit(f"ONNX Runtime computes something else at density {density:g} ({difference:.1e}, allowed {EQUAL:g})")
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    return Contestant(
        density, multiple, partial(session.run, None, feed), facts, difference, work(network, x),
        sum(m.out_channels % 8 > 0 for m in convolutions), sum(p.numel() for p in network.parameters()) * 4e-6,
    )  # fmt: skip


def opened(path: Path, **more: Any) -> "ort.InferenceSession":
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # it warns that an optimised graph is this machine's own, which is what we look at
    for key, value in more.items():
        setattr(options, key, value)
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def profiled(path: Path, x: Tensor, runs: int = 21) -> Facts:
    """A profile of some runs behind a first one, and what became of the convolutions."""
    graph = path.with_name("optimised.onnx")
    more = {
        "enable_profiling": True,
        "profile_file_prefix": str(path.with_suffix("")),
        "optimized_model_filepath": str(graph),
    }
    session = opened(path, **more)
    for _ in range(runs + 1):
        session.run(None, {session.get_inputs()[0].name: x.numpy()})
    events = [e for e in json.loads(Path(session.end_profiling()).read_text()) if e.get("cat") == "Node"]
    events = [e for e in events if e["name"].endswith("_kernel_time")]
    each = len(events) // (runs + 1)
    us: dict[str, float] = defaultdict(float)
    for place in range(each):
        # Another process may have had the processor in the middle of an operator: one such time outweighs all others.
        us[kind_of(events[place]["args"])] += median(e["dur"] for e in events[each + place :: each])
    nodes = [n for n in onnx.load(graph, load_external_data=False).graph.node if n.op_type in ("Conv", "FusedConv")]
    return Facts(us, each, len(nodes), sum(n.domain.endswith("nchwc") for n in nodes))


def kind_of(args: dict[str, Any]) -> str:
    """Depthwise convolutions are those whose weight [channels, 1, ...] sees one input channel of many."""
    if args["op_name"] in ("Conv", "FusedConv"):
        inputs, weight = (next(iter(t.values())) for t in args["input_type_shape"][:2])
        return "depthwise" if weight[1] == 1 and inputs[1] > 1 else "convolution"
    return "product" if args["op_name"] in ("Gemm", "FusedGemm", "MatMul") else "other"


def work(network: nn.Module, x: Tensor) -> dict[str, float]:
    """Multiply-adds by the kind of operator that they are in."""
    found: dict[str, float] = defaultdict(float)
    for row in count(network, tuple(x.shape[1:])):
        module = network.get_submodule(row.name)
        if isinstance(module, nn.Conv2d):
            found["depthwise" if module.groups == module.in_channels > 1 else "convolution"] += row.multiply_adds
        else:
            found["product"] += row.multiply_adds
    return found


Result = tuple[Contestant, list[float], tuple[float, str]]
"""a network, its milliseconds in each turn, and how many times faster than the dense one it is"""
Timed = list[Result]


def timed(made: list[Contestant], repeats: int) -> Timed:
    """Milliseconds of each, and the gain over the first, all in turn."""
    stretches = {c.label: partial(stretch_ms, c.run) for c in made}
    turns(stretches, 1)  # warms up
    took = turns(stretches, repeats)
    return [(c, took[c.label], ratios(took["dense"], took[c.label])) for c in made]


def stretch_ms(run: Callable[[], Any]) -> float:
    """The median of the runs that fit into a short time."""
    each: list[float] = []
    while len(each) < 3 or sum(each) < STRETCH_MS:
        start = time.perf_counter()
        run()
        each.append(1e3 * (time.perf_counter() - start))
    return median(each)


def table(found: dict[str, Timed]) -> str:
    head = [
        "network",
        "channels",
        "Mmult-adds",
        "fewer",
        "ms",
        "faster",
        "range",
        "uneven",
        "blocked",
        "depthwise",
        "other",
    ]
    rows: list[list[Any]] = [head]
    for name, results in found.items():
        dense = results[0][0]
        for c, ms, (gain, spread) in results:
            fewer = dense.multiply_adds / c.multiply_adds
            shares = [f"{c.facts.share(kind):.0%}" for kind in ("depthwise", "other")]
            blocked = f"{c.facts.blocked}/{c.facts.convolutions}"
            rows.append(
                [name, c.label, c.multiply_adds / 1e6, fewer, median(ms), gain, spread, c.uneven, blocked, *shares]
            )
    return columns(rows)


LEGEND = """fewer: multiply-adds of the dense network over these. faster: its milliseconds over these, with the range
over turns. uneven: convolutions whose outputs are no multiple of 8. blocked: convolutions in ONNX Runtime's blocked
layout. depthwise, other: shares of the profiled time in depthwise convolutions, and in operators without multiply-adds.
"""


def reasons(found: dict[str, Timed]) -> list[str]:
    """What the columns mean, and for each smaller network where multiply-adds and milliseconds part."""
    lines = [LEGEND]
    for name, (dense, *others) in found.items():
        lines += [f"- {name} at {thin[0].label}: {why(dense, thin)}" for thin in others]
    return lines


def why(dense: Result, thin: Result) -> str:
    """A sentence from measured facts alone."""
    (whole, *_), (left, _, (gain, _)) = dense, thin
    fewer = whole.multiply_adds / left.multiply_adds
    seen = f"{fewer:.2f} times fewer multiply-adds, {gain:.2f} times faster"
    if abs(gain / fewer - 1) < 0.1:
        return f"{seen}: they agree."
    before, now, parts = whole.facts, left.facts, []
    for kind, words in (("convolution", "ordinary convolutions"), ("product", "linear layers")):
        if max(before.share(kind), now.share(kind)) >= 0.1:
            parts.append(
                f"{words} do {rate(thin, kind):.3g} multiply-adds a nanosecond (dense {rate(dense, kind):.3g})"
            )
    if now.blocked / now.convolutions < before.blocked / before.convolutions:
        kept = f"{now.blocked} of {now.convolutions} convolutions"
        parts.append(f"{kept} keep the blocked layout, {left.uneven} have uneven widths")
    if now.share("depthwise") >= 0.1:
        share = f"{left.work['depthwise'] / left.multiply_adds:.0%} of the multiply-adds"
        parts.append(f"depthwise convolutions, {share}, take {now.share('depthwise'):.0%} of the time")
    if now.share("other") >= 0.1:
        parts.append(
            f"operators without multiply-adds take {now.share('other'):.0%} (dense {before.share('other'):.0%})"
        )
    parts += [f"each of {now.operators} operators takes {each_us(thin):.0f} microseconds"] * (each_us(thin) < 30)
    parts += [f"its weights are {left.megabytes:.3g} MB instead of {whole.megabytes:.3g}"] * (gain > fewer)
    return f"{seen}: {'; '.join(parts)}."


def rate(result: Result, kind: str) -> float:
    """Multiply-adds a nanosecond in operators of a kind: their share of the profile, of the time without a profiler."""
    one, ms, _ = result
    return one.work[kind] / (one.facts.share(kind) * median(ms) * 1e6)


def each_us(result: Result) -> float:
    """Microseconds of an operator, on average."""
    one, ms, _ = result
    return 1e3 * median(ms) / one.facts.operators


def claims(found: dict[str, Timed], n: int) -> list[dict]:
    """The headline is for half of the channels in multiples of 8."""
    half = {name: g for name, results in found.items() for c, _, g in results if c.label == "0.5, in 8s"}
    first = next(iter(half))
    gain, spread = half[first]
    quicker = sum(g > 1 for g, _ in half.values())
    worst = max(c.difference for results in found.values() for c, _, _ in results)
    text = f"{first} with half of its channels, in multiples of 8, in ONNX Runtime (1 thread, batch 1)"
    all_of_them, equal = "networks that are faster with half of their channels", worst <= EQUAL
    return [
        claim(text, gain, "times faster than dense", spread, n, TARGET, gain >= TARGET),
        claim(all_of_them, quicker, "networks", None, n, len(half), quicker == len(half)),
        claim("largest difference from PyTorch", 1e6 * worst, "millionths of the largest output", None, n, 100, equal),
    ]


if __name__ == "__main__":
    main()
