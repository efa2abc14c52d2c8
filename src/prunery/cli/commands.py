"""The commands, one short function each; heavy rooms are imported when a command needs them."""

import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..runs import Step, folder_to_write, to_write
from ..spec import Data, Model, Prune, Recipe, Refused, Train, hints, no_seed, plain, read_recipe, recipe
from . import studies
from .settings import (
    Board,
    Command,
    Cores,
    DataFolder,
    Device,
    Every,
    Group,
    Json,
    Quiet,
    RunsFolder,
    Set,
    Threads,
    Where,
    place,
    setting,
    shares,
    whole,
    with_options,
)  # fmt: skip

app = typer.Typer(
    cls=Group, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Finds the small network inside a big one, proves what it kept, and runs it fast on an ordinary CPU.",
    epilog="--debug, anywhere in a command, shows where an error came from; --version tells the version.",
)  # fmt: skip

Results = Annotated[Path | None, typer.Option("--results", help="a folder of measured results: show their claims")]
Pictures = Annotated[
    bool, typer.Option("--pictures", help="draw each step's first layer: filters, masks, maps of a few test images")
]
Lotteries = Annotated[
    list[Path], typer.Option("--lottery", metavar="FOLDER", help="what prunery lottery wrote with --out; repeatable")
]
Own = Annotated[
    str,
    typer.Option(
        "--model", metavar="FILE.py:NAME|NAME", help="the network, where the checkpoint is a file of plain weights"
    ),
]
NOT_OPTIONS = ("data", "name", "teacher_sha256", "sha256", "weights_sha256", "code_sha256", "input", "classes")
"""Fields of the specs that another option or the data gives, or that are filled in."""
RUNS, DATA = Path("runs"), Path("data")


def carry_out(wanted: Recipe, where: Where, as_json: bool, source: str = "") -> None:
    """Run a recipe and show what came of it; `source` is the file and the changes that it was asked with."""
    from .. import chain
    from . import screen

    with place(where) as there:
        done = chain.run(wanted, replace(there, source=source))
    if as_json:
        return screen.as_json({k: {"name": s.name, "folder": str(s.folder), **s.result} for k, s in done.items()})
    look = f"look at it: prunery report {last(done)} --runs {shlex.quote(str(where.runs))}"
    return screen.show(screen.steps_table(done), look)


def last(done: dict[str, Step]) -> str:
    """The steps that no other step of the recipe goes on from, which a report leads back from."""
    parents = {s.env["parent"] for s in done.values()}
    return " ".join(dict.fromkeys(s.name for s in done.values() if s.name not in parents))


@app.command()
def run(
    file: Annotated[Path, typer.Argument(metavar="RECIPE", help="a TOML file with data, model and steps")],
    set: Set = [],  # noqa: B006
    runs: RunsFolder = RUNS,
    data_dir: DataFolder = DATA,
    device: Device = "auto",
    threads: Threads = 0,
    checkpoint_seconds: Every = 30.0,
    tensorboard: Board = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Carry out a recipe; what is there already is not made again."""
    where = Where(runs, data_dir, device, threads, checkpoint_seconds, quiet, tensorboard)
    carry_out(read_recipe(file, set), where, json, " ".join([str(file.resolve()), *set]))


def train(
    network: Annotated[str, typer.Argument(help="lenet5, resnet20, torchvision:NAME, timm:NAME, file.py:function, …")],
    data: Annotated[str, typer.Option("--data", help="digits, mnist, cifar10, folder:PATH, ...")] = "digits",
    set: Set = [],  # noqa: B006
    runs: RunsFolder = RUNS,
    data_dir: DataFolder = DATA,
    device: Device = "auto",
    threads: Threads = 0,
    checkpoint_seconds: Every = 30.0,
    tensorboard: Board = None,
    json: Json = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Train a network; every field of a training step is an option."""
    where = Where(runs, data_dir, device, threads, checkpoint_seconds, quiet, tensorboard)
    values = {"data": {"name": data}, "model": {"name": network}, "step": [{"kind": "train"}]}
    carry_out(recipe(values, [*_settings(given), *set], "train"), where, json)


def _settings(given: dict[str, Any]) -> list[str]:
    """The options of the specs as `--set` has them; the seed is also that of the initial weights."""
    given = {k: v for k, v in given.items() if v is not None}
    seed = [f"seed={given.pop('seed')}"] if "seed" in given else []
    return seed + [setting(Train if k in hints(Train) else Data, k, v) for k, v in given.items()]


app.command()(with_options(train, Train, Data, Model, leave=NOT_OPTIONS))


def prune(
    what: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="a checkpoint file, or a run's name")],
    model: Own = "",
    data: Annotated[str, typer.Option("--data", help="images to look at and to measure on")] = "digits",
    out: Annotated[Path, typer.Option(help="the file to write")] = Path("pruned.safetensors"),
    shrink: Annotated[bool, typer.Option("--shrink", help="remove what is dead: a really smaller network")] = False,
    multiple: Annotated[
        int, typer.Option(parser=whole, metavar="N", help="of --shrink: round widths up to a multiple of N")
    ] = 1,
    set: Set = [],  # noqa: B006
    runs: RunsFolder = RUNS,
    data_dir: DataFolder = DATA,
    json: Json = False,
    **given: Any,
) -> None:
    """Prune a checkpoint, measure it before and after, write what is left; a pruning step's fields are options."""
    from . import pruning, screen

    how = _pruning(what, runs, data, given, set)
    if multiple < 1 or (multiple > 1 and not shrink):
        raise Refused(f"--multiple = {multiple} is not allowed; expected 1 or more, together with --shrink")
    found = pruning.prune_file(pruning.Checkpoint(what, runs, model), how, data_dir, out, shrink, multiple)
    screen.as_json(found) if json else screen.show(*pruning.told(found))


def _pruning(what: str, runs: Path, data: str, given: dict[str, Any], set: list[str]) -> Prune:
    """The pruning step that the options describe, on images as the run itself saw them."""
    from .pruning import as_seen

    settings = [setting(Prune, k, v) for k, v in given.items() if v is not None]
    told = {"data": plain(as_seen(what, runs, data)), "step": [{"kind": "prune"}]}
    wanted = recipe(told, [*settings, *set]).stages[-1].spec
    assert isinstance(wanted, Prune)
    return wanted


PRUNE_NOT = (*NOT_OPTIONS, "layers")
app.command()(with_options(prune, Prune, leave=PRUNE_NOT))


@app.command()
def sensitivity(
    what: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="a checkpoint file, or a run's name")],
    model: Own = "",
    data: Annotated[str, typer.Option("--data", help="images to measure on")] = "digits",
    structure: Annotated[str, typer.Option(help="weight, filter, channel, coupled, 1x4")] = "weight",
    criterion: Annotated[str, typer.Option(help="what makes a weight worth keeping")] = "magnitude",
    densities: Annotated[str, typer.Option(help="densities to try, one layer at a time")] = "0.75,0.5,0.25,0.1",
    images: Annotated[int, typer.Option(parser=whole, metavar="N", help="validation images to measure on")] = 1000,
    figure: Annotated[Path | None, typer.Option(help="folder for the figure as SVG and PNG")] = None,
    set: Set = [],  # noqa: B006
    runs: RunsFolder = RUNS,
    data_dir: DataFolder = DATA,
    json: Json = False,
) -> None:
    """What each layer bears: accuracy with one layer at a time pruned to several densities."""
    from . import pruning, screen

    if images < 1:
        raise Refused(f"--images = {images} is not allowed; expected 1 or more")
    batch = min(images, 250)
    given = {"structure": structure, "criterion": criterion, "batch": str(batch), "batches": str(-(-images // batch))}
    how = _pruning(what, runs, data, given, set)
    file = pruning.Checkpoint(what, runs, model)
    found = pruning.sensitivity(file, how, shares(densities, "--densities"), data_dir, figure)
    screen.as_json(found) if json else screen.show(*pruning.sensitivity_table(found))


@app.command()
def compare(
    file: Annotated[Path, typer.Argument(metavar="RECIPE", help="a recipe whose last step is labelled retrain")],
    methods: Annotated[
        str, typer.Option(help="names with commas; --methods list shows them")
    ] = "global,han,random,li,thinet",
    densities: Annotated[
        str, typer.Option(help="shares to keep: of weights, or of multiply-adds for structured methods")
    ] = "0.5,0.2,0.1,0.05",
    seeds: Annotated[int, typer.Option(parser=whole, metavar="N", help="repeat with this many seeds")] = 1,
    parts: Annotated[
        int, typer.Option(parser=whole, metavar="N", help="parts of the network that li and thinet work through")
    ] = 4,
    out: Annotated[Path, typer.Option(help="folder for the table, the rows and the figure")] = Path("comparison"),
    set: Set = [],  # noqa: B006
    runs: RunsFolder = RUNS,
    data_dir: DataFolder = DATA,
    device: Device = "auto",
    threads: Threads = 0,
    checkpoint_seconds: Every = 30.0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Many methods, one network, the same retraining: a table and a figure with error bars."""
    from .. import compare as room
    from ..pruning import METHODS
    from ..report import as_markdown, comparison_cells
    from . import pruning, screen

    if methods == "list":
        return screen.show(
            *(f"{name:16} {' '.join((method.__doc__ or '').split())}" for name, method in METHODS.items())
        )
    if seeds < 1 or parts < 1:
        raise Refused(f"--seeds = {seeds} and --parts = {parts} are not allowed; expected 1 or more of each")
    wanted = room.Wanted(
        tuple(m.strip() for m in methods.split(",") if m.strip()), shares(densities, "--densities"), parts
    )
    if seeds > 1:
        no_seed(set, f"--seeds = {seeds}")
    recipes = [read_recipe(file, [f"seed={seed}", *set]) for seed in range(seeds)]
    with place(Where(runs, data_dir, device, threads, checkpoint_seconds, quiet)) as there:
        rows = pruning.comparison(recipes, wanted, there, out)
    if json:
        return screen.as_json(rows)
    return screen.show(as_markdown(comparison_cells(rows)), "", f"rows, table and figure: {out}")


@app.command()
def lottery(
    what: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help="lenet_300_100, conv2, conv4, conv6, resnet20, vgg19, ... or a lottery's RECIPE.toml",
        ),
    ],
    figure: Annotated[
        str, typer.Option(help="train only what a figure shows: the paper's 1, 3, 4, 5, 6, 7, 8, or stability; all")
    ] = "all",
    seeds: Annotated[int | None, typer.Option(parser=whole, metavar="N", help="independent lotteries")] = None,
    levels: Annotated[int | None, typer.Option(parser=whole, metavar="N", help="rounds of pruning")] = None,
    steps: Annotated[int | None, typer.Option(parser=whole, metavar="N", help="iterations at each level")] = None,
    out: Annotated[Path, typer.Option(help="folder for the figures and the claims")] = Path("lottery"),
    set: Set = [],  # noqa: B006
    runs: RunsFolder = RUNS,
    data_dir: DataFolder = DATA,
    threads: Cores = 0,
    checkpoint_seconds: Every = 30.0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The lottery ticket paper's experiment: tickets, their controls, the figures, and which claims hold."""
    from .. import tickets
    from ..spec import read_lottery
    from . import screen
    from .lottery import Progressing, asked, finished

    wanted = asked(read_lottery(what, set), figure, seeds, levels, steps)
    folder_to_write(out)
    with place(Where(runs, data_dir, "cpu", threads, checkpoint_seconds, quiet)) as there, Progressing(quiet) as pace:
        done = tickets.run(wanted, there, pace)
    found, text = finished(wanted, done, figure, out)
    screen.as_json(found) if json else screen.show(*text)


@app.command()
def score(
    what: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT", help="a checkpoint, a run's name, or the numbers: w=2.7e5,f=4.1e7,q_w=8,q_a=8"
        ),
    ],
    data: Annotated[str, typer.Option("--data", help="images to measure the accuracy on")] = "cifar10",
    floats: Annotated[int, typer.Option(parser=whole, metavar="16|32", help="bits of what is not quantised")] = 32,
    verify: Annotated[bool, typer.Option("--verify", help="compute all sums in integers as well")] = False,
    runs: RunsFolder = RUNS,
    data_dir: DataFolder = DATA,
    json: Json = False,
) -> None:
    """Parameters and operations of the CIFAR-10 score game, layer by layer, in every edition of its rules."""
    from . import score as game
    from . import screen

    if game.in_numbers(what):
        found, words = game.by_hand(what, data, floats, verify)
    else:
        found, words = game.scored(what, data, data_dir, runs, game.checked(floats), verify)
    screen.as_json(found) if json else screen.show(*words)


@app.command()
def search(
    file: Annotated[Path, typer.Argument(metavar="SPACE.toml", help="what may vary, what must hold, what is wanted")],
    trials: Annotated[int | None, typer.Option(parser=whole, metavar="N", help="at most so many trials")] = None,
    out: Annotated[Path, typer.Option(help="folder for the trials, the best one's settings and the figure")] = Path(
        "search"
    ),
    runs: RunsFolder = RUNS,
    data_dir: DataFolder = DATA,
    device: Device = "auto",
    threads: Threads = 0,
    checkpoint_seconds: Every = 30.0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Trials of a recipe over a space of settings: the best that meets a target."""
    from . import screen
    from . import search as room

    space = room.asked(file, trials)
    folder_to_write(out)
    with place(Where(runs, data_dir, device, threads, checkpoint_seconds, quiet)) as there:
        found = room.carried_out(space, there)
    told, words = room.finished(space, found, out)
    screen.as_json(told) if json else screen.show(*words)


@app.command()
def pack(
    what: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="a checkpoint file, or a run's name")],
    model: Own = "",
    out: Annotated[Path, typer.Option(help="the file to write")] = Path("network.prunery"),
    data: Annotated[str, typer.Option("--data", help="images to measure on, and to learn ranges of bytes from")] = "",
    int8: Annotated[bool, typer.Option("--int8", help="weights and activations as bytes")] = False,
    images: Annotated[int, typer.Option(parser=whole, metavar="N", help="images that ranges are learned from")] = 512,
    values: Annotated[str, typer.Option(help="how weights are stored where they are floats: f32, f16")] = "f32",
    explain: Annotated[bool, typer.Option("--explain", help="tell each layer's kernel, and time it")] = False,
    batch: Annotated[bool, typer.Option("--batch", help="of --explain: the plan for full batches")] = False,
    set: Set = [],  # noqa: B006
    runs: RunsFolder = RUNS,
    data_dir: DataFolder = DATA,
    json: Json = False,
) -> None:
    """Pack a checkpoint into one file that runs fast on a CPU and needs no torch."""
    from ..spec import choose
    from . import engine, screen

    choose(values, ("f32", "f16"), "--values")
    if images < 1:
        raise Refused(f"--images = {images} is not allowed; expected 1 or more")
    data = data or (engine.own_images(what, runs) if int8 else "")
    spec = _pruning(what, runs, data, {}, set).data if data else None
    found = engine.pack_file(engine.Checkpoint(what, runs, model), out, spec, data_dir, int8, images, values)
    layers = engine.explained(out, batch, 20) if explain else []
    if json:
        return screen.as_json(found | ({"layers": engine.as_rows(layers)} if explain else {}))
    return screen.show(*(engine.explanation(layers) if explain else []), *engine.told(found))


@app.command()
def export(
    what: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="a checkpoint file, or a run's name")],
    model: Own = "",
    to: Annotated[str, typer.Option(help="onnx, openvino")] = "onnx",
    out: Annotated[Path | None, typer.Option(help="the file to write: network.onnx, or network.xml")] = None,
    data: Annotated[str, typer.Option("--data", help="images to measure on in the other engine")] = "",
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="bytes also where layers write for readers of floats; ONNX only")
    ] = False,
    images: Annotated[int, typer.Option(parser=whole, metavar="N", help="images that --calibrate looks at")] = 512,
    set: Set = [],  # noqa: B006
    runs: RunsFolder = RUNS,
    data_dir: DataFolder = DATA,
    json: Json = False,
) -> None:
    """A checkpoint as a file for ONNX Runtime or OpenVINO, run there and compared; int8 where it has quantisers."""
    from ..spec import choose
    from . import engine, screen

    choose(to, engine.FORMATS, "--to")
    if images < 1:
        raise Refused(f"--images = {images} is not allowed; expected 1 or more")
    spec = _pruning(what, runs, data, {}, set).data if data else None
    found = engine.export_file(engine.Checkpoint(what, runs, model), to, out, spec, data_dir, calibrate, images)
    return screen.as_json(found) if json else screen.show(*engine.exported(found))


@app.command()
def bench(
    file: Annotated[Path, typer.Argument(metavar="PACKED", help="a packed file")],
    against: Annotated[
        str,
        typer.Option(help="names with commas: torch, compile, onnxruntime, onnxruntime-int8, openvino, openvino-int8"),
    ] = "torch",
    network: Annotated[str, typer.Option(help="the checkpoint that was packed, where the file holds bytes")] = "",
    batch: Annotated[int, typer.Option(parser=whole, metavar="N", help="images of a call")] = 1,
    threads: Annotated[int, typer.Option(parser=whole, metavar="N", help="threads of every contestant")] = 1,
    turns: Annotated[int, typer.Option(parser=whole, metavar="N", help="turns that each contestant takes")] = 9,
    runs: RunsFolder = RUNS,
    json: Json = False,
) -> None:
    """Time a packed file against other run times, in turns."""
    from . import engine, screen

    if min(batch, threads, turns) < 1:
        raise Refused(f"--batch = {batch}, --threads = {threads}, --turns = {turns}: expected 1 or more of each")
    names = [n.strip() for n in against.split(",") if n.strip()]
    rows = engine.bench(file, names, network, runs, batch, threads, turns)
    return screen.as_json(rows) if json else screen.show(*engine.bench_table(rows, batch, threads))


@app.command()
def time(
    names: Annotated[
        list[str], typer.Argument(metavar="[RUN]...", help="steps to time; all whose accuracy is known when none")
    ] = [],  # noqa: B006
    batch: Annotated[int, typer.Option(parser=whole, metavar="N", help="images of a call")] = 1,
    threads: Annotated[int, typer.Option(parser=whole, metavar="N", help="CPU threads of a call")] = 1,
    turns: Annotated[int, typer.Option(parser=whole, metavar="N", help="turns that each step takes")] = 9,
    runs: RunsFolder = RUNS,
    data_dir: DataFolder = DATA,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Time finished steps in the engine, in turns; the report then shows accuracy against milliseconds."""
    from . import screen, timing

    say = (lambda _: None) if quiet else (lambda text: typer.echo(text, err=True))
    found = timing.timed(names, timing.Asked(batch, threads, turns), runs, data_dir, say)
    screen.as_json(found) if json else screen.show(*timing.told(found))


@app.command()
def show(
    what: Annotated[str, typer.Argument(help="a network's name, a run, or a checkpoint file")],
    batch: Annotated[
        int, typer.Option(parser=whole, metavar="N", help="images in the batch that shapes are shown for")
    ] = 1,
    input: Annotated[str, typer.Option(help="channels,height,width of one input")] = "",
    classes: Annotated[
        int, typer.Option(parser=whole, metavar="N", help="number of classes; 0 is the network's own")
    ] = 0,
    runs: RunsFolder = RUNS,
    json: Json = False,
) -> None:
    """A network's layers, shapes, parameters and multiply-adds."""
    from . import screen
    from .shown import shown

    rows, text = shown(what, batch, input, classes, runs)
    screen.as_json(rows) if json else typer.echo(text)


@app.command()
def profile(
    what: Annotated[
        str, typer.Argument(metavar="NETWORK", help="a network's name, a run, a checkpoint or a packed file")
    ],
    layers: Annotated[bool, typer.Option("--layers", help="layer by layer instead of block by block")] = False,
    batch: Annotated[int, typer.Option(parser=whole, metavar="N", help="images of a pass")] = 1,
    repeats: Annotated[int, typer.Option(parser=whole, metavar="N", help="passes whose median is told")] = 20,
    input: Annotated[str, typer.Option(help="channels,height,width of one input")] = "",
    classes: Annotated[
        int, typer.Option(parser=whole, metavar="N", help="number of classes; 0 is the network's own")
    ] = 0,
    threads: Annotated[int, typer.Option(parser=whole, metavar="N", help="CPU threads")] = 1,
    figure: Annotated[Path | None, typer.Option(metavar="FILE", help="write the picture too: a .png or .svg")] = None,
    runs: RunsFolder = RUNS,
    json: Json = False,
) -> None:
    """Where the time goes: milliseconds, multiply-adds, parameters and density, block by block."""
    from . import profile as room
    from . import screen

    found = room.profiled(what, room.Asked(layers, batch, repeats, input, classes, threads), runs, figure)
    screen.as_json(found) if json else screen.show(*room.told(found))


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="digits, mnist, cifar10, folder:PATH, ...")] = "",
    set: Set = [],  # noqa: B006
    data_dir: DataFolder = DATA,
    json: Json = False,
) -> None:
    """What a data set holds; without a name, which sets there are."""
    from . import screen
    from .shown import data_sets, described

    facts = described(name, set, data_dir) if name else data_sets(data_dir)
    return screen.as_json(facts) if json else screen.show(*(f"{k:16} {v}" for k, v in facts.items()))


@app.command()
def report(
    names: Annotated[
        list[str], typer.Argument(metavar="[RUN]...", help="steps to report on, with all before them; all when none")
    ] = [],  # noqa: B006
    out: Annotated[Path, typer.Option(help="the page to write")] = Path("report.html"),
    figures: Annotated[Path | None, typer.Option(help="folder for the figures as SVG and PNG")] = None,
    results: Results = None,
    lottery: Lotteries = [],  # noqa: B006
    pictures: Pictures = False,
    runs: RunsFolder = RUNS,
    data_dir: DataFolder = DATA,
    json: Json = False,
) -> None:
    """Write a page, one file without network, on what was run."""
    from .. import report as room
    from ..runs import Runs
    from . import screen

    to_write(out, "report.html")
    if figures:
        folder_to_write(figures)
    there = Runs(runs)
    steps = [there.find(n) for n in names] or there.steps()
    if not steps and (figures or not (results or lottery)):
        seen = f"{runs} holds no finished step; start one with prunery demo or prunery run RECIPE"
        raise Refused(f"{seen}, or name a --lottery for a page of that")
    every = room.with_parents(steps)
    timed = room.readings(dict.fromkeys(s.folder.parent for s in every), [s.name for s in every])
    drawn = room.gallery(_looker(data_dir)(every)) if pictures else {}
    more = room.More(*room.measured(results, lottery), timed, drawn)
    written = [room.write_report(steps, out, more=more), *(room.write_figures(steps, figures) if figures else [])]
    screen.as_json([str(p) for p in written]) if json else typer.echo("\n".join(map(str, written)))


def _looker(data_dir: Path) -> Any:
    """What draws pictures of steps, and says on the standard error output why it cannot."""
    from .looking import Looker

    return Looker(data_dir, lambda text: typer.echo(text, err=True))


@app.command()
def ui(
    port: Annotated[
        int, typer.Option(parser=whole, metavar="N", help="the port on this machine; 0 is any that is free")
    ] = 8737,
    open: Annotated[bool, typer.Option("--open/--no-open", help="open it in the browser")] = True,
    results: Results = None,
    lottery: Lotteries = [],  # noqa: B006
    pictures: Pictures = False,
    runs: RunsFolder = RUNS,
    data_dir: DataFolder = DATA,
    json: Json = False,
) -> None:
    """Serve the page on this machine only, up to date while runs go on, until Ctrl-C."""
    from .. import report as room
    from .serving import serve

    look = _looker(data_dir) if pictures else None
    serve(room.Site(runs, room.More(*room.measured(results, lottery)), look), port, open, json)


@app.command()
def results(
    folder: Annotated[Path, typer.Argument(help="the folder of measured results")] = Path("results"),
    json: Json = False,
) -> None:
    """The results that we stand behind, in one table."""
    from ..report import as_text, results_table
    from . import screen

    rows = results_table(folder)
    if not rows:
        raise Refused(f"{folder} holds no result; expected a result.json in each of its folders")
    screen.as_json([asdict(r) for r in rows]) if json else typer.echo(as_text(rows))


@app.command()
def demo(
    runs: RunsFolder = RUNS,
    data_dir: DataFolder = DATA,
    out: Annotated[Path, typer.Option(help="the page to write")] = Path("demo.html"),
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train, prune to a tenth, finetune and compare a small network on built-in images; write the page."""
    from importlib.resources import files

    from ..spec import read_toml
    from .demonstrate import demonstrate

    to_write(out, "demo.html")
    if out.suffix == ".prunery":
        raise Refused(f"--out = {out} is the page's name; expected another ending, such as {out.with_suffix('.html')}")
    with_recipe = recipe(read_toml(Path(str(files("prunery.cli").joinpath("demo.toml")))), (), "demo")
    demonstrate(with_recipe, Where(runs, data_dir, device, threads, quiet=quiet), out, json)


@app.command()
def doctor(
    runs: RunsFolder = RUNS,
    data_dir: DataFolder = DATA,
    json: Json = False,
) -> None:
    """What is installed, which devices and instruction sets there are, and what is missing for what."""
    from . import screen
    from .doctor import examine, told

    found = examine(runs, data_dir)
    screen.as_json(found) if json else screen.show(*told(found))


for command in (studies.runs, studies.gc, studies.sweep, studies.init, studies.explain):
    app.command()(command)
for registered in app.registered_commands:
    registered.cls = Command
