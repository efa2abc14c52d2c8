"""The commands for many runs: listing them, cleaning up, sweeping; and those of first contact."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..runs import to_write
from ..spec import Refused, quote
from .settings import DataFolder, Device, Every, Json, Quiet, RunsFolder, Set, Threads, Where, whole

RUNS, DATA = Path("runs"), Path("data")


def runs(
    where: Annotated[
        str, typer.Option(metavar="EXPRESSION", help='only such steps: "accuracy > 0.9 and density < 0.1"')
    ] = "",
    sort: Annotated[str, typer.Option(metavar="COLUMN,...", help="by a column; - before it: the largest first")] = "",
    columns: Annotated[str, typer.Option(metavar="COLUMN,...", help="what to show; all for every column")] = "",
    limit: Annotated[int, typer.Option(parser=whole, metavar="N", help="at most so many; 0 is all")] = 0,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="write them as CSV")] = None,
    parquet: Annotated[Path | None, typer.Option(metavar="FILE", help="write them as Parquet (needs pyarrow)")] = None,
    mlflow: Annotated[
        str, typer.Option(metavar="URI", help="write them as runs of MLflow: sqlite:///FILE, http://HOST:PORT")
    ] = "",
    experiment: Annotated[
        str, typer.Option(metavar="NAME", help="with --mlflow: the experiment; prunery if not given")
    ] = "",
    runs: RunsFolder = RUNS,
    json: Json = False,
) -> None:
    """List what was run: filter, sort, export. Every setting and every number of a step is a column."""
    from ..listing import EXPERIMENT, listing, track, write_csv, write_parquet
    from . import kept, screen

    if limit < 0:
        raise Refused(f"--limit = {limit} is not allowed; expected 0 or more")
    if experiment and not mlflow:
        raise Refused(f"--experiment = {quote(experiment)} goes with --mlflow URI; add that, or leave it out")
    for file in (f for f in (csv, parquet) if f):
        to_write(file, f"runs{file.suffix or '.csv'}")
    found = listing(runs)
    wanted = found.where(where) if where else found
    wanted = wanted.sorted(sort) if sort else wanted
    rows = wanted.rows[:limit] if limit else wanted.rows
    exported = found.chosen(columns or "all")
    if csv:
        write_csv(csv, rows, exported)
    if parquet:
        write_parquet(parquet, rows, exported)
    tracked = track(mlflow, experiment or EXPERIMENT, runs, rows) if mlflow else None
    if json:
        told = [{c: row[c] for c in exported if row.get(c) is not None} for row in rows]
        more = {"mlflow": asdict(tracked)} if tracked else {}
        return screen.as_json({"steps": told, "of": len(found.rows), "unread": found.unread, **more})
    return screen.show(*kept.rows_table(found, rows, found.chosen(columns)), *kept.tracked_words(tracked))


def gc(
    age: Annotated[str, typer.Option(metavar="TIME", help="leave what is younger: 30m, 12h, 7d")] = "1d",
    forget: Annotated[
        list[str], typer.Option(metavar="RECIPE", help="a recipe by its name: what only it asked for goes too")
    ] = [],  # noqa: B006
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="with --yes: also unfinished steps that could be resumed")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only tell what would go")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    runs: RunsFolder = RUNS,
    json: Json = False,
) -> None:
    """Remove what nothing refers to: steps that no recipe asks for any more, and left-overs of dead processes."""
    from . import kept, screen

    told, words = kept.collected(runs, age, forget, dry_run, yes, checkpoints, json)
    screen.as_json(told) if json else screen.show(*words)


def sweep(
    file: Annotated[Path, typer.Argument(metavar="SWEEP.toml", help="a recipe, and values for its settings")],
    on: Annotated[str, typer.Option(metavar="WHERE", help="local, ray, or ray://HOST:PORT")] = "local",
    workers: Annotated[
        int | None, typer.Option(parser=whole, metavar="N", help="steps side by side; as many as cores when not given")
    ] = None,
    retries: Annotated[
        int | None, typer.Option(parser=whole, metavar="N", help="more tries of a step whose worker died")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only tell what would run, and what it would cost")
    ] = False,
    set: Set = [],  # noqa: B006
    runs: Annotated[
        str,
        typer.Option(
            "--runs",
            metavar="FOLDER|ADDRESS",
            envvar="PRUNERY_RUNS",
            help="folder that keeps every step and that all machines share; or s3://BUCKET/..., gs://, abfs://, file://",
        ),
    ] = str(RUNS),
    here: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="with an address: every machine's own folder before it; one in the user's cache"
        ),
    ] = None,
    data_dir: DataFolder = DATA,
    device: Device = "auto",
    threads: Threads = 0,
    checkpoint_seconds: Every = 30.0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Carry a recipe out for every combination of values, several at once; what chains share is made once."""
    from ..sweep import read_sweep
    from . import screen, sweeping

    folder, store = sweeping.kept_in(runs, here)
    where = Where(folder, data_dir, device, threads, checkpoint_seconds, quiet, store=store)
    told, words, whole_ = sweeping.swept(read_sweep(file, set), where, on, workers, retries, dry_run)
    screen.as_json(told) if json else screen.show(*words)
    if not whole_:
        raise typer.Exit(1)


def init(
    data: Annotated[
        str, typer.Option(metavar="FOLDER|NAME", help="a sub-folder of images per class; or a set")
    ] = "digits",
    model: Annotated[
        str, typer.Option(metavar="FILE.py:NAME|NAME", help="your own network, or one by name")
    ] = "convnet",
    weights: Annotated[
        str, typer.Option(metavar="FILE", help="begin with these: a state_dict, .pth or .safetensors; or pretrained")
    ] = "",
    resize: Annotated[
        int, typer.Option(parser=whole, metavar="N", help="side in pixels of all images; 0: their own")
    ] = 0,
    out: Annotated[Path, typer.Option(help="the recipe to write")] = Path("recipe.toml"),
    force: Annotated[bool, typer.Option("--force", help="write over a file that is there")] = False,
    data_dir: DataFolder = DATA,
    json: Json = False,
) -> None:
    """Write a recipe for your network and your images, with a word on every setting; it runs as it is."""
    from . import screen, started

    told, words = started.started(data, started.checked_model(model, weights), resize, data_dir, out, force)
    screen.as_json(told) if json else screen.show(*words)


def explain(
    what: Annotated[str, typer.Argument(metavar="FILE", help="a checkpoint, a packed file, a run's name or folder")],
    runs: RunsFolder = RUNS,
    json: Json = False,
) -> None:
    """Tell what a file is, how it was made and what it is worth; nothing in it is run."""
    from . import explained, screen

    told = explained.explained(what, runs)
    screen.as_json(told) if json else screen.show(*explained.words(told))
