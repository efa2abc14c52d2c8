"""The one loop: (network, masks, images, spec) -> weights. What it must remember, it writes to its checkpoint."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..data import Splits, Stream
from ..masks import Mask, apply_
from ..runs import State, Work
from ..spec import Refused, Train
from .evaluate import Evaluation, evaluate, frozen
from .freeze import NORMS, Freezing
from .half import arithmetic
from .loss import loss_of
from .optim import joined_, optimizer, rate

LOOK = 50  # steps between looks at the loss: a NaN is found this late at most, and a GPU is not made to wait each step

ENOUGH = 100  # steps after which a network that still only guesses is called diverged


Rewire = Callable[[float, int, dict[str, Tensor], dict[str, Tensor], Mask], Mask | None]
"""(share of the moving time that is over, step, weights, gradients, masks) -> other masks, or None where they stay"""


class Stopped(Exception):
    """The user asked for a stop; the checkpoint is written."""


@dataclass(frozen=True)
class Ways:
    """How a step is carried out; with equal threads, none of it changes a bit of what comes out on the same machine."""

    device: str = "cpu"
    threads: int = 0
    checkpoint_seconds: float = 30.0
    stopping: Callable[[], bool] = lambda: False
    tick: Callable[[dict[str, Any]], None] = lambda _: None


@dataclass
class Tally:
    """What has happened since the last row of metrics: recent losses one by one, older ones as their sum."""

    recent: list[Tensor] = field(default_factory=list)
    total: float = 0.0
    steps: int = 0
    hits: Tensor | None = None
    images: int = 0

    def add(self, loss: Tensor, logits: Tensor, y: Tensor) -> None:
        self.recent.append(loss.detach())
        hits = (logits.detach().argmax(1) == y).sum()
        self.hits = hits if self.hits is None else self.hits + hits
        self.images += len(y)

    def fold(self) -> None:
        """Recent losses into the sum; done at fixed steps only, so that a resumed run adds up in the same order."""
        self.total += torch.stack(self.recent).cpu().double().sum().item() if self.recent else 0.0
        self.steps += len(self.recent)
        self.recent = []


def total_steps(spec: Train, steps_per_epoch: int) -> int:
    """Steps that a spec asks for."""
    return spec.steps if spec.steps is not None else round(spec.epochs * steps_per_epoch)


def derived(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:7], "big")


class Loop:
    """A training run between two of its steps."""

    def __init__(
        self, network: nn.Module, mask: Mask, splits: Splits, spec: Train, ways: Ways, rewire: "Rewire | None" = None
    ) -> None:
        layout = torch.channels_last if spec.channels_last else torch.contiguous_format
        self.network = network.to(ways.device, memory_format=layout).train()  # type: ignore[call-overload]
        self.spec, self.ways, self.splits = spec, ways, splits
        self.stream = Stream(splits, spec.batch, spec.seed)
        self.total = total_steps(spec, self.stream.steps_per_epoch)
        self.freezing, self.stage = Freezing(network, spec) if spec.freezes else None, 0
        if self.freezing:  # what learns at the end is what the optimiser is ever to know of
            self.freezing.set_(max(0.0, (self.total - 1) / self.stream.steps_per_epoch))
        self.optimizer = optimizer(network, spec)
        self.rewire = rewire
        self.average: dict[str, Tensor] = {}
        self.wear(mask)
        self.scales = [m.weight for m in network.modules() if isinstance(m, NORMS) and m.weight is not None]
        self.average = _copies(network) if spec.ema else {}
        self.best: dict[str, Tensor] = {}
        self.tally, self.step = Tally(), 0
        self.facts: dict[str, Any] = {"best_loss": None, "best_step": None}
        self.facts |= {"last_loss": 0.0, "last_hits": 1.0, "images": 0}

    def wear(self, mask: Mask) -> None:
        """Put masks on: outside of them, weights, their moments and averages are zero from now on."""
        named = dict(self.network.named_parameters())
        self.mask = mask
        self.masked: list[Tensor] = [named[k] for k in mask]
        self.keeps = [
            m.to(self.ways.device, named[k].dtype).contiguous(memory_format=_layout(named[k])) for k, m in mask.items()
        ]
        apply_({k: named[k].data for k in mask}, mask)
        for weight, keep in zip(self.masked, self.keeps, strict=True):
            for moment in self.optimizer.state.get(weight, {}).values():
                if isinstance(moment, Tensor) and moment.shape == keep.shape:
                    moment.mul_(keep)
        for name in mask.keys() & self.average.keys():
            self.average[name].mul_(mask[name].to(self.ways.device))

    def rewired(self) -> bool:
        """Where masks are to change at this step: changed, with the gradients in hand; then no weight is stepped."""
        last = min(round(self.spec.sparse_until * self.total), self.total - 1)  # gradual pruning must come to its end
        due = self.step == last or (0 < self.step < last and self.step % self.spec.sparse_every == 0)
        if self.rewire is None or not due:
            return False
        named = dict(self.network.named_parameters())
        grads = {n: p.grad for n, p in named.items() if p.grad is not None}
        done = self.step / last if last else 1.0
        new = self.rewire(done, self.step, {n: p.detach() for n, p in named.items()}, grads, self.mask)
        if new is None:
            return False
        self.wear(new)
        return True

    def run(self, work: Work, teacher: nn.Module | None) -> None:
        """From where the checkpoint left off to the last step."""
        loss = loss_of(self.network, teacher, self.spec)
        saved = time.monotonic()
        while self.step < self.total:
            self.advance(loss)
            if self.step % self.every() == 0 or self.step == self.total:
                work.log(self.row(work))
            elif self.step % LOOK == 0:
                self.look()
                self.tally.fold()
            if self.ways.stopping():
                self.save(work)
                raise Stopped(f"{work.folder.name}: stopped after step {self.step} of {self.total}")
            if time.monotonic() - saved > self.ways.checkpoint_seconds and self.step < self.total:
                self.save(work)
                saved = time.monotonic()

    def every(self) -> int:
        """Steps between two rows of metrics."""
        return self.spec.eval_every or self.stream.steps_per_epoch

    def advance(self, loss_of_step: Callable[..., tuple[Tensor, Tensor]]) -> None:
        """One step of the optimiser."""
        self.thaw()
        x, y = self.stream(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.spec, self.step, self.stream.steps_per_epoch, self.total)
        with arithmetic(self.spec.precision, x.device.type), lone_image(len(y), self.spec.batch):
            loss, logits = loss_of_step(x, y, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if not self.rewired():
            self.update()
        self.step += 1
        self.tally.add(loss, logits, y)
        self.ways.tick({"step": self.step, "total": self.total, "images": len(y), "loss": self.tally.recent[-1]})

    def thaw(self) -> None:
        """What begins to learn with this step does."""
        epoch = self.step / self.stream.steps_per_epoch
        if self.freezing and self.freezing.stage(epoch) != self.stage:
            self.stage = self.freezing.stage(epoch)
            self.freezing.set_(epoch)
            joined_(self.optimizer)

    def update(self) -> None:
        """Gradients to weights; pruned weights, their gradients and so their moments are exactly zero throughout."""
        if self.masked:
            pairs = [(p.grad, k) for p, k in zip(self.masked, self.keeps, strict=True) if p.grad is not None]
            if pairs:  # weights that share values have no gradients of their own
                torch._foreach_mul_([g for g, _ in pairs], [k for _, k in pairs])
        if self.spec.bn_l1:
            for scale in self.scales:
                if scale.grad is not None:  # frozen ones have none
                    scale.grad.add_(scale.detach().sign(), alpha=self.spec.bn_l1)
        if self.spec.clip:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.spec.clip)
        self.optimizer.step()
        with torch.no_grad():
            if self.masked:
                torch._foreach_mul_(self.masked, self.keeps)
            if self.spec.ema:
                self._average()

    def _average(self) -> None:
        """The running average; young averages forget faster, so that the first weights do not linger."""
        memory = min(self.spec.ema, (1 + self.step) / (10 + self.step))
        now = self.network.state_dict()
        floats = [k for k in self.average if self.average[k].is_floating_point()]
        torch._foreach_lerp_([self.average[k] for k in floats], [now[k] for k in floats], 1 - memory)
        for key in self.average.keys() - set(floats):
            self.average[key].copy_(now[key])

    def look(self) -> None:
        """Refuse to go on from a loss that is no number."""
        losses = torch.stack(self.tally.recent).float() if self.tally.recent else torch.zeros(1)
        if not bool(torch.isfinite(losses).all()):
            first = int((~torch.isfinite(losses)).nonzero()[0])
            step = self.step - len(losses) + first + 1
            raise self.blown(losses[first].item(), step)

    def probe(self) -> None:
        """Refuse weights with which the next images give no numbers: past losses cannot know of the last step.

        A checkpoint is written when time has passed: a network that draws in evaluation mode too must not feel it.
        """
        x, _ = self.stream(self.step)
        own = torch.random.fork_rng([x.device] if x.device.type == "cuda" else [])
        with own, frozen(self.network), arithmetic(self.spec.precision, x.device.type):
            if not bool(torch.isfinite(self.network(x)).all()):
                raise self.blown("nan or infinite", self.step + 1)

    def blown(self, loss: Any, step: int) -> Refused:
        return Refused(
            f"train: the loss became {loss} at step {step} of {self.total}; lower train.lr "
            f"(now {self.spec.lr:g}), add train.warmup or train.clip; the last good checkpoint is kept"
        )

    def row(self, work: Work) -> dict[str, Any]:
        """One row of metrics, and a fresh tally."""
        self.look()
        tally, self.tally = self.tally, Tally()
        tally.fold()
        hits = int(tally.hits) / tally.images  # type: ignore[arg-type]
        self.facts |= {"last_loss": tally.total / tally.steps, "last_hits": hits}
        self.facts["images"] += tally.images
        row = {"step": self.step, "epoch": round(self.step / self.stream.steps_per_epoch, 6)}
        row |= {"lr": self.optimizer.param_groups[0]["lr"], "train_loss": self.facts["last_loss"]}
        row |= {"train_accuracy": hits}
        row |= self.evaluations() | {"seconds": round(work.seconds(), 3)}
        self.ways.tick({"row": row})
        return row

    def evaluations(self) -> dict[str, float]:
        """Validation (and test) figures of the weights that would be kept, and the bookkeeping of the best."""
        with self.averaged():
            found = evaluate(self.network, self.splits.validation, self.splits, self.spec.precision)
            if found and (self.facts["best_loss"] is None or found.loss < self.facts["best_loss"]):
                self.facts |= {"best_loss": found.loss, "best_step": self.step}
                self.best = _copies(self.network) if self.spec.keep == "best" else {}
            tested = self.spec.test_every_eval
            test = evaluate(self.network, self.splits.test, self.splits, self.spec.precision) if tested else None
        return _figures("val", found) | _figures("test", test)

    def averaged(self) -> Any:
        """With the averaged weights in place, where there are any."""
        return Swapped(self.network, self.average) if self.average else nullcontext()

    def kept(self) -> dict[str, Tensor]:
        """The weights to end with."""
        with self.averaged():
            weights = self.best or _copies(self.network)
        apply_(weights, self.mask)
        return weights

    def save(self, work: Work) -> None:
        """Everything that the rest of the run depends on."""
        self.look()
        self.probe()
        parts = {"net": self.network.state_dict(), "opt": _moments(self.optimizer), "ema": self.average}
        parts |= {"best": self.best, "rng": _random_states(self.ways.device), "tally": _tallied(self.tally)}
        parts |= {"mask": self.mask} if self.rewire else {}
        tensors = {f"{part}:{k}": v for part, group in parts.items() for k, v in group.items()}
        work.checkpoint(tensors, {"step": self.step, "facts": self.facts, "tally": _counts(self.tally)})

    def restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        """The inverse of `save`; afterwards the run cannot tell that it was ever interrupted."""
        part = lambda name: {k[len(name) + 1 :]: v for k, v in tensors.items() if k.startswith(name + ":")}  # noqa: E731
        self.network.load_state_dict(part("net"))
        if self.rewire:
            self.wear(part("mask"))
        _load_moments(self.optimizer, part("opt"))
        self.average = {k: v.to(self.ways.device) for k, v in part("ema").items()}
        self.best = {k: v.to(self.ways.device) for k, v in part("best").items()}
        _set_random_states(part("rng"), self.ways.device)
        moved = {k: v.to(self.ways.device) for k, v in part("tally").items()}
        self.tally = Tally(list(moved.get("recent", [])), hits=moved.get("hits"), **about["tally"])
        self.step, self.facts = about["step"], about["facts"]


def train(
    network: nn.Module,
    mask: Mask,
    splits: Splits,
    spec: Train,
    work: Work,
    ways: Ways,
    teacher: nn.Module | None = None,
    rewire: "Rewire | None" = None,
) -> tuple[State, dict[str, Any]]:
    """Trained weights and the facts of the run; resumes from the work folder's checkpoint where there is one."""
    devices = [torch.device(ways.device)] if ways.device.startswith("cuda") else []
    with torch.random.fork_rng(devices), threads(ways.threads):
        # Dropout and its kin draw from the global stream; it is ours inside this block and the caller's again after it.
        torch.manual_seed(derived(spec.seed, "dropout"))
        loop = Loop(network, mask, splits, spec, ways, rewire)
        found = work.restore()
        if found:
            loop.restore(*found)
            work.say(f"{work.folder.name}: goes on after step {loop.step:,} of {loop.total:,}")
        try:
            loop.run(work, teacher)
            if loop.total:
                loop.probe()
        finally:
            if loop.freezing:
                loop.freezing.release_()
        work.notes |= {"threads": torch.get_num_threads(), "device": ways.device}
    weights = loop.kept()
    network.load_state_dict(weights)
    return State(weights, {n: m.cpu() for n, m in loop.mask.items()}), _facts(loop, work)


@contextmanager
def lone_image(images: int, batch: int) -> Iterator[None]:
    """Batch normalisation over a single value has no deviation: torch's own words, with what to do."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        seen = f"train.batch = {batch} leaves a batch of {images} image(s), too few for batch normalisation here"
        raise Refused(f"{seen}; choose another batch size") from None


@contextmanager
def threads(number: int) -> Iterator[None]:
    """So many CPU threads for a while; 0 leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _facts(loop: Loop, work: Work) -> dict[str, Any]:
    """What the report says about the run."""
    classes = len(loop.splits.facts.classes)  # a network that only guesses has a loss of log(classes)
    guesses = loop.facts["last_hits"] < 1.25 / classes
    return {
        "steps": loop.total,
        "early_stop_step": loop.facts["best_step"],
        "seconds": round(work.seconds(), 3),
        "images_per_second": round(loop.facts["images"] / max(work.seconds(), 1e-9), 1),
        "threads": torch.get_num_threads() if not loop.ways.threads else loop.ways.threads,
        "diverged": loop.total >= ENOUGH and loop.facts["last_loss"] > 0.98 * math.log(classes) and guesses,
    }


class Swapped:
    """Other weights in a network for a while; buffers too."""

    def __init__(self, network: nn.Module, weights: dict[str, Tensor]) -> None:
        self.network, self.weights = network, weights

    def __enter__(self) -> None:
        self.own = _copies(self.network)
        self.network.load_state_dict(self.weights)

    def __exit__(self, *_: object) -> None:
        self.network.load_state_dict(self.own)


def _layout(weight: Tensor) -> torch.memory_format:
    last = weight.ndim == 4 and not weight.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _copies(network: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in network.state_dict().items()}


def _figures(prefix: str, found: Evaluation | None) -> dict[str, float]:
    return {f"{prefix}_loss": found.loss, f"{prefix}_accuracy": found.accuracy} if found else {}


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's memory, as name -> tensor: parameter number, then its own name for it."""
    ordered = [p for group in optimizer.param_groups for p in group["params"]]
    state = {(i, k): v for i, p in enumerate(ordered) for k, v in optimizer.state.get(p, {}).items()}
    return {f"{i}:{k}": v for (i, k), v in state.items() if isinstance(v, Tensor)}


def _load_moments(optimizer: torch.optim.Optimizer, saved: dict[str, Tensor]) -> None:
    """The memory back in place, in each parameter's own memory layout: the fused kernels walk raw memory."""
    ordered = [p for group in optimizer.param_groups for p in group["params"]]
    for name, value in saved.items():
        index, key = name.split(":", 1)
        weight = ordered[int(index)]
        same = value.shape == weight.shape
        optimizer.state[weight][key] = torch.empty_like(weight).copy_(value) if same else value.to(weight.device)


def _tallied(tally: Tally) -> dict[str, Tensor]:
    recent = {"recent": torch.stack(tally.recent)} if tally.recent else {}
    return recent | ({"hits": tally.hits} if tally.hits is not None else {})


def _counts(tally: Tally) -> dict[str, Any]:
    return {"total": tally.total, "steps": tally.steps, "images": tally.images}


def _random_states(device: str) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.startswith("cuda") else {})


def _set_random_states(states: dict[str, Tensor], device: str) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and device.startswith("cuda"):
        torch.cuda.set_rng_state(states["cuda"], device)
