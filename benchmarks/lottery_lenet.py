"""The lottery ticket paper's own experiment: LeNet-300-100 on MNIST, 29 networks deep, many seeds, claim by claim.

Carries out recipes/lottery_lenet_mnist.toml (networks that are in --runs already are not made again), draws the paper's
figures 1, 3 and 4 with its points laid over, and scores each of its claims that this network decides: 28 rounds of
pruning, 50,000 iterations each, a ticket, three reinitialised ones, a random sparse network and a one-shot ticket at
every level of every seed. Early stops are found raw (the smallest validation loss) and smoothed (the middle of the
eleven looks in a row with the smallest mean). A claim that misses is a result: tolerances were set before the run.
"""

from pathlib import Path

from claim import arguments, claim, finish

from prunery import tickets
from prunery.chain import Place
from prunery.cli.lottery import Progressing, costs, duration, records
from prunery.report.lottery import NOT_RUN, PASS, Results, Verdict, as_markdown, differs, write_lottery
from prunery.runs import Runs
from prunery.spec import read_lottery
from prunery.train import Ways

RECIPE = Path(__file__).parent.parent / "recipes" / "lottery_lenet_mnist.toml"
QUICK = ["steps=300", "levels=7", "seeds=2", "reinits=1"]


def main() -> None:
    asked = arguments(__doc__ or "", data_dir="data", runs="runs", threads="0", figures="lottery")
    wanted = read_lottery(str(RECIPE), QUICK if asked.quick else [])
    place = Place(Runs(asked.runs), Path(asked.data_dir), Ways(threads=int(asked.threads)))
    with Progressing(quiet=asked.json) as pace:
        done = tickets.run(wanted, place, pace)
    results = Results(wanted, tuple(records(done)))
    verdicts, _ = write_lottery(results, "all", asked.keep or Path(asked.figures))
    decided = [v for v in verdicts if v.verdict != NOT_RUN]
    lines = [
        costs(results.records),
        took(results),
        *(f"not the paper's: {k} = {v}" for k, v in differs(wanted).items()),
    ]
    finish(
        [as_claim(v) for v in decided], "\n".join(lines), asked, RECIPE.read_text(), page(verdicts), commits(results)
    )


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


def page(verdicts: list[Verdict]) -> str:
    """What the folder shows under the table."""
    figures = "\n\n".join(f"![figure {n}](figure{n}.svg)" for n in (1, 3, 4))
    rows = "Every arm and level: [levels.csv](levels.csv); every network: [networks.csv](networks.csv)."
    return f"{figures}\n\n{as_markdown(verdicts)}\n\n{rows}"


if __name__ == "__main__":
    main()
