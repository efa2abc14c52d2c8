"""A lottery as a spec: the network, its training, the pruning between levels, and what tickets are compared with."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Literal

from .check import Count, Positive, Share, Whole
from .errors import Refused, quote
from .steps import Data, Model, Spec

Arm = Literal["ticket", "reinit", "random", "oneshot", "oneshot_reinit", "continued", "shuffled", "signs"]
COUNTS = ("levels", "arms", "reinits", "randoms", "seeds")
"""Fields that say how many networks there are; they change nothing in any one of them."""
LENET, MNIST = Model(name="lenet_300_100", init="glorot_normal"), Data(name="mnist", scaling="unit")
UNVARIED = ("flip", "crop", "cutout", "resize")


@dataclass(frozen=True, kw_only=True)
class Lottery(Spec):
    """Train, prune, go back to the first weights, and again: the defaults are the paper's for LeNet (1803.03635)."""

    kind: ClassVar[str] = "lottery"
    model: Model = LENET
    """the network and how its weights are drawn; linear layers with a ReLU between them train much faster"""
    data: Data = MNIST
    """images, some of them held out: their loss says when to stop early"""
    steps: Count = 50_000
    """training iterations at each level"""
    batch: Count = 60
    """images in a step"""
    optimizer: Literal["sgd", "adam"] = "adam"
    """the rule that turns gradients into steps"""
    lr: Positive = 1.2e-3
    """learning rate, the same at every step"""
    momentum: Share = 0.0
    """of sgd"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """arithmetic of networks that PyTorch trains, images that are looked at included; weights stay float32"""
    levels: Whole = 28
    """rounds of pruning; level 0 is the dense network"""
    rate_fc: Share = 0.2
    """share of the weights left that a round removes from hidden linear layers"""
    rate_conv: Share = 0.1
    """the same of convolutions"""
    rate_output: Share = 0.1
    """the same of the last layer"""
    scope: Literal["layer", "global"] = "layer"
    """rank the weights of each layer by themselves, or those of all layers of one kind together"""
    rewind: Whole = 0
    """iteration of the dense network whose weights tickets go back to; 0 is before training"""
    arms: tuple[Arm, ...] = ("ticket", "reinit", "random", "oneshot")
    """what is trained at every level: the ticket, and what it is compared with"""
    reinits: Count = 3
    """networks with newly drawn weights for each ticket"""
    randoms: Count = 1
    """networks with masks drawn at random for each ticket"""
    seeds: Count = 5
    """independent lotteries: seeds 0, 1, 2, ..."""
    every: Count = 100
    """iterations between looks at the validation images"""
    curve_levels: tuple[Whole, ...] = (0, 3, 7, 12, 15, 18)
    """levels at which every look is at the test images too"""
    curve_steps: Whole = 20_000
    """iterations up to which that is so"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if "ticket" not in self.arms or len(set(self.arms)) < len(self.arms):
            seen = f"lottery.arms = {quote(list(self.arms))} is not allowed"
            raise Refused(f"{seen}; expected each arm once, ticket among them: the others compare with it")
        if self.rewind % self.every or self.rewind >= self.steps:
            seen = f"lottery.rewind = {self.rewind} is not allowed"
            raise Refused(f"{seen}; expected a multiple of lottery.every = {self.every} below steps = {self.steps}")
        varied = [n for n in UNVARIED if getattr(self.data, n)]
        if varied:
            raise Refused(
                f"lottery: data.{varied[0]} is not for lotteries, whose images stay as they are; leave it out"
            )
        if self.data.validation == 0:
            raise Refused("lottery: data.validation = 0 leaves nothing to stop early by; expected 1 or more")
        if self.model.weights:
            raise Refused(f"lottery: model.weights = {quote(self.model.weights)}: weights are drawn here; leave it out")

    def rules(self) -> "Lottery":
        """What each network depends on: how many others there are renames none of them."""
        return replace(self, **{f.name: f.default for f in fields(self) if f.name in COUNTS})  # type: ignore[arg-type]

    def draws(self) -> "Iterator[Draw]":
        """Every network; the dense one of a seed is level 0 of all its arms."""
        for seed in range(self.seeds):
            yield Draw(seed=seed)
            for level in range(1, self.levels + 1):
                yield from (Draw(arm=a, level=level, seed=seed, number=n) for a in self.arms for n in self.numbers(a))

    def numbers(self, arm: str) -> range:
        """An arm's networks at one level of one seed."""
        return range({"reinit": self.reinits, "oneshot_reinit": self.reinits, "random": self.randoms}.get(arm, 1))


@dataclass(frozen=True, kw_only=True)
class Draw(Spec):
    """One network of a lottery."""

    kind: ClassVar[str] = "draw"
    arm: Arm = "ticket"
    """what it is: the ticket, or something to compare it with"""
    level: Whole = 0
    """rounds of pruning before it"""
    seed: Whole = 0
    """which of the independent lotteries"""
    number: Whole = 0
    """which of several networks that differ in nothing but chance"""
