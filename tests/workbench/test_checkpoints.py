"""What a file says of its network: where it comes from, what rebuilds it, and what it is refused for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import prunery
from prunery.masks import apply_
from prunery.models import build
from prunery.models.library import torchvision_network
from prunery.runs import pack, read_state, read_tensors, write_tensors
from prunery.spec import Model, Refused, plain

SMALL = Model(name="convnet", input=(1, 8, 8), classes=10)
KEPT = Path(__file__).parents[2] / "results" / "resnet20_cifar10" / "resnet20.safetensors"
OWN = """
from torch import nn

def mine(input, classes):
    return nn.Sequential(nn.Conv2d(input[0], 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(classes))

def plain(input, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, classes))
"""


def outputs(network, x):
    with torch.no_grad():
        return network(x)


def smaller():
    """A small network that half of its channels have left, its masks, and an input."""
    network, x = build(SMALL, 0).eval(), torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    masks = prunery.prune(network, 0.5, structure="coupled", example=x)
    return *prunery.shrink(network, masks, x), x


@pytest.fixture(scope="module")
def shrunk():
    return smaller()


def said(call):
    with pytest.raises(Refused) as refused:
        call()
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600
    return str(refused.value)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("model", ["convnet", SMALL])
def test_a_network_of_another_maker_comes_back_by_its_model(shrunk, model, half, tmp_path):
    network, masks, x = shrunk
    assert not hasattr(network, "prunery_model")
    back = prunery.load(prunery.save(network, tmp_path / "a.safetensors", masks, model=model, half=half))
    torch.testing.assert_close(outputs(back, x), outputs(network, x), rtol=0, atol=0.02 if half else 0)
    assert back.prunery_model == SMALL
    assert read_tensors(tmp_path / "a.safetensors")[1]["format"] == 1


def test_a_librarys_network_comes_back_by_its_model(tmp_path):
    network = torchvision_network("squeezenet1_1", (3, 64, 64), 7).eval()
    model = Model(name="torchvision:squeezenet1_1", input=(3, 64, 64), classes=7)
    x = torch.randn(1, 3, 64, 64)
    back = prunery.load(prunery.save(network, tmp_path / "a.safetensors", model=model))
    assert torch.equal(outputs(back, x), outputs(network, x))


def test_the_wrong_model_is_found_out_when_saving(shrunk, tmp_path):
    path = tmp_path / "a.safetensors"
    assert "cannot be rebuilt from model" in said(lambda: prunery.save(shrunk[0], path, model="lenet5"))
    named = prunery.load("convnet")
    named.fc1 = nn.Sequential(nn.GELU(), named.fc1)
    assert "del network.prunery_model" in said(lambda: prunery.save(named, path))
    assert not path.exists()
    del named.prunery_model
    prunery.save(named, path)
    fresh = build(SMALL, 3).eval()
    fresh.fc1 = nn.Sequential(nn.GELU(), fresh.fc1)
    x = shrunk[2]
    assert torch.equal(outputs(prunery.load(path, into=fresh), x), outputs(named.eval(), x))


def test_masks_that_the_weights_do_not_know_are_refused(tmp_path):
    network = build(SMALL, 0)
    masks = {"fc1.weight": torch.zeros_like(network.fc1.weight, dtype=torch.bool)}
    told = "prunery.masks.apply_(dict(network.named_parameters()), masks)"
    assert f"fc1.weight is not zero where its mask prunes it; expected it to be: {told} makes it so" in said(
        lambda: prunery.save(network, tmp_path / "a.safetensors", masks)
    )
    apply_(dict(network.named_parameters()), masks)  # as told
    prunery.save(network, tmp_path / "a.safetensors", masks)


def test_networks_that_pytorch_masks_and_those_without_a_size_are_refused(tmp_path):
    masked = nn.Sequential(nn.Linear(3, 3))
    nn.utils.prune.random_unstructured(masked[0], "weight", 0.5)
    assert "make the network plain first" in said(lambda: prunery.save(masked, tmp_path / "a.safetensors"))
    lazy = nn.Sequential(nn.LazyLinear(3))
    assert "0 has no size yet" in said(lambda: prunery.save(lazy, tmp_path / "a.safetensors"))


def test_the_users_own_file_is_sealed_by_its_checksum(tmp_path):
    code = tmp_path / "own.py"
    code.write_text(OWN)
    network = prunery.load(f"{code}:plain", input=(3, 2, 2), classes=5)
    path = prunery.save(network, tmp_path / "a.safetensors")
    x = torch.randn(2, 3, 2, 2)
    assert torch.equal(outputs(prunery.load(path), x), outputs(network, x))
    code.write_text(OWN + "\n")
    assert "has changed" in said(lambda: prunery.load(path))
    tensors, about = read_tensors(path)
    about["model"].pop("code_sha256")
    write_tensors(path, tensors, about)
    assert "without a checksum" in said(lambda: prunery.load(path))


def test_files_of_another_format_are_refused(shrunk, tmp_path):
    path = prunery.save(shrunk[0], tmp_path / "a.safetensors")
    tensors, about = read_tensors(path)
    for other in (2, "1", None, [1]):
        write_tensors(path, tensors, about | {"format": other})
        assert "of format" in said(lambda: prunery.load(path, into=build(SMALL, 0)))


def test_a_head_of_another_size_is_no_new_head(shrunk, tmp_path):
    """Weights of another training may bring a new head; a checkpoint whose parts contradict each other may not."""
    network, masks, _ = shrunk
    path = prunery.save(network, tmp_path / "a.safetensors", masks, model="convnet")
    tensors, about = read_tensors(path)
    about["architecture"]["fc1"]["out"] = 7
    write_tensors(path, tensors, about)
    assert "2 of another shape (fc1.weight" in said(lambda: prunery.load(path))
    assert "2 of another shape (fc1.weight" in said(lambda: prunery.load(path, into=build(SMALL, 0)))


def test_what_a_chain_writes_opens_too(shrunk, tmp_path):
    network, masks, x = shrunk
    about = {"model": plain(SMALL), "step": "shrink-0", "architecture": prunery.models.describe(network)}
    state = read_state(prunery.save(network, tmp_path / "a.safetensors", masks))[0]
    for name, tensors in (("weights", state.tensors()), ("packed", pack(state))):
        write_tensors(tmp_path / f"{name}.safetensors", tensors, about)
        back = prunery.load(tmp_path / f"{name}.safetensors")
        torch.testing.assert_close(outputs(back, x), outputs(network, x), rtol=0, atol=0.02)
        found = prunery.masks_of(tmp_path / f"{name}.safetensors")
        assert found.keys() == masks.keys()
        assert all(torch.equal(found[n], m) for n, m in masks.items())


def test_files_from_before_there_were_checksums_open():
    assert b'"sha256":"' not in KEPT.read_bytes()[:20_000]
    back, (other, *_) = prunery.load(KEPT), prunery.opened(KEPT)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(outputs(back, x), outputs(other.eval(), x))


ARGUMENTS = [
    (lambda path: prunery.load(path, classes=3), "leave out input, classes and weights"),
    (lambda path: prunery.load(path, weights="pretrained"), "leave out input, classes and weights"),
    (lambda path: prunery.load("convnet", into=nn.ReLU()), "into goes with a file of weights"),
]


@pytest.mark.parametrize(("call", "text"), ARGUMENTS)
def test_arguments_that_would_be_ignored_are_refused(shrunk, call, text, tmp_path):
    path = prunery.save(shrunk[0], tmp_path / "a.safetensors", model=SMALL)
    assert text in said(lambda: call(path))


PROGRAM = """
import sys
from pathlib import Path

import torch
from prunery.models import build, fit, reshape_
from prunery.runs import read_state
from prunery.spec import Model
from prunery.spec import build as spec

state, about = read_state(Path(sys.argv[1]), sealed=True)
network = build(spec(Model, about["model"]), 7).eval()
reshape_(network, about["architecture"])
fit(network, state.weights, "the file", head=False)
with torch.no_grad():
    print(network(torch.linspace(-1, 1, 128).view(2, 1, 8, 8)).flatten().double().tolist())
assert not [m for m in sys.modules if m.startswith(("prunery.pruning", "torch_pruning"))]
"""


def test_another_process_rebuilds_it_without_the_code_that_pruned(shrunk, tmp_path):
    network, masks, _ = shrunk
    path = prunery.save(network, tmp_path / "a.safetensors", masks, model=SMALL)
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    wanted = outputs(network, torch.linspace(-1, 1, 128).view(2, 1, 8, 8))
    assert torch.equal(torch.tensor(json.loads(done.stdout), dtype=torch.float64).view(2, 10).float(), wanted)


OWN_CLASS = """
from torch import nn


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3), nn.Linear(8, 10)

    def forward(self, x):
        return self.b(self.a(x).relu().mean((2, 3)))
"""


def test_ones_own_class_is_saved_for_the_commands(tmp_path):
    code = tmp_path / "net.py"
    code.write_text(OWN_CLASS)
    spec = prunery.Model(name=f"{code}:Own", input=(1, 8, 8), classes=10)
    network = prunery.load(f"{code}:Own", input=(1, 8, 8), classes=10)
    del network.prunery_model
    masks = prunery.prune(network, 0.5)
    file = prunery.save(network, tmp_path / "own.safetensors", masks, model=spec)
    for found in (prunery.load(file), prunery.opened(file)[0]):
        assert torch.equal(found.a.weight, network.a.weight)
    nameless = prunery.save(network, tmp_path / "nameless.safetensors", masks)
    said = 'holds Own, a network of your own.*model=prunery.Model\\(name="FILE.py:Own"'
    with pytest.raises(prunery.Refused, match=said):
        prunery.opened(nameless)
    code.write_text(OWN_CLASS + "# changed\n")
    with pytest.raises(prunery.Refused, match="SHA-256"):
        prunery.load(file)
