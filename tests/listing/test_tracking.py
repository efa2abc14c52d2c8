"""Steps in MLflow: each a run, below its parent's, written once."""

import json
import sys

import pytest
from steps_on_disk import DATA, INIT, write

from prunery.listing import listing, track
from prunery.runs import checksum
from prunery.spec import Node, Prune, Refused


def test_without_mlflow_it_is_one_line(shelf, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(Refused) as refused:
        track(f"sqlite:///{tmp_path}/m.db", "e", shelf, listing(shelf).rows)
    assert str(refused.value).startswith("--mlflow needs the package mlflow-skinny, which is missing; install")
    assert "install mlflow-skinny, sqlalchemy, alembic: " in str(refused.value)
    assert not (tmp_path / "m.db").exists()


pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """An empty one; MLflow takes seconds to make its tables."""
    for package in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(package, reason="mlflow is an extra: pip install 'prunery[mlflow]'")
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/m.db"


@pytest.fixture
def server(database):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=database)


def runs(server, experiment):
    """The runs of an experiment by their steps."""
    number = server.get_experiment_by_name(experiment).experiment_id
    found = server.search_runs([number])
    assert len({r.data.tags["prunery.step"] for r in found}) == len(found)
    return {r.data.tags["prunery.step"]: r for r in found}


@pytest.fixture
def trained(shelf):
    """One of the trainings has rows of metrics, more than one call to MLflow takes, and a weights file."""
    folder = next(shelf.glob("train-*"))
    rows = [{"step": s, "train_loss": 1 / s, "val_loss": None, "seconds": 0.5 * s} for s in range(1, 602)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "weights.safetensors").write_bytes(b"weights")
    return folder


def test_every_step_is_a_run_below_its_parent(shelf, trained, server, database):
    rows = listing(shelf).rows
    tracked = track(database, "all", shelf, rows)
    found = runs(server, "all")
    assert sorted(tracked.written) == sorted(found) == sorted(row["name"] for row in rows)
    for row in rows:
        run = found[row["name"]]
        parent = found[row["parent"]].info.run_id if row["parent"] else None
        assert run.data.tags.get("mlflow.parentRunId") == parent
        assert run.info.status == "FINISHED"
        if row["started"]:  # MLflow takes 0 for no time at all
            assert (run.info.start_time, run.info.end_time) == (1000 * row["started"], 1000 * row["started"] + 2000)
        assert run.data.tags["mlflow.source.git.commit"] == run.data.tags["prunery.commit"] == "abc"
        assert run.data.tags["prunery.kind"] == row["kind"]
        assert run.data.metrics.get("accuracy") == row.get("accuracy")
        settings = {k: v for k, v in row.items() if k.split(".")[0] in (row["kind"], "model", "data") and "." in k}
        assert run.data.params == {k: v if isinstance(v, str) else json.dumps(v) for k, v in settings.items()}


def test_training_is_metrics_by_step(shelf, trained, server, database):
    track(database, "training", shelf, listing(shelf).rows)
    run = runs(server, "training")[trained.name]
    history = server.get_metric_history(run.info.run_id, "train_loss")
    assert sorted((m.step, m.value) for m in history) == [(s, 1 / s) for s in range(1, 602)]
    assert "val_loss" not in run.data.metrics
    (accuracy,) = server.get_metric_history(run.info.run_id, "accuracy")
    assert (accuracy.step, accuracy.value) == (601, 0.95)
    assert run.data.tags["prunery.sha256"] == checksum(trained / "weights.safetensors")


def test_what_is_there_is_not_written_again(shelf, server, database):
    rows = listing(shelf).rows
    track(database, "twice", shelf, rows)
    before = runs(server, "twice")
    write(shelf, Node(Prune(data=DATA, density=0.7), INIT), started=40.0)
    again = track(database, "twice", shelf, listing(shelf).rows)
    after = runs(server, "twice")
    (new,) = again.written
    assert sorted(again.there) == sorted(before)
    assert after.keys() == before.keys() | {new}
    assert all(after[name].info.run_id == run.info.run_id for name, run in before.items())
    assert after[new].data.tags["mlflow.parentRunId"] == before[INIT.name].info.run_id


def test_a_run_that_was_cut_off_is_written_again(shelf, server, database, monkeypatch):
    from mlflow import MlflowClient

    def cut(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "set_terminated", cut)
        with pytest.raises(KeyboardInterrupt):
            track(database, "cut", shelf, listing(shelf).rows)
    assert [r.info.status for r in runs(server, "cut").values()] == ["RUNNING"]
    track(database, "cut", shelf, listing(shelf).rows)
    found = runs(server, "cut")
    assert len(found) == 7
    assert {r.info.status for r in found.values()} == {"FINISHED"}


@pytest.mark.parametrize("uri", ["ftp://host", "http://127.0.0.1:9", "sqlite:////proc/none/m.db"])
def test_a_server_that_does_not_answer_is_one_line(uri, shelf, database):
    with pytest.raises(Refused, match="cannot be written") as refused:
        track(uri, "e", shelf, listing(shelf).rows)
    assert "\n" not in str(refused.value)
    assert "expected such as sqlite:///" in str(refused.value)


def test_a_deleted_experiment_is_one_line(shelf, server, database):
    server.delete_experiment(server.create_experiment("gone"))
    with pytest.raises(Refused, match=r'--experiment = "gone" is deleted there'):
        track(database, "gone", shelf, listing(shelf).rows)
