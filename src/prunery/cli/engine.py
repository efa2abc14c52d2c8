"""`prunery pack`, `export` and `bench`: what they do behind their options."""

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import data, engine
from ..engine.export import FORMATS
from ..engine.interpret import Interpreted
from ..engine.rivals import Call, calibration, quantised, ready, rival, size
from ..engine.trial import answer
from ..measure.latency import Latency, latencies
from ..quantize import quantised_layers
from ..runs import Runs, to_write
from ..runtime import Layer, Packed
from ..runtime import load as load_packed
from ..spec import Data, Model, Refused, plain
from .pruning import Checkpoint, images, its_own, names_a_run, opened

BATCH = 64
NEAR = 1e-3
MOST = 1 << 28
"""numbers in a batch that is timed: a gigabyte"""


def own_images(what: str, runs: Path) -> str:
    """The name of the images that a run was made with, which ranges can be learned from."""
    found = its_own(what, runs)
    return found.name if found else ""


def pack_file(
    file: Checkpoint, out: Path, spec: Data | None, root: Path, int8: bool, looked_at: int, values: str
) -> dict[str, Any]:
    """Pack a checkpoint; with images, measure what the packed network recognises."""
    to_write(out, "network.prunery")
    if os.path.exists(file.what) and os.path.exists(out) and os.path.samefile(file.what, out):
        raise Refused(f"--out {out} is the checkpoint itself; expected another name, such as network.prunery")
    network, _, model = file.opened(data.facts(spec, root) if spec else None)
    splits = images(spec, root, model) if spec else None
    if int8 and splits is None:
        raise Refused("--int8 needs images to learn the ranges of activations from; name them with --data")
    learned = bool(quantised_layers(network))
    typical = list(_inputs(splits, looked_at)) if (int8 or learned) and splits else None
    packed = engine.pack(network, _example(model), typical, values, _origin(file, model, splits))  # type: ignore[arg-type]
    packed.save(out)
    found = {"file": str(out), "bytes": out.stat().st_size, "memory": packed.memory()}
    found["int8"] = engine.is_quantised(packed)
    return found | ({"test": _recognised(packed, splits)} if splits and len(splits.test.y) else {})


def _origin(file: Checkpoint, model: Model, splits: data.Splits | None) -> dict[str, Any]:
    """What the packed file says of itself: whoever runs it needs the classes' names and the scaling of pixels."""
    about: dict[str, Any] = {"model": plain(model), "from": file.what}
    if splits is None:
        return about
    seen = {"data": splits.spec.name, "classes": list(splits.facts.classes), "scaling": splits.spec.scaling}
    told = data.describe(splits)
    return about | {"images": seen | {k: told[k] for k in ("mean", "deviation")}}


def export_file(
    file: Checkpoint, to: str, out: Path | None, spec: Data | None, root: Path, calibrate: bool, looked_at: int
) -> dict[str, Any]:
    """A checkpoint as another engine's file; with images, what that engine recognises, and how often as the network."""
    name, write, run = FORMATS[to]
    network, _, model = file.opened(data.facts(spec, root) if spec else None)
    if calibrate and (spec is None or to != "onnx"):
        raise Refused("--calibrate needs images and is for ONNX Runtime; expected --to onnx and --data NAME with it")
    splits = images(spec, root, model) if spec else None
    if calibrate and splits:
        path = write(network, _example(model), out or Path(name), _inputs(splits, looked_at))
    else:
        path = write(network, _example(model), out or Path(name))
    found = {"file": str(path), "bytes": size(path), "to": to, "int8": bool(quantised_layers(network))}
    return found | ({"test": _alike(run(path), network, splits)} if splits and len(splits.test.y) else {})


def _alike(run: Callable[[np.ndarray], np.ndarray], network: torch.nn.Module, splits: data.Splits) -> dict[str, Any]:
    """Accuracy on the test images in another engine, and the share of answers that are the network's."""
    hits = same = 0
    for x, y in zip(splits.test.x.split(BATCH), splits.test.y.split(BATCH), strict=True):
        ready = data.inputs(x, splits)
        theirs, ours = torch.from_numpy(np.array(run(ready.numpy()))).argmax(1), answer(network.eval(), ready).argmax(1)
        hits, same = hits + int((theirs == y).sum()), same + int((theirs == ours).sum())
    return _share(hits, len(splits.test.y)) | {"same_answer": same / len(splits.test.y)}


def exported(found: dict[str, Any]) -> list[str]:
    """What was written, and what it recognises."""
    lines = [f"written  {found['file']} ({found['bytes']:,} bytes{', int8' if found['int8'] else ''})"]
    if t := found.get("test"):
        seen = f"{t['accuracy']:.2%} ± {t['standard_error']:.2%} of {t['n']:,} images"
        lines.insert(0, f"{found['to']:8} test accuracy {seen}, the network's answer for {t['same_answer']:.2%}")
    return lines


def _example(model: Model) -> torch.Tensor:
    return torch.randn(2, *model.input, generator=torch.Generator().manual_seed(0))


def _inputs(splits: data.Splits, count: int) -> Iterator[torch.Tensor]:
    """Training images as the network sees them."""
    for x in splits.train.x[:count].split(BATCH):
        yield data.inputs(x, splits)


def _recognised(packed: Packed, splits: data.Splits) -> dict[str, Any]:
    """Accuracy on the test images."""
    pairs = zip(splits.test.x.split(BATCH), splits.test.y.split(BATCH), strict=True)
    hits = sum(int((packed(data.inputs(x, splits)).argmax(1) == y).sum()) for x, y in pairs)
    return _share(hits, len(splits.test.y))


def _share(hits: int, n: int) -> dict[str, Any]:
    accuracy = hits / n
    return {"accuracy": accuracy, "standard_error": (accuracy * (1 - accuracy) / n) ** 0.5, "n": n}


def told(found: dict[str, Any]) -> list[str]:
    """What was written, in a line or two."""
    lines = [f"written  {found['file']} ({found['bytes']:,} bytes{', int8' if found['int8'] else ''})"]
    if "test" in found:
        t = found["test"]
        lines.insert(0, f"packed   test accuracy {t['accuracy']:.2%} ± {t['standard_error']:.2%} of {t['n']:,} images")
    return lines


def explained(path: Path, batch: bool, repeats: int) -> list[Layer]:
    """Every step of a packed file, measured."""
    return load_packed(path).explain(batch, repeats)


def explanation(layers: list[Layer]) -> list[str]:
    """A step a line, and where the engine is not worth it."""
    width = max(12, *(len(layer.name) for layer in layers))
    head = f"{'kernel':26} {'density':>8} {'Mmult-adds':>11} {'predicted us':>13} {'measured us':>12}  why"
    lines = [f"{'layer':{width}} {head}"]
    for layer in layers:
        density = f"{layer.density:.2%}" if layer.multiply_adds else ""
        work = f"{layer.multiply_adds / 1e6:.3f}" if layer.multiply_adds else ""
        measured = "" if layer.measured_us is None else f"{layer.measured_us:.1f}"
        row = (
            f"{layer.name:{width}} {layer.kernel:26} {density:>8} {work:>11} {layer.predicted_us:>13.1f} {measured:>12}"
        )
        lines.append(f"{row}  {layer.why}".rstrip())
    total = sum(layer.predicted_us for layer in layers)
    took = sum(layer.measured_us or 0 for layer in layers)
    lines.append(f"{'all':{width}} {'':26} {'':>8} {'':>11} {total:>13.1f} {took if took else '':>12.6}")
    return [*lines, *advice(layers)]


DENSE = 0.35
"""share of time in dense kernels of large layers, above which a run time for dense networks is the better choice"""


def advice(layers: list[Layer]) -> list[str]:
    """Below the break-even density the engine wins; above it the user is told so."""
    worked = [layer for layer in layers if layer.multiply_adds]
    total = sum(layer.predicted_us for layer in layers) or 1.0
    dense = sum(layer.predicted_us for layer in worked if layer.kernel.startswith("dense")) / total
    if dense <= DENSE:
        return []
    return [
        f"{dense:.0%} of the time is in layers that run dense: prune them further, or use ONNX Runtime for this "
        "network (prunery bench FILE --against onnxruntime compares the two here)"
    ]


def bench(
    path: Path, against: list[str], network: str, runs: Path, batch: int, threads: int, turns: int
) -> list[dict[str, Any]]:
    """The packed file and its rivals in turns; every output is looked at before anything is timed."""
    packed = load_packed(path, threads)
    whole = _looked_up(against, lambda: _network(path, packed, network, runs))
    if batch * max(np.prod(packed.input_shape), np.prod(packed.output_shape)) > MOST:
        raise Refused(f"--batch = {batch} is too large for this network; expected at most {MOST:,} numbers a batch")
    x = np.random.default_rng(0).standard_normal((batch, *packed.input_shape)).astype(np.float32)
    looked = _looked_at(x, packed)
    wanted = packed(looked)
    calls: dict[str, Call] = {"prunery": lambda x: packed(x, threads)}
    in_bytes = engine.is_quantised(packed)
    about = {"prunery": _agreement(wanted, wanted) | {"int8": in_bytes}}
    for name in against:
        assert whole is not None
        calls[name], found = _first(name, whole, x, looked, threads)
        about[name] = _agreement(wanted, found.reshape(wanted.shape)) | {"int8": quantised(name)}
        if not quantised(name) and not in_bytes and not about[name]["difference"] <= NEAR:
            seen = f"{name} computes something else ({about[name]['difference']:.1e} of the largest output)"
            raise Refused(f"{seen}; expected the same network: name its checkpoint with --network")
    timed = latencies({n: (lambda call=call: call(x)) for n, call in calls.items()}, turns)  # type: ignore[misc]
    return [_row(n, timed[n], timed["prunery"]) | about[n] for n in calls]


def _looked_up(against: list[str], network: Callable[[], torch.nn.Module]) -> torch.nn.Module | None:
    """What rivals need; all that is missing is told at once."""
    found, missing = None, []
    for name in against:
        try:
            ready(name, "--against")
        except Refused as refusal:
            missing.append(str(refusal))
    try:
        found = network() if against else None
    except Refused as refusal:
        missing.append(str(refusal))
    if missing:
        raise Refused("; and ".join(dict.fromkeys(missing)))
    return found


LOOKED = 64
"""random images, at least, whose outputs are compared before anything is timed"""


def _looked_at(x: np.ndarray, packed: Packed) -> np.ndarray:
    """The batch, or more images where it is small and they are, too."""
    count = min(LOOKED, max(1, MOST // int(max(np.prod(packed.input_shape), np.prod(packed.output_shape)))))
    more = np.random.default_rng(1).standard_normal((max(0, count - len(x)), *packed.input_shape)).astype(np.float32)
    return np.concatenate([x, more])


def _first(
    name: str, network: torch.nn.Module, x: np.ndarray, looked: np.ndarray, threads: int
) -> tuple[Call, np.ndarray]:
    """A rival, made for the batch that is timed, and what it answers to all that is compared."""
    try:
        call = rival(name, network, x, threads, calibration([x]))
        call(x)  # first, for whoever compiles for the shape that it sees
        return call, np.asarray(call(looked))
    except (Refused, MemoryError):
        raise
    except Exception as error:  # another run time, which says no in its own way
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise Refused(f"{name} cannot run this network ({reason}); leave it out of --against") from error


def _network(path: Path, packed: Packed, network: str, runs: Path) -> torch.nn.Module:
    if network:
        made, _, model = opened(network, runs)
        if tuple(model.input) != packed.input_shape:
            seen = f"{network} takes {_words(model.input)}, and {path} {_words(packed.input_shape)}"
            raise Refused(f"{seen}; expected the checkpoint that was packed")
        return made.eval()
    source = str(packed.about.get("from", ""))
    if engine.is_quantised(packed) and names_a_run(source) and Runs(runs).there([source]):
        return opened(source, runs)[0].eval()
    if engine.is_quantised(packed):
        raise Refused(f"{path} holds bytes, and others need the network in floats; name its checkpoint with --network")
    return Interpreted(engine.graph_of(packed))


def _words(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _agreement(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """Of the largest output the largest difference, and the share of images with the same answer."""
    largest = max(float(np.abs(a).max()), 1e-30)
    same = float(np.mean(a.reshape(len(a), -1).argmax(1) == b.reshape(len(b), -1).argmax(1)))
    return {"difference": float(np.abs(a - b).max()) / largest, "same_answer": same}


def _row(name: str, took: Latency, ours: Latency) -> dict[str, Any]:
    ratio, low, high = ours.times_faster(took)
    return {
        "name": name,
        "median_ms": took.median_ms,
        "best_ms": took.best_ms,
        "over_ours": ratio,
        "low": low,
        "high": high,
    }


def bench_table(rows: list[dict[str, Any]], batch: int, threads: int) -> list[str]:
    """Milliseconds, and how many times as long as ours each takes."""
    head = f"{'':18} {'median ms':>10} {'best ms':>9} {'times ours':>11}"
    lines = [f"{head} {'range':>16} {'difference':>11} {'same answer':>12}"]
    for r in rows:
        spread = f"{r['low']:.2f} to {r['high']:.2f}"
        row = f"{r['name']:18} {r['median_ms']:>10.3f} {r['best_ms']:>9.3f} {r['over_ours']:>11.2f}"
        lines.append(f"{row} {spread:>16} {r['difference']:>11.1e} {r['same_answer']:>12.0%}")
    return [
        *lines,
        f"batch {batch}, {threads} thread{'s' if threads > 1 else ''}; contestants took turns, medians of turns",
        _differences([r["name"] for r in rows if r["int8"]]),
        *_unsteady(rows),
    ]


WILD = 1.5
"""times the best call that a median, and the lowest ratio that the highest, may be before it is mentioned"""


def _unsteady(rows: list[dict[str, Any]]) -> list[str]:
    """A word where the machine was too busy for the figures to mean much."""
    wild = [r["name"] for r in rows if max(r["median_ms"] / r["best_ms"], r["high"] / r["low"]) > WILD]
    if not wild:
        return []
    return [
        f"times scatter widely ({', '.join(wild)}): something else was running; the ratios' ranges tell how much to "
        "believe, and --turns 30 or a quieter moment tells more"
    ]


def _differences(in_bytes: list[str]) -> str:
    """What the last columns mean."""
    line = "on random images, difference: the largest from prunery's outputs, as a share of the largest of these"
    line += f"; same answer: of at least {LOOKED} such images, those with the same largest output"
    if not in_bytes:
        return line
    line += f"; int8 contestants ({', '.join(in_bytes)}) differ by the rounding to bytes, which is no error, and more"
    return f"{line} on noise, as here, than on images: prunery pack --int8 --data tells the accuracy"


def as_rows(layers: list[Layer]) -> list[dict[str, Any]]:
    return [asdict(layer) for layer in layers]
