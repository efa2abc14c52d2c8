"""Lotteries of networks that PyTorch trains: the same laws as for the kernels, on a small convolutional network."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from games import ROOT, game_of, place_of, read
from PIL import Image

from prunery import data, models
from prunery.masks import prunable
from prunery.spec import Data, Draw, Lottery, Model, Refused, read_lottery
from prunery.tickets import Snapshot, run
from prunery.tickets.fcsteps import Replica, Rule, affine, orders
from prunery.tickets.kept import WHOLE
from prunery.tickets.ladder import density
from prunery.tickets.lottery import set_up
from prunery.tickets.start import Start
from prunery.tickets.torchsteps import TorchReplica
from prunery.tickets.trial import order_seed
from prunery.train import Stopped
from prunery.train.half import arithmetic

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


def planes(input, classes):
    return nn.Sequential(nn.Conv2d(input[0], 2, 3), nn.Dropout2d(), nn.Flatten(), nn.Linear(72, classes))


def sigmoid(input, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Sigmoid(), nn.Linear(9, classes))
"""
SMALL = Lottery(
    data=Data(scaling="unit"), steps=40, batch=32, every=10, levels=2, seeds=1, reinits=1, arms=("ticket", "reinit"),
    curve_levels=(1,),
)  # fmt: skip
PLAIN = {"conv": ("net", {}), "momentum": ("net", {"optimizer": "sgd", "momentum": 0.9, "lr": 0.05})}
PLAIN |= {"sgd": ("net", {"optimizer": "sgd", "lr": 0.05}), "norm": ("normed", {}), "sigmoid": ("sigmoid", {})}
PLAIN |= {"bfloat16": ("net", {"precision": "bfloat16"}), "decay": ("net", {"weight_decay": 0.01})}
PLAIN |= {"scheduled": ("normed", {"drops": (20, 30), "warmup": 10})}
PLAIN |= {"augmented": ("net", {"data": Data(scaling="unit", flip=True, crop=1)})}
ALL = PLAIN | {"dropout": ("dropped", {})}


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
        "adam": lambda p: torch.optim.Adam(p, lottery.lr, weight_decay=lottery.weight_decay, fused=True),
        "sgd": lambda p: torch.optim.SGD(p, lottery.lr, lottery.momentum, fused=True),
    }
    network = network.to(memory_format=torch.channels_last).train()
    rule = rules[lottery.optimizer](network.parameters())
    stream = data.Stream(splits, 32, order_seed(Draw()))
    for i, row in enumerate(rows):
        chosen = row[row >= 0].long()
        x = stream(i)[0] if splits.spec.flip else data.inputs(splits.train.x[chosen], splits)
        x = x.contiguous(memory_format=torch.channels_last)
        warm = (i + 1) / lottery.warmup if i < lottery.warmup else 1.0
        rule.param_groups[0]["lr"] = lottery.lr * warm * 0.1 ** len([d for d in lottery.drops if d <= i])
        with arithmetic(lottery.precision, "cpu"):
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
    theirs = TorchReplica(network, Snapshot(start), masks, table.lottery, table.splits, 1)
    rows = orders(1, len(table.splits.train), 32, 0, 20)
    losses = ours.train(table.splits.train, rows, [1.2e-3] * 20), theirs.advance(0, [1.2e-3] * 20)
    assert torch.allclose(*losses, rtol=1e-3)
    a, b = ours.snapshot(), theirs.snapshot()
    for part in ("weights", "first", "second"):
        for n, t in getattr(a, part).items():
            assert torch.allclose(t, getattr(b, part)[n], rtol=1e-2, atol=2e-4), (part, n)
    assert ours.evaluate(table.splits.test).hits == pytest.approx(theirs.evaluate(table.splits.test).hits, abs=2)


@pytest.mark.parametrize("name", ALL)
def test_training_is_the_same_in_pieces_and_pruned_weights_stay_zero(name, code, tmp_path):
    function, settings = ALL[name]
    table = set_up(lottery_of(code, function, **settings), place_of(tmp_path))
    start = {n: w.clone() for n, w in table.network.state_dict().items()}
    rng = torch.Generator().manual_seed(3)
    masks = {n: torch.rand(w.shape, generator=rng) < 0.5 for n, w in start.items() if w.ndim > 1}
    whole = table.replica(Start(start), masks, 1)
    whole.advance(0, [1e-2] * 12)
    parts = table.replica(Start(start), masks, 1)
    for first, last in ((0, 5), (5, 6), (6, 12)):
        parts.advance(first, [1e-2] * (last - first))
        parts.evaluate(table.splits.validation)
        parts = table.replica(Start(start), masks, 1, parts.snapshot())
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


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A few noisy images in two classes."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", 14), ("test", 4)):
        for name, level in (("dark", 60), ("light", 180)):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(level - 50, level + 50, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    return folder


OF_THE_PAPER = ["resnet20", "resnet20_warmup", "vgg19_low_rate", "conv2_dropout", "conv6_as_printed"]


@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_the_papers_other_lotteries_train_prune_and_begin_again(name, pictures, tmp_path):
    papers = read_lottery(name)
    lottery = replace(
        papers, data=replace(papers.data, name=f"folder:{pictures}", validation=8), steps=6, every=3, batch=8, levels=1,
        seeds=1, reinits=1, drops=tuple(d // 5000 for d in papers.drops), marks=(3,) if papers.marks else (),
    )  # fmt: skip
    steps = run(lottery, place_of(tmp_path, threads=2))
    records = [s.result for s in steps]
    assert [(r["arm"], r["level"]) for r in records][:3] == [("ticket", 0), ("ticket", 1), ("reinit", 1)]
    assert all(r["curve"]["iteration"] == [3, 6] for r in records)
    assert all(3 in r["curve"]["test_iteration"] for r in records if papers.marks)
    game = game_of(lottery, tmp_path)
    for r in records:
        assert r["density"] == density(game.shapes, lottery, r["level"])
    first = game._first(0).weights
    ticket = game.table.replica(game._first(0), game._kept(game._step(Draw(level=1))).mask(), 0).snapshot().weights
    mask = game._kept(game._step(Draw(level=1))).mask()
    assert all(torch.equal(ticket[n], first[n] * mask[n] if n in mask else first[n]) for n in first)
    if papers.scope == "global":
        alone = {n for n in mask if "shortcut" in n or "linear" in n or n.startswith("fc")}
        assert all(bool(mask[n].all()) for n in alone)
        assert len({int(m.sum()) / m.numel() for n, m in mask.items() if n not in alone}) > 5


def test_who_trains_is_said(code, tmp_path):
    for function, said in (("net", "0.weight [6, 1, 3, 3]"), ("sigmoid", "no chain of linear layers with a ReLU")):
        lines = []
        assert not set_up(lottery_of(code, function), place_of(tmp_path, lines)).by_kernels
        assert len(lines) == 1
        assert f"{function} trains in PyTorch" in lines[0]
        assert said in lines[0]
    lines = []
    table = set_up(replace(lottery_of(code), data=Data(scaling="image")), place_of(tmp_path, lines))
    assert not table.by_kernels
    assert "scales every image by itself" in lines[0]


def test_dropout_is_pytorchs_with_chance_of_its_own(code, tmp_path):
    table = set_up(lottery_of(code, "dropped"), place_of(tmp_path))
    one, same, other = (table.replica(Start(table.network.state_dict()), {}, seed) for seed in (1, 1, 2))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    losses = [r.advance(0, [1e-2] * 5) for r in (one, same)]
    assert torch.equal(*losses)
    assert torch.equal(torch.get_rng_state(), before)
    layer, x = one.network[1].train(), torch.ones(100, 1000)
    dropped = layer(x)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    assert not torch.equal(layer(x), dropped)
    assert torch.equal(layer.eval()(x), x)
    assert not torch.equal(other.advance(0, [1e-2] * 5), losses[0])


def test_random_numbers_while_training_are_refused(code, tmp_path):
    with pytest.raises(Refused, match=r"1 \(Dropout2d\) draws random numbers in each step"):
        set_up(lottery_of(code, "planes"), place_of(tmp_path))


@pytest.mark.parametrize(("name", "kept"), [("conv2", 4.83), ("conv4", 9.18)])
def test_the_short_recipes_are_the_papers_but_for_their_size(name, kept):
    short, whole = read_lottery(str(ROOT / f"recipes/lottery_{name}_short.toml")), read_lottery(name)
    network = models.build(replace(short.model, input=(3, 32, 32), classes=10), 0)
    shapes = {n: tuple(w.shape) for n, w in prunable(network).items()}
    assert 100 * density(shapes, short, short.levels) == pytest.approx(kept, abs=0.05)
    sizes = (
        "rate_conv",
        "rate_fc",
        "rate_output",
        "steps",
        "levels",
        "seeds",
        "reinits",
        "every",
        "precision",
        "curve_steps",
    )
    assert replace(short, **{k: getattr(whole, k) for k in sizes}) == whole
