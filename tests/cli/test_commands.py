"""The commands when all goes well: what they print where, how fast they start, how they stop and take up again."""

import functools
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import fields
from importlib import metadata
from importlib.util import find_spec
from typing import get_args

import pytest
from PIL import Image
from rich.console import Console

from prunery.cli import engine, screen
from prunery.cli.commands import app
from prunery.engine.export import ONNX
from prunery.runs import Runs
from prunery.spec import Data, Prune, Train, helps, hints

COMMANDS = sorted(c.callback.__name__ for c in app.registered_commands)
QUICK = ("--threads", "1", "--quiet")
SLOW = """
import os, time, torch

class Slow(torch.nn.Sequential):
    def forward(self, x):
        time.sleep(float(os.environ.get("STEP_SECONDS", 0)) if self.training else 0)
        return super().forward(x)

def slow(input, classes):
    return Slow(torch.nn.Flatten(), torch.nn.Linear(64, classes))
"""


def process(*words, **options):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, **options)


def a_result(folder):
    """The smallest folder of results."""
    claim = {
        "claim": "it works", "value": 1.0, "unit": "", "spread": None, "n": 1, "target": None, "holds": True,
        "machine": "m", "versions": {"torch": "2"},
    }  # fmt: skip
    (folder / "one").mkdir(parents=True)
    (folder / "one" / "result.json").write_text(json.dumps({"claims": [claim], "spec": "s", "commit": "c"}))
    return folder


# --- help -------------------------------------------------------------------------------------------------------------


def test_there_are_the_promised_commands():
    assert {"demo", "run", "train", "show", "data", "report", "doctor", "results"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_explains_itself(command, flag, prunery, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    done = prunery(command, flag)
    assert (done.code, done.err) == (0, "")
    assert f"prunery {command}" in done.out
    assert max(map(len, done.out.splitlines())) <= 100
    assert "bool" not in done.out


def test_every_field_of_a_training_step_is_an_option(prunery, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    text = prunery("train", "--help").out
    fields = {**helps(Train), **helps(Data)}
    own = ("data", "teacher_sha256", "name", "sha256")
    assert [f for f in fields if f not in own and f"--{f.replace('_', '-')}" not in text] == []
    assert "learning rate; the peak where the schedule varies it" in text


@pytest.mark.parametrize(("command", "spec"), [("train", Train), ("prune", Prune)])
def test_help_shows_what_is_taken_by_default(command, spec, prunery, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    rows = re.split(r"(?= --\w[\w-]* )", prunery(command, "--help").out)  # an option's words may take two lines
    for field in (f for f in fields(spec) if f.name not in ("data", "layers", "teacher_sha256")):
        row = next(r for r in rows if r.startswith(f" --{field.name.replace('_', '-')} "))
        shown = row.rpartition("[default: ")[2].partition("]")[0] if "[default: " in row else None
        if isinstance(field.default, bool):
            shown = rows[rows.index(row) + 1].rpartition("[default: ")[2].partition("]")[0]  # --no-... comes between
            assert shown == ("" if field.default else "no-") + field.name.replace("_", "-")
        elif field.default in (None, (), ""):
            assert shown is None, row
        else:
            assert shown == (f"{field.default:g}" if isinstance(field.default, float) else str(field.default))


@pytest.mark.parametrize("command", ["train", "prune"])
def test_help_at_eighty_columns_breaks_no_name(command, prunery, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = prunery(command, "--help").out
    for name in (n for hint in hints(Prune if command == "prune" else Train).values() for n in get_args(hint)):
        assert not isinstance(name, str) or re.search(rf"\b{re.escape(name)}\b", text), name


def test_without_a_command_there_is_help(prunery):
    done = prunery()
    assert (done.code, done.err) == (0, "")
    assert "Usage: prunery" in done.out


# --- JSON is all there is on standard output --------------------------------------------------------------------------


@pytest.fixture
def short_demo(monkeypatch):
    """The demo's recipe with two steps of training."""
    from prunery import spec

    def short(path, read=spec.read_toml):
        values = read(path)
        for step in values.get("step", []):
            step |= {"steps": 2} if step["kind"] == "train" else {}
        return values

    monkeypatch.setattr(spec, "read_toml", short)


JSON = [
    ("train convnet --steps 1 --runs {tmp}/runs --threads 1", lambda v: v["train"]["test"]["n"] == 359),
    ("train {shelf}/own.py:loud --steps 1 --runs {tmp}/runs --threads 1", lambda v: v["init"]["parameters"] == 650),
    ("run {shelf}/good.toml --runs {tmp}/runs --threads 1", lambda v: list(v) == ["init", "train"]),
    ("profile lenet5 --repeats 2", lambda v: sum(r["parameters"] for r in v["rows"]) == 110_782),
    (
        "profile convnet --input 1,12,12 --batch 2 --layers --repeats 1 --figure {tmp}/p.png",
        lambda v: v["by"] == "layer" and v["input"] == [1, 12, 12],
    ),
    ("profile {pack} --runs {trained} --repeats 1", lambda v: any(r["kept"] < r["parameters"] for r in v["rows"])),
    ("profile {shelf}/net.prunery --repeats 2", lambda v: v["rows"][0]["parameters"] is None),
    ("show lenet5 --batch 2", lambda v: v[0]["output"] == [2, 10]),
    ("show {shelf}/own.py:loud --input 1,8,8", lambda v: sum(r["parameters"] for r in v) == 650),
    ("show {pack} --runs {trained}", lambda v: any(0 < r["kept"] < r["parameters"] for r in v)),
    ("show {trained}/{pack}", lambda v: any(0 < r["kept"] < r["parameters"] for r in v)),
    ("show {trained}/{pack}/packed.safetensors", lambda v: any(0 < r["kept"] < r["parameters"] for r in v)),
    (
        "prune {trained}/{pack}/packed.safetensors --density 0.1 --out {tmp}/p.safetensors",
        lambda v: round(v["after"]["density"], 3) == 0.1,
    ),
    (
        "prune {trained}/{pack}/packed.safetensors --structure coupled --budget multiply_adds --density 0.2 --shrink "
        "--multiple 2 --out {tmp}/p.safetensors",
        lambda v: v["after"]["multiply_adds"] < v["before"]["multiply_adds"],
    ),
    (
        "sensitivity {pack} --runs {trained} --images 20 --densities 0.5,0.1 --figure {tmp}/figure",
        lambda v: v[""]["1"]["accuracy"] >= 0 and len(v) == 5,
    ),
    (
        "compare {shelf}/compare.toml --methods global,han --densities 0.5 --runs {tmp}/runs --out {tmp}/compared",
        lambda v: [r["method"] for r in v] == ["dense", "global", "han"],
    ),
    (
        "lottery lenet_300_100 --set data.name=digits --levels 1 --seeds 1 --steps 100 --runs {tmp}/runs --out {tmp}/l",
        lambda v: len(v["claims"]) > 20 and any("levels" in line for line in v["differs"]) and v["files"],
    ),
    ("score {pack} --runs {trained} --data digits --verify", lambda v: v["plays"] in (True, False) and v["layers"]),
    (
        "search {shelf}/space.toml --runs {tmp}/runs --out {tmp}/s --threads 1",
        lambda v: v["best"]["met"] and v["trials"] == 2 and v["settings"],
    ),
    ("score w=1e5,f=1e7", lambda v: len(v["scores"]) == 3),
    (
        "pack {trained}/{pack}/packed.safetensors --out {tmp}/a.prunery --data digits --explain",
        lambda v: v["test"]["n"] == 359 and any(r["density"] < 0.5 for r in v["layers"]),
    ),
    (
        "pack {pack} --runs {trained} --out {tmp}/a.prunery --data digits --int8 --images 64",
        lambda v: v["int8"] and v["test"]["accuracy"] >= 0,
    ),
    (
        "export {trained}/{pack}/packed.safetensors --out {tmp}/a.onnx --data digits",
        lambda v: v["test"]["n"] == 359 and v["test"]["same_answer"] > 0.9 and v["to"] == "onnx",
    ),
    ("bench {shelf}/net.prunery --against torch --turns 1", lambda v: [r["name"] for r in v] == ["prunery", "torch"]),
    (
        "time {pack} --runs {mine} --turns 2 --batch 2 --quiet",
        lambda v: v["batch"] == 2 and len(v["steps"]) == 1 and v["left_out"] == {} and "/.times/" in v["file"],
    ),
    ("report --runs {trained} --pictures --out {tmp}/page.html", lambda v: len(v) == 1),
    ("data", lambda v: "built in" in v["digits"]),
    ("data digits --set data.validation=7", lambda v: v["sizes"]["validation"] == 7),
    ("report --runs {trained} --out {tmp}/page.html --figures {tmp}/figures", lambda v: len(v) > 2),
    ("report {pack} --runs {trained} --out {tmp}/page.html", lambda v: len(v) == 1),
    (
        "runs --runs {trained} --sort -depth --limit 2 --columns name,depth",
        lambda v: [r["depth"] for r in v["steps"]] == [3, 2] and v["of"] == 4,
    ),
    ("gc --runs {trained} --dry-run", lambda v: v["unused"] == [] and v["removed"]["paths"] == []),
    ("sweep {shelf}/sweep.toml --runs {tmp}/runs --dry-run", lambda v: (v["chains"], v["steps"]) == (2, 3)),
    ("init --out {tmp}/new.toml", lambda v: v["data"] == "digits" and v["steps"][-1] == "finetune_random"),
    ("explain {pack} --runs {trained}", lambda v: len(v["history"]) == 4 and v["density"] < 0.21),
    ("results {results}", lambda v: v[0]["claim"] == "it works"),
    ("doctor --runs {tmp}/runs", lambda v: v["runs"]["writable"]),
    ("demo --runs {tmp}/runs --out {tmp}/demo.html --threads 1", lambda v: v["page"].endswith("demo.html")),
]


@pytest.mark.parametrize(("words", "holds"), JSON, ids=[w for w, _ in JSON])
@pytest.mark.usefixtures("short_demo")
def test_json_is_all_there_is(words, holds, prunery, shelf, trained, tmp_path):
    if words.startswith("export") and not all(find_spec(name) for name in ONNX):
        pytest.skip("onnx is not installed")
    pack = next(trained.glob("pack-*")).name
    where = {
        "mine": shutil.copytree(trained, tmp_path / "mine"),
        "tmp": tmp_path,
        "shelf": shelf,
        "trained": trained,
        "pack": pack,
        "results": a_result(tmp_path / "results"),
    }
    done = prunery(*words.format(**where).split(), "--json")
    assert done.code == 0, done.err
    assert holds(json.loads(done.out))


def test_every_command_is_in_the_table():
    serves = {"ui"}  # until it is stopped: below
    assert {w.split()[0] for w, _ in JSON} | serves == set(COMMANDS)


# --- what people read -------------------------------------------------------------------------------------------------


def test_a_profile_is_a_table_and_a_picture(prunery, tmp_path):
    done = prunery("profile", "lenet5", "--repeats", "2", "--figure", str(tmp_path / "p.svg"))
    assert (done.code, done.err) == (0, "")
    head, *rows = done.out.splitlines()
    assert head.split() == ["block", "ms", "share", "Mmult-adds", "kept", "parameters", "density", "type"]
    assert [r.split()[0] for r in rows] == [
        "conv1", "conv2", "flatten1", "fc1", "relu1", "fc2", "relu2", "fc3", "(between)", "all", "unwatched,", "written"
    ]  # fmt: skip
    assert "the rows add up to " in rows[-2]
    assert (tmp_path / "p.svg").read_text().startswith("<?xml")


def test_conv6_is_the_briefs_table(prunery):
    text = prunery("show", "conv6", "--batch", "60").out
    for part in ("2,262,602", "[60, 64, 32, 32]", "[60, 10]", "Total mult-adds (G): 9.25"):
        assert part in text


def test_a_run_shows_its_steps_and_what_to_do_next(prunery, shelf, tmp_path):
    first = prunery("run", str(shelf / "good.toml"), "--runs", str(tmp_path / "my runs"), "--threads", "1")
    lines = first.out.splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["init", "train"]
    assert lines[-1] == f"look at it: prunery report {lines[3].split()[1]} --runs '{tmp_path}/my runs'"
    assert "train: step 1  epoch " in first.err
    again = prunery("run", str(shelf / "good.toml"), "--runs", str(tmp_path / "my runs"), "--threads", "1")
    assert (again.out, again.err) == (first.out, "")


def test_the_hint_names_every_branchs_end(prunery, tmp_path):
    file = tmp_path / "r.toml"
    branches = "".join(f'[[step]]\nkind = "prune"\nlabel = "p{i}"\nafter = "init"\ndensity = 0.{i}\n' for i in (1, 2))
    file.write_text(branches)
    done = prunery("run", str(file), "--runs", str(tmp_path / "runs"), *QUICK)
    assert done.out.splitlines()[-1].count("prune-") == 2


def test_the_demo_says_what_it_shows(prunery, short_demo, tmp_path):
    done = prunery("demo", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "demo.html"), *QUICK)
    assert done.code == 0, done.err
    assert "Dense, the network recognises" in done.out
    assert f"Open {tmp_path}/demo.html in a browser." in done.out.splitlines()[-1]
    page = (tmp_path / "demo.html").read_text()
    assert page.startswith("<!")
    assert '"label":"random_finetune"' in page


def test_methods_are_told_in_words_that_anyone_knows(prunery):
    text = prunery("compare", "x", "--methods", "list").out
    assert "The weights of lowest magnitude of the whole network, not retrained." in text
    assert not re.search(r"\b(lab|brief)\b", text, re.IGNORECASE)


def test_doctor_says_what_is_missing_for_what(prunery, monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "prefix", "/usr")
    done = prunery("doctor", "--runs", str(tmp_path))
    assert done.code == 0
    assert "missing; to follow training in TensorBoard, install tensorboard: pip install 'prunery[tens" in done.out
    for part in ("device        cpu", "bfloat16", "kernels", "data          digits", "writable"):
        assert part in done.out


@pytest.mark.parametrize("width", [100, 200])
def test_the_steps_fit_the_terminal(width):
    """The widest that there is: long label, long kind, large numbers."""
    result = {
        "test": {"accuracy": 0.9999, "standard_error": 0.0123}, "density": 1.0, "kept_parameters": 2_262_602_000,
        "kept_multiply_adds": 154_000_000_000, "bytes": 999_999_999,
    }  # fmt: skip

    class Done:
        name, env = "quantize-0123456789ab", {"seconds": 12345.6}

    Done.result = result
    console = Console(file=io.StringIO(), width=width)
    console.print(screen.steps_table({"random_finetune": Done, "x": Done}))
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 4  # two of titles, one a step: nothing wraps
    assert max(len(line.rstrip()) for line in lines) <= 100
    assert "99.99% ± 1.23%  100.00%    2.26G  154.00G  1000.00M" in lines[2]


NUMBERS = [(0, "0"), (999_999, "999,999"), (1_000_000, "1.00M"), (11_173_962, "11.17M"), (9_250_000_000, "9.25G")]


@pytest.mark.parametrize(("value", "text"), NUMBERS)
def test_numbers_are_exact_up_to_a_million(value, text):
    assert screen.number(value) == text


# --- options ----------------------------------------------------------------------------------------------------------


OPTIONS = [
    ("--milestones 2 --schedule multistep", "milestones", (2.0,)),
    ("--milestones 2,5.5 --schedule multistep", "milestones", (2.0, 5.5)),
    ("--lr 1e-3", "lr", 0.001),
    ("--nesterov", "nesterov", True),
    ("--no-decay-all", "decay_all", False),
    ("--set train.lr=0.5 --lr 0.1", "lr", 0.5),
    ("--seed 3", "seed", 3),
]


@pytest.mark.parametrize(("words", "field", "value"), OPTIONS)
def test_an_option_reaches_the_spec(words, field, value, prunery, tmp_path):
    done = prunery("train", "convnet", "--steps", "0", *words.split(), "--runs", str(tmp_path), *QUICK)
    assert done.code == 0, done.err
    (step,) = [s for s in Runs(tmp_path).steps() if s.name.startswith("train-")]
    assert getattr(step.spec, field) == value


def test_the_seed_of_train_is_that_of_the_initial_weights_too(prunery, tmp_path):
    names = set()
    for seed in "12":
        assert prunery("train", "convnet", "--steps", "0", "--seed", seed, "--runs", str(tmp_path), *QUICK).code == 0
        names = {s.name for s in Runs(tmp_path).steps() if s.name.startswith("init-")}
    assert len(names) == 2


def test_folders_come_from_the_environment(prunery, monkeypatch, tmp_path):
    monkeypatch.setenv("PRUNERY_RUNS", str(tmp_path / "r"))
    assert prunery("train", "convnet", "--steps", "0", *QUICK).code == 0
    assert len(Runs(tmp_path / "r").steps()) == 2


def test_a_changed_file_of_ones_own_is_another_network(prunery, tmp_path):
    file = tmp_path / "net.py"
    for text in (SLOW, SLOW + "# another\n"):
        file.write_text(text)
        assert prunery("train", f"{file}:slow", "--steps", "0", "--runs", str(tmp_path / "runs"), *QUICK).code == 0
    assert len(Runs(tmp_path / "runs").steps()) == 4


def test_a_changed_folder_of_images_is_another_set(prunery, tmp_path):
    for i in range(12):
        (tmp_path / "set" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / "set" / "ab"[i % 2] / f"{i}.png")
    for runs in (2, 2, 3):
        if runs == 3:
            Image.new("RGB", (8, 8), (99, 0, 0)).save(tmp_path / "set" / "a" / "0.png")
        words = (
            "train",
            "convnet",
            "--steps",
            "0",
            "--data",
            f"folder:{tmp_path}/set",
            "--runs",
            str(tmp_path / "runs"),
        )
        assert prunery(*words, *QUICK).code == 0
        assert len(Runs(tmp_path / "runs").steps()) == runs
    refused = prunery(*words, "--set", "data.sha256=ab")
    assert refused.code == 2
    assert ", not ab; put back" in refused.err


def test_a_teacher_is_named_in_full_however_it_was_given(prunery, trained, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(trained, runs)
    before = {s.name for s in Runs(runs).steps()}
    teacher = next(runs.glob("train-*")).name
    for name in (teacher, teacher[:8]):
        words = ("train", "convnet", "--steps", "1", "--lr", "0.05", "--teacher", name, "--runs", str(runs), *QUICK)
        assert prunery(*words).code == 0
    (new,) = {s.name for s in Runs(runs).steps()} - before
    assert Runs(runs).find(new).spec.teacher == teacher


# --- TensorBoard ------------------------------------------------------------------------------------------------------


def test_tensorboard_gets_the_rows(prunery, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    words = ("train", "convnet", "--steps", "3", "--eval-every", "1", "--runs", str(tmp_path / "runs"), *QUICK)
    done = prunery(*words, "--tensorboard", str(tmp_path / "board"))
    assert done.code == 0, done.err
    (step,) = [s for s in Runs(tmp_path / "runs").steps() if s.name.startswith("train-")]
    assert [p.name for p in (tmp_path / "board").iterdir()] == [step.name]
    events = accumulator.EventAccumulator(str(tmp_path / "board" / step.name))
    events.Reload()
    rows = step.metrics()
    assert set(events.Tags()["scalars"]) == set(rows[0]) - {"step"}
    for tag in ("train_loss", "val_accuracy", "lr"):
        scalars = [(e.step, e.value) for e in events.Scalars(tag)]
        assert scalars == [(r["step"], pytest.approx(r[tag], rel=1e-6)) for r in rows]


def test_tensorboard_that_is_not_installed_is_refused(prunery, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setattr(sys, "prefix", "/usr")
    done = prunery("train", "convnet", "--runs", str(tmp_path / "runs"), "--tensorboard", str(tmp_path / "board"))
    assert done.code == 2
    assert done.err.splitlines() == [
        "prunery: --tensorboard needs the package tensorboard, which is missing; "
        "install tensorboard: pip install 'prunery[tensorboard]'"
    ]
    assert list(tmp_path.iterdir()) == []


# --- processes --------------------------------------------------------------------------------------------------------

LAZY = """
import sys
from prunery.cli.main import main
try:
    main({words!r})
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {{"torch", "torchvision", "timm", "sklearn", "matplotlib"}} & set(sys.modules)
assert not heavy, heavy
"""


def test_help_reports_and_results_do_not_wait_for_torch(trained, tmp_path, environment):
    results = str(a_result(tmp_path / "results"))
    page = ["report", "--runs", str(trained), "--out", str(tmp_path / "page.html")]
    for words in (["--help"], ["train", "--help"], ["results", results], page):
        done = process("-c", LAZY.format(words=words), env=environment)
        assert done.returncode == 0, done.stderr


def test_completion_offers_commands_options_and_names(environment):
    offered = {"prunery tr": "train", "prunery train convnet --optim": "--optimizer"}
    offered |= {"prunery train convnet --optimizer ad": "adamw"}
    for typed, wanted in offered.items():
        words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1), "_PRUNERY_COMPLETE": "complete_bash"}
        done = process("-m", "prunery", env=environment | words)
        assert wanted in done.stdout.split(), done


def test_completion_can_be_shown_and_installed(environment, tmp_path):
    """From a shell, which is looked for among the parents."""

    def from_bash(words, **more):
        command = f"{sys.executable} -m prunery {words}; exit $?"
        return subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment | more)

    shown = from_bash("--show-completion bash")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "_PRUNERY_COMPLETE=complete_bash" in shown.stdout
    done = from_bash("--install-completion bash", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "prunery" in (tmp_path / ".bashrc").read_text()


@pytest.mark.parametrize(("target", "code"), [("| true", 0), ("> /dev/full", 2)])
def test_an_output_that_takes_no_more(target, code, environment, tmp_path):
    """A closed pipe is no mistake; a full disk is one line."""
    folder = a_result(tmp_path / "results")
    command = f"{sys.executable} -m prunery results {folder} {target}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment)
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == (code == 2), done.stderr


def weights(folder):
    return next(folder.glob("train-*")).joinpath("weights.safetensors").read_bytes()


def test_ctrl_c_saves_and_the_same_command_takes_up(prunery, environment, tmp_path):
    (tmp_path / "net.py").write_text(SLOW)
    words = ["train", f"{tmp_path}/net.py:slow", "--steps", "60", "--eval-every", "5", "--threads", "1"]
    there = ["--runs", str(tmp_path / "runs")]
    command = [sys.executable, "-m", "prunery", *words, *there]
    slow = environment | {"STEP_SECONDS": "0.03"}
    child = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=slow)
    first = child.stderr.readline()
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=120)
    assert first.startswith("  train: step 5 ")
    assert (child.returncode, out) == (130, "")
    last = err.splitlines()[-1]
    assert last.startswith("prunery: train-")
    assert " of 60; the same command takes up from here" in last
    assert "Traceback" not in err
    assert len(list((tmp_path / "runs").glob("train-*"))) == 0
    done = prunery(*words, *there)
    assert done.code == 0
    assert re.match(r"train-\w+: goes on after step \d+ of 60\n  train: step ", done.err)
    done = prunery(*words, "--runs", str(tmp_path / "undisturbed"))
    assert done.code == 0
    assert "goes on" not in done.err
    (step,) = [s for s in Runs(tmp_path / "runs").steps() if s.name.startswith("train-")]
    assert step.env["parts"] == 2
    assert [r["step"] for r in step.metrics()] == list(range(5, 61, 5))
    assert weights(tmp_path / "runs") == weights(tmp_path / "undisturbed")


def test_help_is_quick(environment):
    """Ten times what it takes on an idle machine: a torch that slips in costs more."""
    began = time.perf_counter()
    done = process("-m", "prunery", "--help", env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: prunery" in done.stdout
    assert time.perf_counter() - began < 5


def test_a_bug_of_ours_is_told_apart(prunery, monkeypatch):
    def broken(*_):
        raise KeyError("oops")

    monkeypatch.setattr("prunery.cli.shown.shown", broken)
    done = prunery("show", "conv6")
    assert done.code == 1
    assert done.err.splitlines() == [
        "prunery: unexpected KeyError: 'oops'; this is a bug: run it again with --debug and report it"
    ]
    assert "Traceback" in prunery("show", "conv6", "--debug").err
    assert os.environ.get("PRUNERY_DEBUG") is None


@pytest.mark.parametrize("words", [("--debug", "show", "no"), ("show", "--debug", "no"), ("show", "no", "--debug")])
def test_debug_may_stand_anywhere(words, prunery):
    done = prunery(*words)
    assert done.code == 2
    assert "Traceback" in done.err
    assert done.err.splitlines()[-1].startswith('prunery: model.name = "no" is unknown')


def test_debug_is_in_the_help_and_changes_nothing_else(prunery, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert "--debug, anywhere in a command" in prunery("--help").out
    assert prunery("--debug").err == ""
    assert prunery("--debug", "--version").out == f"prunery {metadata.version('prunery')}\n"


def test_bench_says_what_its_columns_mean(prunery, shelf):
    done = prunery("bench", f"{shelf}/net.prunery", "--turns", "1")
    head, ours, theirs, _, last = done.out.splitlines()[:5]
    assert head.endswith("difference  same answer")
    assert ours.endswith("0.0e+00         100%")
    assert theirs.endswith("%")
    assert last.startswith("on random images, difference: the largest from prunery's outputs")
    assert "int8" not in last


def test_bench_tells_rounding_from_errors_and_noise_from_speed():
    row = {"median_ms": 1, "best_ms": 1, "over_ours": 1, "low": 1, "high": 1, "difference": 0.25, "same_answer": 0.9}
    told = engine.bench_table([{**row, "name": n, "int8": n == "b-int8"} for n in ("a", "b-int8")], 1, 1)
    assert "int8 contestants (b-int8) differ by the rounding to bytes, which is no error" in told[-1]
    for change in ({"best_ms": 0.6}, {"low": 0.9, "high": 1.4}):
        rows = [{**row, "name": "a", "int8": False}, {**row, "name": "b", "int8": False} | change]
        assert engine.bench_table(rows, 1, 1)[-1].startswith("times scatter widely (b): ")


def test_bench_names_all_that_is_missing_at_once(prunery, shelf, tmp_path, monkeypatch):
    done = prunery(
        "pack", str(shelf / "good.safetensors"), "--int8", "--data", "digits", "--out", f"{tmp_path}/b.prunery"
    )
    assert done.code == 0, done.err
    monkeypatch.setattr("prunery.engine.export.find_spec", lambda _: None)
    done = prunery("bench", f"{tmp_path}/b.prunery", "--against", "onnxruntime,openvino,onnxruntime")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    for text in ("onnxruntime cannot", "openvino cannot be", "holds bytes", "--network"):
        assert done.err.count(text) == 1, text


def test_version():
    done = subprocess.run([sys.executable, "-m", "prunery", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"prunery {metadata.version('prunery')}\n")


def test_ui_serves_until_it_is_stopped_and_ends_quietly(trained, environment):
    words = ["ui", "--port", "0", "--no-open", "--json", "--runs", str(trained)]
    alone = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    heard = functools.partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # also where the tests run in the background
    with subprocess.Popen([sys.executable, "-m", "prunery", *words], preexec_fn=heard, **alone) as served:
        told = json.loads("".join(iter(served.stdout.readline, "}\n")) + "}")
        assert told["address"].startswith("http://127.0.0.1:")
        with urllib.request.urlopen(told["address"] + "state.json", timeout=60) as answer:
            assert len(json.load(answer)["version"]) == 16
        served.send_signal(signal.SIGINT)
        out, err = served.communicate(timeout=60)
    assert (served.returncode, out, err) == (0, "", "")
