"""The rows of a count as the well-known summary table (torchinfo's): one line a module, indented by depth."""

import math
from dataclasses import replace
from typing import Any

from .count import Row

UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K"), (1.0, "1"))
COLUMNS, WIDTH = (41, 26, 16, 12, 0), 90  # as torchinfo prints them; wider where a cell asks for it


def summary_text(rows: list[Row], sums: dict[str, Any], input: tuple[int, ...], batch: int, depth: int = 0) -> str:
    """The network as a tree and its totals; modules deeper than `depth` are added to those that hold them (0: none)."""
    shown = fold(rows, depth) if depth else rows
    table = [("Layer (type:depth-idx)", "Output Shape", "Param #", *(("Kept", "Density") if _pruned(sums) else ()))]
    table += [_cells(row, _pruned(sums)) for row in shown]
    lines = _aligned(table)
    rule = "=" * max(WIDTH, *map(len, lines))
    blocks = [lines[:1], lines[1:], _counts(sums), _sizes(sums, input, batch)]
    return "\n".join([rule, *(line for block in blocks for line in [*block, rule])])


def fold(rows: list[Row], depth: int) -> list[Row]:
    """Rows down to a depth; what lies deeper is added to the module that holds it."""
    found: list[Row] = []
    for row in rows:
        if row.depth <= depth:
            found.append(row)
        else:
            found[-1] = _sum(found[-1], row)
    return found


def _sum(row: Row, inner: Row) -> Row:
    numbers = [k for k, v in vars(row).items() if isinstance(v, int) and k not in ("depth", "index")]
    return replace(row, **{k: getattr(row, k) + getattr(inner, k) for k in numbers})


def _pruned(sums: dict[str, Any]) -> bool:
    return sums["kept_parameters"] < sums["parameters"]


def _cells(row: Row, pruned: bool) -> tuple[str, ...]:
    label = f"{_branch(row.depth)}{row.type}" + (f": {row.depth}-{row.index}" if row.depth else "")
    shape = str(list(row.output)) if row.output else "--"
    parameters = f"{row.parameters:,}" if row.parameters else "--"
    kept = f"{row.kept:,}" if row.parameters else "--"
    density = f"{row.prunable_kept / row.prunable:.2%}" if row.prunable else "--"
    return (label, shape, parameters, kept, density) if pruned else (label, shape, parameters)


def _branch(depth: int) -> str:
    """The lines of the tree that lead to a row."""
    return "" if depth == 0 else "├─" if depth == 1 else "│    " * (depth - 1) + "└─"


def _aligned(table: list[tuple[str, ...]]) -> list[str]:
    widths = [max(least, *(len(cells[i]) + 2 for cells in table)) for i, least in enumerate(COLUMNS[: len(table[0])])]
    return ["".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)).rstrip() for cells in table]


def _counts(sums: dict[str, Any]) -> list[str]:
    """Parameters and work; the usual figure for the work counts each bias as one more."""
    work = sums["multiply_adds"]
    lines = [
        f"Total params: {sums['parameters']:,}",
        f"Trainable params: {sums['trainable']:,}",
        f"Non-trainable params: {sums['parameters'] - sums['trainable']:,}",
        f"Total mult-adds {_scaled(work + sums['bias_adds'])}",
        f"Products alone {_scaled(work)} (Prunery's multiply-adds; {sums['bias_adds']:,} bias adds stand apart)",
    ]
    kept = [
        f"Kept params: {sums['kept_parameters']:,} (density of the prunable weights {sums['density']:.2%})",
        f"Kept products {_scaled(sums['kept_multiply_adds'])} ({sums['kept_multiply_adds'] / max(work, 1):.2%})",
    ]
    return lines + kept if _pruned(sums) else lines


def _scaled(number: int) -> str:
    """(G): 9.23"""
    size, unit = next(((s, u) for s, u in UNITS if number >= s), UNITS[-1])
    return f"({unit}): {number / size:.2f}" if size > 1 else f": {number:,}"


def _sizes(sums: dict[str, Any], input: tuple[int, ...], batch: int) -> list[str]:
    """Megabytes in float32, dense."""
    given = 4 * batch * math.prod(input)
    parts = [given, sums["forward_bytes"], sums["params_bytes"]]
    names = ["Input size", "Forward/backward pass size", "Params size", "Estimated Total Size"]
    return [f"{n} (MB): {b / 1e6:.2f}" for n, b in zip(names, [*parts, sum(parts)], strict=True)]
