"""`prunery demo`: one recipe on built-in images, what it shows in words, and the page to open."""

import time
from pathlib import Path
from typing import Any

from .. import chain, report
from ..runs import Step
from ..spec import Recipe
from . import screen


def demonstrate(wanted: Recipe, where: Any, out: Path, as_json: bool) -> None:
    """Carry out the recipe, say what it means, write the page."""
    started = time.monotonic()
    with where as there:
        done = chain.run(wanted, there)
    page = report.write_report(list(done.values()), out, title="Prunery demo")
    if as_json:
        return screen.as_json({k: s.result for k, s in done.items()} | {"page": str(page)})
    screen.show(screen.steps_table(done), "", *sentences(done), "")
    return screen.show(f"{time.monotonic() - started:.0f} seconds. Open {page.resolve()} in a browser.")


def sentences(done: dict[str, Step]) -> list[str]:
    """The comparison that the demo is for, from the measured results."""
    dense, pruned, tuned, blind, packed = (done[k].result for k in ("train", "prune", "finetune", "random_finetune", "pack"))
    accuracy = lambda r: f"{r['test']['accuracy']:.2%}"  # noqa: E731
    return [
        f"Dense, the network recognises {accuracy(dense)} of {dense['test']['n']} test images.",
        f"With {tuned['density']:.0%} of its weights: {accuracy(pruned)} as cut, {accuracy(tuned)} after finetuning "
        f"({accuracy(blind)} when the same number is cut blindly).",
        f"Packed in 8 bits it takes {packed['bytes']:,} bytes instead of {dense['bytes']:,} and reaches {accuracy(packed)}.",
    ]
