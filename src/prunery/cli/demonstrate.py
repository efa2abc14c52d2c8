"""`prunery demo`: one recipe on built-in images, what it shows in words, and the page to open."""

import time
from pathlib import Path

from .. import chain, report
from ..runs import Step
from ..spec import Recipe
from . import screen
from .settings import Where, place


def demonstrate(wanted: Recipe, where: Where, out: Path, as_json: bool) -> None:
    """Carry out the recipe, say what it means, write the page."""
    started = time.monotonic()
    with place(where) as there:
        done = chain.run(wanted, there)
    page = report.write_report(list(done.values()), out, title="Prunery demo")
    if as_json:
        return screen.as_json({k: s.result for k, s in done.items()} | {"page": str(page)})
    screen.show(screen.steps_table(done), "", *sentences(done), "")
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
