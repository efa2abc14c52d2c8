"""A recipe carried out: shared prefixes, branches, measured results, files that say what they are."""

import json
from pathlib import Path

import pytest
import torch

from prunery import chain, pruning, quantize
from prunery.chain import Place, opened, run
from prunery.runs import Runs, State, read_state, write_tensors
from prunery.spec import Refused, recipe
from prunery.train import Stopped, Ways, evaluate

TRAIN = {"kind": "train", "steps": 12, "batch": 64, "optimizer": "adamw", "lr": 0.01}


def made(*steps, **more):
    return recipe({"data": {"name": "digits"}, "model": {"name": "lenet_300_100"}, "step": list(steps), **more})


@pytest.fixture
def place(tmp_path):
    return Place(Runs(tmp_path / "runs"), tmp_path / "data", Ways(threads=1))


def folders(place):
    return {p.name for p in place.runs.root.glob("*-*")}


def test_a_second_run_makes_nothing_and_a_changed_end_shares_the_beginning(place, monkeypatch):
    first = run(made(TRAIN, {"kind": "prune", "density": 0.2}), place)
    monkeypatch.setattr(chain, "make", lambda *_: pytest.fail("made again"))
    assert run(made(TRAIN, {"kind": "prune", "density": 0.2}), place) == first
    monkeypatch.undo()
    before = folders(place)
    second = run(made(TRAIN, {"kind": "prune", "density": 0.1}), place)
    assert second["train"] == first["train"]
    assert second["prune"] != first["prune"]
    assert len(folders(place) - before) == 1


def test_a_branch_starts_where_it_says(place):
    blind = {"kind": "prune", "label": "blind", "after": "train", "density": 0.2, "criterion": "random"}
    done = run(made(TRAIN, {"kind": "prune", "density": 0.2}, dict(TRAIN, label="tune"), blind), place)
    assert done["blind"].parent == done["train"]
    assert done["tune"].parent == done["prune"]
    assert [s.spec.kind for s in done["tune"].chain()] == ["init", "train", "prune", "train"]


def test_a_pruning_by_sensitivity_keeps_what_it_saw(place):
    cut = {"kind": "prune", "density": 0.2, "scope": "sensitivity", "batches": 1}
    twice = cut | {"label": "twice", "after": "train", "schedule": "linear", "rounds": 2}
    done = run(made(TRAIN, cut, twice, {"kind": "prune", "label": "other", "after": "train"}), place)
    (seen,) = done["prune"].result["sensitivity"]
    assert seen["density"] == 0.2
    network, state, _ = chain.network_of(done["train"])
    splits = chain.images(done["prune"].spec.data, place.data, "cpu")
    known = pruning.Known(chain.looked_at(done["prune"].spec, splits))
    rng = torch.Generator().manual_seed(0)
    trials = pruning.alone(network.eval(), state.masks, done["prune"].spec, known, (0.75, 0.15), rng)
    assert [layer["name"] for layer in seen["layers"]] == [n for n in trials if n]
    for layer in seen["layers"]:
        rises = {round(density, 3): rise for density, rise in layer["rises"]}
        assert len(rises) == 4
        for density, (loss, _) in trials[layer["name"]].items():
            assert rises[density] == pytest.approx(loss - trials[""][1.0][0], abs=1e-5)
    assert [r["density"] for r in done["twice"].result["sensitivity"]][-1] == 0.2
    assert len(done["twice"].result["sensitivity"]) == 2
    assert "sensitivity" not in done["other"].result


def test_every_number_of_a_result_is_the_networks(place):
    steps = (
        TRAIN,
        {"kind": "prune", "density": 0.1},
        dict(TRAIN, label="tune"),
        {"kind": "quantize", "bits": 4},
        {"kind": "pack"},
    )
    done = run(made(*steps), place)
    for label in ("prune", "tune", "quantize", "pack"):
        network, state, _ = chain.network_of(done[label])
        result = done[label].result
        found = {n: sum(int(m.sum()) for m in state.masks.values()) for n in ("kept",)}["kept"]
        total = sum(m.numel() for m in state.masks.values())
        assert found == round(0.1 * total)
        assert result["density"] == pytest.approx(found / total)
        assert sum(r["kept"] for r in result["layers"]) == found
        assert all(not state.weights[n][~m].any() for n, m in state.masks.items())
        splits = chain.images(done[label].spec.data, place.data, "cpu")
        assert result["test"]["accuracy"] == evaluate(network, splits.test, splits).accuracy
        assert result["kept_multiply_adds"] == found  # a fully connected network uses each weight once
    assert len(chain.network_of(done["quantize"])[1].scales) == 3
    assert done["pack"].result["bytes"] < done["train"].result["bytes"] / 8
    assert all(json.loads((s.folder / "result.json").read_text()) == s.result for s in done.values())


def test_a_packed_file_opens_as_the_network_it_was(place, tmp_path):
    done = run(made(TRAIN, {"kind": "prune", "density": 0.3}, {"kind": "quantize"}, {"kind": "pack"}), place)
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "elsewhere" / "small.safetensors"
    file.write_bytes((done["pack"].folder / "packed.safetensors").read_bytes())
    _network, state, model = opened(file)
    assert model.name == "lenet_300_100"
    kept = chain.network_of(done["pack"])[1]
    assert all(torch.equal(state.weights[n], w) for n, w in kept.weights.items())
    assert all(torch.equal(state.masks[n], m) for n, m in kept.masks.items())


def test_training_can_start_from_a_file(place, tmp_path):
    done = run(made(TRAIN), place)
    file = str(done["train"].folder / "weights.safetensors")
    model = {"name": "lenet_300_100", "weights": file}
    again = run(recipe({"data": {"name": "digits"}, "model": model, "step": [dict(TRAIN, steps=0)]}), place)
    assert again["train"].result["test"] == done["train"].result["test"]
    assert again["init"].spec.model.weights_sha256 == chain.checksum(Path(file))
    wrong = model | {"weights_sha256": "0" * 64}
    with pytest.raises(Refused, match="the file that the recipe means"):
        run(recipe({"data": {"name": "digits"}, "model": wrong, "step": [TRAIN]}), place)


def test_a_teacher_is_a_label_a_name_or_a_file(place):
    taught = dict(TRAIN, label="student", after="init", teacher="train")
    done = run(made(TRAIN, taught), place)
    assert done["student"].spec.teacher == done["train"].name
    file = str(done["train"].folder / "weights.safetensors")
    by_file = run(made(dict(TRAIN, teacher=file)), place)["train"]
    assert by_file.spec.teacher_sha256 == chain.checksum(Path(file))
    weights = [s.state().weights["fc1.weight"] for s in (done["student"], by_file, done["train"])]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    with pytest.raises(Refused, match="nobody"):
        run(made(dict(TRAIN, teacher="nobody")), place)


def test_a_stop_inside_a_chain_is_taken_up(place, tmp_path):
    count = iter(range(100))
    stopping = Place(place.runs, place.data, Ways(threads=1, stopping=lambda: next(count) >= 5))
    with pytest.raises(Stopped, match=r"stopped after step \d of 12"):
        run(made(TRAIN), stopping)
    other = Place(Runs(tmp_path / "other"), place.data, Ways(threads=1))
    taken_up, undisturbed = run(made(TRAIN), place)["train"], run(made(TRAIN), other)["train"]
    assert (taken_up.folder / "weights.safetensors").read_bytes() == (
        undisturbed.folder / "weights.safetensors"
    ).read_bytes()
    assert taken_up.env["parts"] == 2
    assert undisturbed.env["parts"] == 1


def test_small_networks_train_on_one_thread_and_large_ones_on_all(place):
    splits = chain.images(made(TRAIN).data, place.data, "cpu")
    spec = made(TRAIN).stages[1].spec
    small = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    large = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 20000), torch.nn.Linear(20000, 10))
    assert chain.fitting_threads(small, spec, splits) == 1
    assert chain.fitting_threads(large, spec, splits) == torch.get_num_threads()


def test_what_must_fail_later_is_refused_before_anything_is_computed(place):
    with pytest.raises(Refused, match="would bring weights back"):
        run(
            made(
                TRAIN,
                {"kind": "prune", "density": 0.1},
                dict(TRAIN, label="b"),
                {"kind": "prune", "label": "c", "density": 0.5},
            ),
            place,
        )
    with pytest.raises(Refused, match="meets no layer"):
        run(made(TRAIN, {"kind": "prune", "exclude": ["head"]}), place)
    few = {"kind": "quantize", "bits": 4, "activations": 4, "layers": ["nosuch=4/4"]}
    with pytest.raises(Refused, match=r'step quantize: quantize\.layers: "nosuch" meets no layer; there are fc1'):
        run(made(TRAIN, few), place)
    assert not folders(place)


def test_layers_that_a_step_makes_may_be_named_in_a_later_one(place):
    """Low rank makes rows of layers, whose names only the made network knows."""
    low = {"kind": "factorise", "keep": 0.5}
    few = {"kind": "quantize", "bits": 4, "activations": 4, "batches": 1, "layers": ["fc1.0=8/8"]}
    done = run(made(TRAIN, low, few), place)
    plan = quantize.quantised_layers(chain.network_of(done["quantize"])[0])
    assert plan["fc1.0"].bits.weight == 8


def test_a_checkpoint_says_whose_it_is(place, tmp_path):
    write_tensors(tmp_path / "x.safetensors", {"w": torch.ones(2)})
    with pytest.raises(Refused, match="does not say which network"):
        opened(tmp_path / "x.safetensors")
    done = run(made(TRAIN), place)
    state, about = read_state(done["train"].folder / "weights.safetensors")
    assert isinstance(state, State)
    assert about["step"] == done["train"].name


def test_a_network_that_starts_from_a_pruned_file_starts_pruned(place):
    done = run(made(TRAIN, {"kind": "prune", "density": 0.2}), place)
    model = {"name": "lenet_300_100", "weights": str(done["prune"].folder / "weights.safetensors")}
    again = run(recipe({"data": {"name": "digits"}, "model": model, "step": [TRAIN]}), place)
    assert again["train"].result["density"] == done["prune"].result["density"]
    moved = Path(model["weights"]).with_name("elsewhere.safetensors")
    moved.write_bytes(Path(model["weights"]).read_bytes())
    elsewhere = run(
        recipe({"data": {"name": "digits"}, "model": model | {"weights": str(moved)}, "step": [TRAIN]}), place
    )
    assert elsewhere["train"].name == again["train"].name  # the file counts, not its place


def test_an_edited_network_is_not_taken_for_the_one_that_ran(place, tmp_path):
    code = "from torch import nn\ndef net(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10){})\n"
    file = tmp_path / "own.py"
    file.write_text(code.format(""))
    wanted = recipe({"data": {"name": "digits"}, "model": {"name": f"{file}:net"}, "step": [TRAIN]})
    first = run(wanted, place)
    file.write_text(code.format(", nn.Tanh()"))
    with pytest.raises(Refused, match="has changed since this run began"):
        chain.network_of(first["train"])
    assert run(wanted, place)["train"].name != first["train"].name


def test_weights_with_two_names_are_kept(place, tmp_path):
    file = tmp_path / "tied.py"
    lines = [
        "from torch import nn",
        "def net():",
        " a, b = nn.Linear(64, 64), nn.Linear(64, 64)",
        " b.weight = a.weight",
    ]
    file.write_text("\n".join([*lines, " return nn.Sequential(nn.Flatten(), a, nn.ReLU(), b, nn.Linear(64, 10))\n"]))
    model = {"name": f"{file}:net"}
    done = run(
        recipe({"data": {"name": "digits"}, "model": model, "step": [TRAIN, {"kind": "prune", "density": 0.5}]}), place
    )
    weights = done["prune"].state().weights
    assert torch.equal(weights["1.weight"], weights["3.weight"])
    assert list(done["prune"].state().masks) == ["4.weight"]


def test_conditions_are_those_of_the_step(place):
    env = run(made(TRAIN), place)["train"].env
    assert (env["threads"], env["device"]) == (1, "cpu")
    assert "isa" in env
