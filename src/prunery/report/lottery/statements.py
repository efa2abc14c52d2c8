"""What the paper says, and within which tolerance it holds: tables to be scored, in the paper's order."""

from collections.abc import Callable
from dataclasses import dataclass

from ...spec import Lottery
from .drawing import PAPERS
from .results import Metric, end_accuracy, stop_accuracy, stop_val_accuracy
from .scoring import (
    Scorer,
    above_random,
    at_least,
    best,
    best_gain,
    between,
    dense,
    dense_after,
    falls,
    faster_in_band,
    lead,
    level_of,
    more,
    order,
    surely_above,
    times,
    wins,
    worst_fit,
)  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """Something that the paper says."""

    name: str
    figure: str
    text: str
    paper: str
    expected: str
    unit: str = ""
    score: Scorer | None = None
    """nothing where no code of ours trains what it takes"""
    stops: bool = True
    """whether it depends on where training stops early"""
    seeds: int = 1
    """fewer prove nothing"""
    network: str = "lenet_300_100"
    """what it is about"""
    when: Callable[[Lottery], bool] = lambda lottery: True
    """settings that it is about"""


TICKET, REINIT, FIRST = (lambda p: ("ticket", p)), (lambda p: ("reinit", p)), ("ticket", 100.0)
LENET = (
    Claim(
        "L0", "3, 4", "dense test accuracy at the early stop", "~98.0", "97.8 to 98.2", "%",
        dense(stop_accuracy, between(97.8, 98.2)),
    ),
    Claim(
        "L0", "3", "dense test accuracy after 18,000 iterations", "~98.0", "97.8 to 98.2", "%",
        dense_after(18_000, between(97.8, 98.2)), stops=False,
    ),
    Claim(
        "L1", "4a", "tickets of 21.1 % stop earlier than the dense network", "38 (figure 1: 20 to 26)",
        "15 or more, interval above 0; usual: 15 to 45", "% of its iterations",
        times(TICKET(21.1), FIRST, lambda f: at_least(15)(f) and surely_above(0)(f), lambda r: 100 * (1 - r)), seeds=2,
    ),
    Claim(
        "L2", "4a", "largest gain at the early stop, from 25 to 8 % of the weights", "> 0.3 at 13.5 %", "0.2 or more",
        "points", best_gain(stop_accuracy, 8, 25, at_least(0.2)),
    ),
    Claim(
        "L3", "4a", "accuracy of 3.6 % against the dense network's", "0", "-0.2 to 0.2", "points",
        more(TICKET(3.6), FIRST, between(-0.2, 0.2)),
    ),
    Claim(
        "L3", "4a", "iterations to the early stop at 3.6 % against the dense network's", "1", "0.8 to 1.5", "times",
        times(TICKET(3.6), FIRST, between(0.8, 1.5)),
    ),
    Claim(
        "L4", "4b", "largest gain of accuracy after the last iteration", "up to 0.35", "0.15 to 0.5", "points",
        best_gain(lambda stop: end_accuracy, 1, 100, between(0.15, 0.5)), stops=False,
    ),
    Claim(
        "L5", "4a", "iterations of reinitialised tickets of 21.1 % against the tickets'", "2.51", "1.5 to 3.5", "times",
        times(REINIT(21.1), TICKET(21.1), between(1.5, 3.5)),
    ),
    Claim(
        "L6", "4a", "tickets of 21.1 % against reinitialised ones", "+0.5", "0.3 to 0.7", "points",
        more(TICKET(21.1), REINIT(21.1), between(0.3, 0.7)),
    ),
    Claim(
        "L7", "4a", "tickets fall below the dense accuracy at", "2.9", "2 to 4.5", "% of the weights",
        falls("ticket", 2, 4.5, reach=1.5),
    ),
    Claim(
        "L7", "4a", "reinitialised tickets fall below the dense accuracy at", "21.1", "15 to 50", "% of the weights",
        falls("reinit", 15, 50, reach=14),
    ),
    Claim(
        "L8", "4", "lowest training accuracy at the end, tickets of 2 % and more", "~100", "99.9 or more", "%",
        worst_fit(lambda results: ["ticket"], 2), stops=False,
    ),
    Claim(
        "L8", "4", "the same, every arm at 5 % and more", "~100", "99.9 or more", "%",
        worst_fit(lambda results: [a for a in PAPERS if a in results.arms], 5), stops=False,
    ),
    Claim(
        "L9", "4c", "levels from 67.5 to 17.6 % at which one-shot tickets stop before the dense network", "all",
        "more than half", "% of the levels", faster_in_band,
    ),
    Claim(
        "L10", "4c", "one-shot tickets are as accurate as dense ones down to", "5.17", "4 to 8", "% of the weights",
        falls("oneshot", 4, 8, reach=3.6, last_above=True),
    ),
    Claim(
        "L11", "3", "order of the curves at 5,000 iterations: what holds", "all 6", "6", "of 6", order, stops=False
    ),
    Claim(
        "T1", "4a", "tickets of 21.1 % beat the same masks with other weights", "yes", "interval above 0", "points",
        more(TICKET(21.1), REINIT(21.1), surely_above(0)), seeds=2,
    ),
    Claim(
        "T2", "4a", "tickets of 3.6 % beat the same masks with other weights", "yes", "interval above 0", "points",
        more(TICKET(3.6), REINIT(3.6), surely_above(0)), seeds=2,
    ),
)  # fmt: skip


def _sooner(name: str, network: str, percent: float, paper: str, low: float, high: float) -> Claim:
    """Tickets stop so many times earlier than the dense network."""
    text, score = (
        f"early stop sooner at {percent:g} %",
        times(TICKET(percent), FIRST, between(low, high), lambda r: 1 / r),
    )
    return Claim(name, "5", f"{TITLES[network]}: {text}", paper, f"{low} to {high}", "times", score, network=network)


def _gain(name: str, network: str, percent: float, paper: str, low: float, high: float) -> Claim:
    text, score = f"gain at the early stop, {percent:g} %", more(TICKET(percent), FIRST, between(low, high))
    return Claim(name, "5", f"{TITLES[network]}: {text}", paper, f"{low} to {high}", "points", score, network=network)


def _convolutional(network: str) -> tuple[Claim, ...]:
    """What the paper says of each of its three."""
    title, tickets = TITLES[network], lambda results: ["ticket"]
    return (
        Claim(
            "C7", "5", f"{title}: above the dense accuracy down to", "2", "4 or less", "% of the weights",
            falls("ticket", 0, 4, reach=4, last_above=True), network=network,
        ),
        Claim(
            "C8", "5", f"{title}: levels below 25 % at which tickets beat reinitialised ones", "yes", "all",
            "% of the levels", wins(25), network=network,
        ),
        Claim(
            "C9", "13", f"{title}: lowest training accuracy at the end, 2 % and more", "100", "99 or more", "%",
            worst_fit(tickets, 2, 99), stops=False, network=network,
        ),
    )  # fmt: skip


TITLES = {"conv2": "Conv-2", "conv4": "Conv-4", "conv6": "Conv-6"}
CONV = (
    _sooner("C1", "conv2", 8.8, "3.5", 2.2, 4.8),
    _sooner("C2", "conv4", 9.2, "3.5", 2.2, 4.8),
    _sooner("C3", "conv6", 15.1, "2.5", 1.6, 3.4),
    _gain("C4", "conv2", 4.6, "+3.4", 2.4, 4.4),
    _gain("C5", "conv4", 11.1, "+3.5", 1.5, 4.5),
    _gain("C6", "conv6", 26.4, "+3.3", 2, 4.5),
    *(claim for network in TITLES for claim in _convolutional(network)),
)


def _dropped(network: str, gain: float, percent: float = 0, best: float = 0) -> tuple[Claim, ...]:
    """What pruning adds to dropout."""
    title, name = TITLES[network], f"{network}_dropout"
    gained = Claim(
        "D2", "6", f"{title} with dropout: further gain by pruning", f"+{gain}", f"within 1.5 of {gain}", "points",
        best_gain(stop_accuracy, 2, 100, between(gain - 1.5, gain + 1.5)), network=name,
    )  # fmt: skip
    if not best:
        return (gained,)
    text, score = f"{title} with dropout: validation accuracy of {percent} %", between(best - 1, best + 1)
    return gained, Claim(
        "D3", "H.5", text, f"{best}", "within 1", "%", level_of(TICKET(percent), stop_val_accuracy, score), network=name
    )


def _best_validation(network: str, paper: float) -> Claim:
    return Claim(
        "A6", "H.2", f"{TITLES[network]}: best validation accuracy", f"{paper}", "within 1", "%",
        best(stop_val_accuracy, 2, between(paper - 1, paper + 1)), network=network,
    )  # fmt: skip


def _at(lr: float, warm: bool) -> Callable[[Lottery], bool]:
    return lambda lottery: lottery.lr == lr and bool(lottery.warmup) == warm


def _no_tickets(name: str, network: str, title: str) -> Claim:
    return Claim(
        name, "7" if network == "vgg19" else "8", f"{title}, rate 0.1: tickets of 60 to 10 % over reinitialised ones",
        "none", "below 0.3", "points", lead(10, 60, lambda f: f.mean < 0.3), stops=False, network=network,
        when=_at(0.1, False),
    )  # fmt: skip


def _end(stop: str) -> Metric:
    """Early stops do not matter."""
    return end_accuracy


DROPOUT = (*_dropped("conv2", 2.3), *_dropped("conv4", 4.6, 7.6, 82.6), *_dropped("conv6", 4.7, 10.5, 84.8))
DEEP = (
    _no_tickets("V1", "vgg19", "VGG-19"),
    Claim(
        "V2", "7", "VGG-19, rate 0.01: within a point of dense down to", "3.5", "2.5 to 6", "% of the weights",
        falls("ticket", 2.5, 6, reach=2.5, last_above=True, slack=1, metric=_end), stops=False, network="vgg19",
        when=_at(0.01, False),
    ),
    Claim(
        "V3", "7", "VGG-19, rate 0.1 with warm-up: tickets down to", "1.5", "1.2 to 3", "% of the weights",
        falls("ticket", 1.2, 3, reach=1.3, last_above=True, metric=_end), stops=False, network="vgg19",
        when=_at(0.1, True),
    ),
    Claim(
        "R1", "8", "ResNet-20, rate 0.1: dense accuracy", "90.5", "90 to 91.3", "%",
        dense(_end, between(90, 91.3)), stops=False, network="resnet20", when=_at(0.1, False),
    ),
    _no_tickets("R1", "resnet20", "ResNet-20"),
    Claim(
        "R2", "8", "ResNet-20, rate 0.01: best tickets of 42 to 21 %", "89.5", "89 to 90", "%",
        best(_end, 21, between(89, 90), most=42), stops=False, network="resnet20", when=_at(0.01, False),
    ),
    Claim(
        "R3", "8", "ResNet-20, rate 0.03 with warm-up: accuracy at 27.1 %", "90.5", "90 to 91", "%",
        level_of(TICKET(27.1), _end, between(90, 91)), stops=False, network="resnet20", when=_at(0.03, True),
    ),
    Claim(
        "R3", "8", "ResNet-20, rate 0.03 with warm-up: tickets down to", "11.8", "8 to 17", "% of the weights",
        falls("ticket", 8, 17, reach=8, last_above=True, metric=_end), stops=False, network="resnet20",
        when=_at(0.03, True),
    ),
)  # fmt: skip
MORE = (
    Claim(
        "A1", "G.3", "LeNet, SGD 0.4 and 0.8: as good as dense down to", "below 1", "below 1.5", "% of the weights",
        falls("ticket", 0, 1.5, reach=1.5, last_above=True),
        when=lambda lottery: lottery.optimizer == "sgd" and lottery.lr in (0.4, 0.8),
    ),
    Claim(
        "A3", "F.7", "noise of half a deviation against the ticket, 21.1 %", "0", "-0.2 to 0.2", "points",
        more(("noise_0.5", 21.1), TICKET(21.1), between(-0.2, 0.2)),
    ),
    Claim(
        "A3", "F.7", "noise of three deviations against reinitialised tickets, 21.1 %", "above 0", "above 0", "points",
        more(("noise_3", 21.1), REINIT(21.1), lambda f: f.mean > 0),
    ),
    Claim(
        "A4", "F.3", "weights drawn from the ticket's own against reinitialised ones, 21.1 %", "0", "-0.2 to 0.2",
        "points", more(("resampled", 21.1), REINIT(21.1), between(-0.2, 0.2)),
    ),
    Claim(
        "A5", "E", "LeNet: reinitialised tickets against random masks", "above 0", "above 0", "points",
        above_random,
    ),
    *(_best_validation(network, paper) for network, paper in (("conv2", 70.9), ("conv4", 78.6), ("conv6", 81.5))),
)  # fmt: skip
SEVERAL = (
    Claim("D1", "6", "dropout: dense gain of Conv-2, 4, 6", "+2.1, +3.0, +2.4", "within 1", "points"),
    Claim("A2", "G.6", "LeNets of any width are as good as dense at", "9,000 to 15,000", "6,000 to 22,500", "weights"),
    Claim("A7", "H.6", "pruning convolutions alone improves, linear layers alone only worsens", "yes", "sign"),
)
"""What takes more than one lottery"""
CLAIMS = (*LENET, *CONV, *DROPOUT, *DEEP, *MORE, *SEVERAL)
