"""Batches: seeded, stateless, each image once an epoch, and augmented as a slow reference would."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as slow

from prunery.data import DATASETS, SCALINGS, Stream, inputs, load
from prunery.data.stream import blank_, draw, generator, windows
from prunery.spec import Data

VARIED = {"flip": True, "crop": 2, "cutout": 3}


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_same_seed_same_stream_and_any_step_directly(base, shelf):
    splits = load(replace(base, **VARIED), shelf)
    in_order, direct = Stream(splits, 7, 1), Stream(splits, 7, 1)
    steps = [in_order(s) for s in range(2 * in_order.steps_per_epoch + 2)]
    for step in (len(steps) - 1, 0, in_order.steps_per_epoch, 1):
        assert equal(direct(step), steps[step])


def test_seeds_and_epochs_differ(base, shelf):
    splits = load(base, shelf)
    one, other = Stream(splits, 7, 1), Stream(splits, 7, 2)
    assert not torch.equal(one(0)[0], other(0)[0])
    assert not torch.equal(one(0)[0], one(one.steps_per_epoch)[0])


@pytest.mark.parametrize("batch", [1, 5, 16, 10_000])
def test_an_epoch_is_a_permutation(batch, shelf):
    splits = load(Data(name="mnist", scaling="raw", validation=3), shelf)
    splits.train.x[:, 0, 0, 0] = torch.arange(17)  # a number on each image
    stream = Stream(splits, batch, 0)
    assert stream.steps_per_epoch == -(-17 // batch)
    for epoch in range(3):
        steps = range(epoch * stream.steps_per_epoch, (epoch + 1) * stream.steps_per_epoch)
        x, y = (torch.cat(parts) for parts in zip(*map(stream, steps), strict=True))
        numbers = x[:, 0, 0, 0].long()
        assert sorted(numbers.tolist()) == list(range(17))
        assert torch.equal(y, splits.train.y[numbers])


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("name", DATASETS)
def test_without_augmentation_a_batch_is_inputs(name, scaling, shelf):
    if scaling == "imagenet" and DATASETS[name].shape[0] == 1:
        pytest.skip("imagenet scaling is for colour images")
    splits = load(Data(name=name, scaling=scaling, validation=4), shelf)
    n = len(splits.train)
    order = draw(n, splits.facts.shape, splits.spec, generator(3, "stream", 0))["order"][:9]
    assert equal(Stream(splits, 9, 3)(0), (inputs(splits.train.x[order], splits), splits.train.y[order]))


@pytest.mark.parametrize("resize", [0, 11])
@pytest.mark.parametrize("scaling", ["raw", "channel", "image"])
@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10"])
def test_augmentation_equals_the_slow_way(name, scaling, resize, shelf):
    spec = Data(name=name, scaling=scaling, validation=4, resize=resize, **VARIED)
    splits = load(spec, shelf)
    plain = replace(splits, spec=replace(spec, scaling="raw"))
    chance = draw(len(splits.train), splits.facts.shape, spec, generator(5, "stream", 0))
    x, y = Stream(splits, 8, 5)(0)
    for i in range(8):
        order, mirror, top, left, cy, cx = (int(chance[k][i]) for k in ("order", "mirror", "top", "left", "y", "x"))
        image = slow.pad(inputs(splits.train.x[order][None], plain), [2])
        image = slow.crop(image, top, left, *splits.facts.shape[1:])
        image = slow.horizontal_flip(image) if mirror else image
        image = inputs(image.clone(), replace(splits, spec=replace(spec, resize=0)))[0]
        image[:, max(cy - 1, 0) : cy + 2, max(cx - 1, 0) : cx + 2] = 0
        assert torch.allclose(x[i], image, atol=1e-4)
        assert y[i] == splits.train.y[order]


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("shape", "border"), [((5, 3, 7, 4), 3), ((1, 1, 1, 1), 0), ((3, 1, 2, 9), 1)])
def test_windows_reach_every_place(shape, border, kind, known):
    x = torch.randint(1, 256, shape, generator=known).to(kind)
    top, left = (torch.randint(2 * border + 1, shape[:1], generator=known) for _ in "ab")
    mirror = torch.randint(2, shape[:1], generator=known).bool()
    cut = windows(x, border, top, left, mirror)
    assert cut.dtype == kind
    for i, image in enumerate(x):
        slowly = slow.crop(slow.pad(image, [border]), int(top[i]), int(left[i]), *shape[2:])
        assert torch.equal(cut[i], slowly.flip(2) if mirror[i] else slowly)


@pytest.mark.parametrize("side", [1, 2, 5, 40])
def test_the_blank_is_a_square_clipped_at_the_borders(side):
    x = torch.ones(9, 2, 8, 6)
    y, c = torch.arange(9) % 8, torch.arange(9) % 6
    blank_(x, side, y, c)
    for i in range(9):
        top, left = int(y[i]) - side // 2, int(c[i]) - side // 2
        slowly = torch.ones(2, 8, 6)
        slowly[:, max(top, 0) : top + side, max(left, 0) : left + side] = 0
        assert torch.equal(x[i], slowly)


def test_chance_is_fair_and_order_does_not_depend_on_augmentation():
    plain, varied = Data(), Data(flip=True, crop=2)
    one, other = (draw(6000, (1, 8, 8), s, generator(0, "stream", 0)) for s in (plain, varied))
    assert torch.equal(one["order"], other["order"])
    assert not one["mirror"].any()
    assert 0.47 < other["mirror"].float().mean() < 0.53
    assert torch.bincount(other["top"], minlength=5).tolist() == pytest.approx([1200] * 5, abs=150)
    assert torch.bincount(other["x"], minlength=8).tolist() == pytest.approx([750] * 8, abs=120)


def test_generators_differ_by_seed_purpose_and_epoch():
    seeds = {generator(s, p, e).initial_seed() for s in (0, 1) for p in ("stream", "other") for e in (0, 1)}
    assert len(seeds) == 8
    assert generator(0, "stream", 0).initial_seed() == 8223027084508854975


def everyones():
    """The state of the three generators that all code shares."""
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002


def test_global_chance_is_untouched(base, shelf):
    before = everyones()
    stream = Stream(load(replace(base, **VARIED), shelf), 4, 0)
    stream(stream.steps_per_epoch + 1)
    assert everyones() == before


def test_a_stream_leaves_the_set_alone(base, shelf):
    splits = load(replace(base, **VARIED), shelf)
    before = splits.train.x.clone()
    Stream(splits, 4, 0)(0)
    assert torch.equal(splits.train.x, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_stream_on_the_accelerator(base, shelf):
    spec = replace(base, **VARIED)
    here, there = (Stream(load(spec, shelf, device), 8, 0)(3) for device in ("cpu", "cuda"))
    assert torch.allclose(here[0], there[0].cpu(), atol=1e-5)
    assert torch.equal(here[1], there[1].cpu())
