"""What came after the lottery ticket paper, on its own network: every arm on LeNet-300-100, claim by claim.

Carries out recipes/lottery_arms_mnist.toml (networks that are in --runs already are not made again): 5,000 iterations a
level with a learning rate that drops twice, 15 rounds, three seeds. Expectations are those of the papers that each arm
comes from, set before the run; differences are paired seed by seed, with 95 % intervals (Student's t).
"""

from collections.abc import Callable
from pathlib import Path

from claim import arguments, claim, finish

from prunery import tickets
from prunery.chain import Place
from prunery.cli.lottery import Progressing, costs, records
from prunery.report.lottery import Interval, Results, write_lottery
from prunery.report.lottery.results import Metric, barrier_height, end_accuracy, stop_accuracy
from prunery.runs import Runs
from prunery.spec import read_lottery
from prunery.train import Ways

RECIPE = Path(__file__).parent.parent / "recipes" / "lottery_arms_mnist.toml"
QUICK = ["steps=300", "drops=[200, 250]", "levels=7", "seeds=2", "data.name=digits"]
FAR, MIDDLE = 10.8, 21.1
EARLY = stop_accuracy("raw")


def difference(results: Results, one: str, other: str, percent: float, metric: Metric = EARLY) -> Interval:
    """Points that one arm has over another."""
    level = results.level(percent) or max(results.percents)
    return results.differences((one, level), (other, level), metric)


def best(results: Results, arm: str) -> Interval:
    """An arm's mean at its best level."""
    means = [Interval.of(results.by_seed(arm, v, end_accuracy).values()) for v in results.levels(arm)]
    return max(means, key=lambda found: found.mean)


def barrier(results: Results, level: int) -> Interval:
    return Interval.of(barrier_height(r) for r in results.barred(level))


Row = tuple[str, Callable[[Results], Interval], str, str, Callable[[Interval], bool]]
ROWS: list[Row] = [
    ("with the first signs and one size, against signs drawn anew, 21 % (1905.01067)",
     lambda r: difference(r, "signs", "constant", MIDDLE), "points", "> 0", lambda f: f.low > 0),
    ("tickets against the same mask with other weights, 11 %",
     lambda r: difference(r, "ticket", "reinit", FAR), "points", "> 0", lambda f: f.low > 0),
    ("learning-rate rewinding against finetuning at the end, 11 % (2003.02389)",
     lambda r: difference(r, "continued", "finetuned", FAR, end_accuracy), "points", "> 0", lambda f: f.low > 0),
    ("learned masks over untrained weights, best level (1905.01067: 95.3, rescaled 98.0)",
     lambda r: best(r, "supermask"), "%", ">= 95.3", lambda f: f.mean >= 95.3),
    ("tickets that are never trained, best level (1905.01067: 86)",
     lambda r: best(r, "untrained"), "%", ">= 60", lambda f: f.mean >= 60),
    ("large weights that kept their sign, never trained, best level (1905.01067: 86)",
     lambda r: best(r, "untrained_same_sign"), "%", ">= 80", lambda f: f.mean >= 80),
    ("barrier between two dense networks of one beginning (1912.05671: stable, below 2)",
     lambda r: barrier(r, 0), "% of the test images", "< 2", lambda f: f.mean < 2),
    ("barrier between two tickets of 21 %",
     lambda r: barrier(r, r.level(MIDDLE) or max(r.percents)), "% of the test images", "< 2", lambda f: f.mean < 2),
    ("early birds against tickets, 21 % (1909.11957: as good)",
     lambda r: difference(r, "earlybird", "ticket", MIDDLE), "points", "within 0.3", lambda f: abs(f.mean) <= 0.3),
    ("masks found with SGD against tickets found with Adam, 21 % (1906.02773: as good)",
     lambda r: difference(r, "transferred", "ticket", MIDDLE), "points", "within 0.3", lambda f: abs(f.mean) <= 0.3),
    ("noise of half a deviation against the ticket, 21 % (1803.03635, F.7)",
     lambda r: difference(r, "noise_0.5", "ticket", MIDDLE), "points", "within 0.2", lambda f: abs(f.mean) <= 0.2),
    ("noise of three deviations against other weights, 21 % (F.7)",
     lambda r: difference(r, "noise_3", "reinit", MIDDLE), "points", "> 0", lambda f: f.mean > 0),
    ("the ticket's own weights in another order against weights drawn anew, 21 % (F.3)",
     lambda r: difference(r, "resampled", "reinit", MIDDLE), "points", "within 0.2", lambda f: abs(f.mean) <= 0.2),
]  # fmt: skip


def main() -> None:
    asked = arguments(__doc__ or "", data_dir="data", runs="runs", threads="0", figures="lottery")
    wanted = read_lottery(str(RECIPE), QUICK if asked.quick else [])
    place = Place(Runs(asked.runs), Path(asked.data_dir), Ways(threads=int(asked.threads)))
    with Progressing(quiet=asked.json) as pace:
        done = tickets.run(wanted, place, pace)
    results = Results(wanted, tuple(records(done)))
    write_lottery(results, "all", asked.keep or Path(asked.figures))
    claims = []
    for text, measure, unit, target, holds in ROWS:
        found = measure(results)
        spread = f"95 % interval {found.low:.2f} to {found.high:.2f}"
        claims.append(claim(text, found.mean, unit, spread, found.n, target, holds(found)))
    commits = ", ".join(sorted({r["env"]["commit"] or "unknown" for r in results.records}))
    finish(claims, costs(results.records), asked, RECIPE.read_text(), PAGE, commits)


PAGE = """![all arms](arms.svg)

![stability](stability.svg)

Every arm and level: [levels.csv](levels.csv); every network: [networks.csv](networks.csv)."""


if __name__ == "__main__":
    main()
