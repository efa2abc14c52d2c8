"""The lottery's laws: exact ladders and resets, arms that are what they say, nothing that threads or kills change."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from games import ROOT, game_of, place_of, read

from prunery import models
from prunery.masks import kept, ones, prunable, size
from prunery.runs import Runs
from prunery.spec import Data, Draw, Lottery, Model, Refused, read_lottery
from prunery.tickets import CONTROLS, STRATEGIES, Pace, Snapshot, imp, run
from prunery.tickets import train as train_plainly
from prunery.tickets.crew import Crew, Task
from prunery.tickets.fcsteps import Rule, orders
from prunery.tickets.kept import LEFT, REWOUND, WHOLE
from prunery.tickets.ladder import counts, density, pruned
from prunery.tickets.trial import order_seed
from prunery.train import Stopped

ARMS = (*STRATEGIES, *CONTROLS)
SMALL = Lottery(
    data=Data(scaling="unit"), steps=60, batch=32, every=10, levels=2, seeds=1, reinits=2, arms=ARMS, curve_levels=(1,),
    drops=(50,), source_optimizer="sgd", source_lr=0.1,
)  # fmt: skip
FEW = {"source_optimizer": "", "source_lr": None}
"""what goes with arms that are not transferred"""
RATES = [1.2e-3] * 50 + [1.2e-3 * 0.1] * 10


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Every arm, two levels, one thread."""
    folder = tmp_path_factory.mktemp("played")
    return folder, run(SMALL, place_of(folder))


@pytest.fixture(scope="module")
def game(played):
    """Looks into the folders of `played`."""
    source = game_of(SMALL.source(), played[0])
    return game_of(SMALL, played[0], source)


def masks(game, arm, level):
    """The mask that an arm's level wears, as the level before left it."""
    before = Draw(arm=arm if level > 1 else "ticket", level=level - 1)
    return game._kept(Runs(game.runs.root).find(game.node(before).name)).mask() if level else game.whole


# --- ladders ----------------------------------------------------------------------------------------------------------

LENET = """100 80.04 64.06 51.28 41.05 32.87 26.32 21.07 16.88 13.52 10.83 8.68 6.95 5.57 4.47 3.58 2.87 2.31 1.85 1.49
1.19 .96 .77 .62 .50 .40 .33 .26 .21"""
LADDERS = {
    "lenet_300_100": (Lottery(), dict(enumerate(map(float, LENET.split())))),
    "conv2": (read_lottery("conv2"), {11: 8.81, 14: 4.57}),
    "conv4": (read_lottery("conv4"), {11: 11.06, 12: 9.18}),
    "conv6": (read_lottery("conv6"), {7: 26.61, 10: 15.29}),
    "conv6_as_printed": (read_lottery("conv6_as_printed"), {7: 26.394, 10: 15.115, 12: 10.468}),
    "resnet20": (read_lottery("resnet20"), {1: 80.24, 2: 64.43, 3: 51.78, 4: 41.66, 6: 27.09, 7: 21.91, 10: 11.79}),
    "vgg19": (read_lottery("vgg19"), {12: 6.90, 15: 3.54, 19: 1.47}),
}
SIZES = {"lenet_300_100": 266_200, "conv2": 4_300_992, "conv4": 2_425_024, "conv6": 2_261_184}
SIZES |= {"conv6_as_printed": SIZES["conv6"], "resnet20": 270_896, "vgg19": 20_024_000}


def shapes_of(name):
    input = (1, 28, 28) if name == "lenet_300_100" else (3, 32, 32)
    return {n: tuple(w.shape) for n, w in prunable(models.build(Model(name=name, input=input, classes=10), 0)).items()}


@pytest.mark.parametrize("name", LADDERS)
def test_the_ladder_is_the_papers(name):
    lottery, levels = LADDERS[name]
    shapes = shapes_of(lottery.model.name)
    assert sum(torch.Size(s).numel() for s in shapes.values()) == SIZES[name]
    for level, percent in levels.items():
        assert 100 * density(shapes, lottery, level) == pytest.approx(percent, abs=0.0051), level


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_pruning_is_exact_and_nested_and_keeps_the_largest(scope):
    lottery = Lottery(scope=scope)
    rng = torch.Generator().manual_seed(0)
    weights = {n: torch.randn(s, generator=rng) for n, s in shapes_of("lenet_300_100").items()}
    mask = ones(weights)
    for level in range(1, 29):
        smaller = pruned(weights, mask, lottery, level)
        shapes = {n: tuple(m.shape) for n, m in mask.items()}
        for group, keep in counts(shapes, lottery, level).items():
            assert sum(int(smaller[n].sum()) for n in group) == keep
            gone = torch.cat([weights[n][mask[n] & ~smaller[n]].abs() for n in group])
            assert gone.max() <= min(weights[n][smaller[n]].abs().min() for n in group if smaller[n].any())
        assert all(not (smaller[n] & ~mask[n]).any() for n in mask)
        mask = smaller
    assert 100 * kept(mask) / size(mask) == pytest.approx(0.21, abs=0.005)


def test_ties_keep_the_earlier_and_the_exact_number():
    weights = {"fc1.weight": torch.ones(10, 10), "fc2.weight": torch.ones(10, 10)}
    found = pruned(weights, ones(weights), Lottery(), 1)
    for name, keep in (("fc1.weight", 80), ("fc2.weight", 90)):
        assert torch.equal(found[name].flatten(), torch.arange(100) < keep)


# --- what each arm is -------------------------------------------------------------------------------------------------


def test_imp_reads_like_the_paper():
    said = []
    levels = imp("theta", "m0", lambda s, m, v: f"{s}*{m}@{v}", lambda f, m, v: f"m{v}", lambda f: "theta", 2)
    said = list(levels)
    assert said == [(0, "m0", "theta*m0@0"), (1, "m1", "theta*m1@1"), (2, "m2", "theta*m2@2")]


def test_every_arm_of_the_table_was_trained(played):
    _, steps = played
    results = [s.result for s in steps]
    assert {r["arm"] for r in results} == set(ARMS)
    assert len(results) == 1 + 2 + 2 * (len(ARMS) + 3)
    looks = {"untrained": 1, "untrained_same_sign": 1}
    whole = [r for r in results if r["arm"] != "earlybird"]
    assert all(len(r["curve"]["iteration"]) == looks.get(r["arm"], 6) for r in whole)


def test_one_network_of_the_lottery_is_a_plain_run_bit_for_bit(played, game):
    draw = Draw()
    images = game.table.splits.train
    theta = models.build(game.lottery.model, 0).state_dict()
    rows = orders(order_seed(draw), len(images), 32, 0, 60)
    options = {"scale": game.table.scale, "shift": game.table.shift, "lit": game.table.lit}
    plain, _ = train_plainly(Snapshot(theta), {}, Rule(), images, rows, RATES, **options)
    ours = game._dense(0).weights(WHOLE)
    assert list(ours) == list(theta)
    assert all(torch.equal(ours[n], plain.weights[n]) for n in ours)


def begin(game, arm, level=2):
    mask = masks(game, "ticket", level)
    return CONTROLS[arm](game._hand(Draw(arm=arm, level=level), mask)), mask


def test_tickets_begin_with_theta_0_bit_for_bit(game):
    theta = models.build(game.lottery.model, 0).state_dict()
    first = game._first(0)
    assert first.iteration == 0
    assert all(torch.equal(first.weights[n], w) for n, w in theta.items())


@pytest.mark.parametrize("arm", CONTROLS)
def test_a_control_keeps_as_many_weights_of_each_layer(game, arm):
    (_, mask), ticket = begin(game, arm)
    assert {n: int(m.sum()) for n, m in mask.items()} == {n: int(m.sum()) for n, m in ticket.items()}
    same = all(torch.equal(mask[n], ticket[n]) for n in mask)
    others = ("random", "shuffled", "oneshot", "oneshot_reinit", "untrained_same_sign", "earlybird", "transferred")
    assert same == (arm not in others)


@pytest.mark.parametrize("arm", CONTROLS)
def test_a_control_begins_with_the_weights_of_its_name(game, arm):
    start, _ = begin(game, arm)[0]
    theta = game.theta(0)
    if arm in ("signs", "constant"):
        for n in game.shapes:
            assert torch.equal(start.weights[n].sign(), theta[n].sign()) == (arm == "signs")
            assert len(start.weights[n].abs().unique()) == 1
    else:
        same = all(torch.equal(start.weights[n], theta[n]) for n in game.shapes)
        others = ("reinit", "random", "oneshot_reinit", "resampled", "earlybird")
        assert same == (arm not in others and not arm.startswith("noise"))


def test_one_shot_at_level_1_is_the_ticket_and_no_longer_at_level_2(game):
    for level, same in ((1, True), (2, False)):
        (_, mask), ticket = begin(game, "oneshot", level)
        assert all(torch.equal(mask[n], ticket[n]) for n in mask) == same


def test_draws_of_one_arm_differ(game):
    mask = masks(game, "ticket", 1)
    one, two = (game._hand(Draw(arm="reinit", level=1, number=n), mask).fresh() for n in range(2))
    assert not torch.equal(one["fc1.weight"], two["fc1.weight"])


def test_continued_goes_on_from_what_was_trained(played, game):
    whole = game._dense(0)
    first = Runs(game.runs.root).find(game.node(Draw(arm="continued", level=1)).name)
    left = game._kept(first).weights(LEFT)
    assert list(left) == list(game.theta(0))
    assert all(not left[n][~m].any() for n, m in game._kept(first).mask().items())
    better = first.result["curve"]["val_loss"][0]
    assert better < Runs(game.runs.root).find(game.node(Draw(level=1)).name).result["curve"]["val_loss"][0]
    assert whole.weights(WHOLE).keys() == left.keys()


def test_rewinding_goes_back_to_the_iteration_it_says(tmp_path):
    lottery = replace(SMALL, rewind=20, levels=1, arms=("ticket",), **FEW)
    steps = run(lottery, place_of(tmp_path))
    game = game_of(lottery, tmp_path)
    draw, images = Draw(), game.table.splits.train
    rows = orders(order_seed(draw), len(images), 32, 0, 20)
    options = {"scale": game.table.scale, "shift": game.table.shift, "lit": game.table.lit}
    early, _ = train_plainly(Snapshot(game.theta(0)), {}, Rule(), images, rows, [1.2e-3] * 20, **options)
    rewound = game._dense(0).weights(REWOUND)
    assert all(torch.equal(rewound[n], early.weights[n]) for n in rewound)
    assert steps[1].result["first_iteration"] == 20
    assert steps[1].result["curve"]["iteration"] == [30, 40, 50, 60]


# --- what changes nothing ---------------------------------------------------------------------------------------------


def test_threads_and_other_networks_change_nothing(played, tmp_path):
    _, steps = played
    both = run(replace(SMALL, seeds=2), place_of(tmp_path, threads=3))
    assert read(both[: len(steps)]) == read(steps)
    assert [s.name for s in both[: len(steps)]] == [s.name for s in steps]


def test_a_longer_ladder_goes_on_from_a_shorter_one(tmp_path):
    place = place_of(tmp_path)
    short = run(replace(SMALL, arms=("ticket",), **FEW), place)
    before = [s.env["started"] for s in short]
    longer = run(replace(SMALL, arms=("ticket",), levels=3, **FEW), place)
    assert [s.env["started"] for s in longer[:3]] == before
    assert len(longer) == 4


def stopped(lottery, folder, patience):
    """Where a run is when it has asked so many times whether to stop."""
    asked = iter(range(10**6))
    try:
        return run(lottery, place_of(folder, stopping=lambda: next(asked) >= patience))
    except Stopped:
        return None


def test_stopping_again_and_again_changes_nothing(tmp_path, played):
    lottery = replace(SMALL, arms=("ticket", "reinit"), reinits=1, **FEW)
    done = next(d for patience in range(3, 99, 4) if (d := stopped(lottery, tmp_path, patience)))
    whole = {s.name: s for s in played[1]}
    assert read(done) == read([whole[s.name] for s in done])
    assert max(s.env["parts"] for s in done) > 1


def test_a_killed_run_goes_on_to_the_same_result(tmp_path):
    sizes = ["--set", "data.name=digits", "--set", "every=50", "--steps", "3000", "--levels", "1", "--seeds", "1"]
    words = [*sizes, "--figure", "5", "--threads", "2", "--checkpoint-seconds", "0.02", "--quiet"]
    words += ["--data-dir", str(ROOT / "data"), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "prunery", "lottery", "lenet_300_100", *words, "--runs"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen([*command, str(tmp_path / "killed")], env=env)
    work = tmp_path / "killed" / "lottery" / ".work"
    while not list(work.glob("draw-*/checkpoint.safetensors")):
        assert started.poll() is None
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    started.wait()
    lottery = read_lottery("lenet_300_100", ["data.name=digits", "every=50"])
    lottery = replace(lottery, steps=3000, levels=1, seeds=1, arms=("ticket", "reinit"))
    again = run(lottery, place_of(tmp_path / "killed"))
    assert max(s.env["parts"] for s in again) > 1
    assert read(again) == read(run(lottery, place_of(tmp_path / "whole")))
    assert not list(work.glob("draw-*/*"))


def test_little_is_left_on_the_disk(played):
    folder, _ = played
    whole = sum(f.stat().st_size for f in folder.rglob("kept.safetensors"))
    assert whole < 1_600_000  # the dense weights once, bits, what is gone on from, and one of each pair of twins


# --- the crew ---------------------------------------------------------------------------------------------------------


def test_the_heaviest_task_that_is_ready_goes_first():
    said = []

    def task(weight, *more):
        return Task(weight, lambda: said.append(weight) or more)

    Crew(1).run([task(1), task(3, task(5), task(2)), task(4)])
    assert said == [4, 3, 5, 2, 1]


def test_the_first_failure_ends_all():
    def fail():
        raise Refused("no")

    with pytest.raises(Refused, match="no"):
        Crew(2).run([Task(2, fail), *(Task(1, lambda: ()) for _ in range(5))])


def test_pace_counts_what_is_left():
    pace = Pace()
    lottery = replace(SMALL, arms=("ticket",), levels=1, **FEW)
    pace.begin(lottery, {0: 2.0, 1: 1.0}, 2)
    assert (pace.networks, pace.done, pace.seconds_left()) == (2, 0, None)
    pace.tick({"draw": Draw(), "steps": 30, "seconds": 3.0})
    assert pace.seconds_left() == pytest.approx((30 * 0.1 + 60 * 0.05) / 2)
    pace.tick({"draw": Draw(), "steps": 30, "seconds": 3.0})
    pace.finished(Draw(), before=False)
    pace.finished(Draw(level=1), before=True)
    assert (pace.done, pace.seconds_left()) == (2, 0.0)


# --- what cannot be ---------------------------------------------------------------------------------------------------

REFUSED = {
    "arithmetic": (replace(SMALL, precision="bfloat16"), "whose kernels know no other"),
    "finetuned without drops": (lambda: Lottery(arms=("ticket", "finetuned")), "the learning rate never drops"),
    "transferred from nowhere": (lambda: Lottery(arms=("ticket", "transferred")), "go together"),
    "a source for nothing": (lambda: Lottery(source_lr=0.1), "go together"),
    "a rate of no layer": (replace(SMALL, rate_layers=("fc9=0.1",)), 'the layer = "fc9"'),
    "no rate": (lambda: Lottery(rate_layers=("fc1",)), "expected LAYER=RATE"),
    "a rate too high": (lambda: Lottery(rate_layers=("fc1=1",)), "below 1"),
    "a mark between looks": (lambda: Lottery(marks=(150,)), "multiples of lottery.every = 100: no network .* at 150"),
    "a mark before tickets begin": (lambda: Lottery(rewind=200, marks=(200, 300)), "above rewind = 200: .* at 200"),
    "weights without bounds": (
        lambda: replace(SMALL, optimizer="sgd", lr=1e30, arms=("ticket",), drops=(), **FEW),
        r"ticket of seed 0 at level 0 diverged, [\d,]+ of its weights are no numbers .* rate 1e\+30",
    ),
    "other images": (lambda: replace(SMALL, source_data="mnist"), "masks are transferred as they are"),
    "no validation": (lambda: Lottery(data=Data(validation=0)), "leaves nothing to stop early by"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused(what, tmp_path):
    lottery, text = REFUSED[what]
    with pytest.raises(Refused, match=text):
        run(lottery() if callable(lottery) else lottery, place_of(tmp_path))


def test_the_recipe_is_the_papers_lottery():
    assert read_lottery(str(ROOT / "recipes/lottery_lenet_mnist.toml")) == read_lottery("lenet_300_100") == Lottery()


def test_records_are_small(played):
    assert all(len((s.folder / "result.json").read_bytes()) < 4000 for s in played[1])
    assert json.loads((played[1][0].folder / "result.json").read_text())["density"] == 1.0
