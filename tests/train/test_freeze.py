"""Frozen layers stay to the bit, statistics too; what thaws moves; the optimiser knows of nothing else."""

import pytest
import torch
from torch import nn

from prunery.spec import Model, Refused, Train
from prunery.train import Freezing, Ways, train
from prunery.train.loop import Loop

OPTIMIZERS = {"sgd": 0.05, "adam": 0.01, "adamw": 0.01, "adadelta": 1.0}
STEPS = 5
"""of an epoch: 70 images in batches of 16"""
WAYS_TO_FREEZE = {
    "by name": {"freeze": ("0", "1.*")},
    "by pattern": {"freeze": ("[01]",)},
    "by depth": {"freeze_blocks": 2},
}
ALL_OF_NORM = {"1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}


def spec_of(splits, **more):
    return Train(**{"data": splits.spec, "batch": 16, "epochs": 3, "lr": 0.05, "weight_decay": 0.1, **more})


def trained(network, splits, spec, work):
    """Weights before and after."""
    net = network()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state, _ = train(net, {}, splits, spec, work, Ways())
    return before, state.weights


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("how", WAYS_TO_FREEZE)
def test_frozen_layers_are_equal_to_the_bit_and_the_rest_moves(how, optimizer, network, splits, work):
    spec = spec_of(splits, optimizer=optimizer, lr=OPTIMIZERS[optimizer], ema=0.5, **WAYS_TO_FREEZE[how])
    before, after = trained(network, splits, spec, work())
    still = {n for n in before if torch.equal(before[n], after[n])}
    assert still == {"0.weight", "0.bias", *ALL_OF_NORM}


def test_without_freezing_everything_moves(network, splits, work):
    before, after = trained(network, splits, spec_of(splits), work())
    assert not any(torch.equal(before[n], after[n]) for n in before)


@pytest.mark.parametrize(
    ("settings", "frozen"),
    [
        ({"freeze": ("0", "1"), "unfreeze": ("1=1", "2=0")}, [{"0", "1"}, {"0"}, set()]),
        ({"freeze": ("*",), "unfreeze": ("0=6", "2=1")}, [{"0", "1"}, {"0", "1"}, {"0"}]),
        ({"freeze_blocks": 2, "unfreeze_every": 1}, [{"0", "1"}, {"0"}, set()]),
        ({"freeze_blocks": 2, "unfreeze_every": 2}, [{"0", "1"}, {"0", "1"}, {"0"}]),
        ({"freeze_blocks": 1, "freeze": ("1",), "unfreeze": ("1=*",)}, [{"0", "1"}, set(), set()]),
    ],
)
def test_layers_thaw_at_their_epochs(settings, frozen, network, splits, work, monkeypatch):
    """Every step of every epoch: who has gradients, whose statistics move, whose moments exist."""
    seen, step = [], Loop.update

    def watched(self):
        layers = {n.partition(".")[0] for n, p in self.network.named_parameters() if p.grad is None}
        assert self.network[1].training == ("1" not in layers)
        seen.append(layers)
        step(self)
        assert all(bool(self.optimizer.state.get(p)) == (p.grad is not None) for p in self.network.parameters())

    monkeypatch.setattr(Loop, "update", watched)
    train(network(), {}, splits, spec_of(splits, **settings), work(), Ways())
    assert seen == [layers for layers in frozen for _ in range(STEPS)]


def test_an_epoch_of_thawing_may_be_a_part(network, splits, work, monkeypatch):
    seen, step = [], Loop.update
    monkeypatch.setattr(Loop, "update", lambda self: (seen.append(self.network[0].weight.grad is None), step(self)))
    train(network(), {}, splits, spec_of(splits, freeze=("0",), unfreeze=("0.4=0",), epochs=1), work(), Ways())
    assert seen == [True, True, False, False, False]


def test_the_optimiser_is_handed_what_ever_learns(network, splits):
    def of(**settings):
        net = network()
        loop = Loop(net, {}, splits, spec_of(splits, **settings), Ways())
        names = {id(p): n for n, p in net.named_parameters()}
        return {names[id(p)] for g in loop.optimizer.param_groups for p in g["params"]}

    everything = {n for n, _ in network().named_parameters()}
    assert of() == everything
    assert of(freeze=("0", "1")) == {"6.weight", "6.bias"}
    assert of(freeze=("0", "1"), unfreeze=("2=1",)) == everything - {"0.weight", "0.bias"}
    assert of(freeze=("0", "1"), unfreeze=("3=1",)) == {"6.weight", "6.bias"}, "training is over at epoch 3"


def test_it_equals_pytorchs_own_way(network, splits, work):
    """requires_grad_(False), .eval() and a filtered SGD, as tutorials write it."""
    spec = spec_of(splits, freeze=("0", "1"), precision="float32")
    ours = network()
    state, _ = train(ours, {}, splits, spec, work(), Ways())
    theirs, stream = network(), Loop(network(), {}, splits, spec, Ways()).stream
    theirs.train()
    theirs[1].eval()
    theirs[0].requires_grad_(False)
    theirs[1].requires_grad_(False)
    rule = torch.optim.SGD(filter(lambda p: p.requires_grad, theirs.parameters()), 0.05, 0.9, weight_decay=0.1)
    from prunery.train.loop import derived

    with torch.random.fork_rng([]):
        torch.manual_seed(derived(spec.seed, "dropout"))
        for step in range(3 * STEPS):
            x, y = stream(step)
            rule.zero_grad()
            nn.functional.cross_entropy(theirs(x), y).backward()
            rule.step()
    assert all(torch.allclose(state.weights[n], w, atol=1e-6) for n, w in theirs.state_dict().items())


def test_the_network_is_its_owners_again(network, splits, work):
    net = network()
    net[0].bias.requires_grad_(False)
    before = {n: p.requires_grad for n, p in net.named_parameters()}
    train(net, {}, splits, spec_of(splits, freeze=("6",), epochs=1), work(), Ways())
    assert {n: p.requires_grad for n, p in net.named_parameters()} == before


def test_what_wanted_no_gradients_does_not_begin_to(network, splits):
    net = network()
    net[0].bias.requires_grad_(False)
    freezing = Freezing(net, spec_of(splits, freeze=("0",), unfreeze=("1=0",)))
    freezing.set_(1.0)
    assert (net[0].weight.requires_grad, net[0].bias.requires_grad) == (True, False)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"freeze": ("7",)}, '"7" meets no layer; the layers are 0, 1, 6'),
        ({"freeze": ("0",), "unfreeze": ("1=fc*",)}, '"fc*" meets no layer'),
        ({"freeze": ("*",)}, "leaves no weight to train"),
        ({"freeze": ("*",), "unfreeze": ("1=6",)}, "leaves no weight to train at first"),
        ({"freeze_blocks": 8}, "train.freeze_blocks = 8 is more than the network has; expected at most 7"),
    ],
)
def test_what_cannot_be_is_refused(settings, words, network, splits):
    with pytest.raises(Refused) as refusal:
        Freezing(network(), spec_of(splits, **settings))
    assert words in str(refusal.value)


def test_fused_blocks_freeze_too(splits):
    """The native convolution of lenet5 gives gradients of its own making."""
    from prunery.models import build

    net = build(Model(name="lenet5", input=(1, 28, 28), classes=3), 0)
    freezing = Freezing(net, Train(freeze=("conv1",)))
    freezing.set_(0.0)
    net.train()(torch.randn(4, 1, 28, 28)).sum().backward()
    assert {n for n, p in net.named_parameters() if p.grad is None} == {"conv1.weight", "conv1.bias"}
