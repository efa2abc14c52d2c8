"""`prunery demo`: one recipe on built-in images, what it shows in words, and the page to open."""

import importlib.util
import time
from pathlib import Path
from typing import Any

from .. import chain, native, report
from ..runs import Step
from ..spec import Recipe
from . import screen
from .settings import Where, place


def demonstrate(wanted: Recipe, where: Where, out: Path, as_json: bool) -> None:
    """Carry out the recipe, say what it means, write the page."""
    started = time.monotonic()
    with place(where) as there:
        done = chain.run(wanted, there)
    labels = {step.name: label for label, step in done.items()}
    page = report.write_report(list(done.values()), out, title="Prunery demo", labels=labels)
    speed = raced(done["finetune"], out.with_suffix(".prunery")) if native.available() else []
    if as_json:
        return screen.as_json({k: s.result for k, s in done.items()} | {"page": str(page), "speed": speed})
    screen.show(screen.steps_table(done), "", *sentences(done), *told(speed, out.with_suffix(".prunery")), "")
    return screen.show(f"{time.monotonic() - started:.0f} seconds. Open {page.resolve()} in a browser.")


def sentences(done: dict[str, Step]) -> list[str]:
    """The comparison that the demo is for, from the measured results."""
    labels = ("train", "prune", "finetune", "random_finetune", "pack")
    dense, pruned, tuned, blind, packed = (done[label].result for label in labels)
    accuracy = lambda r: f"{r['test']['accuracy']:.2%}"  # noqa: E731
    return [
        f"Dense, the network recognises {accuracy(dense)} of {dense['test']['n']} test images.",
        f"With {tuned['density']:.0%} of its weights: {accuracy(pruned)} as cut, {accuracy(tuned)} after finetuning "
        f"({accuracy(blind)} when the same number is cut blindly).",
        f"Packed in 8 bits it takes {packed['bytes']:,} bytes instead of {dense['bytes']:,} "
        f"and reaches {accuracy(packed)}.",
    ]


def raced(step: Step, file: Path) -> list[dict[str, Any]]:
    """The finetuned network as a packed file beside torch, and ONNX Runtime where it is installed: one image."""
    from . import engine

    runs = step.folder.parent
    engine.pack_file(engine.Checkpoint(step.name, runs), file, None, runs, False, 1, "f32")
    against = ["torch", *(["onnxruntime"] if importlib.util.find_spec("onnxruntime") else [])]
    return engine.bench(file, against, step.name, runs, 1, 1, 5)


def told(speed: list[dict[str, Any]], file: Path) -> list[str]:
    """The race in a sentence."""
    if not speed:
        return ["The compiled kernels are missing, so nothing was packed for speed: prunery doctor says what to do."]
    each = [f"{r['name']} {r['median_ms']:.3f} ms ({r['over_ours']:.1f} times as long)" for r in speed[1:]]
    ours = f"One image on one thread takes {speed[0]['median_ms']:.3f} ms from {file}"
    return [f"{ours}; {', '.join(each)}."]
