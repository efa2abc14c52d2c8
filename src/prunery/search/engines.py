"""Where to look next: functions that are handed a space and a look at one point of it, and yield what they found.

`look(point)` carries out a trial, or remembers it; engines end by themselves or when as many were made as asked for.
With `look(point, hopeless)` a trial is cut short as soon as `hopeless(step, accuracy)` says so: steps of training since
the network was made, those that an earlier trial has carried out included.
"""

import itertools
import random as chance
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..spec import Refused, install

if TYPE_CHECKING:
    from .space import Space
    from .trial import Found

Point = dict[str, Any]
Hopeless = Callable[[int, float], bool]
Look = Callable[..., "Found"]
"""of a point, and of who may cut its trial short"""
Engine = Callable[["Space", Look], "Iterator[Found]"]


def grid(space: "Space", look: Look) -> "Iterator[Found]":
    """Every combination; ranges at nine places each."""
    choices = space.choices()
    for values in itertools.product(*choices.values()):
        yield look(dict(zip(choices, values, strict=True)))


def random(space: "Space", look: Look) -> "Iterator[Found]":
    """Points drawn from the seed."""
    rng = chance.Random(space.seed)
    while True:
        yield look({k: rng.choice(v) if isinstance(v, tuple) else v.at(rng.random()) for k, v in space.axes.items()})


def greedy(space: "Space", look: Look) -> "Iterator[Found]":
    """From the middle of every axis: the neighbour that is best, one setting at a time, until none is better."""
    choices = space.choices()
    at = {k: len(v) // 2 for k, v in choices.items()}
    point = lambda place: {k: choices[k][i] for k, i in place.items()}  # noqa: E731
    current = look(point(at))
    yield current
    moved = True
    while moved:
        moved = False
        for key in choices:
            for step in (-1, 1):
                while 0 <= at[key] + step < len(choices[key]):
                    tried = look(point(at | {key: at[key] + step}))
                    yield tried
                    if not tried.better(current):
                        break
                    at, current, moved = at | {key: at[key] + step}, tried, True


def bisection(space: "Space", look: Look) -> "Iterator[Found]":
    """Between the two ends of the only setting: where the target stops being met."""
    (key, choices), *_ = space.choices().items()
    axis = space.axes[key]
    low, high = look({key: choices[0]}), look({key: choices[-1]})
    yield low
    yield high
    if low.met == high.met:
        return
    if isinstance(axis, tuple):
        left, right = 0, len(choices) - 1
        while right - left > 1:
            middle = look({key: choices[(left + right) // 2]})
            yield middle
            left, right = ((left + right) // 2, right) if middle.met == low.met else (left, (left + right) // 2)
        return
    start, end = 0.0, 1.0
    while end - start > FINE:
        half = (start + end) / 2
        middle = look({key: axis.at(half)})
        yield middle
        start, end = (half, end) if middle.met == low.met else (start, half)


FINE = 1 / 256
"""of a range: where bisection ends"""


def optuna(space: "Space", look: Look) -> "Iterator[Found]":
    """Optuna's tree-structured Parzen estimator, with the target as a constraint; poor trials are cut short where one
    thing is wanted. What is remembered is told again, so a search that was stopped goes on as if it had not been."""
    try:
        import optuna as library
    except ImportError:
        raise Refused(
            f"engine = optuna: Optuna is not installed; {install('search', 'optuna')}, or choose greedy"
        ) from None
    library.logging.set_verbosity(library.logging.ERROR)
    sampler = library.samplers.TPESampler(seed=space.seed)
    pruner, several = library.pruners.MedianPruner(n_startup_trials=4), len(space.objectives) > 1
    study = library.create_study(sampler=sampler, pruner=pruner, directions=["minimize"] * len(space.objectives))
    while True:
        trial = study.ask()

        def hopeless(step: int, accuracy: float, trial: Any = trial) -> bool:
            trial.report(-accuracy, step)
            return trial.should_prune()

        point = {k: _suggested(trial, k, v) for k, v in space.axes.items()}
        found = look(point) if several else look(point, hopeless)
        trial.set_constraint("target", found.short)
        states, ended = library.trial.TrialState, space.costs(found.measures) if found.whole else None
        study.tell(trial, ended, states.COMPLETE if found.whole else states.PRUNED if found.cut else states.FAIL)
        yield found


def _suggested(trial: Any, key: str, axis: Any) -> Any:
    if isinstance(axis, tuple):
        return axis[trial.suggest_int(key, 0, len(axis) - 1)]  # choices are in order
    suggest = trial.suggest_int if axis.whole else trial.suggest_float
    return suggest(key, axis.low, axis.high, log=axis.log)


ENGINES: dict[str, Engine] = {
    "grid": grid, "random": random, "greedy": greedy, "bisection": bisection, "optuna": optuna,
}  # fmt: skip
