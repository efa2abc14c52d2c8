"""Arms that are more than a mask and weights to begin with: learned masks, early birds, twins, transfer, finetuning."""

from dataclasses import replace

import pytest
import torch
from games import game_of, place_of, read

from prunery import models
from prunery.masks import kept, ones, prunable
from prunery.spec import Data, Draw, Lottery
from prunery.tickets import CONTROLS, run
from prunery.tickets.connect import POINTS, barrier
from prunery.tickets.early import distance
from prunery.tickets.kept import WHOLE
from prunery.tickets.lottery import set_up
from prunery.tickets.start import Start
from prunery.train import Stopped

SMALL = Lottery(data=Data(scaling="unit"), steps=600, batch=32, every=100, levels=3, seeds=1, curve_levels=())
RATES = {"rate_fc": 0.4, "rate_output": 0.2}


def played(folder, arms, **settings):
    lottery = replace(SMALL, arms=("ticket", *arms), **RATES | settings)
    steps = run(lottery, place_of(folder))
    return lottery, {(s.result["arm"], s.result["level"], s.result["number"]): s for s in steps}


@pytest.fixture
def table(tmp_path):
    return set_up(replace(SMALL, optimizer="adam", lr=0.01), place_of(tmp_path))


# --- masks without training, and learned ------------------------------------------------------------------------------


def test_a_learned_mask_is_exact_leaves_the_weights_and_beats_masks_that_are_not(tmp_path):
    _, found = played(tmp_path, ["untrained", "untrained_same_sign", "supermask"])
    for level in (1, 2, 3):
        untrained, same, learned = (
            found[a, level, 0].result for a in ("untrained", "untrained_same_sign", "supermask")
        )
        ticket = found["ticket", level, 0].result
        assert untrained["kept"] == same["kept"] == learned["kept"] == ticket["kept"]
        assert untrained["iterations"] == 0
        assert untrained["curve"]["iteration"] == [0]
        assert learned["iterations"] == 600
        assert learned["end"]["test_accuracy"] > max(0.8, untrained["end"]["test_accuracy"] + 0.02)
        assert same["end"]["test_accuracy"] > 0.15


def test_scores_choose_the_largest_and_only_they_are_trained(table):
    theta = models.build(table.lottery.model, 0).state_dict()
    mask = {n: torch.rand(w.shape) < 0.3 for n, w in prunable(table.network).items()}
    replica = table.replica(Start(theta, masking=True), mask, 0)
    first = replica.chosen()
    assert all(int(first[n].sum()) == int(m.sum()) for n, m in mask.items())
    for n, m in first.items():
        assert theta[n][m].abs().min() >= theta[n][~m].abs().max()
    replica.advance(0, [0.01] * 10)
    after = replica.chosen()
    assert all(int(after[n].sum()) == int(m.sum()) for n, m in mask.items())
    assert distance(first, after) > 0.02
    state = replica.seen.state_dict() | replica._effective()
    for n, w in theta.items():
        scale = (w.numel() / int(mask[n].sum())) ** 0.5 if n in mask else 1.0
        assert torch.equal(state[n], (w * scale * after[n]) if n in mask else w)


def test_a_learned_mask_is_the_same_in_pieces(table):
    theta = models.build(table.lottery.model, 0).state_dict()
    mask = {n: torch.rand(w.shape) < 0.5 for n, w in prunable(table.network).items()}
    start = Start(theta, masking=True)
    whole, parts = (table.replica(start, mask, 3) for _ in range(2))
    whole.advance(0, [0.01] * 12)
    for first, last in ((0, 5), (5, 12)):
        parts.advance(first, [0.01] * (last - first))
        parts.evaluate(table.splits.test)
        parts = table.replica(start, mask, 3, parts.snapshot())
    a, b = whole.snapshot(), parts.snapshot()
    for part in ("weights", "first", "second"):
        assert all(torch.equal(t, getattr(b, part)[n]) for n, t in getattr(a, part).items())
    assert whole.evaluate(table.splits.test) == parts.evaluate(table.splits.test)


# --- early birds ------------------------------------------------------------------------------------------------------


def test_an_early_bird_is_drawn_when_its_mask_has_settled_and_goes_on_from_there(tmp_path):
    lottery, found = played(tmp_path, ["earlybird"], steps=1600)
    game = game_of(lottery, tmp_path)
    epoch = -(-len(game.table.splits.train) // lottery.batch)
    firsts = [found["earlybird", level, 0].result["first_iteration"] for level in (1, 2, 3)]
    assert all(5 * epoch <= first < 1600 - epoch and first % epoch == 0 for first in firsts), firsts
    hand = game._hand(Draw(arm="earlybird", level=2), game.whole)
    weights, iteration = hand.early()
    assert iteration == firsts[1]
    dense = game.table.replica(Start(game.theta(0)), {}, 0)
    assert (
        dense.evaluate(game.table.splits.train).loss
        > game.table.replica(Start(weights), {}, 0).evaluate(game.table.splits.train).loss
    )
    assert found["earlybird", 1, 0].result["end"]["test_accuracy"] > 0.85


def test_a_mask_that_never_settles_is_drawn_before_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("prunery.tickets.early.NEAR", 0.0)
    _, found = played(tmp_path, ["earlybird"], levels=1, steps=400)
    assert 300 < found["earlybird", 1, 0].result["first_iteration"] < 400


def test_distances():
    one = {"w": torch.tensor([True, True, False, False])}
    for other, far in (([1, 1, 0, 0], 0), ([1, 0, 1, 0], 0.5), ([0, 0, 1, 1], 1)):
        assert distance(one, {"w": torch.tensor(other, dtype=torch.bool)}) == far


# --- twins ------------------------------------------------------------------------------------------------------------


def test_twins_begin_alike_and_the_way_between_them_is_measured(tmp_path):
    _, found = played(tmp_path, ["twin"], levels=1)
    for level in (0, 1):
        one, other = (found["twin", level, n] for n in range(2))
        assert "barrier" not in one.result
        way = other.result["barrier"]
        assert len(way["error"]) == POINTS
        ends = [1 - s.result["end"]["test_accuracy"] for s in (one, other)]
        assert [way["error"][0], way["error"][-1]] == pytest.approx(ends)
        assert way["height"] == pytest.approx(max(way["error"]) - sum(ends) / 2)
        assert one.result["curve"]["val_loss"] != other.result["curve"]["val_loss"]
        assert one.result["kept"] == found["ticket", level, 0].result["kept"]


def test_the_way_between_strangers_is_a_barrier_and_to_oneself_none(tmp_path):
    lottery, _ = played(tmp_path, [], levels=0, seeds=2, steps=1500)
    game = game_of(lottery, tmp_path)
    one, other = (game._dense(seed).weights(WHOLE) for seed in range(2))
    mask = ones(game.whole)
    assert barrier(game.table, mask, one, one)["height"] == 0
    assert barrier(game.table, mask, one, other)["height"] > 0.1


# --- transfer ---------------------------------------------------------------------------------------------------------


def test_transferred_tickets_wear_the_masks_of_the_other_lottery(tmp_path):
    settings = {"source_optimizer": "sgd", "source_lr": 0.1, "source_momentum": 0.9}
    lottery, found = played(tmp_path, ["transferred"], **settings)
    source = game_of(lottery.source(), tmp_path)
    game = game_of(lottery, tmp_path, source)
    for level in (1, 2, 3):
        start, mask = CONTROLS["transferred"](game._hand(Draw(arm="transferred", level=level), game.whole))
        theirs = source._kept(source._step(Draw(level=level - 1))).mask()
        assert all(torch.equal(mask[n], m) for n, m in theirs.items())
        assert kept(mask) == sum(found["ticket", level, 0].result["kept"].values())
        assert all(torch.equal(start.weights[n], w) for n, w in game.theta(0).items())
    assert lottery.source().optimizer == "sgd"
    assert (lottery.source().lr, lottery.source().arms) == (0.1, ("ticket",))


def test_where_tickets_are_transferred_from_renames_nothing_else(tmp_path):
    one, other = (replace(SMALL, arms=("ticket", "transferred"), source_lr=lr) for lr in (0.1, 0.2))
    games = [game_of(x, tmp_path, game_of(x.source(), tmp_path)) for x in (one, other)]
    names = [[g.node(Draw(arm=a, level=2)).name for g in games] for a in ("ticket", "transferred")]
    assert names[0][0] == names[0][1]
    assert names[1][0] != names[1][1]
    assert game_of(replace(SMALL, arms=("ticket",)), tmp_path).node(Draw(level=2)).name == names[0][0]


# --- learning rates ---------------------------------------------------------------------------------------------------


def test_finetuning_and_learning_rate_rewinding_differ_in_the_rate_alone(tmp_path):
    lottery, found = played(tmp_path, ["continued", "finetuned"], levels=1, drops=(300, 450))
    assert [lottery.rate(i) for i in (0, 299, 300, 450)] == pytest.approx([1.2e-3, 1.2e-3, 1.2e-4, 1.2e-5])
    moved = {a: found[a, 1, 0].result["curve"]["val_loss"] for a in ("continued", "finetuned")}
    spread = {a: max(losses) - min(losses) for a, losses in moved.items()}
    assert spread["finetuned"] < 0.2 * spread["continued"]
    game = game_of(lottery, tmp_path)
    starts = [game._kept(game._step(Draw(arm=a, level=1))).mask() for a in ("continued", "finetuned")]
    assert kept(starts[0]) == kept(starts[1])


def test_the_rate_rises_from_zero():
    lottery = replace(SMALL, warmup=100, drops=(50,), lr=1.0)
    assert [lottery.rate(i) for i in (0, 49, 50, 99, 500)] == pytest.approx([0.01, 0.5, 0.051, 0.1, 0.1])


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_stopping_again_and_again_changes_nothing(tmp_path):
    arms = ("ticket", "supermask", "earlybird", "twin", "untrained", "transferred")
    lottery = replace(SMALL, arms=arms, steps=400, levels=1, source_lr=0.01, **RATES)
    whole = run(lottery, place_of(tmp_path / "whole", threads=2))
    for patience in range(5, 99, 6):
        asked = iter(range(10**6))
        try:
            done = run(lottery, place_of(tmp_path / "parts", stopping=lambda: next(asked) >= patience))  # noqa: B023
            break
        except Stopped:
            pass
    assert read(done) == read(whole)
    assert max(s.env["parts"] for s in done) > 1
