"""The paper's claims, scored: value, interval, the paper's number, and whether it holds within its tolerance.

Early stops are found in two ways, raw and smoothed, and every claim that depends on them is scored by both. A claim
that promises at least something is scored on that side alone. Ratios of iterations are geometric means, seed by seed.
"""

import math
from dataclasses import dataclass

from .results import Results, end_accuracy, stop_accuracy
from .scoring import (
    LEFT_OUT,
    Score,
    Scorer,
    above_random,
    at_least,
    best_gain,
    between,
    dense,
    dense_after,
    falls,
    faster_in_band,
    more,
    order,
    surely_above,
    times,
    wins,
    worst_fit,
)  # fmt: skip

PASS, MISS, NOT_RUN = "PASS", "MISS", "NOT RUN"
STOPS = ("raw", "smoothed")


@dataclass(frozen=True)
class Claim:
    """Something that the paper says."""

    name: str
    figure: str
    text: str
    paper: str
    expected: str
    unit: str = ""
    score: Scorer | None = None
    """nothing where no code of ours trains what it takes"""
    stops: bool = True
    """whether it depends on where training stops early"""
    seeds: int = 1
    """fewer prove nothing"""
    network: str = "lenet_300_100"
    """what it is about"""


@dataclass(frozen=True)
class Verdict:
    """A claim with what became of it."""

    name: str
    figure: str
    text: str
    stop: str
    value: float | None
    low: float | None
    high: float | None
    spread: str
    n: int
    unit: str
    paper: str
    expected: str
    verdict: str
    note: str


def scored(results: Results) -> list[Verdict]:
    """Every claim, in the paper's order."""
    found = []
    for claim in CLAIMS:
        for stop in STOPS if claim.stops and claim.score else ("",):
            enough = results.network == claim.network and len(results.seeds) >= claim.seeds
            score = claim.score(results, stop) if claim.score and enough else None
            found.append(_verdict(claim, stop, score))
    return found


def _verdict(claim: Claim, stop: str, score: Score | None) -> Verdict:
    about = (claim.name, claim.figure, claim.text, stop)
    tail = {"unit": claim.unit, "paper": claim.paper, "expected": claim.expected}
    if score is None:
        return Verdict(*about, None, None, None, "", 0, **tail, verdict=NOT_RUN, note="")
    f = score.found
    spread = score.spread if f.n > 1 else ""
    return Verdict(
        *about, f.mean, f.low, f.high, spread, f.n, **tail, verdict=PASS if score.holds else MISS, note=score.note
    )


# --- the claims -------------------------------------------------------------------------------------------------------

TICKET, REINIT, FIRST = (lambda p: ("ticket", p)), (lambda p: ("reinit", p)), ("ticket", 100.0)
LENET = (
    Claim(
        "L0", "3, 4", "dense test accuracy at the early stop", "~98.0", "97.8 to 98.2", "%",
        dense(stop_accuracy, between(97.8, 98.2)),
    ),
    Claim(
        "L0", "3", "dense test accuracy after 18,000 iterations", "~98.0", "97.8 to 98.2", "%",
        dense_after(18_000, between(97.8, 98.2)), stops=False,
    ),
    Claim(
        "L1", "4a", "tickets of 21.1 % stop earlier than the dense network", "38 (figure 1: 20 to 26)",
        "15 or more, interval above 0; usual: 15 to 45", "% of its iterations",
        times(TICKET(21.1), FIRST, lambda f: at_least(15)(f) and surely_above(0)(f), lambda r: 100 * (1 - r)), seeds=2,
    ),
    Claim(
        "L2", "4a", "largest gain at the early stop, from 25 to 8 % of the weights", "> 0.3 at 13.5 %", "0.2 or more",
        "points", best_gain(stop_accuracy, 8, 25, at_least(0.2)),
    ),
    Claim(
        "L3", "4a", "accuracy of 3.6 % against the dense network's", "0", "-0.2 to 0.2", "points",
        more(TICKET(3.6), FIRST, between(-0.2, 0.2)),
    ),
    Claim(
        "L3", "4a", "iterations to the early stop at 3.6 % against the dense network's", "1", "0.8 to 1.5", "times",
        times(TICKET(3.6), FIRST, between(0.8, 1.5)),
    ),
    Claim(
        "L4", "4b", "largest gain of accuracy after the last iteration", "up to 0.35", "0.15 to 0.5", "points",
        best_gain(lambda stop: end_accuracy, 1, 100, between(0.15, 0.5)), stops=False,
    ),
    Claim(
        "L5", "4a", "iterations of reinitialised tickets of 21.1 % against the tickets'", "2.51", "1.5 to 3.5", "times",
        times(REINIT(21.1), TICKET(21.1), between(1.5, 3.5)),
    ),
    Claim(
        "L6", "4a", "tickets of 21.1 % against reinitialised ones", "+0.5", "0.3 to 0.7", "points",
        more(TICKET(21.1), REINIT(21.1), between(0.3, 0.7)),
    ),
    Claim(
        "L7", "4a", "tickets fall below the dense accuracy at", "2.9", "2 to 4.5", "% of the weights",
        falls("ticket", 2, 4.5, reach=1.5),
    ),
    Claim(
        "L7", "4a", "reinitialised tickets fall below the dense accuracy at", "21.1", "15 to 50", "% of the weights",
        falls("reinit", 15, 50, reach=14),
    ),
    Claim(
        "L8", "4", "lowest training accuracy at the end, tickets of 2 % and more", "~100", "99.9 or more", "%",
        worst_fit(lambda results: ["ticket"], 2), stops=False,
    ),
    Claim(
        "L8", "4", "the same, every arm at 5 % and more", "~100", "99.9 or more", "%",
        worst_fit(lambda results: results.arms, 5), stops=False,
    ),
    Claim(
        "L9", "4c", "levels from 67.5 to 17.6 % at which one-shot tickets stop before the dense network", "all",
        "more than half", "% of the levels", faster_in_band,
    ),
    Claim(
        "L10", "4c", "one-shot tickets are as accurate as dense ones down to", "5.17", "4 to 8", "% of the weights",
        falls("oneshot", 4, 8, reach=3.6, last_above=True),
    ),
    Claim(
        "L11", "3", "order of the curves at 5,000 iterations: what holds", "all 6", "6", "of 6", order, stops=False
    ),
    Claim(
        "T1", "4a", "tickets of 21.1 % beat the same masks with other weights", "yes", "interval above 0", "points",
        more(TICKET(21.1), REINIT(21.1), surely_above(0)), seeds=2,
    ),
    Claim(
        "T2", "4a", "tickets of 3.6 % beat the same masks with other weights", "yes", "interval above 0", "points",
        more(TICKET(3.6), REINIT(3.6), surely_above(0)), seeds=2,
    ),
)  # fmt: skip


def _sooner(name: str, network: str, percent: float, paper: str, low: float, high: float) -> Claim:
    """Tickets stop so many times earlier than the dense network."""
    text, score = (
        f"early stop sooner at {percent:g} %",
        times(TICKET(percent), FIRST, between(low, high), lambda r: 1 / r),
    )
    return Claim(name, "5", f"{TITLES[network]}: {text}", paper, f"{low} to {high}", "times", score, network=network)


def _gain(name: str, network: str, percent: float, paper: str, low: float, high: float) -> Claim:
    text, score = f"gain at the early stop, {percent:g} %", more(TICKET(percent), FIRST, between(low, high))
    return Claim(name, "5", f"{TITLES[network]}: {text}", paper, f"{low} to {high}", "points", score, network=network)


def _convolutional(network: str) -> tuple[Claim, ...]:
    """What the paper says of each of its three."""
    title, tickets = TITLES[network], lambda results: ["ticket"]
    return (
        Claim(
            "C7", "5", f"{title}: above the dense accuracy down to", "2", "4 or less", "% of the weights",
            falls("ticket", 0, 4, reach=4, last_above=True), network=network,
        ),
        Claim(
            "C8", "5", f"{title}: levels below 25 % at which tickets beat reinitialised ones", "yes", "all",
            "% of the levels", wins(25), network=network,
        ),
        Claim(
            "C9", "13", f"{title}: lowest training accuracy at the end, 2 % and more", "100", "99 or more", "%",
            worst_fit(tickets, 2, 99), stops=False, network=network,
        ),
    )  # fmt: skip


TITLES = {"conv2": "Conv-2", "conv4": "Conv-4", "conv6": "Conv-6"}
CONV = (
    _sooner("C1", "conv2", 8.8, "3.5", 2.2, 4.8),
    _sooner("C2", "conv4", 9.2, "3.5", 2.2, 4.8),
    _sooner("C3", "conv6", 15.1, "2.5", 1.6, 3.4),
    _gain("C4", "conv2", 4.6, "+3.4", 2.4, 4.4),
    _gain("C5", "conv4", 11.1, "+3.5", 1.5, 4.5),
    _gain("C6", "conv6", 26.4, "+3.3", 2, 4.5),
    *(claim for network in TITLES for claim in _convolutional(network)),
)
LATER = (
    Claim("D1", "6", "dropout: dense gain of Conv-2, 4, 6", "+2.1, +3.0, +2.4", "within 1", "points"),
    Claim("D2", "6", "dropout: further gain by pruning", "+2.3, +4.6, +4.7", "within 1.5", "points"),
    Claim("D3", "H.5", "dropout: validation accuracy of Conv-4 and Conv-6 tickets", "82.6, 84.8", "within 1", "%"),
    Claim("V1", "7", "VGG-19, rate 0.1: tickets over reinitialised ones", "none", "below 0.3", "points"),
    Claim("V2", "7", "VGG-19, rate 0.01: within a point of dense down to", "3.5", "2.5 to 6", "% of the weights"),
    Claim("V3", "7", "VGG-19, rate 0.1 with warm-up: tickets down to", "1.5", "1.2 to 3", "% of the weights"),
    Claim("R1", "8", "ResNet-20, rate 0.1: dense accuracy; no tickets", "90.5", "90 to 91.3", "%"),
    Claim("R2", "8", "ResNet-20, rate 0.01: best tickets", "89.5", "89 to 90", "%"),
    Claim("R3", "8", "ResNet-20, rate 0.03 with warm-up: accuracy at 27.1 %", "90.5", "90 to 91", "%"),
    Claim("A1", "G.3", "LeNet, SGD 0.4 and 0.8: as good as dense down to", "below 1", "below 1.5", "% of the weights"),
    Claim("A2", "G.6", "LeNets of any width are as good as dense at", "9,000 to 15,000", "6,000 to 22,500", "weights"),
    Claim("A3", "F.7", "noise of half a deviation changes little; of three, still better than reinit", "yes", "order"),
    Claim("A4", "F.3", "reinit from the ticket's distribution against plain reinit", "same", "within 0.2", "points"),
    Claim(
        "A5", "E", "LeNet: reinitialised tickets against random masks", "above 0", "above 0", "points",
        above_random,
    ),
    Claim("A6", "H.2", "Conv-2, 4, 6: best validation accuracy", "70.9, 78.6, 81.5", "within 1", "%"),
    Claim("A7", "H.6", "pruning convolutions alone improves, linear layers alone only worsens", "yes", "sign"),
)  # fmt: skip
CLAIMS = (*LENET, *CONV, *LATER)


def cells(verdict: Verdict) -> list[str]:
    """A row under `HEADER`."""
    value = "" if verdict.value is None else f"{figures(verdict.value)} {verdict.unit}".strip()
    interval = f"{figures(verdict.low)} to {figures(verdict.high)}" if verdict.spread else ""
    interval += f" ({LEFT_OUT})" if verdict.spread == LEFT_OUT else ""
    text = f"{verdict.text} ({verdict.note})" if verdict.note else verdict.text
    row = [verdict.name, verdict.figure, text, verdict.stop, value, interval]
    return [*row, verdict.paper, verdict.expected, verdict.verdict]


def figures(value: float | None) -> str:
    """Three or four figures."""
    if value is None or not math.isfinite(value):
        return "?"
    return f"{value:.2f}" if abs(value) < 1000 else f"{value:,.0f}"


HEADER = ["", "figure", "claim", "early stop", "value", "95 % interval", "paper", "expected", "verdict"]


def as_markdown(verdicts: list[Verdict]) -> str:
    """One row a claim and way to stop."""
    rows = [HEADER, ["---"] * len(HEADER), *map(cells, verdicts)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
