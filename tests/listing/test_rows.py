"""Steps as rows: their columns, their order, and those that cannot be read."""

import json
import subprocess
import sys
import time

import pytest
from steps_on_disk import DATA, INIT, chain, write

from prunery.listing import listing, write_csv, write_parquet
from prunery.listing.rows import _fields, _quick
from prunery.runs import asked
from prunery.spec import STEPS, Model, Node, Prune, Quantize, Refused, Train, dumps, loads, plain


def test_every_number_and_every_setting_is_a_column(shelf):
    found = listing(shelf)
    prune = next(r for r in found.rows if r["kind"] == "prune" and r["prune.density"] == 0.1)
    wanted = {
        "accuracy": 0.9, "standard_error": 0.01, "test.n": 100, "density": 0.1, "bytes": 100, "seconds": 2.0,
        "machine": "a processor", "cores": 2, "commit": "abc", "prune.criterion": "magnitude", "data.name": "mnist",
        "depth": 2,
    }  # fmt: skip
    assert {k: prune[k] for k in wanted} == wanted
    assert set(found.columns) == {c for row in found.rows for c in row}
    assert found.columns[:5] == ["name", "kind", "label", "parent", "depth"]
    assert [r["depth"] for r in found.rows] == [0, 1, 1, 1, 2, 2, 2]
    assert found.rows[0]["model.name"] == "lenet5"


def test_where_and_sort(shelf):
    found = listing(shelf)
    kept = found.where("accuracy > 0.91 and density < 0.3").sorted("-accuracy")
    assert [r["accuracy"] for r in kept.rows] == [0.92]
    by = found.where('kind == "prune"').sorted("-density")
    assert [round(r["density"], 1) for r in by.rows] == [0.3, 0.2, 0.1]
    assert [r["density"] for r in found.sorted("density, -accuracy").rows][-1] == 1.0


def test_what_has_no_value_comes_last_either_way(shelf):
    found = listing(shelf)
    assert found.sorted("accuracy").rows[-1]["kind"] == "init"
    assert found.sorted("-accuracy").rows[-1]["kind"] == "init"


def test_labels_are_those_of_recipes(shelf):
    _, train, _ = chain(1)
    with asked(shelf, "mine", "", {"dense": train.name}):
        pass
    assert next(r for r in listing(shelf).rows if r["name"] == train.name)["label"] == "dense"


BROKEN = [
    ("spec.toml", "kind = ", "TOML"),
    ("spec.toml", 'kind = "teleport"\n', "newer version"),
    ("env.json", "{", "JSON"),
    ("env.json", "[]", "table"),
    ("result.json", '"', "JSON"),
]


@pytest.mark.parametrize(("file", "text", "why"), BROKEN)
def test_a_step_that_cannot_be_read_is_named_and_stops_nothing(file, text, why, shelf):
    _, train, _ = chain(0)
    (shelf / train.name / file).write_text(text)
    found = listing(shelf)
    assert len(found.rows) == 6
    assert list(found.unread) == [train.name]
    assert why in found.unread[train.name]


def test_a_field_of_a_newer_version_is_a_column(shelf):
    _, train, _ = chain(0)
    file = shelf / train.name / "spec.toml"
    file.write_text(file.read_text().replace("\n[data]", "warp = 9\n\n[data]"))
    assert next(r for r in listing(shelf).rows if r["name"] == train.name)["train.warp"] == 9


def test_a_circle_of_parents_ends(shelf):
    _, train, prune = chain(0)
    env = json.loads((shelf / train.name / "env.json").read_text())
    (shelf / train.name / "env.json").write_text(json.dumps(env | {"parent": prune.name}))
    assert len(listing(shelf).rows) == 7


SPECS = [
    *(cls() for cls in STEPS.values()),
    Train(milestones=(3, 5), data=DATA, teacher='a "quoted"\\ name\x7f\n'),
    Prune(table=("conv*=0.5",), scope="table", exclude=("fc*", "a=[b]")),
    Quantize(activations=4, layers=("layer1.*=4/4",)),
    INIT.spec,
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.kind)
def test_the_quick_reader_reads_what_toml_reads(spec):
    assert loads(dumps(spec)) == spec
    normal = json.loads(json.dumps({"kind": spec.kind, **plain(spec)}))
    assert _quick(dumps(spec)) == normal
    assert _fields(dumps(spec))[0] == spec.kind


def test_csv_and_parquet_hold_the_rows(shelf, tmp_path):
    found = listing(shelf)
    write_csv(tmp_path / "a.csv", found.rows, ["name", "accuracy", "label"])
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0] == "name,accuracy,label"
    assert lines[1] == f"{INIT.name},,"
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra: pip install 'prunery[parquet]'")
    write_parquet(tmp_path / "a.parquet", found.rows, found.columns)
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table.column_names == found.columns
    assert table["accuracy"].to_pylist() == [r.get("accuracy") for r in found.rows]


def test_parquet_without_its_package_is_one_line(shelf, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Refused, match=r"install pyarrow: .*pip install "):
        write_parquet(tmp_path / "a.parquet", [], [])


def test_there_is_no_torch_in_it():
    code = "import prunery.listing, sys; assert not {'torch', 'numpy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_thousand_steps_take_less_than_half_a_second(tmp_path):
    """Of the processor's time: the machine that tests run on may be busy with something else."""
    model = Node(INIT.spec.__class__(model=Model(name="resnet20", input=(3, 32, 32), classes=10)))
    layers = [{"name": f"layer{i}", "parameters": 9, "density": 0.1, "shape": [64, 64, 3, 3]} for i in range(20)]
    write(tmp_path, model)
    for i in range(333):
        train = Node(Train(seed=i), model)
        prune = Node(Prune(), train)
        for node in (train, prune, Node(Train(seed=i, epochs=3.0), prune)):
            write(tmp_path, node, 0.5 + i / 1000, layers=layers)
    took = []
    for _ in range(3):
        _fields.cache_clear()
        began = time.process_time()
        found = listing(tmp_path).where("accuracy > 0.6").sorted("-accuracy")
        took.append(time.process_time() - began)
    assert len(found.rows) == 1 + 3 * 232
    assert min(took) < 0.5
