"""What Python callers get wrong: each is one line that says what was seen, before anything has changed."""

import copy
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune as torch_prune

import prunery
from prunery.spec import Refused


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 6, 3), nn.Linear(6, 4)

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.a(x)))).mean((2, 3)))


class Keeps(Net):
    """Keeps an activation, with its history where there is one, and others in lists."""

    def forward(self, x):
        self.seen = F.relu(self.a(x))
        self.more = [self.seen * 2]
        return self.c(F.relu(self.b(self.seen)).mean((2, 3)))


class Table(Net):
    def forward(self, x):
        return {"scores": super().forward(x)}


class Locked(Net):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


def made(kind=Net):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind().eval()


X = torch.randn(8, 1, 6, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(8) % 4
DATA = [(X, Y)]
COUPLED = {"structure": "coupled", "example": X}
LEARNT = {"criterion": "taylor"}


def hooked():
    network = made()
    torch_prune.global_unstructured(
        [(network.a, "weight"), (network.b, "weight")], torch_prune.L1Unstructured, amount=0.5
    )
    return network


def frozen():
    network = made()
    for p in network.parameters():
        p.requires_grad_(False)
    return network


def broken(value):
    network = made()
    network.b.weight.data[0, 0] = value
    return network


def halved():
    network = made()
    return network, prunery.prune(network, 0.3)


WRONG = {
    "class": (lambda: prunery.prune(Net), "prune: network is the class Net; expected a network of it, such as Net()"),
    "name": (lambda: prunery.prune("resnet20"), 'expected a torch.nn.Module: prunery.load("resnet20") makes one'),
    "state dict": (lambda: prunery.prune(made().state_dict()), "prune: network is a OrderedDict; expected"),
    "meta": (lambda: prunery.prune(made().to("meta")), "a.weight is on the meta device and has no values"),
    "numpy example": (
        lambda: prunery.prune(made(), structure="coupled", example=X.numpy()),
        "torch.from_numpy(example)",
    ),
    "two examples": (
        lambda: prunery.prune(made(), structure="coupled", example=(X, X)),
        "example is a tuple; expected one",
    ),
    "no image": (lambda: prunery.prune(made(), structure="coupled", example=X[:0]), "example has shape [0, 1, 6, 6]"),
    "a number": (lambda: prunery.groups(made(), torch.tensor(1.0)), "groups: example has shape []"),
    "None": (lambda: prunery.groups(made(), None), "groups: example is None; expected a batch of inputs"),
    "images alone": (
        lambda: prunery.prune(made(), data=[X], **LEARNT),
        "a batch of data is one tensor of [8, 1, 6, 6]",
    ),
    "a tensor": (lambda: prunery.prune(made(), data=X, **LEARNT), "data is a Tensor; expected an iterable of"),
    "three": (
        lambda: prunery.prune(made(), data=[(X, Y, Y)], **LEARNT),
        "a tuple of Tensor, Tensor, Tensor; expected two",
    ),
    "table": (
        lambda: prunery.prune(made(), data=[{"x": X}], **LEARNT),
        "a batch of data is a dict; expected two tensors",
    ),
    "fewer labels": (lambda: prunery.prune(made(), data=[(X, Y[:3])], **LEARNT), "labels of [3]; expected as many"),
    "float labels": (lambda: prunery.prune(made(), data=[(X, Y / 2)], **LEARNT), "labels are float32; expected whole"),
    "classes": (
        lambda: prunery.prune(made(), data=[(X, Y + 2)], **LEARNT),
        "labels reach from 2 to 5; expected 0 to 3",
    ),
    "below": (lambda: prunery.prune(made(), data=[(X, Y - 1)], **LEARNT), "labels reach from -1 to 2; expected 0 to 3"),
    "dict answer": (
        lambda: prunery.prune(made(Table), data=DATA, **LEARNT),
        "the network gives a dict; expected scores",
    ),
    "channels": (
        lambda: prunery.prune(made(), data=[(X.repeat(1, 3, 1, 1), Y)], **LEARNT),
        "cannot take inputs of [8, 3, 6, 6]",
    ),
    "masks list": (lambda: prunery.prune(made(), masks=[1]), "prune: masks are a list; expected a dict"),
    "masks text": (lambda: prunery.finetune(made(), DATA, "all"), "finetune: masks are a str; expected a dict"),
    "epochs third": (lambda: prunery.finetune(made(), DATA, 3), "finetune: masks are a int; expected a dict"),
    "float mask": (
        lambda: prunery.shrink(made(), {"a.weight": torch.ones(8, 1, 3, 3)}, X),
        "is float32; expected a bool tensor",
    ),
    "no mask": (
        lambda: prunery.shrink(made(), {"a.weight": None}, X),
        "the mask of a.weight is NoneType; expected a bool",
    ),
    "exclude all": (lambda: prunery.prune(made(), exclude=("*",)), 'prune.exclude = "*" leaves no layer'),
    "a layer": (
        lambda: prunery.prune(nn.Linear(8, 4), 0.5, structure="coupled", example=torch.ones(2, 8)),
        "is itself a layer, Linear",
    ),
    "multiple 0": (lambda: prunery.shrink(made(), None, X, multiple=0), "shrink: multiple = 0 is not allowed"),
    "multiple 1.5": (lambda: prunery.shrink(made(), None, X, multiple=1.5), "shrink: multiple = 1.5 is not allowed"),
    "no example": (lambda: prunery.shrink(made(), None, None), "shrink: example is None"),
    "unmasked": (
        lambda: prunery.shrink(made(), {"a.weight": torch.zeros(8, 1, 3, 3, dtype=torch.bool)}, X),
        "shrink: a.weight is not zero where its mask prunes it",
    ),
    "nan shrunk": (lambda: prunery.shrink(broken(float("nan")), None, X), "shrink: b.weight holds NaN or infinity"),
    "nan saved": (
        lambda: prunery.save(broken(float("nan")), "never.safetensors"),
        "save: b.weight holds NaN, which load refuses",
    ),
    "layers text": (
        lambda: prunery.factorise(made(), X, rank=0.5, layers="b"),
        'factorise.layers = "b" is not allowed; expected a list',
    ),
    "factorise None": (lambda: prunery.factorise(made(), None, rank=0.5), "factorise: example is None"),
    "fold a name": (lambda: prunery.fold_batchnorm("resnet20", X), "fold: network is the text"),
    "labels": (lambda: prunery.finetune(made(), [(X, Y + 2)]), "finetune: labels reach from 2 to 5; expected 0 to 3"),
    "tuned channels": (
        lambda: prunery.finetune(made(), [(X.repeat(1, 3, 1, 1), Y)]),
        "finetune: Net cannot take inputs of [8, 3, 6, 6]",
    ),
    "tuned table": (
        lambda: prunery.finetune(made(Table), DATA),
        "finetune: the network gives a dict; expected scores of classes",
    ),
    "own loss": (
        lambda: prunery.finetune(made(), DATA, loss=F.binary_cross_entropy_with_logits),
        "the loss cannot take results of [8, 4] and labels of [8]",
    ),
    "frozen": (lambda: prunery.finetune(frozen(), DATA), "finetune: all weights of Net are frozen"),
    "adam": (
        lambda: prunery.finetune(made(), DATA, optimizer="adam"),
        'optimizer is "adam"; expected a function that makes one',
    ),
    "made adam": (
        lambda: prunery.finetune(made(), DATA, optimizer=torch.optim.Adam(made().parameters())),
        "optimizer is a Adam; expected a function",
    ),
    "no rule": (
        lambda: prunery.finetune(made(), DATA, optimizer=lambda weights: None),
        "optimizer is a NoneType; expected",
    ),
    "no data": (lambda: prunery.finetune(made(), None), "finetune: data is a NoneType; expected an iterable"),
    "epochs": (lambda: prunery.finetune(made(), DATA, epochs=1.5), "finetune: epochs = 1.5, lr = 0.01 is not allowed"),
    "rate": (lambda: prunery.finetune(made(), DATA, lr="0.1"), 'lr = "0.1" is not allowed'),
    "tune nothing": (
        lambda: prunery.finetune(None, DATA),
        "finetune: network is a NoneType; expected a torch.nn.Module",
    ),
    "load None": (lambda: prunery.load(None), "load: NoneType is no path"),
    "load a folder": (lambda: prunery.load("."), "load: . is a folder; expected a file's, such as network.safetensors"),
    "into a class": (lambda: prunery.load("x.safetensors", into=Net), "load: network is the class Net"),
    "masks of None": (lambda: prunery.masks_of(None), "masks_of: network is a NoneType"),
    "save swapped": (lambda: prunery.save("x.safetensors", made()), "save: network is the text"),
    "save nowhere": (lambda: prunery.save(made(), None), "save: NoneType is no path"),
    "save a folder": (
        lambda: prunery.save(made(), "."),
        "save: . is a folder; expected a file's, such as network.safetensors",
    ),
    "save an empty name": (lambda: prunery.save(made(), ""), "save: the name is empty; expected a file's"),
    "load a long name": (lambda: prunery.load("n" * 300), "is unknown; choose one of"),
    "save a long name": (lambda: prunery.save(made(), "n" * 300), "its name is 300 bytes long; expected at most 255"),
    "locked": (
        lambda: prunery.prune(made(Locked)),
        "prune: Locked cannot be copied (cannot pickle '_thread.lock' object)",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_handed_over_wrongly_is_told_in_one_line(name):
    call, said = WRONG[name]
    with pytest.raises(Refused) as refusal:
        call()
    text = str(refusal.value)
    assert said in text
    assert "\n" not in text
    assert len(text) < 400


HOOKED = {
    "prune": lambda network: prunery.prune(network, 0.3),
    "coupled": lambda network: prunery.prune(network, 0.5, **COUPLED),
    "shrink": lambda network: prunery.shrink(network, prunery.masks_of(network), X),
    "factorise": lambda network: prunery.factorise(network, X, rank=0.5),
    "groups": lambda network: prunery.groups(network, X),
    "fold": lambda network: prunery.fold_batchnorm(network, X),
    "finetune": lambda network: prunery.finetune(network, DATA, prunery.masks_of(network)),
    "save": lambda network: prunery.save(network, "never.safetensors"),
}


@pytest.mark.parametrize("name", HOOKED)
def test_hooks_of_pytorchs_pruning_are_named_with_the_way_out(name):
    network = hooked()
    with pytest.raises(Refused, match=r"a(.weight)? is pruned by torch.nn.utils.prune.*prunery.plain_\(network\)"):
        HOOKED[name](network)
    masks = prunery.plain_(network)
    assert prunery.prune(network, 0.3, masks=masks)


def test_networks_with_pytorchs_hooks_are_trained_by_them():
    network = hooked()
    gone = network.a.weight_mask == 0
    prunery.finetune(network, DATA, epochs=2)
    assert bool((network.a.weight[gone] == 0).all())


def test_networks_that_keep_activations_are_pruned_and_shrunk():
    plain, keeps = made(), made(Keeps)
    for network in (plain, keeps):
        network(X)  # with its history
    assert not keeps.seen.is_leaf
    assert not keeps.more[0].is_leaf
    results = []
    for network in (plain, keeps):
        masks = prunery.prune(network, 0.5, **COUPLED)
        prunery.finetune(network, DATA, masks)
        smaller, _ = prunery.shrink(network, masks, X)
        results.append((smaller(X), prunery.fold_batchnorm(network, X)(X)))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_what_is_refused_changes_nothing():
    for call in (
        lambda network: prunery.prune(network, data=[(X, Y + 2)], **LEARNT),
        lambda network: prunery.finetune(network, [(X, Y + 2)]),
    ):
        network = made()
        before = copy.deepcopy(network.state_dict())
        with pytest.raises(Refused):
            call(network)
        assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_a_second_pruning_says_where_it_goes_on_from():
    network, masks = halved()
    zeros = sum(int((w == 0).sum()) for w in (network.a.weight, network.b.weight, network.c.weight))
    with pytest.raises(Refused, match=r"are zero already; go on with masks=prunery.masks_of\(network\), or begin anew"):
        prunery.prune(network, 0.6)
    assert zeros == sum(int((w == 0).sum()) for w in (network.a.weight, network.b.weight, network.c.weight))
    less = prunery.prune(network, 0.2, masks=prunery.masks_of(network))
    assert all(bool((masks[n] | ~less[n]).all()) for n in less)
    again, _ = halved()
    assert sum(int(m.sum()) for m in prunery.prune(again, 0.6, masks={}).values()) == round(0.6 * (72 + 432 + 24))


def test_fewer_weights_without_masks_keep_no_zero():
    network, masks = halved()
    less = prunery.prune(network, 0.2)
    assert all(bool((masks[n] | ~less[n]).all()) for n in less)


@pytest.mark.parametrize("density", [np.float32(0.5), np.float64(0.5), torch.tensor(0.5)])
def test_numbers_of_other_libraries_are_numbers(density):
    assert sum(int(m.sum()) for m in prunery.prune(made(), density).values()) == 264


def test_inference_mode_is_told():
    network = made()
    with torch.inference_mode():
        for call in HOOKED.values():
            if call is not HOOKED["save"]:
                with pytest.raises(Refused, match=r"called inside torch.inference_mode\(\)"):
                    call(network)


def test_soft_labels_are_taken_by_cross_entropy():
    losses = prunery.finetune(made(), [(X, F.one_hot(Y, 4).float())], epochs=2)
    assert losses[1] < losses[0]


def test_running_out_of_memory_is_not_called_a_wrong_input():
    class Hungry(Net):
        def forward(self, x):
            raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        prunery.finetune(made(Hungry), DATA)
