"""`prunery explain`: what a file is, how it was made, what it is worth."""

import json
import os
from pathlib import Path
from typing import Any

from .. import chain, quantize
from ..measure import count, score, totals
from ..runs import ENV, WEIGHTS, Runs, Step
from ..runs.files import OLD, PACKED, ZIP
from ..runtime import Packed
from ..runtime import load as load_packed
from ..spec import Refused, chosen, plain
from . import foreign

Told = dict[str, Any]
SIZES = ("parameters", "kept_parameters", "multiply_adds", "kept_multiply_adds", "density")
GAME = ((3, 32, 32), 10)
"""inputs and classes of the score game"""


def explained(what: str, runs: Path) -> Told:
    """All that can be told of a file, of a step's folder, or of a run by its name."""
    path = _path(what, runs)
    with open(path, "rb") as file:
        start = file.read(64)
    told: Told = {"file": str(path), "file_bytes": path.stat().st_size}
    if start.startswith(PACKED):
        return told | _packed(path)
    if start.startswith(OLD):
        return told | foreign.torch_old(path)
    if start.startswith(ZIP):
        return told | foreign.torch_zip(path)
    if found := foreign.safetensors_header(path):
        ours = "prunery" in found[1]
        return told | (_ours(path, _about(path, found[1]["prunery"]), runs) if ours else foreign.safetensors(*found))
    if known := foreign.onnx(path):
        return told | known
    expected = "a checkpoint (.safetensors), a packed file (.prunery), PyTorch's or an ONNX model"
    raise Refused(f"{path} is of no kind that is known here; expected {expected}, whole")


def _path(what: str, runs: Path) -> Path:
    """The file that is meant."""
    path = Path(what)
    if path.is_file():
        return path
    if os.path.isfile(path / ENV):
        return path / WEIGHTS
    if path.is_dir():
        raise Refused(f"{path} is a folder; expected a file, or the folder of a finished step")
    try:
        return Runs(runs).find(what).folder / WEIGHTS
    except Refused as error:
        raise Refused(f"{what} is no file and no run: {error}") from None


def _about(path: Path, text: Any) -> Told:
    """What a checkpoint says of itself."""
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(f"{path} says nothing readable of itself; expected a file that prunery wrote: copy it again")
    return found


def _ours(path: Path, about: Told, runs: Path) -> Told:
    """A checkpoint of prunery's, or the state of a training that is not over."""
    if "metrics_bytes" in about:
        note = "a step that was interrupted, or is being made: the same command takes it up from here"
        known = {k: v for k, v in about.items() if isinstance(v, int | float | str)}
        return {"kind": "the state of an unfinished training", "note": note, "about": known}
    network, state, model = chain.opened(path)
    sizes = totals(count(network, model.input, masks=state.masks))
    packed = "packed.safetensors" in path.name
    told: Told = {
        "kind": "a compact checkpoint of prunery" if packed else "a checkpoint of prunery",
        "network": {k: v for k, v in plain(model).items() if v not in ("", [], (), 0)},
        "masked": bool(state.masks), "layers_changed": "architecture" in about,
        "quantised": bool(state.scales) or bool(quantize.quantised_layers(network)),
        **{k: sizes[k] for k in SIZES},
    }  # fmt: skip
    if (tuple(model.input), model.classes) == GAME:
        told["score"] = score.as_dict(score.account(network, model.input).scores())
    return told | _history(path, about, runs)


def _history(path: Path, about: Told, runs: Path) -> Told:
    """How it was made, where the runs are at hand: beside the file, or in the folder of runs."""
    name = about.get("step")
    if not isinstance(name, str):
        return {"history": [], "history_note": "it was written by prunery.save or a command, which keep no history"}
    folder = next(
        (f for f in (path.parent, path.parent / name, runs / name) if (f / ENV).is_file() and f.name == name), None
    )
    if folder is None:
        return {"step": name, "history": [], "history_note": f"{name} is not beside it nor in {runs} (--runs)"}
    steps, missing = _chain(Step(folder))
    result = steps[-1].result
    worth = {part: result[part] for part in ("test", "validation") if result.get(part)}
    told = {"step": name, "history": [_made(s) for s in steps], **worth}
    return told | ({"history_note": f"{missing}, which it goes back to, is not there"} if missing else {})


def _chain(step: Step) -> tuple[list[Step], str]:
    """From the first that is there, and the name of the one before it that is not."""
    found = [step]
    while parent := found[0].parent:
        if not (parent.folder / ENV).is_file() or parent.name in {s.name for s in found}:
            return found, parent.name
        found.insert(0, parent)
    return found, ""


def _made(step: Step) -> Told:
    return {
        "step": step.name, "kind": step.spec.kind, "settings": chosen(step.spec),
        "seconds": step.env.get("seconds"), "commit": step.env.get("commit"),
        "machine": (step.env.get("machine") or {}).get("cpu"),
    }  # fmt: skip


def _memory(packed: Packed) -> Told:
    """Bytes, in words that say so."""
    found = packed.memory()
    return {"bytes_of_weights": found["weights"], "bytes_of_a_call": found["run"]}


def _said(about: Told) -> Told:
    """What a file says of itself, without settings that are not set."""
    full = {k: _said(v) if isinstance(v, dict) else v for k, v in about.items()}
    return {k: v for k, v in full.items() if v not in ("", [], (), {})}


def _packed(path: Path) -> Told:
    packed: Packed = load_packed(path)
    layers = packed.explain()
    return {
        "kind": "a packed network of prunery", "input": list(packed.input_shape), "output": list(packed.output_shape),
        "carried_out": round(sum(layer.multiply_adds for layer in layers)),
        "predicted_us": round(sum(layer.predicted_us for layer in layers), 1),
        "kernels": sorted({layer.kernel for layer in layers if layer.multiply_adds}),
        "memory": _memory(packed), "about": _said(packed.about),
        "note": "carried out: multiply-adds for one image, without the zeros that the kernels chosen here leave out; "
        "prunery bench FILE times it; prunery pack CHECKPOINT --explain tells each layer",
    }  # fmt: skip


# --- in words ---------------------------------------------------------------------------------------------------------


def words(told: Told) -> list[str]:
    """The same, a line each."""
    lines = [f"{told['file']}: {told['kind']}, {told['file_bytes']:,} bytes"]
    for part in ("test", "validation"):
        if part in told:
            figures = told[part]
            error = figures.get("standard_error")
            lines.append(
                f"  {part} accuracy  {figures['accuracy']:.2%}" + (f" ± {error:.2%}" if error is not None else "")
            )
    if "density" in told:
        lines += [
            f"  density        {told['density']:.2%} of the prunable weights",
            f"  parameters     {told['kept_parameters']:,} of {told['parameters']:,}",
            f"  multiply-adds  {told['kept_multiply_adds']:,} of {told['multiply_adds']:,} for one input",
        ]
    lines += [f"  score          {told['score'][score.CURRENT]['score']:.4f}"] if "score" in told else []
    done = {
        "file", "kind", "file_bytes", "test", "validation", *SIZES, "score", "history", "history_note", "note", "first",
        "calls",
    }  # fmt: skip
    lines += [f"  {key.replace('_', ' '):14} {_text(v)}" for key, v in told.items() if key not in done]
    for row in told.get("history", []):
        settings = ", ".join(f"{k} = {_text(v)}" for k, v in _flat(row["settings"]))
        lines.append(f"  {row['step']}  {settings}".rstrip())
    return [*lines, *(f"  {told[key]}" for key in ("history_note", "note") if told.get(key))]


def _flat(settings: Told, prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in settings.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return [(k, v) for k, v in pairs if not k.endswith("sha256")]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
