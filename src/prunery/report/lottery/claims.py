"""The paper's claims, scored: value, interval, the paper's number, and whether it holds within its tolerance.

Early stops are found in two ways, raw and smoothed, and every claim that depends on them is scored by both. A claim
that promises at least something is scored on that side alone. Ratios of iterations are geometric means, seed by seed.
Where training is so short that the smoothing window decides where a smoothed stop lies, none is scored.
"""

import math
from dataclasses import dataclass

from ...spec import SMOOTH
from .results import Results
from .scoring import LEFT_OUT, Score
from .statements import CLAIMS, Claim

PASS, MISS, NOT_RUN = "PASS", "MISS", "NOT RUN"
STOPS = ("raw", "smoothed")


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
            enough = enough and claim.when(results.lottery)
            score = claim.score(results, stop) if claim.score and enough else None
            bound = score is not None and stop == "smoothed" and not results.lottery.smooths
            note = f"the smoothing window, {SMOOTH} of {results.lottery.looks} looks, is too wide" if bound else ""
            found.append(_verdict(claim, stop, None if bound else score, note))
    return found


def _verdict(claim: Claim, stop: str, score: Score | None, why: str) -> Verdict:
    """`why` it is not run, where it is more than that networks are missing."""
    about = (claim.name, claim.figure, claim.text, stop)
    tail = {"unit": claim.unit, "paper": claim.paper, "expected": claim.expected}
    if score is None:
        return Verdict(*about, None, None, None, "", 0, **tail, verdict=NOT_RUN, note=why)
    f = score.found
    spread = score.spread if f.n > 1 else ""
    return Verdict(
        *about, f.mean, f.low, f.high, spread, f.n, **tail, verdict=PASS if score.holds else MISS, note=score.note
    )


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
