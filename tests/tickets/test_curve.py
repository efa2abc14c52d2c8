"""Early stops on made-up curves, and which looks need the test images."""

import math
import random
import statistics

import pytest

from prunery.tickets.curve import SMOOTH, WINDOWS, Curve, Watch


def curve_of(losses, tested=()):
    curve = Curve()
    for i, loss in enumerate(losses):
        curve.look(100 * (i + 1), loss, 4900)
        if i in tested:
            curve.test(100 * (i + 1), 9000 + i)
    return curve


CASES = [
    ("the first of equals", [3, 1, 2, 1], 1, 200),
    ("one look", [3], 1, 100),
    ("a lucky look", [5, 4, 0, 4, 3, 3, 3, 4, 4], 1, 300),
    ("a lucky look, smoothed", [5, 4, 1, 4, 2, 2, 2, 4, 4], 3, 600),
    ("fewer looks than the window", [3, 2, 1], 11, 200),
    ("diverged", [math.nan, math.nan, math.nan], 1, 100),
    ("diverged later", [2, 1, math.inf, math.inf], 1, 200),
    ("falling to the end", list(range(20, 0, -1)), 1, 2000),
    ("falling to the end, smoothed", list(range(20, 0, -1)), 11, 1500),
]


@pytest.mark.parametrize(("losses", "window", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_the_early_stop(losses, window, expected):
    assert curve_of(losses).stop(window) == expected


def test_smoothing_is_steadier():
    """The spread of both estimates on noisy copies of one curve."""
    spreads = {}
    for name, window in WINDOWS.items():
        stops = []
        for seed in range(50):
            rng = random.Random(seed)
            losses = [((i - 45) / 100) ** 2 + rng.gauss(0, 0.01) for i in range(200)]
            stops.append(curve_of(losses).stop(window))
        spreads[name] = statistics.stdev(stops)
    assert spreads["smoothed"] < 0.8 * spreads["raw"]


@pytest.mark.parametrize("seed", range(5))
def test_wherever_training_stops_early_the_test_images_were_seen(seed):
    """Raw: at that very look; smoothed: at the window's end at least, and half a window from its middle at most."""
    rng = random.Random(seed)
    losses = [1 / (i + 1) + 0.002 * i + rng.gauss(0, 0.01) for i in range(100)]
    watch = Watch([])
    tested = [i for i in range(100) if watch.improves(losses[: i + 1])]
    curve = curve_of(losses, tested)
    assert curve.stop(1) in curve.test_iteration
    assert min(abs(i - curve.stop(SMOOTH)) for i in curve.test_iteration) <= 100 * (SMOOTH // 2)
    assert len(tested) < 60


def test_a_watch_goes_on_where_it_left_off():
    losses = [3.0, 2.0, 2.5, 1.0, 4.0] * 5
    watch = Watch([])
    whole = [watch.improves(losses[: i + 1]) for i in range(25)]
    late = Watch(losses[:12])
    assert [late.improves(losses[: i + 1]) for i in range(12, 25)] == whole[12:]


def test_accuracy_is_that_of_the_nearest_look():
    curve = curve_of([1.0] * 10, tested=(0, 4, 8))
    assert [curve.tested(at) for at in (100, 300, 400, 700, 800, 1000)] == [9000, 9000, 9004, 9004, 9008, 9008]


def test_a_curve_survives_a_checkpoint():
    curve = curve_of([1.0, math.inf, 0.5], tested=(0, 2))
    assert Curve(**curve.as_dict()) == curve
