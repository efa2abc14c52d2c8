"""`runs`, `gc`, `sweep`, `init` and `explain` from start to end."""

import csv
import io
import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from prunery import chain as prunery_chain
from prunery.cli import kept
from prunery.runs import Runs
from prunery.runtime import load as load_packed

RECIPE = """
[data]
name = "digits"
[model]
name = "lenet_300_100"
[[step]]
kind = "train"
steps = 2
[[step]]
kind = "prune"
density = 0.5
"""
SWEEP = """
recipe = "r.toml"
seeds = 2
[sweep]
"prune.density" = [0.5, 0.1]
"""


# --- runs -------------------------------------------------------------------------------------------------------------


def test_runs_lists_filters_and_exports(prunery, trained, tmp_path):
    done = prunery("runs", "--runs", str(trained))
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].split()[:2] == ["name", "label"]
    assert "4 of 4 steps" in done.out
    words = [
        "runs",
        "--runs",
        str(trained),
        "--where",
        "density < 0.5",
        "--sort",
        "-depth",
        "--columns",
        "label,density",
    ]
    done = prunery(*words, "--csv", str(tmp_path / "a.csv"))
    assert [line.split()[0] for line in done.out.splitlines()[1:3]] == ["pack", "prune"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert [r["label"] for r in rows] == ["pack", "prune"]
    told = json.loads(prunery(*words, "--limit", "1", "--json").out)
    assert len(told["steps"]) == 1
    assert told["of"] == 4


def test_runs_names_what_it_cannot_read(prunery, trained, tmp_path):
    broken = tmp_path / "runs" / "train-000000000000"
    broken.mkdir(parents=True)
    (broken / "env.json").write_text("{")
    done = prunery("runs", "--runs", str(tmp_path / "runs"))
    assert done.code == 0
    assert "train-000000000000 is left out: env.json is not JSON" in done.out


@pytest.mark.filterwarnings("ignore")
def test_runs_go_to_mlflow_once(prunery, trained, monkeypatch, tmp_path):
    pytest.importorskip("mlflow", reason="mlflow is an extra: pip install 'prunery[mlflow]'")
    monkeypatch.setenv(
        "MLFLOW_ALLOW_FILE_STORE", "true"
    )  # it is quicker than a database, which the adapter's tests use
    words = ("runs", "--runs", str(trained), "--mlflow", f"file://{tmp_path}/mlruns", "--experiment", "mine")
    done = prunery(*words, "--where", 'kind != "pack"')
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == f"3 written to experiment mine of file://{tmp_path}/mlruns"
    assert prunery(*words).out.splitlines()[-1].startswith("1 written to experiment mine")
    told = json.loads(prunery(*words, "--json").out)["mlflow"]
    assert (told["written"], len(told["there"])) == ([], 4)


# --- gc ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def edited(prunery, tmp_path):
    """A recipe that was carried out, edited, and carried out again; and the step that is left over."""
    file, runs = tmp_path / "r.toml", tmp_path / "runs"
    words = ("run", str(file), "--runs", str(runs), "--threads", "1", "--quiet", "--json")
    file.write_text(RECIPE)
    first = json.loads(prunery(*words).out)
    file.write_text(RECIPE.replace("0.5", "0.2"))
    assert prunery(*words).code == 0
    return runs, first["prune"]["name"]


def test_gc_asks_first(prunery, edited, monkeypatch):
    runs, left = edited
    words = ("gc", "--runs", str(runs), "--age", "0s")
    dry = prunery(*words, "--dry-run")
    assert left in dry.out
    assert "1 finished steps" in dry.out
    assert prunery(*words).code == 2
    monkeypatch.setattr("sys.stdin", Answer("n\n"))
    assert "removed 0" in prunery(*words).out
    assert (runs / left).is_dir()
    monkeypatch.setattr("sys.stdin", Answer("y\n"))
    done = prunery(*words)
    assert "removed 1" in done.out
    assert "[y/N]" in done.err
    assert not (runs / left).exists()
    assert len(list(runs.glob("*-*/env.json"))) == 3


class Answer(io.StringIO):
    def isatty(self):
        return True


def test_gc_with_yes_leaves_what_can_be_resumed(prunery, edited):
    runs, left = edited
    work = runs / ".work" / "train-abc"
    work.mkdir(parents=True)
    (work / "checkpoint.safetensors").write_text("12345")
    words = ("gc", "--runs", str(runs), "--age", "0s", "--yes")
    done = prunery(*words)
    assert "1 that can be resumed stay (--checkpoints)" in done.out
    assert not (runs / left).exists()
    assert work.is_dir()
    told = json.loads(prunery(*words, "--checkpoints", "--json").out)
    assert [os.path.basename(p) for p in told["removed"]["paths"]] == ["train-abc"]
    assert not work.exists()


def test_gc_leaves_what_is_young(prunery, edited):
    runs, left = edited
    assert "1 more that nothing refers to are younger" in prunery("gc", "--runs", str(runs), "--yes").out
    assert (runs / left).is_dir()


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("7d", 604800)])
def test_ages_are_times(text, seconds):
    assert kept.seconds(text) == seconds


# --- sweep ------------------------------------------------------------------------------------------------------------


def test_a_sweep_says_what_it_costs_and_ends_in_a_table(prunery, tmp_path):
    (tmp_path / "r.toml").write_text(RECIPE)
    (tmp_path / "s.toml").write_text(SWEEP)
    words = ("sweep", str(tmp_path / "s.toml"), "--runs", str(tmp_path / "runs"), "--workers", "1")
    dry = prunery(*words, "--dry-run")
    assert "4 chains of 12 steps, 4 of them shared: 8 steps; 0 there already, 8 to make" in dry.out
    assert "cost: unknown" in dry.out
    assert not (tmp_path / "runs").exists()
    done = prunery(*words)
    assert done.code == 0, done.err
    assert "8 steps made, 12 asked for" in done.out
    assert "±" in done.out
    told = json.loads(prunery(*words, "--json").out)
    assert (told["made"], told["there"], told["failed"]) == (0, 8, {})
    assert [row["n"] for row in told["table"]] == [2, 2]
    again = prunery(*words, "--dry-run", "--set", "train.steps=3")
    assert "from the median of like steps" in again.out
    labels = {r["label"] for r in json.loads(prunery("runs", "--runs", str(tmp_path / "runs"), "--json").out)["steps"]}
    assert "prune prune.density=0.1 seed=1" in labels


def test_machines_that_share_only_a_store(prunery, tmp_path):
    """The second makes nothing, and has the whole sweep all the same."""
    (tmp_path / "r.toml").write_text(RECIPE)
    (tmp_path / "s.toml").write_text(SWEEP.replace("seeds = 2", "seeds = 1"))
    words = ("sweep", str(tmp_path / "s.toml"), "--runs", f"file://{tmp_path}/store", "--workers", "1")
    assert "0 there already, 4 to make" in prunery(*words, "--here", str(tmp_path / "a"), "--dry-run").out
    assert not (tmp_path / "store").exists()
    done = prunery(*words, "--here", str(tmp_path / "a"))
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == f"its steps are in file://{tmp_path}/store, and here in {tmp_path}/a"
    told = json.loads(prunery(*words, "--here", str(tmp_path / "b"), "--json").out)
    assert (told["there"], told["made"], told["here"]) == (4, 0, str(tmp_path / "b"))
    listed = [json.loads(prunery("runs", "--runs", str(tmp_path / m), "--json").out)["steps"] for m in "ab"]
    assert len(listed[0]) == 4
    assert listed[0] == listed[1]


def test_an_address_has_a_folder_in_the_users_cache(monkeypatch, tmp_path):
    from prunery.cli.sweeping import kept_in

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder, store = kept_in("s3://bucket/runs", None)
    assert (folder.parent, store) == (tmp_path / "prunery", "s3://bucket/runs")
    assert kept_in("s3://bucket/runs/", None)[0] == folder != kept_in("s3://bucket/run", None)[0]
    assert kept_in("runs", None) == (Path("runs"), "")


FAILS = """
import torch
def narrow(input, classes):
    return torch.nn.Sequential(torch.nn.Flatten(), Touchy(), torch.nn.Linear(64, classes))
class Touchy(torch.nn.Module):
    def forward(self, x):
        if self.training and x.shape[0] == 7:
            raise RuntimeError("seven is too much")
        return x
"""


def test_a_chain_that_fails_does_not_stop_the_others(prunery, tmp_path):
    (tmp_path / "own.py").write_text(FAILS)
    (tmp_path / "r.toml").write_text(RECIPE.replace("lenet_300_100", f"{tmp_path}/own.py:narrow"))
    (tmp_path / "s.toml").write_text('recipe = "r.toml"\nretries = 1\n[sweep]\n"train.batch" = [7, 8]\n')
    words = ("sweep", str(tmp_path / "s.toml"), "--runs", str(tmp_path / "runs"), "--workers", "1", "--quiet")
    done = prunery(*words)
    assert done.code == 1
    assert "1 of 2 chains failed:" in done.out
    assert "train train.batch=7: RuntimeError: seven is too much" in done.out
    assert len(list((tmp_path / "runs").glob("prune-*"))) == 1


# --- init -------------------------------------------------------------------------------------------------------------

OWN = """
from torch import nn

def mine(input, classes):
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(nn.Conv2d(input[0], 4, 3), nn.ReLU(), pool, nn.Flatten(), nn.Linear(4, classes))
"""


@pytest.fixture
def pictures(tmp_path):
    """Dark and bright images of two classes."""
    for name, shade in (("dark", 20), ("bright", 200)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(12):
            Image.new("RGB", (10, 10), (shade + i,) * 3).save(tmp_path / "pictures" / name / f"{i}.png")
    return tmp_path / "pictures"


def test_what_init_writes_runs_as_it_is(prunery, pictures, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    out = tmp_path / "mine.toml"
    words = ("init", "--data", str(pictures), "--model", f"{tmp_path}/own.py:mine", "--out", str(out))
    done = prunery(*words)
    assert done.code == 0, done.err
    assert f"prunery run {out}" in done.out
    text = out.read_text()
    assert text.count("#") > 15
    assert prunery(*words).code == 2
    assert prunery(*words, "--force").code == 0
    assert out.read_text() == text
    done = prunery("run", str(out), "--runs", str(tmp_path / "runs"), "--threads", "1", "--quiet", "--json")
    assert done.code == 0, done.err
    assert list(json.loads(done.out)) == ["init", "train", "prune", "finetune", "pack", "random", "finetune_random"]


def test_weights_of_ones_own_are_measured_as_they_are(prunery, pictures, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    torch.save(layers.state_dict(), tmp_path / "mine.pth")
    own, out = f"{tmp_path}/own.py:mine", tmp_path / "mine.toml"
    files = ("--model", own, "--weights", str(tmp_path / "mine.pth"), "--out", str(out))
    done = prunery("init", "--data", str(pictures), *files)
    assert done.code == 0, done.err
    done = prunery("run", str(out), "--runs", str(tmp_path / "runs"), "--threads", "1", "--quiet", "--json")
    assert done.code == 0, done.err
    first = json.loads(done.out)["train"]
    assert first["test"]["accuracy"] > 0
    made, _, _ = prunery_chain.opened(Path(first["folder"]) / "weights.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), layers.parameters(), strict=True))


def test_a_file_of_weights_is_pruned_and_packed_with_its_network_named(prunery, pictures, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    torch.save(layers.state_dict(), tmp_path / "mine.pth")
    named = (str(tmp_path / "mine.pth"), "--model", f"{tmp_path}/own.py:mine", "--data", str(pictures))
    done = prunery("prune", *named, "--density", "0.5", "--out", str(tmp_path / "half.safetensors"), "--json")
    assert done.code == 0, done.err
    assert "6 of 6 tensors loaded" not in done.out
    (tmp_path / "mine.pth").unlink()
    pruned, state, _ = prunery_chain.opened(tmp_path / "half.safetensors")
    pruned.load_state_dict(state.weights)
    assert torch.equal(pruned[0].weight, layers[0].weight * state.masks["0.weight"])
    assert sum(int(m.sum()) for m in state.masks.values()) == (4 * 27 + 8) // 2
    torch.save(layers.state_dict(), tmp_path / "mine.pth")
    done = prunery("pack", *named, "--out", str(tmp_path / "mine.prunery"))
    assert done.code == 0, done.err
    x = torch.randn(3, 3, 10, 10)
    assert torch.allclose(load_packed(tmp_path / "mine.prunery")(x), layers(x), atol=1e-5)
    told = json.loads(prunery("explain", str(tmp_path / "mine.prunery"), "--json").out)
    assert told["about"]["from"] == str(tmp_path / "mine.pth")
    assert "widths" not in told["about"]["model"]
    seen = told["about"]["images"]
    assert (seen["classes"], seen["scaling"], len(seen["mean"])) == (["bright", "dark"], "channel", 3)


def test_a_shrunk_file_begins_a_recipe(prunery, trained, tmp_path):
    small, out = tmp_path / "small.safetensors", tmp_path / "small.toml"
    train = next(s.name for s in Runs(trained).steps() if s.name.startswith("train-"))
    words = ("--density", "0.5", "--structure", "coupled", "--shrink", "--out", str(small))
    done = prunery("prune", train, "--runs", str(trained), *words, "--json")
    assert done.code == 0, done.err
    after = json.loads(done.out)["after"]
    told = [json.loads(prunery("explain", f, "--runs", str(trained), "--json").out) for f in (str(small), train)]
    assert [t["layers_changed"] for t in told] == [True, False]
    model = prunery_chain.opened(small)[2]
    out.write_text(
        f'[data]\nname = "digits"\n[model]\nname = "{model.name}"\nweights = "{small}"\n'
        '[[step]]\nkind = "train"\nepochs = 0\n[[step]]\nkind = "train"\nlabel = "tuned"\nsteps = 3\n'
    )
    done = prunery("run", str(out), "--runs", str(tmp_path / "runs"), "--threads", "1", "--quiet", "--json")
    assert done.code == 0, done.err
    steps = json.loads(done.out)
    assert {s["parameters"] for s in steps.values()} == {after["parameters"]}
    assert steps["train"]["test"] == after["test"]
    files = [prunery_chain.opened(Path(steps[k]["folder"]) / "weights.safetensors")[1] for k in ("init", "tuned")]
    assert files[0].weights.keys() == files[1].weights.keys()


def test_a_run_brings_the_images_that_bytes_need(prunery, trained, tmp_path):
    train = next(s.name for s in Runs(trained).steps() if s.name.startswith("train-"))
    there, file = ("--runs", str(trained)), str(tmp_path / "b.prunery")
    done = prunery("pack", train, *there, "--int8", "--out", file, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["int8"]
    done = prunery("bench", file, *there, "--turns", "1", "--json")
    assert done.code == 0, done.err
    assert [row["name"] for row in json.loads(done.out)] == ["prunery", "torch"]


def test_images_of_different_sizes_are_brought_to_one(prunery, pictures, tmp_path):
    Image.new("RGB", (9, 17)).save(pictures / "dark" / "odd.png")
    out = tmp_path / "mine.toml"
    done = prunery("init", "--data", str(pictures), "--out", str(out))
    assert done.code == 0
    assert "the pictures are of several sizes: all are brought to 64x64" in done.out
    assert "resize = 64" in out.read_text()
    assert "divided: a fifth of each class tests" in out.read_text()
    assert prunery("init", "--data", str(pictures), "--out", str(out), "--resize", "16", "--force").code == 0
    assert "resize = 16" in out.read_text()


# --- explain ----------------------------------------------------------------------------------------------------------


def test_explain_tells_a_run_and_how_it_was_made(prunery, trained):
    pack = next(trained.glob("pack-*"))
    told = json.loads(prunery("explain", str(pack / "packed.safetensors"), "--runs", str(trained), "--json").out)
    assert [row["kind"] for row in told["history"]] == ["init", "train", "prune", "pack"]
    assert told["network"]["name"] == "convnet"
    assert told["density"] == pytest.approx(0.2, abs=1e-3)
    assert told["test"]["n"] == 359
    assert told == json.loads(prunery("explain", pack.name, "--runs", str(trained), "--json").out) | {
        k: told[k] for k in ("file", "file_bytes", "kind")
    }
    text = prunery("explain", str(pack)).out
    assert "test accuracy" in text
    assert "density = 0.2" in text


def test_explain_tells_files_of_others_without_running_them(prunery, shelf, tmp_path):
    told = json.loads(prunery("explain", str(shelf / "net.pt"), "--json").out)
    assert told["kind"] == "a PyTorch file (torch.save)"
    assert "calls nothing but what weights need" in told["note"]
    mark = tmp_path / "was_run"
    torch.save({"x": Trap(str(mark))}, tmp_path / "trap.pt")
    told = json.loads(prunery("explain", str(tmp_path / "trap.pt"), "--json").out)
    assert "would call" in told["note"]
    assert "mkdir" in told["note"]
    assert not mark.exists()
    told = json.loads(prunery("explain", str(shelf / "nan.safetensors"), "--json").out)
    assert told["tensors"] > 3
    assert set(told["types"]) == {"F32", "I64"}
    assert sum(told["types"].values()) == told["tensors"]


def test_a_torn_file_of_others_is_refused(prunery, shelf, tmp_path):
    data = (shelf / "nan.safetensors").read_bytes()
    (tmp_path / "torn.safetensors").write_bytes(data[:-1])
    done = prunery("explain", str(tmp_path / "torn.safetensors"))
    assert done.code == 2
    assert "not a whole safetensors file" in done.err


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_explain_tells_packed_files(prunery, shelf):
    told = json.loads(prunery("explain", str(shelf / "net.prunery"), "--json").out)
    assert told["kind"] == "a packed network of prunery"
    assert told["input"] == [1, 8, 8]
    layers = load_packed(shelf / "net.prunery").explain()
    assert told["carried_out"] == sum(layer.multiply_adds for layer in layers) > 0
    memory = load_packed(shelf / "net.prunery").memory()
    assert told["memory"] == {"bytes_of_weights": memory["weights"], "bytes_of_a_call": memory["run"]}


def test_explain_tells_onnx(prunery, tmp_path):
    pytest.importorskip("onnx", reason="onnx is an extra: pip install 'prunery[onnx]'")
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph, producer_name="a test").SerializeToString())
    told = json.loads(prunery("explain", str(tmp_path / "m.onnx"), "--json").out)
    assert (told["kind"], told["operators"], told["producer"]) == ("an ONNX model", {"Relu": 1}, "a test")


def test_explain_tells_onnx_without_its_package(prunery, tmp_path):
    """By hand: ir_version 8, producer "me", a graph with one Relu."""
    node = b"\x0a\x01x\x12\x01y\x22\x04Relu"
    graph = b"\x0a" + bytes([len(node)]) + node
    data = b"\x08\x08\x12\x02me\x3a" + bytes([len(graph)]) + graph
    (tmp_path / "m.onnx").write_bytes(data)
    told = json.loads(prunery("explain", str(tmp_path / "m.onnx"), "--json").out)
    assert (told["operators"], told["producer"], told["ir_version"]) == ({"Relu": 1}, "me", 8)
    for cut in range(len(data)):
        (tmp_path / "m.onnx").write_bytes(data[:cut])
        assert prunery("explain", str(tmp_path / "m.onnx")).code == 2
