"""Claim: of what plays, our cheapest network costs less than any that others have published in the score's terms.

All kept results of the score game in one figure: what each benchmark's result.json tells of its stages, with the 90 %
line, the front of ours, and what others have published (entries of the game, and low-bit networks put through its
formula). Nothing is measured anew: the results say how each figure was made, and of kept files
`prunery score FILE --verify` does it again.
"""

import json
from pathlib import Path

from claim import arguments, claim, columns, finish

from prunery.report.figures import game_figure
from prunery.report.game import ENTRIES

RESULTS = Path(__file__).parent.parent / "results"
NEEDED = 0.9


def kept() -> dict[str, list[dict]]:
    """The stages of every result that tells their scores."""
    told = {file.parent.name: json.loads(file.read_text()) for file in sorted(RESULTS.glob("*/result.json"))}
    return {name: result["points"] for name, result in told.items() if result.get("points")}


def main() -> None:
    asked = arguments(__doc__)
    results = kept()
    rows = [["network", "test accuracy, %", "score, 2.8e8"]]
    points = [(name, p) for name, stages in results.items() for p in stages]
    for name, p in sorted(points, key=lambda point: point[1]["score"]):
        rows.append([f"{name}: {p['name']}", f"{100 * p['accuracy']:.2f}", f"{p['score']:.5f}"])
    if asked.keep:
        game_figure({k: [(p["score"], p["accuracy"]) for p in v] for k, v in results.items()}, asked.keep / "figures")
    best = min(p["score"] for _, p in points if p["accuracy"] >= NEEDED)
    theirs = min(ENTRIES, key=lambda entry: entry.score if entry.accuracy >= NEEDED else 1e9)
    text = f"the lowest score of ours with 90 %, against {theirs.name} ({theirs.score})"
    claims = [claim(text, best / theirs.score, "times", None, len(points), 1.0, best < theirs.score)]
    more = "![accuracy against score](figures/accuracy_score.svg)"
    finish(claims, columns(rows), asked, "", more)


if __name__ == "__main__":
    main()
