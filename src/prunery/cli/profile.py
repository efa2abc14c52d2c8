"""`prunery profile`: what it does behind its options."""

import sys
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from .. import chain, measure, report
from ..runs import to_write
from ..runtime import load as load_packed
from ..spec import Model, Refused, build
from ..train.loop import threads
from .engine import MOST
from .shown import input_of, network_of

PACKED, PICTURES, TOO_MANY = ".prunery", (".png", ".svg"), 10_000


@dataclass(frozen=True)
class Asked:
    """How a network is to be looked at."""

    layers: bool = False
    batch: int = 1
    repeats: int = 20
    input: str = ""
    classes: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        for option in ("batch", "repeats", "threads"):
            value = getattr(self, option)
            if not 1 <= value <= TOO_MANY:
                raise Refused(f"--{option} = {value} is not allowed; expected 1 to {TOO_MANY}")


def profiled(what: str, asked: Asked, runs: Path, figure: Path | None) -> dict[str, Any]:
    """Every part with its numbers, and the picture where one is asked for."""
    if figure:
        if figure.suffix.lower() not in PICTURES:
            raise Refused(f"--figure = {figure} is no picture's name; expected one that ends in .png or .svg")
        to_write(figure, "profile.svg")
    found, input = _packed(what, asked) if what.endswith(PACKED) else _network(what, asked, runs)
    about = {"network": what, "input": list(input), "batch": asked.batch, "threads": asked.threads}
    about |= {"repeats": asked.repeats, "by": "layer" if asked.layers else "block"}
    sums = {"whole_ms": found.whole_ms, "sum_ms": found.sum_ms, "difference": found.difference}
    rows = [asdict(part) for part in found.parts]
    if figure:
        size = "x".join(map(str, input))
        title = f"{what}, {size}, batch {asked.batch}, {asked.threads} thread{'s' if asked.threads > 1 else ''}"
        report.profile_figure(rows, title, figure)
    return about | sums | {"figure": str(figure) if figure else None, "rows": rows}


def _network(what: str, asked: Asked, runs: Path) -> tuple[measure.Profile, tuple[int, ...]]:
    with redirect_stdout(sys.stderr), threads(asked.threads):  # a network of the user's own may print
        network, masks, input = network_of(what, asked.input, asked.classes, runs)
        input = input_of(asked.input) or input
        if asked.batch * input[0] * input[1] * input[2] > MOST:
            raise Refused(f"--batch = {asked.batch} is too large: expected at most {MOST} numbers in a batch")
        return measure.profile(network, input, asked.batch, masks, asked.repeats, asked.layers), input


def _packed(what: str, asked: Asked) -> tuple[measure.Profile, tuple[int, ...]]:
    """A packed file says its input itself."""
    if asked.input or asked.classes:
        raise Refused(f"{what} says itself what it takes; leave out --input and --classes")
    if asked.threads != 1:
        raise Refused(f"--threads = {asked.threads}: the steps of a packed file are timed on one; leave it out")
    packed = load_packed(what, 1)
    found = measure.packed_profile(packed, _origin(packed.about), asked.batch, asked.repeats, asked.layers)
    return found, packed.input_shape


def _origin(about: dict[str, Any]) -> nn.Module | None:
    """The network that a packed file was made of, for the names of its blocks; none where it cannot be had."""
    try:
        return chain.skeleton(build(Model, about["model"])) if "model" in about else None
    except Refused:  # a network of somebody's own, whose code is elsewhere: its steps one by one, then
        return None


def told(found: dict[str, Any]) -> list[str]:
    """A table, and what its rows add up to."""
    rows = found["rows"]
    keys = ("ms", "multiply_adds", "kept_multiply_adds", "parameters")
    all_ = {"name": "all", "type": "", "density": None, **{k: _sum(rows, k) for k in keys}}
    head = [found["by"], "ms", "share", "Mmult-adds", "kept", "parameters", "density", "type"]
    lines = [head, *(_cells(row, found["sum_ms"]) for row in (*rows, all_))]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    ratio = abs(found["difference"])
    more = f"{ratio:.1%} {'more' if found['difference'] > 0 else 'less'}"
    whole = f"unwatched, the whole pass takes {found['whole_ms']:.3f} ms; the rows add up to {more}"
    written = [f"written  {found['figure']}"] if found["figure"] else []
    return [*(_aligned(line, widths) for line in lines), whole, *written]


def _sum(rows: list[dict[str, Any]], key: str) -> Any:
    values = [r[key] for r in rows]
    return None if any(v is None for v in values) else sum(values)


def _cells(row: dict[str, Any], ms: float) -> list[str]:
    """Millions of products, and nothing where there is nothing."""
    work = [f"{n / 1e6:.3f}" if n else "" for n in (row["multiply_adds"], row["kept_multiply_adds"])]
    parameters = f"{row['parameters']:,}" if row["parameters"] else ""
    density = "" if row["density"] is None else f"{row['density']:.2%}"
    return [row["name"], f"{row['ms']:.3f}", f"{row['ms'] / ms:.1%}", *work, parameters, density, row["type"]]


def _aligned(cells: list[str], widths: list[int]) -> str:
    """Names to the left, numbers to the right, what it is at the end."""
    name, *numbers, kind = cells
    middle = [c.rjust(w) for c, w in zip(numbers, widths[1:-1], strict=True)]
    return "  ".join([name.ljust(widths[0]), *middle, kind]).rstrip()
