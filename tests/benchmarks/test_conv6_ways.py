"""Ways to speed up inference: each run time computes the network, what is not installed is named, results are whole."""

import csv
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]
SLOW = "torch.compile", "torch.compile, bfloat16", "DeepSparse"
"""minutes of compiling, and an environment of its own"""


@pytest.fixture(scope="module")
def ways():
    """The benchmark's own modules by name."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield lambda name: importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def network():
    """Conv-6 in small: two convolutions, two pools, two linear layers."""
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*body, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 10)).eval()


RUN_TIMES = ("torch", "torch, channels last", "torch, TorchScript", "torch, ReLU fused", "torch, bfloat16")
RUN_TIMES += ("ONNX Runtime", "ONNX Runtime, int8", "OpenVINO", "OpenVINO, bfloat16", "OpenVINO, int8")
RUN_TIMES += ("engine", "engine, int8")


def test_no_run_time_is_left_out(ways):
    assert sorted((*RUN_TIMES, *SLOW)) == sorted(ways("ways.runtimes").MAKERS)


@pytest.mark.filterwarnings("ignore")  # other packages' own
@pytest.mark.parametrize("run_time", RUN_TIMES)
def test_every_run_time_computes_the_network(ways, network, run_time, tmp_path):
    room, images = ways("ways.runtimes"), ways("ways.networks").random_images(64)
    if room.missing(run_time):
        pytest.skip(f"{room.missing(run_time)} not installed")
    ready = room.MAKERS[run_time](network, images.typical, tmp_path)
    for batch in (1, 5):
        x = images.x[:batch].numpy()
        with torch.no_grad():
            wanted = network(torch.from_numpy(x)).numpy()
        found = np.asarray(ready.at(x)(x)).reshape(wanted.shape)
        far = np.abs(found - wanted).max() / np.abs(wanted).max()
        assert far <= min(room.allowed(run_time), 0.2)
    assert ready.bytes > 0
    assert next(network.parameters()).is_contiguous(), "a run time changed the network of the others"


def test_what_is_not_installed_is_named(ways, network, monkeypatch):
    room, measured = ways("ways.runtimes"), ways("ways.measured")
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    listed, nets = ways("ways.listed"), {"dense": ways("ways.networks").net("dense", network)}
    absent: dict[str, str] = {}
    wanted = [way for way in listed.WAYS if "torch" not in way.run_time and "engine" not in way.run_time]
    assert not list(measured.entered(wanted, nets, ways("ways.networks").random_images(4), absent))
    assert absent.keys() == {way.name for way in wanted}
    assert absent["dense in OpenVINO, int8"] == "openvino, nncf is not installed"
    assert absent["student in OpenVINO"] == "the network student is not in the folder of runs"


def test_results_are_whole(ways, network, tmp_path):
    """A table with a row a way, a sentence for each whose figures are filled in, the CSV and the figure."""
    listed, shown, images = ways("ways.listed"), ways("ways.shown"), ways("ways.networks").random_images(10)
    nets = {label: ways("ways.networks").net(label, network) for label in ("dense", "sparse")}
    wanted = [way for way in listed.WAYS if way.network in nets and way.run_time in listed.QUICK]
    found = ways("ways.measured").measured(wanted, nets, images, 1, 0.1)
    assert len(shown.rows_of(found)) == 1 + len(wanted)
    told = ways("conv6_ways").told(found)
    assert all(f"**{way.name}**" in told for way in wanted)
    assert not any(mark in told for mark in ("nan", "{", "}"))
    rows = list(csv.DictReader(shown.as_csv(found).splitlines()))
    assert len(rows) == 2 * len(wanted)
    assert all(0 <= float(row["accuracy"]) <= 1 and float(row["median_ms"]) > 0 for row in rows)
    shown.drawn(found, tmp_path)
    assert (tmp_path / "ways.svg").stat().st_size > 1000
    claims = ways("conv6_ways").claims(found)
    assert sum("fastest" in claim["claim"] for claim in claims) == 2
    assert sum("times as fast" in claim["unit"] for claim in claims) == 4


def test_finished_steps_are_found_by_the_recipes_names(ways, tmp_path):
    assert ways("ways.networks").finished(tmp_path, ROOT / "data", []) == {}


def test_every_way_has_a_sentence_and_a_network_of_the_recipes(ways):
    listed, networks = ways("ways.listed"), ways("ways.networks")
    labels = {label for labels in networks.LABELS.values() for label in labels}
    assert {way.network for way in listed.WAYS} == labels
    assert len({way.name for way in listed.WAYS}) == len(listed.WAYS)
    assert all(len(way.why) > 20 and not way.why.endswith(".") for way in listed.WAYS)
