"""Learning rates at the places where a schedule is known; optimisers against their names."""

import math

import pytest
import torch
from torch import nn

from prunery.spec import Train, hints
from prunery.train import OPTIMIZERS, SCHEDULES, rate
from prunery.train.loss import loss_of, mixing
from prunery.train.optim import optimizer

N, TOTAL = 100, 1000  # steps an epoch, steps in all: ten epochs


def at(step, **settings):
    return rate(Train(lr=1.0, **settings), step, N, TOTAL)


def test_tables_and_specs_name_the_same():
    assert tuple(OPTIMIZERS) == hints(Train)["optimizer"].__args__
    assert tuple(SCHEDULES) == hints(Train)["schedule"].__args__


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        ({"schedule": "constant"}, {0: 1, 999: 1}),
        ({"schedule": "step", "step_epochs": 5, "gamma": 0.1}, {499: 1, 500: 0.1, 999: 0.1}),
        ({"schedule": "multistep", "milestones": (8, 9), "gamma": 0.5}, {799: 1, 800: 0.5, 900: 0.25}),
        ({"schedule": "cosine"}, {0: 1, 500: 0.5, 1000: 0}),
        ({"schedule": "cosine", "final_lr": 0.1}, {500: 0.55, 1000: 0.1}),
        ({"schedule": "cosine", "warmup": 2}, {0: 1 / 200, 99: 0.5, 199: 1, 600: 0.5}),
        ({"schedule": "onecycle", "warmup": 5}, {0: 0.04, 250: 0.5, 500: 1, 750: 0.5, 1000: 0}),
        ({"schedule": "onecycle"}, {300: 1, 650: 0.5}),
        ({"schedule": "constant", "warmup": 1}, {0: 0.01, 49: 0.5, 99: 1, 100: 1}),
    ],
    ids=str,
)
def test_rates(settings, known):
    for step, value in known.items():
        # a cosine with a warm-up is at its very top only when the warm-up ends
        assert at(step, **settings) == pytest.approx(value, abs=2e-4), step


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimiser_walks_downhill(name):
    net = nn.Linear(3, 1)
    wanted = optimizer(net, Train(optimizer=name, lr={"sgd": 0.1, "adadelta": 10.0}.get(name, 0.1)))
    x = torch.eye(3)
    first = net(x).square().mean().item()
    for _ in range(60):
        wanted.zero_grad()
        net(x).square().mean().backward()
        wanted.step()
    assert net(x).square().mean().item() < first / 5


def test_decay_can_leave_biases_and_norms_alone():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    groups = optimizer(net, Train(weight_decay=0.1, decay_all=False)).param_groups
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]
    assert all(p.ndim > 1 for p in groups[0]["params"])
    assert all(p.ndim == 1 for p in groups[1]["params"])
    assert len(optimizer(net, Train(weight_decay=0.1)).param_groups) == 1


def test_adams_epsilon_is_the_specs():
    assert optimizer(nn.Linear(1, 1), Train(optimizer="adam", eps=1e-3)).param_groups[0]["eps"] == 1e-3
    assert optimizer(nn.Linear(1, 1), Train(optimizer="adadelta")).param_groups[0]["eps"] == 1e-6


def test_mixup_is_the_weighted_sum_of_both_losses():
    spec = Train(mixup=0.5, seed=3)
    torch.manual_seed(0)
    net, x, y = nn.Linear(4, 3), torch.randn(6, 4), torch.tensor([0, 1, 2, 2, 1, 0])
    share = mixing(spec, 7)
    logits = net(share * x + (1 - share) * x.flip(0))
    expected = share * nn.functional.cross_entropy(logits, y) + (1 - share) * nn.functional.cross_entropy(
        logits, y.flip(0)
    )
    assert loss_of(net, None, spec)(x, y, 7)[0].item() == pytest.approx(expected.item(), rel=1e-6)
    assert 0 <= share <= 1
    assert mixing(spec, 8) != share


def test_distillation_of_equal_networks_leaves_the_labels_share():
    net, spec = nn.Linear(4, 3), Train(distill=0.25, temperature=3.0)
    x, y = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    hard = nn.functional.cross_entropy(net(x), y).item()
    assert loss_of(net, net, spec)(x, y, 0)[0].item() == pytest.approx(0.75 * hard, rel=1e-5)


def test_distillation_is_hintons_formula():
    net, teacher, spec = nn.Linear(4, 3), nn.Linear(4, 3), Train(distill=0.5, temperature=2.0)
    x, y = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    p, q = (teacher(x) / 2).softmax(1), (net(x) / 2).softmax(1)
    kl = 4 * (p * (p.log() - q.log())).sum(1).mean().item()
    hard = nn.functional.cross_entropy(net(x), y).item()
    assert loss_of(net, teacher, spec)(x, y, 0)[0].item() == pytest.approx(0.5 * hard + 0.5 * kl, rel=1e-5)
    assert math.isfinite(kl)
