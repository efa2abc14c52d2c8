"""Steps as runs of MLflow: settings as parameters, results and training as metrics, a step's run below its parent's.

A step never changes once it is finished, so its name says whether it is there already: a run is written once.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ..runs import RESULT, WEIGHTS, Step, checksum
from ..spec import Refused, install, quote
from .expression import Row
from .rows import figures, settings, table

EXPERIMENT = "prunery"
STEP = "prunery.step"
"""the tag that a step's run is found by"""
TOLD = ("kind", "label", "parent", "machine", "cores", "threads", "isa", "torch", "parts")
"""columns that are tags"""
PARAMETERS, METRICS = 100, 1000
"""that MLflow takes in one call"""
LONGEST = 6000
"""characters of a parameter"""


@dataclass
class Tracked:
    """Where the runs are, and what was written now and before."""

    uri: str
    experiment: str
    written: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)


def track(uri: str, experiment: str, root: Path, rows: Iterable[Row]) -> Tracked:
    """A run for every row that has none yet; one that was cut off is written again."""
    client = _client()
    tracked = Tracked(uri, experiment)
    try:
        server = client(tracking_uri=uri)
        number = _experiment(server, experiment)
        runs = _known(server, number)
        for row in sorted(rows, key=lambda row: row["depth"]):  # parents first: their runs are named by their children
            name = row["name"]
            if name in runs:
                tracked.there.append(name)
                continue
            runs[name] = _written(server, number, Step(root / name), row, runs.get(row["parent"]))
            tracked.written.append(name)
    except Refused:
        raise
    except Exception as error:  # MLflow's own, those of its database and of HTTP
        seen = (
            f"--mlflow = {quote(uri)} cannot be written ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        )
        raise Refused(f"{seen}; expected such as sqlite:///mlflow.db, or http://HOST:PORT of a server") from None
    return tracked


def _client() -> Any:
    # What steps are goes to the server that the user names and to nobody else; a dead one is told in seconds.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    try:
        from mlflow import MlflowClient
    except ImportError:
        needed = "--mlflow needs the package mlflow-skinny, which is missing"
        raise Refused(f"{needed}; {install('mlflow', 'mlflow-skinny', 'sqlalchemy', 'alembic')}") from None
    return MlflowClient


def _experiment(server: Any, name: str) -> str:
    there = server.get_experiment_by_name(name)
    if there and there.lifecycle_stage != "active":
        raise Refused(f"--experiment = {quote(name)} is deleted there; expected another name, or restore it in MLflow")
    return there.experiment_id if there else server.create_experiment(name)


def _known(server: Any, experiment: str) -> dict[str, str]:
    """The runs of steps, by the steps' names; those that a killed process left unfinished are deleted."""
    found: dict[str, str] = {}
    for run in _runs(server, experiment):
        if name := run.data.tags.get(STEP):
            if run.info.status == "FINISHED":
                found[name] = run.info.run_id
            else:
                server.delete_run(run.info.run_id)
    return found


def _runs(server: Any, experiment: str) -> Iterator[Any]:
    """All of an experiment, page by page."""
    token = None
    while True:
        page = server.search_runs([experiment], page_token=token)
        yield from page
        if not (token := page.token):
            return


def _written(server: Any, experiment: str, step: Step, row: Row, parent: str | None) -> str:
    """The whole of a run, in parts as large as MLflow takes; it counts as finished with the last of them."""
    from mlflow.entities import Metric, Param

    began = _milliseconds(row["started"])
    ended = began + _milliseconds(row["seconds"])
    run = server.create_run(experiment, began, _tags(step, row, parent), row["label"] or row["name"]).info.run_id
    parameters = [Param(k, _text(v)) for k, v in settings(str(step.folder))[1].items()]
    metrics = [Metric(*told) for told in _metrics(step, began, ended)]
    for part in _parts(parameters, PARAMETERS):
        server.log_batch(run, params=part)
    for part in _parts(metrics, METRICS):
        server.log_batch(run, metrics=part)
    server.set_terminated(run, "FINISHED", ended)
    return run


def _tags(step: Step, row: Row, parent: str | None) -> dict[str, str]:
    """What a run is found by and where it hangs; the checksum is that of the weights' file."""
    tags = {STEP: step.name} | {f"prunery.{k}": str(row[k]) for k in TOLD if row[k] is not None}
    if (step.folder / WEIGHTS).exists():
        tags["prunery.sha256"] = checksum(step.folder / WEIGHTS)
    if row["commit"]:
        tags |= {"mlflow.source.git.commit": row["commit"].removesuffix("+"), "prunery.commit": row["commit"]}
    return tags | ({"mlflow.parentRunId": parent} if parent else {})


def _metrics(step: Step, began: int, ended: int) -> Iterator[tuple[str, float, int, int]]:
    """Training by its step, then what came of it, at the last of them."""
    last = 0
    for row in step.metrics():
        last = int(row["step"])
        at = began + _milliseconds(row.get("seconds"))
        yield from ((k, float(v), at, last) for k, v in row.items() if k != "step" and isinstance(v, int | float))
    result = figures(table(str(step.folder), RESULT, missing=True))
    yield from ((k, float(v), ended, last) for k, v in result.items())


def _milliseconds(seconds: Any) -> int:
    return round(1000 * seconds) if isinstance(seconds, int | float) else 0


def _text(value: Any) -> str:
    """As `prunery runs --csv` has it."""
    return (value if isinstance(value, str) else json.dumps(value))[:LONGEST]


def _parts(values: Sequence[Any], most: int) -> Iterator[list[Any]]:
    left = iter(values)
    while part := list(islice(left, most)):
        yield part
