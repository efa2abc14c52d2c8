"""Laws of the one loop: zero steps change nothing, nor does a stop; pruned is exactly zero; chance is ours alone."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from prunery.masks import prunable
from prunery.pruning import prune
from prunery.runs import Work
from prunery.spec import Data, Prune, Refused, Train
from prunery.train import OPTIMIZERS, Stopped, Ways, evaluate, train
from prunery.train import loop as loop_module
from prunery.train.loop import Loop

RATES = {"sgd": 0.05, "adam": 0.01, "adamw": 0.01, "adadelta": 1.0}
SETTINGS = {
    "momentum": {"optimizer": "sgd", "lr": 0.05, "nesterov": True, "weight_decay": 1e-3},
    "adam": {"optimizer": "adam", "lr": 0.01},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1, "decay_all": False},
    "adadelta": {"optimizer": "adadelta", "lr": 1.0},
    "cosine": {"schedule": "cosine", "warmup": 1, "lr": 0.05},
    "onecycle": {"schedule": "onecycle", "lr": 0.05},
    "step": {"schedule": "step", "step_epochs": 1, "lr": 0.05},
    "multistep": {"schedule": "multistep", "milestones": (1, 2), "lr": 0.05},
    "ema": {"ema": 0.9, "lr": 0.05},
    "mixup": {"mixup": 0.4, "lr": 0.05, "label_smoothing": 0.1},
    "clip": {"clip": 0.5, "lr": 0.05},
    "best": {"keep": "best", "lr": 0.05, "eval_every": 3},
    "bfloat16": {"precision": "bfloat16", "lr": 0.05},
    "channels_last": {"channels_last": True, "lr": 0.05},
    "augmented": {"lr": 0.05},
    "thawing": {"lr": 0.05, "freeze": ("0", "1"), "unfreeze": ("2=0", "1.5=1"), "weight_decay": 0.1},
    "frozen": {"optimizer": "adam", "lr": 0.01, "freeze_blocks": 2, "unfreeze_every": 1},
}


def spec_of(name, **more):
    data = Data(scaling="unit", flip=True, crop=1, cutout=2) if name == "augmented" else Data(scaling="unit")
    return Train(**{"data": data, "batch": 16, "epochs": 3, "seed": 5, **SETTINGS[name], **more})


def with_data(splits, spec):
    return replace(splits, spec=spec.data)


def half(network):
    return prune(prunable(network), None, Prune(density=0.5))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class Drawing(nn.Module):
    """Draws random numbers in evaluation mode too."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Linear(64, 3)

    def forward(self, x):
        return self.layer(nn.functional.dropout(x.flatten(1), 0.5))


def test_when_checkpoints_are_written_changes_no_random_number(splits, work):
    spec = spec_of("cosine")
    found = [
        train(Drawing(), {}, splits, spec, work(name), Ways(checkpoint_seconds=seconds))[0].weights
        for name, seconds in (("a", 1e9), ("b", 0))
    ]
    assert same(*found)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_stopped_run_ends_bit_identical(name, network, splits, work):
    spec = spec_of(name)
    undisturbed, facts = train(network(), half(network()), with_data(splits, spec), spec, work("a"), Ways())
    folder = work("b").folder
    for seed, more in ((0, 1), (9, 4), (8, 6)):  # only the first part may depend on the weights it is given
        count = iter(range(1, 100))
        ways = Ways(stopping=lambda count=count, more=more: next(count) >= more)
        with pytest.raises(Stopped):
            train(network(seed), half(network()), with_data(splits, spec), spec, Work(folder), ways)
    resumed, again = train(network(9), half(network()), with_data(splits, spec), spec, Work(folder), Ways())
    assert same(undisturbed.weights, resumed.weights)
    assert facts["early_stop_step"] == again["early_stop_step"]
    rows = [
        [{k: v for k, v in r.items() if k != "seconds"} for r in w.metrics()]
        for w in (Work(folder.parent / "a"), Work(folder))
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == math.ceil(15 / (spec.eval_every or 5))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "more", [{}, {"weight_decay": 0.1}, {"ema": 0.9}, {"clip": 0.1}, {"channels_last": True}], ids=str
)
def test_pruned_weights_gradients_and_moments_are_zero_after_every_step(
    optimizer, more, network, splits, monkeypatch, work
):
    spec = Train(data=splits.spec, batch=16, epochs=3, optimizer=optimizer, lr=RATES[optimizer], **more)
    net, seen = network(), []
    mask = half(net)
    step = Loop.update

    def watched(self):
        step(self)
        named = dict(net.named_parameters())
        for name, kept in mask.items():
            weight = named[name]
            moments = [v for v in self.optimizer.state[weight].values() if v.shape == weight.shape]
            averages = [self.average[name]] if self.average else []
            for tensor in [weight, weight.grad, *moments, *averages]:
                assert not tensor.detach()[~kept].any()
            seen.append(len(moments))

    monkeypatch.setattr(Loop, "update", watched)
    start = {k: v.clone() for k, v in net.state_dict().items()}
    state, _ = train(net, mask, splits, spec, work(), Ways())
    assert len(seen) == 15 * len(mask)
    moved = {k: state.weights[k] != start[k] for k in mask}
    assert all(bool(moved[k][(start[k] < 0) & mask[k]].any()) for k in mask), "negative kept weights must move"
    assert all(not state.weights[k][~mask[k]].any() for k in mask)


def test_zero_steps_is_the_identity(network, splits, work):
    net = network()
    start = {k: v.clone() for k, v in net.state_dict().items()}
    state, facts = train(net, {}, splits, Train(data=splits.spec, epochs=0), work(), Ways())
    assert same(start, state.weights)
    assert facts["steps"] == 0


def test_steps_are_given_instead_of_epochs(network, splits, work):
    _, facts = train(network(), {}, splits, Train(data=splits.spec, batch=16, steps=3, lr=0.01), work(), Ways())
    assert facts["steps"] == 3


def test_same_seed_same_weights_other_seed_others(network, splits, work):
    specs = [Train(data=splits.spec, batch=16, epochs=1, lr=0.05, seed=s) for s in (1, 1, 2)]
    made = [train(network(), {}, splits, spec, work(str(i)), Ways())
            for i, spec in enumerate(specs)]  # fmt: skip
    weights = [m[0].weights for m in made]
    assert same(weights[0], weights[1])
    assert not same(weights[0], weights[2])


def test_the_callers_random_stream_is_untouched(network, splits, work):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    train(network(), {}, splits, Train(data=splits.spec, batch=16, epochs=1, lr=0.05), work(), Ways())
    assert torch.equal(before, torch.get_rng_state())


def test_it_learns(network, splits, work):
    state, facts = train(network(), {}, splits, Train(data=splits.spec, batch=16, epochs=15, lr=0.05), work(), Ways())
    net = network()
    net.load_state_dict(state.weights)
    assert evaluate(net, splits.test, splits).accuracy > 0.9
    assert not facts["diverged"]


def test_a_loss_that_is_no_number_stops_with_its_step_and_keeps_the_last_good_checkpoint(
    network, splits, work, monkeypatch
):
    """The loss is looked at every LOOK steps; the step named is where it first went wrong all the same."""
    monkeypatch.setattr(loop_module, "LOOK", 4)
    net, poisoned = network(), 10
    advance = Loop.advance

    def poison(self, loss):
        if self.step == poisoned - 1:
            net[6].bias.data.fill_(torch.nan)
        advance(self, loss)

    monkeypatch.setattr(Loop, "advance", poison)
    at = work()
    spec = Train(data=splits.spec, batch=16, epochs=4, lr=0.01)
    with pytest.raises(Refused, match=f"became nan at step {poisoned} of 20; lower train.lr"):
        train(net, {}, splits, spec, at, Ways(checkpoint_seconds=0))
    tensors, about = Work(at.folder).restore()
    assert about["step"] < poisoned
    assert all(bool(torch.isfinite(v).all()) for k, v in tensors.items() if k.startswith("net:"))


def test_a_run_no_better_than_guessing_is_called_diverged(network, splits, work):
    _, facts = train(
        network(), {}, splits, Train(data=splits.spec, batch=16, epochs=24, optimizer="adam", lr=50.0), work(), Ways()
    )
    assert facts["diverged"]


def test_best_keeps_the_weights_of_the_smallest_validation_loss(network, splits, work):
    spec = Train(data=splits.spec, batch=16, epochs=6, optimizer="sgd", lr=0.9, keep="best", eval_every=2)
    at = work()
    state, facts = train(network(), {}, splits, spec, at, Ways())
    rows = at.metrics()
    best = min(rows, key=lambda r: r["val_loss"])
    assert facts["early_stop_step"] == best["step"]
    net = network()
    net.load_state_dict(state.weights)
    assert evaluate(net, splits.validation, splits).loss == pytest.approx(best["val_loss"], rel=1e-6)


def test_the_average_is_what_is_kept_and_evaluated(network, splits, work):
    at = work()
    state, _ = train(network(), {}, splits, Train(data=splits.spec, batch=16, epochs=3, lr=0.1, ema=0.95), at, Ways())
    net = network()
    net.load_state_dict(state.weights)
    assert evaluate(net, splits.validation, splits).loss == pytest.approx(at.metrics()[-1]["val_loss"], rel=1e-6)


def test_a_teacher_is_imitated(network, splits, work):
    teacher = network(4)
    spec = Train(data=splits.spec, batch=16, epochs=12, optimizer="adam", lr=0.01, distill=0.99, temperature=2.0)
    train(teacher, {}, splits, replace(spec, epochs=8), work("t"), Ways())
    teacher.eval().requires_grad_(False)
    student = network(5)
    before = distance(student, teacher, splits)
    train(student, {}, splits, spec, work("s"), Ways(), teacher)
    assert distance(student, teacher, splits) < before / 3


def distance(a, b, splits):
    x = splits.test.x.float() / 255
    a.eval()
    with torch.no_grad():
        return (a(x).log_softmax(1).exp() - b(x).log_softmax(1).exp()).abs().mean().item()


@pytest.mark.parametrize("every", [1, 4, 0])
def test_rows_are_as_often_as_asked_and_count_every_image(every, network, splits, work):
    at = work()
    spec = Train(data=splits.spec, batch=16, epochs=2, lr=0.01, eval_every=every, test_every_eval=True)
    train(network(), {}, splits, spec, at, Ways())
    rows = at.metrics()
    assert [r["step"] for r in rows] == {1: list(range(1, 11)), 4: [4, 8, 10], 0: [5, 10]}[every]
    assert all(0 <= r["train_accuracy"] <= 1 and r["test_accuracy"] == r["test_accuracy"] for r in rows)


def test_threads_are_as_asked_and_given_back(network, splits, work):
    before = torch.get_num_threads()
    _, facts = train(
        network(), {}, splits, Train(data=splits.spec, batch=16, steps=2, lr=0.01), work(), Ways(threads=1)
    )
    assert facts["threads"] == 1
    assert torch.get_num_threads() == before


def test_weights_that_the_last_step_blew_up_are_neither_saved_nor_kept(network, splits, work):
    """Past losses cannot know of them: the next images are tried before anything is written."""
    spec = Train(data=splits.spec, batch=16, steps=1, lr=1e30, keep="best")
    with pytest.raises(Refused, match=r"lower train\.lr"):
        train(network(), {}, splits, spec, work("last"), Ways())
    at = work("saved")
    with pytest.raises(Refused, match=r"lower train\.lr"):
        train(network(), {}, splits, replace(spec, steps=9), at, Ways(checkpoint_seconds=0))
    assert Work(at.folder).restore() is None


def test_a_batch_of_one_that_norms_cannot_take_is_one_line(splits, work):
    layers = [torch.nn.Conv2d(1, 4, 8), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(4, 3)]
    spec = Train(data=splits.spec, batch=23, epochs=1, lr=0.1)  # 70 = 3 * 23 + 1
    with pytest.raises(Refused, match="leaves a batch of 1 image"):
        train(torch.nn.Sequential(*layers), {}, splits, spec, work(), Ways())


def test_a_network_without_weights_is_one_line(splits, work):
    with pytest.raises(Refused, match="no weights to train"):
        train(torch.nn.Flatten(), {}, splits, Train(data=splits.spec), work(), Ways())


def test_a_student_far_from_its_teacher_is_not_called_diverged(network, splits, work):
    teacher = network(4).eval()
    with torch.no_grad():
        teacher[6].weight.mul_(20)
    spec = Train(data=splits.spec, batch=16, epochs=12, optimizer="adam", lr=0.02, distill=0.3, temperature=8.0)
    _, facts = train(network(), {}, splits, spec, work(), Ways(), teacher)
    assert not facts["diverged"]
