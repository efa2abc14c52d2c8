"""`prunery sweep`: what will run and what it will cost; then the work; then the table."""

import json
import os
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from ..chain import Place
from ..runs import Remote, Runs, Store, asked, folder_to_write, usual_folder
from ..spec import Refused, quote
from ..sweep import About, Cost, Ended, Engine, Local, Outcome, Sweep, Tree, carry_out, cores, grown, rows, table, total
from .settings import Where, device, is_address, stoppable

Told = dict[str, Any]


def swept(
    sweep: Sweep, where: Where, on: str, workers: int | None, retries: int | None, dry: bool
) -> tuple[Told, list[Any], bool]:
    """The whole of it: what is told as JSON and in words, and whether every chain came to its end."""
    if on not in ("local", "ray") and not on.startswith("ray://"):
        raise Refused(f"--on = {quote(on)} is unknown; expected local, ray, or ray://HOST:PORT")
    sweep = replace(sweep, retries=_least(retries, "--retries", 0, sweep.retries))
    width = _least(workers, "--workers", 1, 0)
    runs = _runs(where, dry)
    with redirect_stdout(sys.stderr):
        tree = grown(sweep, Place(runs, where.data))
    there = tree.there(runs)
    # Where machines come from elsewhere, their number is not known yet.
    side = width or (_width(sweep) if on == "local" else 1)
    cost = Cost(runs)
    told = _plan(sweep, tree, there, total(cost, tree, [n for n in tree.nodes if n not in there], side), side)
    if dry:
        return told, [*_plan_words(told), "nothing is carried out (--dry-run)"], True
    if not where.quiet:
        print("\n".join(_plan_words(told)), file=sys.stderr)
    labels = tree.labels()
    with (
        asked(runs.root, sweep.name, str(sweep.path.resolve()), {label: name for name, label in labels.items()}),
        redirect_stdout(sys.stderr),
        stoppable() as stopping,
    ):
        there = tree.there(runs)  # once more, as from now on nobody removes what is asked for
        engine = _engine(sweep, where, on, side, width)
        ended = carry_out(tree, there, engine, sweep.retries, stopping, _Heard(where, tree, there, cost, side, labels))
    return _finished(told, tree, runs, ended)


def _least(value: int | None, option: str, least: int, otherwise: int) -> int:
    if value is not None and value < least:
        raise Refused(f"{option} = {value} is not allowed; expected {least} or more")
    return otherwise if value is None else value


def kept_in(runs: str, here: Path | None) -> tuple[Path, str]:
    """The folder of this machine, and the address that it is a folder before; empty where there is none."""
    if not is_address(runs):
        if here:
            raise Refused(f"--here = {quote(str(here))} goes with an address, and --runs = {quote(runs)} is a folder")
        return Path(runs), ""
    if here and is_address(str(here)):
        raise Refused(f"--here = {quote(str(here))} is an address; expected a folder of this machine")
    return here or usual_folder(runs), runs


def _runs(where: Where, dry: bool) -> Runs:
    """A folder that all machines share, or one before a store; a store that says no is refused before any work."""
    if not where.store:
        return Runs(where.runs)
    store = Store(where.store)
    if not dry:
        store.begin()
    return Remote(folder_to_write(where.runs), store)


def _width(sweep: Sweep) -> int:
    """Steps side by side on this machine, so that neither its cores nor its GPUs are asked for twice."""
    fit = max(1, cores() // sweep.cpus)
    return max(1, min(fit, int(_cards() / sweep.gpus + 1e-9))) if sweep.gpus else fit


def _cards() -> int:
    import torch

    return torch.cuda.device_count()


def _engine(sweep: Sweep, where: Where, on: str, side: int, width: int) -> Engine:
    """Processes here, or Ray's."""
    usual = bool(where.store) and where.runs == usual_folder(where.store)  # which is another on other machines
    about = About(
        "" if usual else str(where.runs.resolve()), str(where.data.resolve()), os.getcwd(), where.device,
        where.threads or sweep.cpus, where.every, where.store,
    )  # fmt: skip
    if on == "local":
        device(where.device)
        if sweep.gpus and not _cards():
            raise Refused(f"resources.gpus = {sweep.gpus:g}, and this machine has none; expected 0, or --on ray")
        return Local(about, side, _cards() if sweep.gpus else 0)
    from ..sweep.onray import OnRay

    return OnRay(about, sweep.cpus, sweep.gpus, on if on.startswith("ray://") else "", width)


# --- before -----------------------------------------------------------------------------------------------------------


def _plan(sweep: Sweep, tree: Tree, there: set[str], estimate: Told, side: int) -> Told:
    return {
        "sweep": sweep.name, "chains": len(tree.chains), "steps_asked": tree.asked, "steps": len(tree.nodes),
        "there": len(there), "to_make": len(tree.nodes) - len(there), "workers": side, "estimate": estimate,
    }  # fmt: skip


def _plan_words(told: Told) -> list[str]:
    shared = told["steps_asked"] - told["steps"]
    words = f"{told['chains']} chains of {told['steps_asked']} steps, {shared} of them shared: {told['steps']} steps"
    return [f"{words}; {told['there']} there already, {told['to_make']} to make", *_estimate(told)]


def _estimate(told: Told) -> list[str]:
    """How long, and how that is known."""
    known, unknown = told["estimate"]["known"], told["estimate"]["unknown"]
    if not told["to_make"]:
        return []
    if not known:
        return ["cost: unknown, as no like step is in this folder of runs"]
    alone, wall = told["estimate"]["seconds"], told["estimate"]["wall_seconds"]
    rest = f"; unknown for {unknown} more, of which none is like one there" if unknown else ""
    how = "from the median of like steps there (kind, network, data, batch; training by the epoch)"
    return [f"cost: {duration(alone)} of one worker, about {duration(wall)} with {told['workers']}, {how}{rest}"]


def duration(seconds: float) -> str:
    """12 s, 3.5 min, 2.1 h."""
    value, unit = next(((s, u) for s, u in ((3600, "h"), (60, "min")) if seconds >= s), (1, "s"))
    return f"{seconds / value:.3g} {unit}"


# --- meanwhile --------------------------------------------------------------------------------------------------------


class _Heard:
    """A line for every step that ends, with what is left."""

    def __init__(
        self, where: Where, tree: Tree, there: set[str], cost: Cost, side: int, labels: dict[str, str]
    ) -> None:
        self.quiet = where.quiet
        self.tree, self.cost, self.side, self.labels = tree, cost, side, labels
        self.left = [n for n in tree.nodes if n not in there]
        self.of = len(self.left)

    def __call__(self, outcome: Outcome, ended: Ended) -> None:
        name, label = outcome.name, self.labels[outcome.name]
        if outcome.error:
            more = "" if name in ended.failed else "; tried again"
            return self._say(f"{label}: {outcome.error}{more}")
        self.left.remove(name)
        self.cost.learn(self.tree.nodes[name], outcome.seconds)
        wall = total(self.cost, self.tree, self.left, self.side)
        rest = f", {duration(wall['wall_seconds'])} left" if self.left and not wall["unknown"] else ""
        return self._say(f"{self.of - len(self.left)} of {self.of}: {label}: {outcome.seconds:.1f} s{rest}")

    def _say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)


# --- after ------------------------------------------------------------------------------------------------------------


def _finished(told: Told, tree: Tree, runs: Runs, ended: Ended) -> tuple[Told, list[Any], bool]:
    if isinstance(runs, Remote):
        _fetched(runs, tree)
        told |= {"store": runs.store.url, "here": str(runs.root)}
    found = rows(tree, runs, ended.failed)
    labels = tree.labels()
    failed = {labels[name]: why for name, why in ended.failed.items()}
    again = sum(n - 1 for n in ended.tries.values())
    told = told | {
        "made": len(ended.made), "found": len(ended.found), "tried_again": again, "failed": failed, "rows": found,
        "table": table(found),
    }  # fmt: skip
    words: list[Any] = [_table(told["table"]), "", f"{len(ended.made)} steps made, {told['steps_asked']} asked for"]
    lost = sum("failed" in row for row in found)
    words += [f"{lost} of {len(found)} chains failed:"] if lost else []
    words += [f"  {label}: {why}" for label, why in failed.items()]
    words += [f"its steps are in {told['store']}, and here in {told['here']}"] if "store" in told else []
    return told, words, not lost


def _fetched(runs: Remote, tree: Tree) -> None:
    """Every step that is finished, so that what lists, reports and packs finds the whole sweep in one folder."""
    for name in sorted(tree.there(runs)):
        runs.fetch(name, lambda text: print(text, file=sys.stderr))


def _table(found: list[Told]) -> Table:
    """A row a combination: mean, and deviation between seeds."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    keys = list(dict.fromkeys(k for row in found for k in row["settings"]))
    ends = len({row["label"] for row in found}) > 1
    figures = [f for f in FIGURES if any(f in row for row in found)]
    for name in (*keys, *(["step"] if ends else []), *figures, "n"):
        shown.add_column(name, justify="left" if name in (*keys, "step") else "right", no_wrap=True)
    for row in found:
        settings = [_text(row["settings"].get(k)) for k in keys]
        n = f"{row['n']}" + (f" ({row['failed']} failed)" if "failed" in row else "")
        shown.add_row(*settings, *([row["label"]] if ends else []), *(_figure(row, f) for f in figures), n)
    return shown


FIGURES = ("accuracy", "validation", "density", "kept_parameters", "kept_multiply_adds", "bytes", "score")
SHARES = ("accuracy", "validation", "density")


def _figure(row: Told, name: str) -> str:
    if name not in row:
        return ""
    text = f"{row[name]:.2%}" if name in SHARES else f"{row[name]:,.6g}"
    spread = row.get(f"{name}_sd")
    if spread is None:
        return text
    return f"{text} ± {spread:.2%}" if name in SHARES else f"{text} ± {spread:.2g}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
