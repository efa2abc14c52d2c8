"""`prunery search`: trials as they come, the best of them, the front."""

import csv
import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from ..chain import Place
from ..report import front_figure
from ..runs import write_file, write_json, writing
from ..search import Found, Space, Trials, best, front, read_space
from ..spec import Refused


def asked(file: Path, trials: int | None) -> Space:
    """The space in a file, with as many trials as the command line says."""
    space = read_space(file)
    if trials is not None and trials < 1:
        raise Refused(f"--trials = {trials} is not allowed; expected 1 or more")
    return replace(space, trials=trials or space.trials)


def carried_out(space: Space, place: Place) -> list[Found]:
    """Every trial, told as it ends."""
    found = []
    for trial in Trials(space, place).run():
        found.append(trial)
        place.say(f"trial {len(found)} of at most {space.trials}: {_point(trial)}: {_worth(space, trial)}")
    return found


def finished(space: Space, found: list[Found], out: Path) -> tuple[dict[str, Any], list[Any]]:
    """Rows, the best one's settings and the figure written; the same as JSON and in words."""
    whole = [f for f in found if f.whole]
    winner, edge = best(found), front(whole, space.objectives)
    settings = [f"{k}={json.dumps(v)}" for k, v in winner.point.items()]
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    write_file(out / "trials.csv", _csv(found).encode())
    points = [(f.measures[space.objective.measure], f.measures["accuracy"], f.met) for f in whole]
    paths = front_figure(points, space.objective.measure, _line(space), out)
    told = {"best": asdict(winner), "settings": settings, "front": [asdict(f) for f in edge], "trials": len(found)}
    write_json(out / "best.json", told)
    verdict = "" if winner.met else f"no trial meets {space.target.measure}; the nearest:"
    words = [
        _table(space, edge),
        "",
        *([verdict] if verdict else []),
        f"best: {_point(winner)}: {_worth(space, winner)}",
    ]
    changes = " ".join(f"--set '{s}'" for s in settings)
    words.append(f"carry it out in full: prunery run {space.recipe} {changes}")
    return told, [*words, f"trials, the best and the figure: {out}" if paths else f"trials and the best: {out}"]


def _line(space: Space) -> float | None:
    """The accuracy that is wanted."""
    return space.target.bound if space.target.measure == "accuracy" else None


def _point(found: Found) -> str:
    return ", ".join(f"{k} = {json.dumps(v)}" for k, v in found.point.items())


def _worth(space: Space, found: Found) -> str:
    if found.refused:
        return f"refused: {found.refused}"
    if found.cut:
        return f"given up at accuracy {100 * found.measures['accuracy']:.2f} %"
    names = dict.fromkeys(("accuracy", *(o.measure for o in space.objectives), space.target.measure))
    texts = [f"{n} {100 * v:.2f} %" if n == "accuracy" else f"{n} {v:.4g}" for n in names for v in [found.measures[n]]]
    return ", ".join(texts) + ("" if found.met else ", target missed")


def _csv(found: list[Found]) -> str:
    """A row a trial."""
    text = io.StringIO(newline="")
    measures = list(dict.fromkeys(k for f in found for k in f.measures))
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([*found[0].point, *measures, "met", "given_up", "refused", "run"])
    for f in found:
        values = [json.dumps(v) for v in f.point.values()]
        rows.writerow([*values, *(f.measures.get(m, "") for m in measures), f.met, f.cut, f.refused, f.step])
    return text.getvalue()


def _table(space: Space, edge: list[Found]) -> Table:
    """The front: those that no other beats in both."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    wanted = [o.measure for o in space.objectives if o.measure != "accuracy"]
    for name in (*edge[0].point, "accuracy", *wanted, "target") if edge else ("no trial ended",):
        table.add_column(name)
    for f in edge:
        cells = [json.dumps(v) for v in f.point.values()]
        worth = [f"{100 * f.measures['accuracy']:.2f} %", *(f"{f.measures[name]:.4g}" for name in wanted)]
        table.add_row(*cells, *worth, "met" if f.met else "missed")
    return table
