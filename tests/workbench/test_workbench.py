"""Networks in hand: the user's own module and DataLoader through all that can be done to it, and damaged files."""

import copy
import json
import struct
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import prunery
from prunery.masks import density
from prunery.runs import State, read_state, write_tensors
from prunery.runs.files import read_tensors, seal
from prunery.spec import Refused

CODE = """
import torch.nn.functional as F
from torch import nn


class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3, padding=1)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(F.relu(self.b(F.relu(self.norm(self.a(x))))).mean((2, 3)))
"""
space: dict = {}
exec(CODE, space)
Mine = space["Mine"]


def made(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Mine().eval()


def images(n=96):
    rng = torch.Generator().manual_seed(1)
    y = torch.arange(n) % 4
    x = torch.randn(n, 1, 6, 6, generator=rng)
    for i, label in enumerate(y):
        x[i, :, label : label + 3] += 2
    return x, y


X, Y = images()
EXAMPLE = X[:2]


def loader(seed=0, **more):
    return DataLoader(
        TensorDataset(X, Y), batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(seed), **more
    )


def outputs(network, x=X):
    with torch.no_grad():
        return network(x)


def small():
    """A network that surgery has been at, and its masks."""
    network = made()
    masks = prunery.prune(network, 0.5, structure="coupled", example=EXAMPLE)
    network, masks = prunery.shrink(network, masks, EXAMPLE)
    more = prunery.prune(network, 0.6, masks=masks)
    return network, more


WAYS = [
    {}, {"scope": "layer"}, {"structure": "filter"}, {"structure": "coupled"}, {"criterion": "snip"},
    {"criterion": "taylor", "structure": "coupled", "scope": "layer"}, {"criterion": "wanda", "exclude": ("fc",)},
    {"criterion": "thinet", "structure": "coupled", "scope": "layer"}, {"scope": "flops", "budget": "multiply_adds"},
    {"schedule": "geometric", "rounds": 3, "criterion": "synflow"}, {"scope": "sensitivity"}, {"structure": "2:4"},
]  # fmt: skip


@pytest.mark.parametrize("how", WAYS, ids=str)
def test_prune_finetune_and_shrink_ones_own(how):
    network = made()
    masks = prunery.prune(network, 0.5, data=loader(), **how)
    assert density({n: m for n, m in masks.items() if m.ndim > 1}) < (0.9 if "exclude" not in how else 1)
    named = dict(network.named_parameters())
    assert all(not named[n][~m].any() for n, m in masks.items())
    before = {n: p.detach().clone() for n, p in named.items()}
    losses = prunery.finetune(network, loader(), masks, epochs=6, lr=0.05)
    assert losses[-1] < losses[0]
    assert all(not named[n][~m].any() for n, m in masks.items())
    assert any(not torch.equal(before[n], named[n]) for n in masks)
    assert not network.training
    smaller, left = prunery.shrink(network, masks, EXAMPLE)
    torch.testing.assert_close(outputs(smaller), outputs(network), rtol=1e-4, atol=1e-5)
    wide, narrow = (sum(p.numel() for p in n.parameters()) for n in (network, smaller))
    assert narrow < wide if how.get("structure") == "coupled" else narrow <= wide
    assert all(dict(smaller.named_parameters())[n].shape == m.shape for n, m in left.items())


def test_the_users_own_optimiser_loss_and_words():
    network, said = made(), []
    masks = prunery.prune(network, 0.5)
    losses = prunery.finetune(
        network, loader(), masks, epochs=3, optimizer=lambda p: torch.optim.Adam(p, 0.01),
        loss=lambda y, t: F.cross_entropy(y, t, label_smoothing=0.1), say=said.append,
    )  # fmt: skip
    assert [f"epoch {i + 1} of 3: loss {loss:.4f}" for i, loss in enumerate(losses)] == said
    assert all(not dict(network.named_parameters())[n][~m].any() for n, m in masks.items())


def test_masks_go_on_from_masks():
    network = made()
    first = prunery.prune(network, 0.5)
    second = prunery.prune(network, 0.2, masks=first)
    assert all(not (second[n] & ~first[n]).any() for n in first)
    with pytest.raises(Refused, match="would bring weights back"):
        prunery.prune(network, 0.6, masks=second)


def test_masks_of_a_network_are_its_zeros():
    network = made()
    masks = prunery.prune(network, 0.3)
    found = prunery.masks_of(network)
    assert all(torch.equal(found[n], masks[n]) for n in masks)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("make", [lambda: (made(), {}), small], ids=["whole", "small"])
def test_saved_and_loaded_into_ones_own(make, half, tmp_path):
    network, masks = make()
    path = prunery.save(network, tmp_path / "net.safetensors", masks, half=half)
    fresh = made(seed=5)
    back = prunery.load(path, into=fresh)
    assert back is fresh
    assert not back.training
    torch.testing.assert_close(outputs(back), outputs(network), rtol=0, atol=1e-2 if half else 0)
    found = prunery.masks_of(path)
    assert found.keys() == masks.keys()
    assert all(torch.equal(found[n], masks[n]) for n in masks)
    again = prunery.save(back, tmp_path / "again.safetensors", masks, half=half)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", ["convnet", "lenet_300_100"])
def test_networks_with_a_name_need_nothing_to_load_into(name, tmp_path):
    network = prunery.load(name)
    x = torch.randn(2, *network.prunery_model.input)
    masks = prunery.prune(network, 0.4, structure="coupled", example=x)
    smaller, left = prunery.shrink(network, masks, x)
    back = prunery.load(prunery.save(smaller, tmp_path / "net.safetensors", left))
    assert torch.equal(outputs(back, x), outputs(smaller, x))
    assert sum(p.numel() for p in back.parameters()) < sum(p.numel() for p in network.parameters())
    assert back.prunery_model == network.prunery_model


def test_low_rank_and_folded_networks_come_back(tmp_path):
    network = made()
    prunery.finetune(network, loader())
    folded = prunery.fold_batchnorm(network, EXAMPLE)
    lower = prunery.factorise(folded, EXAMPLE, rank=0.4)
    back = prunery.load(prunery.save(lower, tmp_path / "net.safetensors"), into=made(seed=5))
    assert torch.equal(outputs(back), outputs(lower))


PROGRAM = (
    CODE
    + """
import sys
import torch
import prunery

network = prunery.load(sys.argv[1], into=Mine())
x = torch.load(sys.argv[2], weights_only=True)
with torch.no_grad():
    torch.save(network(x), sys.argv[3])
"""
)


def test_another_process_with_the_class_alone_loads_the_small_network(tmp_path):
    network, masks = small()
    path = prunery.save(network, tmp_path / "net.safetensors", masks)
    torch.save(X, tmp_path / "x.pt")
    arguments = [str(path), str(tmp_path / "x.pt"), str(tmp_path / "y.pt")]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert torch.equal(torch.load(tmp_path / "y.pt", weights_only=True), outputs(network))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    network, masks = small()
    return prunery.save(network, tmp_path_factory.mktemp("file") / "net.safetensors", masks)


def one_line(path, into=Mine):
    with pytest.raises(Refused) as refusal:
        prunery.load(path, into=into() if into else None)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500
    return str(refusal.value)


def tried(path):
    """The network in a file, or why there is none."""
    try:
        return prunery.load(path, into=made()), ""
    except Refused as error:
        return None, str(error)


def test_every_flipped_byte_is_refused_or_changes_nothing(file, tmp_path):
    """About 150 places, two bits of each; only a space of the header's padding may become another."""
    data = file.read_bytes()
    wanted, masks = outputs(prunery.load(file, into=made())), prunery.masks_of(file)
    header = 8 + struct.unpack("<Q", data[:8])[0]
    places = {*range(16), *range(16, header, max(1, header // 90)), *range(header - 4, header),
              *range(header, len(data), max(1, (len(data) - header) // 50)), len(data) - 1}  # fmt: skip
    harmless, broken = [], tmp_path / "broken.safetensors"
    for place in sorted(places):
        for bit in (0x01, 0x20):
            broken.write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
            network, said = tried(broken)
            assert "\n" not in said
            if network is None:
                continue
            harmless.append(place)
            assert torch.equal(outputs(network), wanted)
            assert all(torch.equal(m, masks[n]) for n, m in prunery.masks_of(broken).items())
    assert len(places) > 140
    assert all(data[p : p + 1] in b" {}" for p in harmless), [data[p : p + 1] for p in harmless]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.99])
def test_a_cut_file_is_refused(file, tmp_path, share):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    assert "is not a whole safetensors file" in one_line(broken)
    broken.write_bytes(file.read_bytes()[:-1])
    assert "is not a whole safetensors file" in one_line(broken)


def test_files_that_are_something_else_are_refused(tmp_path):
    for name, data in (
        ("empty", b""),
        ("text", b"hello\nworld" * 50),
        ("zeros", bytes(4000)),
        ("ones", b"\xff" * 4000),
    ):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(data)
        one_line(path)
        one_line(path, into=None)


def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path):
    assert "does not exist" in one_line(tmp_path / "nothing.safetensors")
    assert "does not exist" in one_line(tmp_path / "nothing.safetensors", into=None)


def forged(file, path, **more):
    """A file of the same tensors whose header says something else, with a checksum that fits."""
    tensors, about = read_tensors(file)
    write_tensors(path, tensors, {k: v for k, v in (about | more).items() if v is not None})
    return path


def test_a_missing_checksum_is_refused(file, tmp_path):
    from safetensors.torch import load, save

    data = file.read_bytes()
    words = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]
    assert words.pop("sha256") == seal(words["prunery"], load(data))
    (tmp_path / "net.safetensors").write_bytes(save(load(data), words))
    assert "its checksum is missing" in one_line(tmp_path / "net.safetensors")


def changed(description, name, **more):
    return description | {name: description[name] | more}


HOSTILE = {
    "layers that do not exist": lambda a: a | {"ghost": a["fc"]},
    "another size": lambda a: changed(a, "fc", **{"in": a["fc"]["in"] + 1}),
    "a huge layer": lambda a: changed(a, "fc", **{"in": 2**30, "out": 2**30}),
    "a large layer": lambda a: changed(a, "fc", **{"in": 2**15, "out": 2**15}),
    "a negative size": lambda a: changed(a, "fc", out=-1),
    "a fraction": lambda a: changed(a, "fc", out=4.5),
    "a text for a number": lambda a: changed(a, "fc", out="4"),
    "a kind of its own": lambda a: changed(a, "fc", kind="os.system"),
    "no table": lambda a: ["fc"],
    "a missing layer": lambda a: {n: t for n, t in a.items() if n != "a"},
    "a key too many": lambda a: changed(a, "fc", run="code"),
    "nothing": lambda a: {},
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_hostile_descriptions_are_refused_in_one_line(file, tmp_path, change):
    _, about = read_tensors(file)
    one_line(forged(file, tmp_path / "net.safetensors", architecture=change(about["architecture"])))


@pytest.mark.parametrize("kind", ["evil\nname", "x" * 5000, 7, ["a"], None, "__import__('os').abort"])
def test_hostile_class_names_stay_words_on_one_line(file, tmp_path, kind):
    assert "into=" in one_line(forged(file, tmp_path / "net.safetensors", **{"class": kind}), into=None)


@pytest.mark.parametrize(
    "model", [7, "convnet", {"name": "nope"}, {"name": "convnet", "input": [1, -8, 8], "classes": 10}, {}]
)
def test_hostile_models_are_refused_in_one_line(file, tmp_path, model):
    one_line(forged(file, tmp_path / "net.safetensors", model=model), into=None)


def test_headers_that_are_too_deep_are_refused(tmp_path):
    from safetensors.torch import save

    text = '{"format": 1, "architecture": ' + "[" * 100_000 + "]" * 100_000 + "}"
    tensors = {"w": torch.zeros(1)}
    path = tmp_path / "net.safetensors"
    path.write_bytes(save(tensors, {"prunery": text, "sha256": seal(text, tensors)}))
    one_line(path)


def test_a_network_of_another_class_does_not_fit(file):
    assert 'names "a", which this network has not' in one_line(file, into=lambda: nn.Sequential(nn.Linear(3, 3)))
    assert "Mine" in one_line(file, into=None)


def test_what_does_not_fit_leaves_the_users_network_as_it_was(file, tmp_path):
    _, about = read_tensors(file)
    other = changed(about["architecture"], "fc", **{"in": about["architecture"]["fc"]["in"] + 1})
    mine = made()
    before = copy.deepcopy(mine)
    with pytest.raises(Refused):
        prunery.load(forged(file, tmp_path / "net.safetensors", architecture=other), into=mine)
    assert torch.equal(outputs(mine), outputs(before))


REFUSED = [
    (lambda: prunery.prune(made(), 0.5, criterion="snip"), "grad must be seen on data"),
    (lambda: prunery.prune(made(), 0.5, structure="coupled"), "expected data, or an example"),
    (lambda: prunery.prune(made(), 0.5, scope="sensitivity", data=[]), "must be seen on data"),
    (lambda: prunery.prune(made(), 0.5, strukture="filter"), "did you mean structure"),
    (lambda: prunery.prune(made(), 1.5), "density"),
    (lambda: prunery.prune(nn.ReLU(), 0.5), "no prunable layer"),
    (lambda: prunery.prune(made(), 0.5, masks={"fc.weight": torch.ones(2, 2, dtype=torch.bool)}), "mask of fc.weight"),
    (lambda: prunery.prune(made(), 0.5, masks={"nope": torch.ones(2, 2, dtype=torch.bool)}), "mask of nope"),
    (lambda: prunery.finetune(made(), []), "gave no batch"),
    (lambda: prunery.finetune(made(), iter(loader()), epochs=2), "gave no batch"),
    (lambda: prunery.finetune(made(), loader(), epochs=0), "epochs = 0"),
    (lambda: prunery.finetune(made(), loader(), lr=-1.0), "lr = -1"),
    (lambda: prunery.finetune(made(), loader(), lr=1e30, epochs=3), "use a smaller lr"),
    (lambda: prunery.finetune(made(), loader(), {"nope": torch.ones(1, dtype=torch.bool)}), "mask of nope"),
    (lambda: prunery.save(made(), "/nowhere/at/all/net.safetensors"), "is no folder"),
    (
        lambda: prunery.save(made(), "net.safetensors", {"fc.weight": torch.ones(1, dtype=torch.bool)}),
        "mask of fc.weight",
    ),
    (lambda: prunery.load("resnet21"), "did you mean resnet20"),
    (lambda: prunery.shrink(made(), {"nope": torch.ones(1, dtype=torch.bool)}, EXAMPLE), "mask of nope"),
]


@pytest.mark.parametrize(("call", "text"), REFUSED)
def test_bad_requests_are_one_line(call, text):
    with pytest.raises(Refused, match=text) as refusal:
        call()
    assert "\n" not in str(refusal.value)


def test_a_diverging_finetune_leaves_the_mode_as_it_was():
    network = made()
    with pytest.raises(Refused):
        prunery.finetune(network, loader(), lr=1e30, epochs=3)
    assert not network.training


def test_files_from_before_checksums_still_open(tmp_path):
    from safetensors.torch import save

    state = State(made().state_dict())
    path = tmp_path / "old.safetensors"
    path.write_bytes(save({n: t.clone() for n, t in state.tensors().items()}, {"prunery": json.dumps({"step": "x"})}))
    assert torch.equal(outputs(prunery.load(path, into=made(seed=5))), outputs(made()))
    assert read_state(path)[1] == {"step": "x"}
