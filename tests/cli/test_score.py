"""`prunery score` from a run, a file, and numbers; what it refuses."""

import json
import shutil

import pytest

RECIPE = """
[data]
name = "digits"
[model]
name = "convnet"
[[step]]
kind = "train"
steps = 150
optimizer = "adamw"
lr = 0.01
[[step]]
kind = "prune"
density = 0.5
[[step]]
kind = "quantize"
bits = 4
activations = 4
batches = 1
[[step]]
kind = "train"
label = "qat"
steps = 30
optimizer = "adamw"
lr = 0.003
[[step]]
kind = "pack"
"""


@pytest.fixture(scope="module")
def made(prunery, tmp_path_factory):
    folder = tmp_path_factory.mktemp("score")
    (folder / "r.toml").write_text(RECIPE)
    done = prunery("run", str(folder / "r.toml"), "--runs", str(folder / "runs"), "--quiet", "--json")
    assert done.code == 0, done.err
    return folder, next((folder / "runs").glob("pack-*"))


def test_a_packed_run_is_scored_and_verified(prunery, made):
    folder, step = made
    done = prunery("score", step.name, "--runs", str(folder / "runs"), "--data", "digits", "--verify", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["p_u"] == pytest.approx(0.5, abs=0.1)
    assert found["test"] == json.loads((step / "result.json").read_text())["test"]
    assert len(found["verified"]) == 2
    assert found["plays"] is False, "the game is on CIFAR-10"
    sums = found["scores"]["2.8e8"]
    assert sums["score"] == pytest.approx(sums["parameters"] + sums["operations"])
    text = prunery("score", str(step / "packed.safetensors"), "--data", "digits")
    assert "conv2" in text.out
    assert "4/4" in text.out
    assert "profile.py" in text.out
    assert "does not play: the game is on cifar10" in text.out


SCALED = """
[data]
name = "digits"
scaling = "raw"
[model]
name = "convnet"
[[step]]
kind = "train"
steps = 60
optimizer = "adamw"
lr = 0.01
[[step]]
kind = "prune"
density = 0.5
"""


def test_images_are_scaled_as_the_run_had_them(prunery, tmp_path):
    (tmp_path / "r.toml").write_text(SCALED)
    runs = ("--runs", str(tmp_path / "runs"))
    assert prunery("run", str(tmp_path / "r.toml"), *runs, "--quiet").code == 0
    step = next((tmp_path / "runs").glob("prune-*"))
    wanted = json.loads((step / "result.json").read_text())["test"]["accuracy"]
    ask = ("--data", "digits", *runs, "--json")
    for what in (step.name, str(step / "weights.safetensors")):
        assert json.loads(prunery("score", what, *ask).out)["test"]["accuracy"] == wanted
        out = ("--out", str(tmp_path / "net.prunery"))
        assert json.loads(prunery("pack", what, *ask, *out).out)["test"]["accuracy"] == wanted
        out = ("--out", str(tmp_path / "p.safetensors"))
        found = json.loads(prunery("prune", what, *ask, *out, "--density", "0.5").out)
        assert found["before"]["test"]["accuracy"] == wanted
    other = prunery("pack", step.name, *ask, "--out", str(tmp_path / "n.prunery"), "--set", "data.scaling=channel")
    assert json.loads(other.out)["test"]["accuracy"] != wanted, "what is said counts"
    shutil.copyfile(step / "weights.safetensors", tmp_path / "lone.safetensors")
    assert json.loads(prunery("score", str(tmp_path / "lone.safetensors"), *ask).out)["test"]["accuracy"] != wanted


def test_a_claim_that_does_not_hold_is_refused(prunery, made, tmp_path):
    _, step = made
    copy = tmp_path / "claimed"
    shutil.copytree(step, copy)
    claims = json.loads((copy / "result.json").read_text())
    claims["test"]["n"] = 10_000
    (copy / "result.json").write_text(json.dumps(claims))
    done = prunery("score", str(copy / "packed.safetensors"), "--data", "digits", "--verify")
    assert done.code == 2
    assert "claims" in done.err
    assert "of 10000 images" in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_kept_file_is_held_against_what_is_claimed_of_it_by_name(prunery, made, tmp_path):
    _, step = made
    shutil.copyfile(step / "packed.safetensors", tmp_path / "few.safetensors")
    test = json.loads((step / "result.json").read_text())["test"]
    ask = ("score", str(tmp_path / "few.safetensors"), "--data", "digits", "--verify")
    (tmp_path / "result.json").write_text(json.dumps({"claims": [], "files": {"other.safetensors": {"n": 1}}}))
    silent = prunery(*ask)
    assert silent.code == 0
    assert "claims" not in silent.out, "it says nothing of this file"
    (tmp_path / "result.json").write_text(json.dumps({"files": {"few.safetensors": test}}))
    assert "claims the same accuracy of as many images" in prunery(*ask).out
    (tmp_path / "result.json").write_text(json.dumps({"files": {"few.safetensors": test | {"n": 10_000}}}))
    assert "of 10000 images" in prunery(*ask).err
    (tmp_path / "result.json").write_text("[")
    assert "cannot be read" in prunery(*ask).err


def test_numbers_by_hand(prunery):
    done = prunery("score", "w=269722,f=4.055e7,q_w=8,q_a=8,p_s=0.05,p_u=0.475", "--json")
    assert json.loads(done.out)["scores"]["2.8e8"]["score"] == pytest.approx(0.0401, abs=1e-4)
    assert "8.3e8" in prunery("score", "w=1e5,f=1e7").out
    assert prunery("score", "w = 1e5, f = 1e7", "--json").out == prunery("score", "w=1e5,f=1e7", "--json").out


PARTLY = (
    SCALED + '[[step]]\nkind = "quantize"\nlabel = "{name}"\nafter = "train"\nbits = 4\nactivations = 4\n'
    "layers = {layers}\nmeasure = false\n"
)


@pytest.mark.parametrize(("layers", "right"), [([], True), (["fc1=0/0"], False)])
def test_sixteen_bits_are_charged_where_they_are_measured(prunery, tmp_path, layers, right):
    (tmp_path / "r.toml").write_text(PARTLY.format(name="few", layers=json.dumps(layers)))
    runs = ("--runs", str(tmp_path / "runs"))
    assert prunery("run", str(tmp_path / "r.toml"), *runs, "--quiet").code == 0
    ask = ("--data", "digits", *runs, "--floats", "16", "--json")
    whole = prunery("score", next((tmp_path / "runs").glob("train-*")).name, *ask)
    assert {(x["weight_bits"], x["input_bits"]) for x in json.loads(whole.out)["layers"] if x["terms"]} == {(16, 16)}
    done = prunery("score", next((tmp_path / "runs").glob("quantize-*")).name, *ask)
    if right:
        assert 16 not in [x["weight_bits"] for x in json.loads(done.out)["layers"]]
    else:
        assert done.code == 2
        assert "quantised layers, and fc1 multiplies floats" in done.err
        assert len(done.err.strip().splitlines()) == 1


WRONG = {
    "more than all weights": ("w=1e5,f=1e7,p_s=0.5,p_u=0.6",),
    "--verify are for a checkpoint or a run": ("w=1e5,f=1e7", "--verify"),
    "leave them out with numbers": ("w=1e5,f=1e7", "--floats", "16"),
    "w is there twice": ("w=1e5,f=1e7,w=2e5",),
    "none.safetensors does not exist": ("none.safetensors",),
    "a=b.safetensors does not exist": ("nowhere/a=b.safetensors",),
    "is a folder; expected a checkpoint in it": ("{folder}",),
    "q_w = 0 is not allowed": ("w=1e5,f=1e7,q_w=0",),
    "expected 16 or 32": ("{step}", "--floats", "8"),
    "does not fit": ("{step}", "--data", "mnist_that_is_not"),
    "no run": ("pack-000000000000",),
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_requests_are_one_line(prunery, made, text):
    folder, step = made
    words = [w.format(step=step / "packed.safetensors", folder=folder) for w in WRONG[text]]
    done = prunery("score", *words, "--runs", str(folder / "runs"))
    assert done.code == 2, done.out
    assert len(done.err.strip().splitlines()) == 1
