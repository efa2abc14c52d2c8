"""Pruned, quantised, trained on, made whole numbers: zeros stay zeros at every stage, files say what they are."""

import copy
from pathlib import Path

import pytest
import torch

import prunery
from prunery import data, engine, quantize
from prunery.chain import PACKED, Place, network_of, opened, run
from prunery.runs import Runs
from prunery.spec import Refused, recipe
from prunery.train import Stopped, Ways, evaluate

TRAIN = {"kind": "train", "steps": 150, "batch": 64, "optimizer": "adamw", "lr": 0.01}
TUNE = TRAIN | {"steps": 90, "lr": 0.003}
BITS = {"kind": "quantize", "bits": 3, "activations": 3, "batches": 2}


def made(*steps, **more):
    return recipe({"data": {"name": "digits"}, "model": {"name": "convnet"}, "step": list(steps), **more})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantised")
    return Place(Runs(folder / "runs"), Path("data"), Ways(threads=1))


@pytest.fixture(scope="module")
def done(place):
    steps = [TRAIN, {"kind": "prune", "density": 0.3}, BITS, TUNE | {"label": "qat"}]
    steps += [BITS | {"label": "lower", "bits": 2, "activations": 2, "ternary": True}, TUNE | {"label": "again"}]
    return run(made(*steps, {"kind": "pack"}), place)


STAGES = ("prune", "quantize", "qat", "lower", "again", "pack")


@pytest.mark.parametrize("stage", STAGES)
def test_zeros_stay_zeros(done, stage):
    network, state, _ = network_of(done[stage])
    first = done["prune"].state().masks
    assert {n: m.sum() for n, m in state.masks.items()} == {n: m.sum() for n, m in first.items()}
    for name, mask in first.items():
        assert torch.equal(state.masks[name], mask)
        layer = network.get_submodule(name.removesuffix(".weight"))
        whole = quantize.whole_weights(layer) if quantize.is_quantised(layer) else layer.weight
        assert not whole[~mask].any()
        assert bool(whole[mask].any())


def test_training_with_few_bits_brings_back_what_rounding_took(done):
    accuracy = {s: done[s].result["test"]["accuracy"] for s in done if "test" in done[s].result}
    assert accuracy["qat"] > accuracy["quantize"]
    assert accuracy["again"] > accuracy["lower"] + 0.1
    assert accuracy["qat"] > 0.93
    assert accuracy["again"] > 0.9
    assert abs(accuracy["pack"] - accuracy["again"]) < 0.03


def test_the_packed_file_is_the_network_in_whole_numbers(done, place):
    network, state, _ = opened(done["pack"].folder / PACKED)
    layers = quantize.quantised_layers(network)
    assert len(layers) == 4
    assert all(layer.bits.folded for layer in layers.values())
    assert [layer.bits.weight for layer in layers.values()] == [8, 2, 2, 8]
    splits = data.load(done["train"].spec.data, place.data)
    found = evaluate(network, splits.test, splits)
    assert found.as_dict() == done["pack"].result["test"]
    with quantize.in_integers(network):
        assert evaluate(network, splits.test, splits) == found
    small, large = (done[s].result["bytes"] for s in ("pack", "again"))
    assert small < large / 8
    weights = sum(w.numel() for n, w in state.weights.items() if n.endswith("weight"))
    assert small < weights * (1 + 0.3 * 2.2) / 8 + 8000  # a bit a place, two a kept weight; the header


def test_a_checkpoint_of_a_quantised_network_opens_by_itself(done):
    network, state, _ = opened(done["again"].folder / "weights.safetensors")
    again = copy.deepcopy(network)
    again.load_state_dict(state.weights)
    assert quantize.described(network) == quantize.described(again)
    assert quantize.described(network)["conv2"]["weight"] == 2


def test_clusters_are_packed_as_codes(place):
    steps = [
        TRAIN,
        {"kind": "prune", "density": 0.3},
        {"kind": "quantize", "bits": 3, "learned": True, "clusters": True},
    ]
    found = run(made(*steps, TUNE | {"label": "qat"}, {"kind": "pack"}), place)
    network, state, _ = opened(found["pack"].folder / PACKED)
    splits = data.load(found["train"].spec.data, place.data)
    assert evaluate(network, splits.test, splits).as_dict() == found["pack"].result["test"]
    assert abs(found["pack"].result["test"]["accuracy"] - found["qat"].result["test"]["accuracy"]) < 0.02
    assert found["qat"].result["test"]["accuracy"] > 0.95
    assert not [n for n in state.weights if n.endswith("codes")]
    codes = set(state.weights["conv2.weight"].unique().tolist())
    assert codes <= set(range(8))
    assert len(codes) > 5
    weights = sum(w.numel() for n, w in state.weights.items() if n.endswith("weight"))
    assert found["pack"].result["bytes"] < weights * (1 + 0.3 * 3.2) / 8 + 10_000


def test_quantised_networks_are_loaded_and_saved_from_python(done, tmp_path):
    x = torch.rand(3, 1, 8, 8)
    for stage in ("again", "pack"):
        file = done[stage].folder / (PACKED if stage == "pack" else "weights.safetensors")
        network = prunery.load(file)
        saved = prunery.load(prunery.save(network, tmp_path / f"{stage}.safetensors"))
        assert torch.equal(saved(x), network(x))
        assert quantize.described(saved) == quantize.described(network) != {}


@pytest.mark.parametrize("stage", ["again", "pack"])
def test_the_engine_computes_what_evaluation_does(done, stage):
    network, state, _ = network_of(done[stage])
    x = torch.rand(64, 1, 8, 8)
    packed = prunery.pack(network.eval(), x[:2], [x])
    with torch.no_grad():
        wanted = network(x)
    assert (packed(x) - wanted).norm() / wanted.norm() < 0.1
    assert engine.is_quantised(packed)
    for op in engine.graph_of(packed).ops:
        mask = state.masks.get(f"{op.name}.weight")
        if op.weight is not None and mask is not None:
            assert not op.weight.reshape(mask.shape)[~mask].any()


@pytest.mark.parametrize("step", [{"kind": "shrink"}, {"kind": "factorise"}, {"kind": "quantize", "label": "round"}])
def test_steps_that_know_no_quantised_layers_say_so(place, step):
    with pytest.raises(Refused, match="conv1 is quantised already"):
        run(made(TRAIN, {"kind": "prune", "density": 0.3}, BITS, step), place)


def test_a_killed_training_of_quantised_layers_goes_on_to_the_same_bits(place, tmp_path, done):
    steps = [TRAIN, {"kind": "prune", "density": 0.3}, BITS, TUNE | {"label": "qat"}]
    stopped = 0
    while True:
        asked = iter(range(10**6))
        ways = Ways(threads=1, stopping=lambda: next(asked) >= 80)  # noqa: B023
        try:
            again = run(made(*steps), Place(Runs(tmp_path / "runs"), Path("data"), ways))
            break
        except Stopped:
            stopped += 1
            assert stopped < 20
    a, b = (s["qat"].state().weights for s in (again, done))
    assert all(torch.equal(a[n], b[n]) for n in b)
    assert again["train"].env["parts"] + again["qat"].env["parts"] > 3
    assert again["qat"].env["parts"] > 1
