"""Conv-6 on CIFAR-10, trained once: every way to make its inference cheaper, in one table.

Pruning is one way to speed up inference; the others are measured beside it. The networks are the finished
steps of recipes/conv6_ways.toml and recipes/conv6_student.toml in --runs. Each runs on one thread in the run times that
suit it, with one image and with sixty, from array to array, all in turns; before that its outputs are compared with
PyTorch's (floats: 1e-4 of the largest). Accuracy is counted over the 10,000 test images as the run time itself computes
them. Megabytes are those of the file that it reads. Multiply-adds are those of the network's layers; "made" are those
that are really executed for one image, where zeros are left out. "Of peak" is what these take of the core's measured
peak of float32 multiply-adds: two products of bfloat16 or four of bytes fit where one of float32 does.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from claim import arguments, claim, columns, finish
from ways.listed import QUICK, WAYS, Way
from ways.measured import BATCHES, KINDS, Found, Row, measured
from ways.networks import RECIPES, finished, random_images, stand_ins, test_images
from ways.shown import POINT, as_csv, drawn, rows_of, sentences

from prunery.spec import Refused

OURS, THEIRS = "sparse in engine", "dense in ONNX Runtime"


def main() -> None:
    asked = arguments(__doc__, runs="runs", data_dir="data", turns="", networks="", settings="")
    torch.set_num_threads(1)
    turns = int(asked.turns or (2 if asked.quick else 9))
    if asked.quick:  # untrained networks of the same shapes, random images: the benchmark itself is tried
        found = measured(chosen(asked, QUICK), stand_ins(), random_images(60), turns, 5.0)
    else:
        nets = finished(Path(asked.runs), Path(asked.data_dir), asked.settings.split())
        if "dense" not in nets:
            seen = f"{asked.runs} does not hold the dense network of recipes/conv6_ways.toml"
            raise Refused(f"{seen}; make it: prunery run recipes/conv6_ways.toml --runs {asked.runs}")
        found = measured(chosen(asked), nets, test_images(Path(asked.data_dir)), turns)
    if asked.keep:
        asked.keep.mkdir(parents=True, exist_ok=True)
        (asked.keep / "ways.csv").write_text(as_csv(found))
        drawn(found, asked.keep)
    spec = "\n".join((RECIPES / f"{name}.toml").read_text() for name in ("conv6_ways", "conv6_student"))
    made = [c for c in claims(found) if not asked.quick or c["unit"] != "points"]  # untrained: no accuracy to speak of
    finish(made, columns(rows_of(found)), asked, spec, told(found))


def chosen(asked: Any, run_times: tuple[str, ...] = ()) -> list[Way]:
    """The ways of the networks that were asked for; the dense one, which is what others are compared with, always."""
    names = {"dense", *asked.networks.split(",")} if asked.networks else {way.network for way in WAYS}
    return [way for way in WAYS if way.network in names and (not run_times or way.run_time in run_times)]


def told(found: Found) -> str:
    """What stands below the table: the figure, a sentence for each way, and what was not run."""
    lines = ["![accuracy over milliseconds](ways.svg)", "Why each gains what it gains (one image, then sixty):"]
    lines += ["\n".join(sentences(found))]
    if found.absent:
        lines += ["Not run:", "\n".join(f"- {name}: {why}" for name, why in found.absent.items())]
    lines += [f"The core's peak is {found.peak:.1f} GFLOP/s. {shares(found)}", steps(found)]
    return "\n\n".join([*lines, "Every row with its spread: [ways.csv](ways.csv)."])


def shares(found: Found) -> str:
    """Where PyTorch's time goes."""
    each = {kind: [f"{found.shares[f'{kind}{batch}']:.1%}" for batch in BATCHES] for kind in KINDS.values()}
    parts = [f"{kind} {' and '.join(two)}" for kind, two in each.items()]
    return f"Of PyTorch's time, channels last, with one image and with sixty: {', '.join(parts)}."


def steps(found: Found) -> str:
    """Which steps the networks are, and the commits that made them."""
    nets = {row.way.network: row.net for row in found.rows}
    return "The networks: " + ", ".join(f"{n.label} {n.step} ({n.commit})" for n in nets.values()) + "."


def claims(found: Found) -> list[dict[str, Any]]:
    """Our zeros against ONNX Runtime, what they cost, and which way is the fastest that costs at most a point."""
    ours, dense = found.by_name.get(OURS), found.base
    other = found.by_name.get(THEIRS, dense)
    made = list[dict[str, Any]]()
    for batch in BATCHES if ours else ():
        value, spread = ours.faster(other, batch)
        text = f"Conv-6 with a tenth of its weights in the engine, {images(batch)}, one thread"
        made.append(claim(text, value, f"times as fast as {other.name}", spread, found.turns, "above 1", value > 1))
    if ours:
        lost = 100 * (ours.accuracy - dense.accuracy)
        text, error = "its accuracy against the dense network's", 100 * ours.standard_error
        made.append(claim(text, lost, "points", f"standard error {error:.2f}", ours.images, "above -1", lost > -1))
    return [*made, *(fastest(found, batch) for batch in BATCHES)]


def fastest(found: Found, batch: int) -> dict[str, Any]:
    best = min(within(found), key=lambda row: row.ms(batch))
    value, spread = best.faster(found.base, batch)
    text = f"the fastest way within a point of dense, {images(batch)}: {best.name}, {best.ms(batch):.3g} ms"
    return claim(text, value, f"times as fast as {found.base.name}", spread, found.turns, "reported", True)


def within(found: Found) -> list[Row]:
    return [row for row in found.rows if row.accuracy >= found.base.accuracy - POINT]


def images(batch: int) -> str:
    return "one image" if batch == 1 else f"{batch} images"


if __name__ == "__main__":
    try:
        main()
    except Refused as refusal:
        sys.exit(f"{Path(__file__).name}: {refusal}")
