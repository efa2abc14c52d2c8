"""Lotteries of networks that PyTorch trains: the same laws as for the kernels, on a small convolutional network."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from games import ROOT, game_of, place_of, read

from prunery import data, models
from prunery.spec import Data, Draw, Lottery, Model, Refused, read_lottery
from prunery.tickets import Snapshot, run
from prunery.tickets.fcsteps import Replica, Rule, affine, orders
from prunery.tickets.kept import WHOLE
from prunery.tickets.lottery import set_up
from prunery.tickets.torchsteps import TorchReplica
from prunery.tickets.trial import order_seed
from prunery.train import Stopped

CODE = """
from torch import nn


def net(input, classes):
    return nn.Sequential(
        nn.Conv2d(input[0], 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(96, 20), nn.ReLU(), nn.Linear(20, classes),
    )


def normed(input, classes):
    body = [nn.Conv2d(input[0], 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(144, classes))


def dropped(input, classes):
    return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, classes))


def sigmoid(input, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Sigmoid(), nn.Linear(9, classes))
"""
SMALL = Lottery(
    data=Data(scaling="unit"), steps=40, batch=32, every=10, levels=2, seeds=1, reinits=1, arms=("ticket", "reinit"),
    curve_levels=(1,),
)  # fmt: skip
PLAIN = {"conv": ("net", {}), "momentum": ("net", {"optimizer": "sgd", "momentum": 0.9, "lr": 0.05})}
PLAIN |= {"sgd": ("net", {"optimizer": "sgd", "lr": 0.05}), "norm": ("normed", {}), "sigmoid": ("sigmoid", {})}
PLAIN |= {"bfloat16": ("net", {"precision": "bfloat16"})}


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    file = tmp_path_factory.mktemp("code") / "own.py"
    file.write_text(CODE)
    return file


def lottery_of(code, function="net", **more):
    return replace(SMALL, model=Model(name=f"{code}:{function}"), **more)


def plainly(game, network, rows):
    """The loop that anyone would write."""
    lottery, splits = game.lottery, game.table.splits
    rules = {
        "adam": lambda p: torch.optim.Adam(p, lottery.lr, fused=True),
        "sgd": lambda p: torch.optim.SGD(p, lottery.lr, lottery.momentum, fused=True),
    }
    network = network.to(memory_format=torch.channels_last).train()
    rule = rules[lottery.optimizer](network.parameters())
    for row in rows:
        chosen = row[row >= 0].long()
        x = data.inputs(splits.train.x[chosen], splits).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=lottery.precision == "bfloat16"):
            loss = F.cross_entropy(network(x).float(), splits.train.y[chosen])
        rule.zero_grad()
        loss.backward()
        rule.step()
    return network


@pytest.mark.parametrize("name", PLAIN)
def test_one_network_is_a_plain_loop_bit_for_bit(name, code, tmp_path):
    function, settings = PLAIN[name]
    lottery = lottery_of(code, function, levels=0, **settings)
    run(lottery, place_of(tmp_path))
    game = game_of(lottery, tmp_path)
    rows = orders(order_seed(Draw()), len(game.table.splits.train), 32, 0, 40)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    plain = plainly(game, copy.deepcopy(models.build(game.lottery.model, 0)), rows).state_dict()
    torch.set_num_threads(threads)
    ours = game._dense(0).weights(WHOLE)
    assert list(ours) == list(plain)
    for n, w in ours.items():
        assert torch.equal(w, plain[n]), n


def test_the_kernels_and_pytorch_agree(tmp_path):
    lottery = replace(SMALL, model=read_lottery("lenet_300_100").model)
    table = set_up(lottery, place_of(tmp_path))
    network = models.build(table.lottery.model, 0)
    rng = torch.Generator().manual_seed(3)
    masks = {n: torch.rand(w.shape, generator=rng) < 0.3 for n, w in network.state_dict().items() if w.ndim == 2}
    start = {n: w * masks.get(n, 1) for n, w in network.state_dict().items()}
    scale, shift = affine(table.splits)
    ours = Replica(Snapshot(start), masks, Rule("adam"), 32, scale, shift)
    theirs = TorchReplica(network, Snapshot(start), masks, table.lottery, table.splits)
    rows = orders(1, len(table.splits.train), 32, 0, 20)
    losses = [r.train(table.splits.train, rows, [1.2e-3] * 20) for r in (ours, theirs)]
    assert torch.allclose(*losses, rtol=1e-3)
    a, b = ours.snapshot(), theirs.snapshot()
    for part in ("weights", "first", "second"):
        for n, t in getattr(a, part).items():
            assert torch.allclose(t, getattr(b, part)[n], rtol=1e-2, atol=2e-4), (part, n)
    assert ours.evaluate(table.splits.test).hits == pytest.approx(theirs.evaluate(table.splits.test).hits, abs=2)


@pytest.mark.parametrize("name", PLAIN)
def test_training_is_the_same_in_pieces_and_pruned_weights_stay_zero(name, code, tmp_path):
    function, settings = PLAIN[name]
    table = set_up(lottery_of(code, function, **settings), place_of(tmp_path))
    start = {n: w.clone() for n, w in table.network.state_dict().items()}
    rng = torch.Generator().manual_seed(3)
    masks = {n: torch.rand(w.shape, generator=rng) < 0.5 for n, w in start.items() if w.ndim > 1}
    rows = orders(1, len(table.splits.train), 32, 0, 12)
    whole = table.replica(Snapshot(start), masks)
    whole.train(table.splits.train, rows, [1e-2] * 12)
    parts = table.replica(Snapshot(start), masks)
    for first, last in ((0, 5), (5, 6), (6, 12)):
        parts.train(table.splits.train, rows[first:last], [1e-2] * (last - first))
        parts.evaluate(table.splits.validation)
        parts = table.replica(parts.snapshot(), masks)
    a, b = whole.snapshot(), parts.snapshot()
    assert (a.step, b.step) == (12, 12)
    for part in ("weights", "first", "second"):
        one, other = getattr(a, part), getattr(b, part)
        assert list(one) == list(other)
        for n, t in one.items():
            assert torch.equal(t, other[n]), (part, n)
            if n in masks:
                assert not t[~masks[n]].any()
    for n, m in masks.items():
        moved = (a.weights[n] != start[n]) & m
        assert bool((moved & (start[n] < 0)).any()), "negative weights that are kept move"


def test_a_lottery_is_the_same_with_more_threads_and_interrupted(code, tmp_path):
    lottery = lottery_of(code)
    whole = run(lottery, place_of(tmp_path / "one"))
    assert [s.result["arm"] for s in whole] == ["ticket", "ticket", "reinit", "ticket", "reinit"]
    assert read(run(lottery, place_of(tmp_path / "two", threads=3))) == read(whole)
    for patience in range(3, 99, 4):
        asked = iter(range(10**6))
        try:
            done = run(lottery, place_of(tmp_path / "three", stopping=lambda: next(asked) >= patience))  # noqa: B023
            break
        except Stopped:
            pass
    assert read(done) == read(whole)
    assert max(s.env["parts"] for s in done) > 1


def test_who_trains_is_said(code, tmp_path):
    for function, said in (("net", "0.weight [6, 1, 3, 3]"), ("sigmoid", "no chain of linear layers with a ReLU")):
        lines = []
        assert set_up(lottery_of(code, function), place_of(tmp_path, lines)).network is not None
        assert len(lines) == 1
        assert f"{function} trains in PyTorch" in lines[0]
        assert said in lines[0]
    lines = []
    table = set_up(replace(lottery_of(code), data=Data(scaling="image")), place_of(tmp_path, lines))
    assert table.network is not None
    assert "scales every image by itself" in lines[0]


def test_random_numbers_while_training_are_refused(code, tmp_path):
    with pytest.raises(Refused, match=r"1 \(Dropout\) draws random numbers in each step"):
        set_up(lottery_of(code, "dropped"), place_of(tmp_path))


def test_the_short_recipe_is_the_papers_conv2_but_for_its_size():
    short, whole = read_lottery(str(ROOT / "recipes/lottery_conv2_short.toml")), read_lottery("conv2")
    sizes = ("steps", "levels", "seeds", "reinits", "every", "precision", "curve_steps")
    assert replace(short, **{k: getattr(whole, k) for k in sizes}) == whole
