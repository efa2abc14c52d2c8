"""A lottery as a spec: the network, its training, the pruning between levels, and what tickets are compared with."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Literal

from .check import Count, NotNegative, Positive, Share, Whole, check
from .errors import Refused, quote
from .steps import Data, Model, Spec

Arm = Literal[
    "ticket", "reinit", "random", "oneshot", "oneshot_reinit", "continued", "finetuned", "shuffled", "signs",
    "constant", "resampled", "noise_0.5", "noise_1", "noise_2", "noise_3", "untrained", "untrained_same_sign",
    "supermask", "earlybird", "transferred", "twin",
]  # fmt: skip
SOURCE = ("source_data", "source_optimizer", "source_lr", "source_momentum")
"""Where transferred tickets come from; it enters the names of those alone."""
COUNTS = ("levels", "arms", "reinits", "randoms", "seeds", *SOURCE)
"""Fields that say how many networks there are; they change nothing in any one of them."""
LENET, MNIST = Model(name="lenet_300_100", init="glorot_normal"), Data(name="mnist", scaling="unit")
TWINS = 2
SMOOTH = 11
"""looks in a row over which a loss is smoothed: a thousand iterations from first to last at the paper's interval"""
ROOM = 5
"""so many of these windows have to fit into the looks: a smoothed stop is never in the first or the last half of one"""


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
    """learning rate, where it does not rise or has not dropped"""
    drops: tuple[Count, ...] = ()
    """iterations from which on it is a tenth of what it was"""
    warmup: Whole = 0
    """iterations over which it rises from zero"""
    momentum: Share = 0.0
    """of sgd"""
    weight_decay: NotNegative = 0.0
    """pull of the weights to zero"""
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
    rate_layers: tuple[str, ...] = ()
    """layers with a rate of their own, such as "conv1=0.2"; they are ranked by themselves"""
    scope: Literal["layer", "global"] = "layer"
    """rank the weights of each layer by themselves, or those of all layers of one kind together"""
    rewind: Whole = 0
    """iteration of the dense network whose weights tickets go back to; 0 is before training"""
    arms: tuple[Arm, ...] = ("ticket", "reinit", "random", "oneshot")
    """what is trained at every level: the ticket, and what it is compared with"""
    source_data: str = ""
    """images on which transferred tickets were found; these when empty"""
    source_optimizer: Literal["", "sgd", "adam"] = ""
    """the rule with which they were found; this one when empty"""
    source_lr: Positive | None = None
    """their learning rate"""
    source_momentum: Share | None = None
    """their momentum"""
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
    marks: tuple[Count, ...] = ()
    """iterations at which the test images are looked at too, at every level"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if "ticket" not in self.arms or len(set(self.arms)) < len(self.arms):
            seen = f"lottery.arms = {quote(list(self.arms))} is not allowed"
            raise Refused(f"{seen}; expected each arm once, ticket among them: the others compare with it")
        if self.rewind % self.every or self.rewind >= self.steps:
            seen = f"lottery.rewind = {self.rewind} is not allowed"
            raise Refused(f"{seen}; expected a multiple of lottery.every = {self.every} below steps = {self.steps}")
        unseen = [m for m in self.marks if m < self.steps and (m % self.every or m <= self.rewind)]
        if unseen:
            seen, above = f"lottery.marks = {quote(list(self.marks))} is not allowed", f" above rewind = {self.rewind}"
            where = f"multiples of lottery.every = {self.every}{above if self.rewind else ''}"
            raise Refused(f"{seen}; expected {where}: no network is looked at at {unseen[0]}")
        if "finetuned" in self.arms and not self.drops:
            seen = "lottery.arms has finetuned, but the learning rate never drops"
            raise Refused(f"{seen}: that would be continued; set lottery.drops, or leave it out")
        if ("transferred" in self.arms) != any(
            getattr(self, f.name) != f.default for f in fields(self) if f.name in SOURCE
        ):
            seen = "lottery: the arm transferred and a source of its tickets go together"
            raise Refused(f'{seen}; set both, such as source_data = "mnist", or neither')
        own_rates(self.rate_layers)
        if self.data.validation == 0:
            raise Refused("lottery: data.validation = 0 leaves nothing to stop early by; expected 1 or more")
        if self.model.weights:
            raise Refused(f"lottery: model.weights = {quote(self.model.weights)}: weights are drawn here; leave it out")

    def rules(self) -> "Lottery":
        """What each network depends on: how many others there are renames none of them."""
        return replace(self, **{f.name: f.default for f in fields(self) if f.name in COUNTS})  # type: ignore[arg-type]

    def rate(self, iteration: int) -> float:
        """The learning rate of the step that follows so many."""
        rising = min(1.0, (iteration + 1) / self.warmup) if self.warmup else 1.0
        return self.lr * rising * 0.1 ** sum(iteration >= drop for drop in self.drops)

    @property
    def last_rate(self) -> float:
        """After all drops."""
        return self.lr * 0.1 ** len(self.drops)

    @property
    def looks(self) -> int:
        """At the validation images of one network, from its first iteration to its last."""
        return -(-self.steps // self.every)

    @property
    def smooths(self) -> bool:
        """Whether smoothed early stops tell something: in a short training the window alone decides where they lie."""
        return self.looks >= ROOM * SMOOTH

    def source(self) -> "Lottery":
        """The lottery that transferred tickets come from."""
        data = replace(self.data, name=self.source_data, sha256="") if self.source_data else self.data
        return replace(
            self.rules(), arms=("ticket",), levels=self.levels, seeds=self.seeds, data=data,
            optimizer=self.source_optimizer or self.optimizer,
            lr=self.lr if self.source_lr is None else self.source_lr,
            momentum=self.momentum if self.source_momentum is None else self.source_momentum,
        )  # fmt: skip

    def draws(self) -> "Iterator[Draw]":
        """Every network; the dense one of a seed is level 0 of all its arms."""
        for seed in range(self.seeds):
            yield Draw(seed=seed)
            if "twin" in self.arms:  # the dense network's own are no ticket's
                yield from (Draw(arm="twin", seed=seed, number=n) for n in range(TWINS))
            for level in range(1, self.levels + 1):
                yield from (Draw(arm=a, level=level, seed=seed, number=n) for a in self.arms for n in self.numbers(a))

    def numbers(self, arm: str) -> range:
        """An arm's networks at one level of one seed."""
        several = {"reinit": self.reinits, "oneshot_reinit": self.reinits, "random": self.randoms, "twin": TWINS}
        return range(several.get(arm, 1))


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
    source: str = ""
    """name of the network of another lottery that left the mask"""


def own_rates(pairs: tuple[str, ...]) -> dict[str, float]:
    """Layers and the shares that a round removes from them."""
    found = {}
    for pair in pairs:
        layer, _, text = pair.partition("=")
        try:
            rate = float(text)
        except ValueError:
            seen = f"lottery.rate_layers: {quote(pair)} is not allowed"
            raise Refused(f"{seen}; expected LAYER=RATE, such as conv1=0.2") from None
        found[layer.strip()] = check(rate, Share, f"lottery.rate_layers: {layer.strip()}")
    return found
