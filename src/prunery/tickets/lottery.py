"""A lottery carried out: every network a folder of its own, made once, by as many threads as there are cores.

Networks of one level do not wait for each other: a control needs nothing but its ticket's mask, a ticket the one before
it. So the chains of tickets go first, and what was asked of them fills the cores behind.
"""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from .. import data, models
from ..chain import Place, filled
from ..data import Splits
from ..masks import Mask, ones, prunable
from ..pruning.select import one_thread
from ..runs import Runs, Step, Work
from ..spec import Draw, Lottery, Node, Refused, Train, in_a_row, quote
from ..train import Stopped, Ways, evaluate
from ..train.loop import derived
from .arms import CONTROLS, STRATEGIES, Begun, Hand, Weights
from .connect import barrier
from .crew import Crew, Task
from .early import settled
from .fcsteps import affine, chain
from .imp import imp
from .kept import LEFT, REWOUND, WHOLE, Kept, keep
from .ladder import counts, density, pruned, rated
from .pace import Pace, effort
from .start import Start
from .table import Table
from .torchsteps import trainable
from .trial import Final, Trial, order_seed

FOLDER = "lottery"
"""inside the folder of runs"""
AGREE = 1e-3
VARIED = ("flip", "crop", "cutout", "resize")
"""What the kernels do not do to images."""


def run(lottery: Lottery, place: Place, pace: Pace | None = None) -> list[Step]:
    """Every network of a lottery, in the order of `lottery.draws()`; what is there already is not made again."""
    with one_thread():  # networks train side by side
        if "transferred" in lottery.arms:
            alike(lottery, lottery.source(), place)
        table = set_up(lottery, place)
        source = None
        if "transferred" in lottery.arms:
            there = set_up(lottery.source(), place)
            place.say(f"first the tickets of {there.lottery.data.name} that are transferred")
            source = _game(there, place, pace, None)
            source.play()
        game = _game(table, place, pace, source)
        game.play()
    return [Step(game.runs.path(game.node(draw))) for draw in table.lottery.draws()]


def _game(table: Table, place: Place, pace: Pace | None, source: "Game | None") -> "Game":
    threads = place.ways.threads or len(os.sched_getaffinity(0))
    return Game(table, place, Crew(threads), pace or Pace(), source)


def alike(lottery: Lottery, source: Lottery, place: Place) -> None:
    """Masks go from one network to the other, so both have to be the same; asked before any image is read."""
    one, other = (data.facts(each.data, place.data) for each in (lottery, source))
    if (one.shape, len(one.classes)) != (other.shape, len(other.classes)):
        texts = ["x".join(map(str, each.shape)) + f" in {len(each.classes)} classes" for each in (one, other)]
        seen = f"lottery: {one.name} has images of {texts[0]}, {other.name} of {texts[1]}"
        raise Refused(f"{seen}; expected the same of both: masks are transferred as they are")


def set_up(lottery: Lottery, place: Place) -> Table:
    """The images, and who trains the network: the kernels of linear layers if they can; what cannot run is refused."""
    whole = filled(in_a_row(lottery.model, Train(data=lottery.data)), place)
    lottery = replace(lottery, model=whole.init.model, data=whole.data)
    splits = data.load(lottery.data, place.data)
    if not len(splits.validation):
        raise Refused("lottery: no image is held out to stop early by; set data.validation to 1 or more")
    network = models.build(lottery.model, 0)
    trainable(network)
    rated(prunable(network), lottery)
    table, why = _by_kernels(lottery, splits, network)
    if table is None:
        place.say(f"{lottery.model.name} trains in PyTorch, as {why}")
        return Table(lottery, splits, network)
    if lottery.precision != "float32":
        seen = f"lottery.precision = {quote(lottery.precision)} is for networks that PyTorch trains"
        raise Refused(f"{seen}; expected float32 for {lottery.model.name}, whose kernels know no other")
    return table


def _by_kernels(lottery: Lottery, splits: Splits, network: nn.Module) -> tuple[Table | None, str]:
    """The table for the kernels of linear layers with a ReLU between them; nothing, and why, where they do not fit."""
    varied = [n for n in VARIED if getattr(lottery.data, n)]
    scaling = affine(splits)
    if varied:
        return None, f"data.{varied[0]} changes images on the way"
    if any(isinstance(m, nn.Dropout) for m in network.modules()):
        return None, "it drops units while it trains"
    if scaling is None:
        return None, f"data.scaling = {quote(splits.spec.scaling)} scales every image by itself"
    try:
        chain(network.state_dict())
    except Refused as error:
        return None, str(error).partition(";")[0]
    lit = int(torch.count_nonzero(splits.train.x)) / splits.train.x.numel()
    table = Table(lottery, splits, network, *scaling, lit=lit)
    few = splits.validation.at(torch.arange(min(64, len(splits.validation))))
    theirs, ours = evaluate(network, few, splits), table.replica(Start(network.state_dict()), {}, 0).evaluate(few)
    assert theirs is not None
    assert ours is not None
    if abs(ours.loss - theirs.loss) > AGREE * max(1.0, theirs.loss):  # the network itself says what it computes
        return None, "it is no chain of linear layers with a ReLU between them"
    return table, ""


class Game:
    """The networks of one lottery and the threads that make them."""

    def __init__(self, table: Table, place: Place, crew: Crew, pace: Pace, source: "Game | None" = None) -> None:
        self.table, self.lottery, self.place, self.crew, self.pace = table, table.lottery, place, crew, pace
        self.source = source
        """whose tickets are transferred"""
        self.runs = Runs(place.runs.root / FOLDER)
        self.root = Node(self.lottery.rules())
        self.drawing = threading.Lock()
        self.node, self.theta = cache(self._node), cache(self._theta)

    @cached_property
    def whole(self) -> Mask:
        """Level 0's mask."""
        return ones(prunable(models.build(self.lottery.model, 0)))

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {n: tuple(m.shape) for n, m in self.whole.items()}

    @cached_property
    def ways(self) -> Ways:
        stopping = lambda: self.crew.leaving() or self.place.ways.stopping()  # noqa: E731
        return replace(self.place.ways, stopping=stopping, tick=self.pace.tick)

    def play(self) -> None:
        """All of it."""
        self.runs.once(self.root, self._describe, self.place.say, self.ways.stopping)
        self.pace.begin(self.lottery, self.efforts, self.crew.threads)
        self.crew.run(self._chain("ticket", seed) for seed in range(self.lottery.seeds))

    def _describe(self, work: Work) -> None:
        """The folder of the rules: what each level keeps."""
        levels = range(self.lottery.levels + 1)
        work.result({"density": [density(self.shapes, self.lottery, level) for level in levels]})

    @cached_property
    def efforts(self) -> dict[int, float]:
        """What a step costs at each level."""
        if not self.table.by_kernels:  # PyTorch multiplies by zeros too
            return dict.fromkeys(range(self.lottery.levels + 1), 1.0)
        weights = sum(torch.Size(s).numel() for s in self.shapes.values())
        left = {v: sum(counts(self.shapes, self.lottery, v).values()) for v in range(self.lottery.levels + 1)}
        return {level: effort(kept, weights) for level, kept in left.items()}

    def _node(self, draw: Draw) -> Node:
        """A network's place in the tree: it comes from the one whose mask it wears."""
        if draw.level == 0:
            return Node(draw, self.root)
        if draw.arm == "transferred":
            assert self.source is not None
            theirs = self.source.node(Draw(level=draw.level - 1, seed=draw.seed))
            return Node(replace(draw, source=theirs.name), self.node(Draw(seed=draw.seed)))
        arm = draw.arm if draw.arm in STRATEGIES and draw.level > 1 else "ticket"
        return Node(draw, self.node(Draw(arm=arm, level=draw.level - 1, seed=draw.seed)))

    # --- chains of tickets --------------------------------------------------------------------------------------------

    def _chain(self, arm: str, seed: int) -> Task:
        """A strategy from level to level; each level is a task, and brings the next and its controls."""

        def train_once(start: Start, mask: Mask, level: int) -> Step:
            draw = Draw(arm=arm if level else "ticket", level=level, seed=seed)  # type: ignore[arg-type]
            return self._once(draw, lambda: (start, mask))

        def prune_once(final: Step, mask: Mask, level: int) -> Mask:
            return self._kept(final).mask()  # it was pruned when its training was over

        def again(final: Step) -> Start:
            part = LEFT if final.result["level"] else WHOLE
            return STRATEGIES[arm](self._first(seed), lambda: self._kept(final).weights(part))

        levels = imp(Start(self.theta(seed)), self.whole, train_once, prune_once, again, self.lottery.levels)
        return self._level(arm, seed, 0, levels)

    def _level(self, arm: str, seed: int, level: int, levels: Iterator[tuple[int, Mask, Step]]) -> Task:
        def act() -> Iterator[Task]:
            _, mask, _ = next(levels)
            if level < self.lottery.levels:
                yield self._level(arm, seed, level + 1, levels)
            if arm == "ticket":
                yield from self._controls(seed, level, mask)
            if arm == "ticket" and not level:
                others = [a for a in self.lottery.arms if a in STRATEGIES and a != "ticket"]
                yield from (self._chain(a, seed) for a in others)

        return Task(sum(self.efforts[v] for v in range(level, self.lottery.levels + 1)), act)

    def _controls(self, seed: int, level: int, mask: Mask) -> Iterator[Task]:
        arms = [a for a in self.lottery.arms if a in CONTROLS]
        for arm in arms if level else [a for a in arms if a == "twin"]:
            draws = [Draw(arm=arm, level=level, seed=seed, number=n) for n in self.lottery.numbers(arm)]
            if arm == "twin":
                yield self._in_turn(draws, mask)
            else:
                yield from (self._in_turn([draw], mask) for draw in draws)

    def _in_turn(self, draws: list[Draw], mask: Mask) -> Task:
        """Networks that wait for each other."""
        draw, *rest = draws

        def act() -> Iterator[Task]:
            self._once(draw, lambda: CONTROLS[draw.arm](self._hand(draw, mask)))
            if rest:
                yield self._in_turn(rest, mask)

        return Task(self.efforts[draw.level] * len(draws), act)

    # --- one network --------------------------------------------------------------------------------------------------

    def _once(self, draw: Draw, begin: Callable[[], Begun]) -> Step:
        """The network's folder, made unless it is there."""
        if self.ways.stopping():
            raise Stopped("stopped between two networks")
        there = self.runs.path(self.node(draw)).exists()
        make = partial(self._make, draw, begin)
        step = self.runs.once(self.node(draw), make, self.place.say, self.ways.stopping)
        self.pace.finished(draw, there)
        return step

    def _make(self, draw: Draw, begin: Callable[[], Begun], work: Work) -> None:
        start, mask = begin()
        trial = Trial(self.table, draw, start, mask, work)
        final = trial.run(self.ways)
        self._leave(draw, mask, final, work)
        work.notes["cpu_seconds"] = {what: round(seconds, 3) for what, seconds in trial.cost.items()}
        work.result(final.record | self._beside(draw, mask, final))

    def _leave(self, draw: Draw, mask: Mask, final: Final, work: Work) -> None:
        """What others begin with, or are compared with."""
        if draw.arm in STRATEGIES:
            self._alive(draw, final)
            parts: dict[str, Any] = {WHOLE: final.weights, REWOUND: final.rewound} if draw.level == 0 else {}
            if draw.arm != "ticket":
                parts[LEFT] = final.weights
            keep(work.folder, pruned(final.weights, mask, self.lottery, draw.level + 1), parts)
        elif draw.arm == "twin" and draw.number == 0:
            keep(work.folder, mask, {LEFT: final.weights})

    def _alive(self, draw: Draw, final: Final) -> None:
        """Refuses a network whose weights cannot be ranked any more, by its name: no ticket comes from it."""
        broken = sum(int((~final.weights[n].isfinite()).sum()) for n in self.shapes)
        if broken:
            who = f"{draw.arm} of seed {draw.seed} at level {draw.level}"
            rate = self.lottery.last_rate if draw.arm == "finetuned" and draw.level else self.lottery.lr
            seen = f"lottery: {who} diverged, {broken:,} of its weights are no numbers after training at rate {rate:g}"
            raise Refused(f"{seen}; expected numbers, to prune the smallest: set a smaller lottery.lr, or warmup")

    def _beside(self, draw: Draw, mask: Mask, final: Final) -> dict[str, Any]:
        """What a network is compared with when both are there."""
        if draw.arm != "twin" or draw.number == 0:
            return {}
        other = self._kept(self._step(replace(draw, number=0))).weights(LEFT)
        return {"barrier": barrier(self.table, mask, other, final.weights)}

    def _hand(self, draw: Draw, mask: Mask) -> Hand:
        purpose, seed = f"{draw.arm} {draw.level} {draw.number}", draw.seed
        theta, order = self.theta(seed), order_seed(Draw(seed=seed))
        prune = lambda weights: pruned(weights, self.whole, self.lottery, draw.level)  # noqa: E731
        return Hand(
            mask=mask,
            first=self._first(seed),
            theta=theta,
            dense=lambda: self._dense(seed).weights(WHOLE),
            pruned=prune,
            early=lambda: settled(self.table, theta, order, prune, self.ways.stopping),
            source=lambda: self._source(seed, draw.level),
            fresh=lambda: self._drawn(derived(seed, f"weights {purpose}")),
            rng=torch.Generator().manual_seed(derived(seed, f"places {purpose}")),
        )

    def _source(self, seed: int, level: int) -> Mask:
        assert self.source is not None
        return self.source._kept(self.source._step(Draw(level=level - 1, seed=seed))).mask()

    def _first(self, seed: int) -> Start:
        """What tickets go back to."""
        if not self.lottery.rewind:
            return Start(self.theta(seed))
        return Start(self._dense(seed).weights(REWOUND), self.lottery.rewind)

    def _dense(self, seed: int) -> Kept:
        return self._kept(self._step(Draw(seed=seed)))

    def _step(self, draw: Draw) -> Step:
        """A network that is there."""
        return Step(self.runs.path(self.node(draw)))

    def _kept(self, step: Step) -> Kept:
        return Kept(step.folder, list(self.theta(0)), self.shapes)

    def _theta(self, seed: int) -> Weights:
        """The first weights of a seed, bit for bit, whenever they are asked for."""
        return self._drawn(seed)

    def _drawn(self, seed: int) -> dict[str, Tensor]:
        with self.drawing:  # networks draw from the global random state before ours takes over
            return {n: w.detach().clone() for n, w in models.build(self.lottery.model, seed).state_dict().items()}
