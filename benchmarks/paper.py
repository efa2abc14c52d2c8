"""The paper's claims over a lottery's networks: what the benchmarks of single networks share."""

from pathlib import Path

from claim import arguments, claim, finish

from prunery import tickets
from prunery.chain import Place
from prunery.cli.lottery import Progressing, costs, duration, records
from prunery.report.lottery import NOT_RUN, PASS, Results, Verdict, as_markdown, differs, write_lottery
from prunery.runs import Runs
from prunery.spec import read_lottery
from prunery.train import Ways

RECIPES = Path(__file__).parent.parent / "recipes"


def carried_out(about: str, recipe: str, quick: list[str], figures: tuple[int, ...]) -> None:
    """A recipe's networks trained, its figures drawn, its claims scored and kept."""
    asked = arguments(about, recipe=recipe, data_dir="data", runs="runs", threads="0", figures="lottery")
    path = RECIPES / f"{asked.recipe}.toml"
    wanted = read_lottery(str(path), quick if asked.quick else [])
    place = Place(Runs(asked.runs), Path(asked.data_dir), Ways(threads=int(asked.threads)))
    with Progressing(quiet=asked.json) as pace:
        done = tickets.run(wanted, place, pace)
    results = Results(wanted, tuple(records(done)))
    verdicts, _ = write_lottery(results, "all", asked.keep or Path(asked.figures))
    decided = [as_claim(v) for v in verdicts if v.verdict != NOT_RUN]
    lines = [
        costs(results.records),
        took(results),
        *(f"not the paper's: {k} = {v}" for k, v in differs(wanted).items()),
    ]
    more = page(verdicts, figures)
    finish(decided, "\n".join(lines), asked, path.read_text(), more, commits(results))


def as_claim(v: Verdict) -> dict:
    """A verdict in the form of all results."""
    text = f"{v.name}: {v.text}" + (f", early stop {v.stop}" if v.stop else "")
    spread = f"{v.spread} {v.low:.2f} to {v.high:.2f}" if v.spread else None
    target = f"{v.expected} (paper: {v.paper})"
    return claim(text, v.value or 0.0, v.unit, spread, v.n, target, v.verdict == PASS)


def took(results: Results) -> str:
    """From the first network's start to the last one's end, pauses included."""
    began = [r["env"]["started"] for r in results.records]
    ended = [r["env"]["started"] + r["env"]["seconds"] for r in results.records]
    parts = sum(r["env"]["parts"] - 1 for r in results.records)
    return f"from first to last {duration(max(ended) - min(began))}, {parts} networks interrupted and resumed"


def commits(results: Results) -> str:
    return ", ".join(sorted({r["env"]["commit"] or "unknown" for r in results.records}))


def page(verdicts: list[Verdict], figures: tuple[int, ...]) -> str:
    """What the folder shows under the table."""
    pictures = "\n\n".join(f"![figure {n}](figure{n}.svg)" for n in figures)
    rows = "Every arm and level: [levels.csv](levels.csv); every network: [networks.csv](networks.csv)."
    return f"{pictures}\n\n{as_markdown(verdicts)}\n\n{rows}"
