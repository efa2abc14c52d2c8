"""Laws of masks that move while a network trains: counts, zeros, targets, and a stop that leaves no trace."""

from functools import partial

import pytest
import torch
from torch import nn

from prunery.masks import density, kept, ones, prunable, size
from prunery.pruning import MOVES, prune
from prunery.pruning.dynamic import _noise
from prunery.runs import Work
from prunery.spec import Data, Prune, Train, hints
from prunery.train import OPTIMIZERS, Stopped, Ways, train
from prunery.train.loop import Loop

RATES = {"sgd": 0.05, "adam": 0.01, "adamw": 0.01, "adadelta": 1.0}


def spec_of(sparse, **more):
    usual = {"batch": 16, "steps": 24, "lr": 0.05, "seed": 5, "sparse_every": 4, "sparse_share": 0.5, "density": 0.2}
    return Train(**{"data": Data(scaling="unit"), "sparse": sparse, **usual, **more})


def start(network, sparse, share=0.4):
    """The masks that training begins with."""
    weights = prunable(network)
    return ones(weights) if sparse == "gradual" else prune(weights, None, Prune(density=share, scope="layer"))


def trained(network, splits, spec, work, ways=Ways(), mask=None):  # noqa: B008
    mask = start(network, spec.sparse) if mask is None else mask
    return train(network, mask, splits, spec, work, ways, None, partial(MOVES[spec.sparse], spec=spec))[0]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def seen(monkeypatch):
    """The masks and weights after every step."""
    steps, advance = [], Loop.advance

    def watched(self, loss):
        before = {n: m.clone() for n, m in self.mask.items()}
        advance(self, loss)
        named = dict(self.network.named_parameters())
        moments = {
            n: [v.clone() for v in self.optimizer.state[named[n]].values() if v.shape == named[n].shape]
            for n in self.mask
        }
        weights = {n: named[n].detach().clone() for n in self.mask}
        averages = {n: v.clone() for n, v in self.average.items() if n in self.mask}
        steps.append((self.step, before, {n: m.clone() for n, m in self.mask.items()}, weights, moments, averages))

    monkeypatch.setattr(Loop, "advance", watched)
    return steps


def test_the_table_and_the_spec_name_the_same():
    assert {"static", *MOVES} == set(hints(Train)["sparse"].__args__)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("sparse", MOVES)
def test_what_is_pruned_is_zero_after_every_step_and_so_are_its_moments(sparse, optimizer, network, splits, work, seen):
    trained(network(), splits, spec_of(sparse, optimizer=optimizer, lr=RATES[optimizer], weight_decay=0.01), work())
    assert len(seen) == 24
    for _, _, mask, weights, moments, _ in seen:
        for n, m in mask.items():
            for tensor in (weights[n], *moments[n]):
                assert not tensor[~m].any()


@pytest.mark.parametrize("sparse", ["set", "rigl"])
def test_layers_keep_their_counts_while_weights_move(sparse, network, splits, work, seen):
    state = trained(network(), splits, spec_of(sparse), work())
    first = start(network(), sparse)
    for _, _, mask, *_ in seen:
        assert {n: kept({n: m}) for n, m in mask.items()} == {n: kept({n: m}) for n, m in first.items()}
    moves = [step for step, before, mask, *_ in seen if not same(before, mask)]
    assert moves == [5, 9, 13, 17]  # in the steps numbered 4, 8, ..., and none at the end of the moving time, 18
    assert not same(state.masks, first)
    assert same(state.masks, seen[-1][2])


@pytest.mark.parametrize("sparse", ["set", "rigl"])
def test_grown_weights_begin_at_zero_and_the_smallest_have_gone(sparse, network, splits, work, seen):
    trained(network(), splits, spec_of(sparse), work())
    earlier = None
    for _, before, mask, weights, moments, _ in seen:
        for n, m in mask.items():
            grown, dropped = m & ~before[n], before[n] & ~m
            assert int(grown.sum()) == int(dropped.sum())
            assert not weights[n][grown].any()
            assert all(not v[grown].any() for v in moments[n])
            if dropped.any():
                stayed = before[n] & m
                assert earlier[n][dropped].abs().max() <= earlier[n][stayed].abs().min()
        earlier = weights


@pytest.mark.parametrize("sparse", ["set", "rigl"])
def test_the_share_that_moves_falls_along_a_cosine(sparse, network, splits, work, seen):
    trained(network(), splits, spec_of(sparse, steps=40, sparse_every=10, sparse_until=0.75), work())
    n, count = "6.weight", kept({"": start(network(), sparse)["6.weight"]})
    found = [int((mask[n] & ~before[n]).sum()) for _, before, mask, *_ in seen if not same(before, mask)]
    assert found == [int(0.25 * (1 + c) * count) for c in (0.5, -0.5)]  # cos of a third and two thirds of pi


def test_rigl_grows_where_the_gradient_is_largest():
    spec, there = spec_of("rigl"), torch.arange(20).view(4, 5) < 10
    weights = {"w": torch.arange(1.0, 21.0).view(4, 5) * there, "b": torch.zeros(4)}
    grads = {"w": -torch.arange(20.0).view(4, 5)}
    new = MOVES["rigl"](0.5, 4, weights, grads, {"w": there, "b": torch.ones(4, dtype=torch.bool)}, spec)
    assert new["w"].flatten().nonzero().flatten().tolist() == [*range(2, 10), 18, 19]
    assert new["b"].all()


def test_set_grows_by_seed_step_and_layer_alone():
    like = torch.zeros(50)
    drawn = {
        (seed, step, name): _noise(spec_of("set", seed=seed), step, name, like)
        for seed in range(4) for step in range(1, 9) for name in ("a", "b")
    }  # fmt: skip
    assert len({tuple(v.tolist()) for v in drawn.values()}) == len(drawn)
    assert torch.equal(drawn[1, 2, "a"], _noise(spec_of("set", seed=1), 2, "a", like))


TIMES = [(24, 4, 0.75), (24, 5, 0.5), (2, 100, 0.75), (3, 1, 0.99), (1, 100, 0.75), (10, 3, 0.0), (24, 100, 0.1)]


@pytest.mark.parametrize("target", [0.5, 0.2, 0.03])
@pytest.mark.parametrize(("steps", "every", "until"), TIMES)
def test_gradual_pruning_ends_exactly_at_its_density(steps, every, until, target, network, splits, work, seen):
    spec = spec_of("gradual", steps=steps, sparse_every=every, sparse_until=until, density=target)
    mask = trained(network(), splits, spec, work()).masks
    assert kept(mask) == max(len(mask), round(target * size(mask)))
    shares = [density(m) for *_, m, _, _, _ in seen]
    assert shares == sorted(shares, reverse=True)
    for _, before, after, *_ in seen:
        assert all(not (after[n] & ~before[n]).any() for n in after)


def test_gradual_pruning_follows_the_cubic_curve(network, splits, work, seen):
    trained(network(), splits, spec_of("gradual", steps=24, sparse_every=6, sparse_until=0.75, density=0.2), work())
    found = [density(after) for _, before, after, *_ in seen if not same(before, after)]
    assert found == pytest.approx([0.2 + 0.8 * (1 - i / 3) ** 3 for i in (1, 2, 3)], abs=0.01)


def test_gradual_pruning_leaves_sparser_masks_alone(network, splits, work):
    net = network()
    mask = prune(prunable(net), None, Prune(density=0.1))
    assert same(trained(net, splits, spec_of("gradual", density=0.5), work(), mask=mask).masks, mask)


def test_gradual_pruning_for_no_steps_prunes_nothing(network, splits, work):
    assert density(trained(network(), splits, spec_of("gradual", steps=0), work()).masks) == 1


@pytest.mark.parametrize("more", [{}, {"ema": 0.9}, {"optimizer": "adam", "lr": 0.01}], ids=str)
@pytest.mark.parametrize("sparse", MOVES)
def test_a_stopped_run_ends_bit_identical(sparse, more, network, splits, work):
    spec = spec_of(sparse, **more)
    undisturbed = trained(network(), splits, spec, work("a"))
    folder = work("b").folder
    for seed, after in ((0, 6), (9, 3), (8, 7)):  # only the first part may depend on the weights it is given
        count = iter(range(1, 100))
        ways = Ways(stopping=lambda count=count, after=after: next(count) >= after)
        with pytest.raises(Stopped):
            trained(network(seed), splits, spec, Work(folder), ways)
    resumed = trained(network(9), splits, spec, Work(folder))
    assert same(undisturbed.weights, resumed.weights)
    assert same(undisturbed.masks, resumed.masks)


@pytest.mark.parametrize("sparse", MOVES)
def test_averages_know_nothing_of_weights_that_have_gone(sparse, network, splits, work, seen):
    """What is evaluated on the way is what would be kept."""
    trained(network(), splits, spec_of(sparse, ema=0.9), work())
    assert all(not averages[n][~mask[n]].any() for _, _, mask, _, _, averages in seen for n in mask)


def test_biases_and_normalisation_that_are_pruned_stay_so(network, splits, work):
    net = network()
    mask = start(net, "set") | {"1.weight": torch.arange(4) < 2, "1.bias": torch.arange(4) < 2}
    state = trained(net, splits, spec_of("set"), work(), mask=mask)
    assert torch.equal(state.masks["1.weight"], mask["1.weight"])
    assert not state.weights["1.weight"][2:].any()
    assert not state.weights["1.bias"][2:].any()


def test_the_penalty_makes_scales_smaller(network, splits, work):
    found = []
    for weight in (0.0, 0.01, 0.1):
        spec = Train(data=Data(scaling="unit"), batch=16, steps=30, lr=0.05, bn_l1=weight)
        state, _ = train(network(), {}, splits, spec, work(str(weight)), Ways())
        found.append(float(state.weights["1.weight"].abs().sum()))
    assert found[0] > found[1] > found[2]


def test_the_penalty_is_the_gradient_of_the_absolute_values(network, splits, work):
    made = []
    for weight in (0.0, 0.25):
        spec = Train(data=Data(scaling="unit"), batch=16, steps=1, lr=0.1, momentum=0.0, bn_l1=weight)
        net = network()
        nn.init.constant_(net[1].weight[:2], -1.0)
        made.append(train(net, {}, splits, spec, work(str(weight)), Ways())[0].weights["1.weight"])
    torch.testing.assert_close(made[1] - made[0], torch.tensor([1.0, 1, -1, -1]) * 0.1 * 0.25, rtol=1e-4, atol=1e-6)
