"""The sparse training steps: torch's steps for every shape, optimiser, kernel and instruction set; and their laws."""

import threading
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from prunery import native
from prunery.data import Images, Stream, inputs, load
from prunery.masks import Mask, apply_
from prunery.models.small import Chain, dense
from prunery.spec import Data, Refused, Train
from prunery.tickets import Replica, Rule, Snapshot, affine, orders, train
from prunery.train import evaluate
from prunery.train.optim import optimizer

DATA = Path(__file__).parents[2] / "data"
ISAS = native.available()
KERNELS = ("sparse", "dense")
NETWORKS = ((21, 7), (40, 33, 10), (50, 37, 18, 5), (64, 40, 23, 17, 6))
"""widths, one to four layers"""
INPUTS = {"raw": (1 / 255, 0.0), "shifted": (1 / (255 * 0.3), -0.4), "pixel by pixel": (None, None)}
RULES = {
    "sgd": Train(optimizer="sgd", momentum=0.0, lr=0.1),
    "sgd, decay": Train(optimizer="sgd", momentum=0.0, lr=0.1, weight_decay=0.01),
    "momentum": Train(optimizer="sgd", momentum=0.9, lr=0.05),
    "nesterov, decay": Train(optimizer="sgd", momentum=0.9, nesterov=True, lr=0.05, weight_decay=1e-3),
    "adam": Train(optimizer="adam", lr=1.2e-3),
    "adam, decay": Train(optimizer="adam", lr=1e-3, weight_decay=1e-2, beta1=0.8, beta2=0.99, eps=1e-6),
    "adam, weights decay": Train(optimizer="adam", lr=1e-3, weight_decay=1e-2, decay_all=False),
    "adamw": Train(optimizer="adamw", lr=1e-3, weight_decay=0.1),
}
MASKS = (1.0, 0.21, 0.01, "a layer without weights", "a neuron without inputs")
WARM = 3  # steps of torch before the one that is compared


@pytest.fixture(autouse=True)
def one_thread():
    """Torch's threads wait for each other at every layer, for ever on a machine that does something else."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network_of(widths, seed=0):
    """Linear layers with biases that are not zero."""
    network = Chain(dense(*widths))
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, (2 / parameter.shape[-1]) ** 0.5 if parameter.ndim == 2 else 0.1, generator=rng)
    return network


def masks_of(network, kind, seed=0) -> Mask:
    rng = torch.Generator().manual_seed(seed)
    density = kind if isinstance(kind, float) else 0.5
    weights = {n: p for n, p in network.named_parameters() if p.ndim == 2}
    masks = {n: torch.rand(p.shape, generator=rng) < density for n, p in weights.items()}
    if kind == "a layer without weights":
        masks[list(masks)[len(masks) // 2]].zero_()
    if kind == "a neuron without inputs":
        masks[next(iter(masks))][3] = False
    return masks


def images_of(count, pixels, classes, seed=0):
    """Mostly black, with a border that is never lit."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (count, 1, 1, pixels), generator=rng)
    x *= torch.rand(x.shape, generator=rng) < 0.3
    x[..., : pixels // 5] = 0
    return Images(x.to(torch.uint8), torch.randint(0, classes, (count,), generator=rng))


def scaling_of(name, pixels):
    scale, shift = INPUTS[name]
    steps = torch.arange(pixels) / pixels
    return (scale, shift) if scale else ((1 + steps) / 255, (steps - 0.5) * (steps > 0.4))


class Torch:
    """The reference: what train/loop.py does, with masks multiplied into gradients and weights."""

    def __init__(self, network, masks, spec, scale, shift):
        self.network, self.masks, self.spec, self.scale, self.shift = network, masks, spec, scale, shift
        self.optimizer = optimizer(network, spec)
        self.named = dict(network.named_parameters())
        apply_({n: self.named[n].data for n in masks}, masks)
        self.steps = 0

    def step(self, images, index):
        x = images.x[index].flatten(1).float() * self.scale + self.shift
        loss = F.cross_entropy(self.network(x), images.y[index])
        self.optimizer.zero_grad()
        loss.backward()
        for name, mask in self.masks.items():
            self.named[name].grad.mul_(mask)
        self.optimizer.step()
        apply_({n: self.named[n].data for n in self.masks}, self.masks)
        self.steps += 1
        return loss.item()

    def snapshot(self):
        keys = {"sgd": ("momentum_buffer", ""), "adam": ("exp_avg", "exp_avg_sq"), "adamw": ("exp_avg", "exp_avg_sq")}
        moments = [
            {n: s[key].clone() for n, p in self.named.items() if (s := self.optimizer.state[p]).get(key) is not None}
            for key in keys[self.spec.optimizer]
        ]
        return Snapshot({n: p.detach().clone() for n, p in self.named.items()}, *moments, self.steps)


def compare(ours, theirs, before):
    """Updates of weights, and moments, as norms of each tensor; Adam divides tiny gradients by themselves."""
    for name, weight in theirs.weights.items():
        moved = weight - before.weights[name]
        assert (ours.weights[name] - weight).norm() <= 2e-4 * moved.norm() + 1e-12, name
    for mine, torchs in ((ours.first, theirs.first), (ours.second, theirs.second)):
        assert mine.keys() == torchs.keys()
        for name, moment in torchs.items():
            assert (mine[name] - moment).norm() <= 2e-5 * moment.norm() + 1e-20, name


CASES = list(product(range(len(MASKS)), (1, 16, 60, 64, 100)))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("mask", "batch"), CASES, ids=[f"{MASKS[m]}-{b}" for m, b in CASES])
def test_a_step_is_torchs(isa, kernel, mask, batch):
    for depth, widths in enumerate(NETWORKS):
        for part in range(2):  # each case meets some of the optimisers and inputs; all cases together meet all pairs
            turn = mask + batch + 3 * depth + 5 * part
            spec = list(RULES.values())[turn % len(RULES)]
            scale, shift = scaling_of(list(INPUTS)[(turn + depth) % len(INPUTS)], widths[0])
            network = network_of(widths, seed=turn)
            reference = Torch(network, masks_of(network, MASKS[mask], seed=turn), spec, scale, shift)
            images = images_of(130, widths[0], widths[-1], seed=turn)
            batches = orders(turn, len(images), batch, 0, WARM + 1)
            for row in batches[:WARM]:
                reference.step(images, row[row >= 0])
            before = reference.snapshot()
            options = {"scale": scale, "shift": shift, "isa": isa, "kernel": kernel}
            after, losses = train(before, reference.masks, Rule.of(spec), images, batches[WARM:], [spec.lr], **options)
            last = batches[WARM]
            assert losses.item() == pytest.approx(reference.step(images, last[last >= 0]), rel=1e-5, abs=1e-6)
            compare(after, reference.snapshot(), before)
            assert after.step == WARM + 1


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["adam", "nesterov, decay"])
def test_wide_layers_and_large_batches_in_several_blocks(isa, kernel, name):
    network, spec = network_of((30, 150, 170, 5)), RULES[name]
    reference = Torch(network, masks_of(network, 0.4), spec, *scaling_of("pixel by pixel", 30))
    images, batches = images_of(1100, 30, 5), orders(0, 1100, 1024, 0, 3)
    options = {"scale": reference.scale, "shift": reference.shift, "isa": isa, "kernel": kernel}
    for step in range(3):  # the second batch has 76 images
        before, row = reference.snapshot(), batches[step : step + 1]
        after, _ = train(before, reference.masks, Rule.of(spec), images, row, [spec.lr], **options)
        reference.step(images, row[row >= 0])
        compare(after, reference.snapshot(), before)


def test_the_kernel_follows_from_density_lit_pixels_and_width():
    def kernels(density, **options):
        network = network_of((50, 64, 64, 10))
        weights = {n: p.detach() for n, p in network.named_parameters()}
        return Replica(Snapshot(weights), masks_of(network, density), Rule(), 60, **options).kernels

    assert kernels(1.0) == ["dense", "dense", "sparse"]
    assert kernels(0.5) == ["dense", "sparse", "sparse"]
    assert kernels(0.3) == ["sparse"] * 3
    assert kernels(0.3, shift=-0.4) == ["dense", "sparse", "sparse"]
    assert kernels(1.0, lit=0.9) == ["sparse", "dense", "sparse"]
    assert kernels(0.01, kernel="dense") == ["dense"] * 3


@pytest.fixture
def task():
    """A network of three layers, its masks, images and 30 batches."""
    network = network_of((50, 37, 18, 5))
    images = images_of(200, 50, 5)
    masks = masks_of(network, 0.3)
    weights = {n: p.detach().clone() for n, p in network.named_parameters()}
    apply_({n: weights[n] for n in masks}, masks)
    return weights, masks, images, orders(7, 200, 60, 0, 30)


def equal(a, b):
    return a.step == b.step and all(
        x.keys() == y.keys() and all(torch.equal(x[n].view(torch.int32), y[n].view(torch.int32)) for n in x)
        for x, y in ((a.weights, b.weights), (a.first, b.first), (a.second, b.second))
    )


def rule_of(name):
    return Rule.of(RULES[name])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", RULES)
def test_pruned_weights_and_their_moments_are_zero_after_every_step(task, name, kernel):
    weights, masks, images, batches = task
    replica = Replica(Snapshot(weights), masks, rule_of(name), 60, kernel=kernel)
    for row in batches[:5]:
        replica.train(images, row[None], [0.01])
        found = replica.snapshot()
        for part in (found.weights, found.first, found.second):
            assert all(not part[n][~masks[n]].any() for n in masks if n in part)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("isa", ISAS)
def test_a_then_b_steps_are_a_plus_b_steps(task, name, kernel, isa):
    weights, masks, images, batches = task
    rates = torch.linspace(0.01, 0.001, len(batches))
    options = {"kernel": kernel, "isa": isa, "shift": 0.1 if name == "adam" else 0.0}
    whole, losses = train(Snapshot(weights), masks, rule_of(name), images, batches, rates, **options)
    half, first = train(Snapshot(weights), masks, rule_of(name), images, batches[:13], rates[:13], **options)
    rest, second = train(half, masks, rule_of(name), images, batches[13:], rates[13:], **options)
    assert equal(rest, whole)
    assert torch.equal(torch.cat([first, second]), losses)


def test_looking_changes_nothing(task):
    weights, masks, images, batches = task
    quiet, watched = (Replica(Snapshot(weights), masks, Rule(), 60) for _ in range(2))
    quiet.train(images, batches, [1e-3] * 30)
    for row in batches:
        watched.train(images, row[None], [1e-3])
        watched.evaluate(images)
        watched.snapshot()
    assert equal(quiet.snapshot(), watched.snapshot())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", RULES)
def test_no_steps_are_the_identity(task, name, kernel):
    weights, masks, images, batches = task
    start, _ = train(Snapshot(weights), masks, rule_of(name), images, batches[:3], [0.01] * 3, kernel=kernel)
    assert equal(train(start, masks, rule_of(name), images, batches[:0], [], kernel=kernel)[0], start)


def test_what_is_pruned_in_the_start_is_dropped(task):
    weights, masks, images, batches = task
    dirty = {n: w + 1.0 * ~masks[n] if n in masks else w for n, w in weights.items()}
    clean = {n: w * masks[n] if n in masks else w for n, w in dirty.items()}
    results = [train(Snapshot(w), masks, Rule(), images, batches, [1e-3] * 30)[0] for w in (dirty, clean)]
    assert equal(*results)


def test_replicas_in_other_threads_change_nothing(task):
    weights, masks, images, batches = task
    alone = train(Snapshot(weights), masks, Rule(), images, batches, [1e-3] * 30)[0]
    found = {}

    def work(number):
        many = batches.repeat(10, 1)
        start = Snapshot(weights) if number == 0 else Snapshot({n: w / 2 for n, w in weights.items()})
        rows = batches if number == 0 else many
        found[number] = train(start, masks, Rule(), images, rows, [1e-3] * len(rows))[0]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert equal(found[0], alone)
    assert equal(found[1], found[2])


@pytest.mark.parametrize("kernel", KERNELS)
def test_biases_and_negative_weights_move(task, kernel):
    weights, masks, images, batches = task
    after, _ = train(Snapshot(weights), masks, Rule(), images, batches, [1e-3] * 30, kernel=kernel)
    for name, weight in weights.items():
        moved = after.weights[name] != weight
        if name in masks:
            negative = masks[name] & (weight < 0)
            negative[:, :10] &= name != "fc1.weight"  # reads pixels that are never lit
            assert moved[negative].float().mean() > 0.6
        else:
            assert moved.float().mean() > 0.6


def test_inputs_that_are_never_lit_keep_their_weights_without_decay_only(task):
    weights, masks, images, batches = task
    weights = {n: w + 0.01 * masks[n] if n in masks else w for n, w in weights.items()}
    for name, still in (("adam", True), ("adam, decay", False)):
        after, _ = train(Snapshot(weights), masks, rule_of(name), images, batches, [1e-3] * 30)
        dark = masks["fc1.weight"][:, :10]
        same = (after.weights["fc1.weight"] == weights["fc1.weight"])[:, :10][dark]
        assert same.all() if still else not same.any()


def test_layers_without_biases(task):
    weights, masks, images, batches = task
    kept = {n: w for n, w in weights.items() if n != "fc2.bias"}
    zero = weights | {"fc2.bias": torch.zeros_like(weights["fc2.bias"])}
    after, losses = train(Snapshot(kept), masks, Rule(), images, batches[:1], [1e-3])
    other, same = train(Snapshot(zero), masks, Rule(), images, batches[:1], [1e-3])
    assert "fc2.bias" not in after.weights | after.first | after.second
    assert torch.equal(losses, same)
    assert torch.equal(after.weights["fc1.weight"], other.weights["fc1.weight"])


def test_a_diverged_network_says_so(task):
    weights, masks, images, batches = task
    broken = weights | {"fc1.bias": torch.full_like(weights["fc1.bias"], float("nan"))}
    _, losses = train(Snapshot(broken), masks, Rule(), images, batches[:2], [1e-3] * 2)
    assert losses.isnan().all()


def test_denormals_are_left_as_they_were(task):
    weights, masks, images, batches = task
    train(Snapshot(weights), masks, Rule(), images, batches[:1], [1e-3])
    assert torch.tensor([1e-30]) * torch.tensor([1e-10]) > 0


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("count", [1, 60, 64, 200])
def test_evaluation_is_torchs(isa, kernel, count):
    for scaling in INPUTS:
        network = network_of((50, 37, 18, 5))
        scale, shift = scaling_of(scaling, 50)
        masks = masks_of(network, 0.3)
        reference = Torch(network, masks, RULES["adam"], scale, shift)
        images = images_of(count, 50, 5)
        options = {"kernel": kernel, "isa": isa, "scale": scale, "shift": shift}
        found = Replica(reference.snapshot(), masks, Rule(), 16, **options).evaluate(images)
        with torch.no_grad():
            logits = network(images.x.flatten(1) * scale + shift)
        assert found.loss == pytest.approx(F.cross_entropy(logits, images.y).item(), rel=1e-5)
        assert (found.hits, found.n) == ((logits.argmax(1) == images.y).sum(), count)


def test_no_images_no_evaluation(task):
    weights, masks, images, _ = task
    assert Replica(Snapshot(weights), masks, Rule(), 60).evaluate(images.at(torch.arange(0))) is None


def test_logits_far_apart():
    weights = {"fc1.weight": torch.tensor([[300.0, -300.0], [-300.0, 300.0]]), "fc1.bias": torch.zeros(2)}
    x = torch.tensor([[255, 0], [0, 255], [255, 0]], dtype=torch.uint8).view(3, 1, 1, 2)
    images = Images(x, torch.tensor([0, 1, 1]))
    found = Replica(Snapshot(weights), {}, Rule(), 1).evaluate(images)
    assert (found.loss, found.hits) == (pytest.approx(200), 2)


def first_images(splits, count):
    return replace(splits, train=splits.train.at(torch.arange(min(count, len(splits.train)))))


@pytest.mark.parametrize("first", [0, 3, 11, 12])
def test_batches_are_the_streams(first):
    splits = first_images(load(Data(scaling="raw"), DATA), 130)
    stream = Stream(splits, 40, seed=5)
    rows = orders(5, len(splits.train), 40, first, 6)
    assert rows.shape == (6, 40)
    for step, row in enumerate(rows, first):
        x, y = stream(step)
        row = row[row >= 0]
        assert torch.equal(splits.train.x[row].float(), x)
        assert torch.equal(splits.train.y[row], y)


@pytest.mark.parametrize("scaling", ["raw", "unit", "channel"])
def test_scalings_are_the_datas(scaling):
    splits = load(Data(scaling=scaling), DATA)
    scale, shift = affine(splits)
    x = splits.train.x[:50]
    assert torch.allclose(x.flatten(1) * scale + shift, inputs(x, splits).flatten(1), rtol=1e-5, atol=1e-6)


def test_images_scaled_one_by_one_have_no_affine_form():
    assert affine(load(Data(scaling="image"), DATA)) is None


@pytest.mark.parametrize(("name", "density"), [("digits", 1.0), ("digits", 0.2), ("mnist", 0.2)])
def test_it_learns_as_torch_does(name, density):
    if name == "mnist" and not (DATA / "MNIST").is_dir():
        pytest.skip("MNIST is not in data/")
    splits = first_images(load(Data(name=name, scaling="unit"), DATA), 6000)
    network = network_of((splits.train.x[0].numel(), 300, 100, 10))
    spec = Train(optimizer="adam", lr=1.2e-3)
    scale, shift = affine(splits)
    reference = Torch(network, masks_of(network, density), spec, scale, shift)
    steps = 1500 if density < 1 else 500
    batches = orders(3, len(splits.train), 60, 0, steps)
    replica = Replica(reference.snapshot(), reference.masks, Rule.of(spec), 60, scale, shift)
    losses = replica.train(splits.train, batches, [spec.lr] * steps)
    theirs = torch.tensor([reference.step(splits.train, row[row >= 0]) for row in batches])
    assert torch.allclose(losses[:20], theirs[:20], rtol=1e-3)
    ours, torchs = replica.evaluate(splits.test), evaluate(network, splits.test, splits)
    assert ours.accuracy > 0.9
    assert ours.accuracy == pytest.approx(torchs.accuracy, abs=4 * torchs.standard_error)


WRONG = {
    "no chain": "make no chain",
    "not linear": "is of no fully connected layer",
    "mask": "the mask of fc1.weight is bool",
    "double": "fc1.bias is float64",
    "pixels": "the pixels are uint8, 49",
    "floats": "the pixels are float32",
    "labels": "labels go from 0 to 5",
    "beyond": "beyond the 200",
    "empty": "a batch is empty",
    "size": r"expected \[steps, 60\]",
    "kernel": "choose one of auto, sparse, dense",
    "no batch": "batch = 0 is too small",
}


def spoilt(task, what):
    weights, masks, images, batches = (dict(t) if isinstance(t, dict) else t for t in task)
    options = {}
    if what == "no chain":
        del weights["fc2.weight"], weights["fc2.bias"]
    elif what == "not linear":
        weights["norm1.weight"] = torch.ones(37)
    elif what == "mask":
        masks["fc1.weight"] = masks["fc1.weight"].T
    elif what == "double":
        weights["fc1.bias"] = weights["fc1.bias"].double()
    elif what == "pixels":
        images = Images(images.x[..., 1:], images.y)
    elif what == "floats":
        images = Images(images.x.float(), images.y)
    elif what == "labels":
        images = Images(images.x, images.y.clone().fill_(5) * (torch.arange(200) > 0))
    elif what == "beyond":
        batches = batches + 1
    elif what == "empty":
        batches = torch.full_like(batches, -1)
    elif what == "size":
        batches = batches[:, :50]
    elif what == "kernel":
        options["kernel"] = "fast"
    options["batch"] = 0 if what == "no batch" else 60
    return weights, masks, images, batches, options


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_refused(task, what):
    weights, masks, images, batches, options = spoilt(task, what)
    with pytest.raises(Refused, match=WRONG[what]):
        Replica(Snapshot(weights), masks, Rule(), **options).train(images, batches, [1e-3] * len(batches))


@pytest.mark.parametrize(
    ("change", "named"),
    [({"clip": 1.0}, "train.clip"), ({"mixup": 0.2}, "train.mixup"), ({"optimizer": "adadelta"}, "adadelta")],
)
def test_a_spec_that_the_kernels_do_not_know_is_refused(change, named):
    with pytest.raises(Refused, match=named):
        Rule.of(replace(Train(), **change))
