"""Pixels to inputs, each scaling against its definition."""

from dataclasses import replace

import pytest
import torch
from torchvision import transforms
from torchvision.transforms.v2 import functional as slow

from prunery.data import SCALINGS, inputs, load
from prunery.data.scaling import IMAGENET, resized
from prunery.spec import Data


@pytest.fixture(scope="module")
def loaded(shelf):
    with pytest.MonkeyPatch.context() as patch:
        from prunery.data import batches

        patch.setattr(batches, "COUNTS", dict.fromkeys(batches.COUNTS, 20))
        return load(Data(name="cifar10", validation=0), shelf)


def scaled(splits, scaling, x):
    return inputs(x, replace(splits, spec=replace(splits.spec, scaling=scaling)))


@pytest.mark.parametrize("scaling", ["channel", "imagenet"])
def test_standardised_bit_for_bit_as_torchvision_does(loaded, scaling):
    moments = IMAGENET if scaling == "imagenet" else (loaded.mean.tolist(), loaded.deviation.tolist())
    usual = transforms.Compose([transforms.ToTensor(), transforms.Normalize(*moments)])
    theirs = torch.stack([usual(image.permute(1, 2, 0).numpy()) for image in loaded.test.x])
    assert torch.equal(scaled(loaded, scaling, loaded.test.x), theirs)


def test_the_training_set_comes_out_standardised(loaded):
    x = scaled(loaded, "channel", loaded.train.x)
    assert torch.allclose(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(x.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)


def test_raw_and_unit(loaded):
    assert torch.equal(scaled(loaded, "raw", loaded.test.x), loaded.test.x.float())
    assert torch.equal(scaled(loaded, "unit", loaded.test.x), loaded.test.x.float() / 255)


def test_each_image_standardised(loaded):
    x = scaled(loaded, "image", loaded.test.x)
    assert torch.allclose(x.mean((1, 2, 3)), torch.zeros(len(x)), atol=1e-5)
    assert torch.allclose(x.std((1, 2, 3), correction=0), torch.ones(len(x)), atol=1e-5)


@pytest.mark.parametrize(("scaling", "over"), [("pixel_l2", 1), ("image_l2", (1, 2, 3))])
def test_unit_lengths(loaded, scaling, over):
    x = loaded.test.x.clone()
    x[0] = 0
    lengths = scaled(loaded, scaling, x).square().sum(over).sqrt()
    assert torch.allclose(lengths, x.sum(over).bool().float(), atol=1e-5)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_constant_images_stay_constant_and_finite(loaded, scaling, value):
    x = scaled(loaded, scaling, torch.full((2, 3, 32, 32), value, dtype=torch.uint8))
    assert x.isfinite().all()
    assert torch.equal(x, x[:1, :, :1, :1].expand_as(x))
    if scaling == "image" or (value == 0 and scaling in ("pixel_l2", "image_l2", "raw", "unit")):
        assert not x.any()


def test_a_channel_that_never_varies_becomes_zero(loaded):
    flat = replace(loaded, deviation=torch.zeros(3), mean=torch.full((3,), 1.0))
    assert not scaled(flat, "channel", torch.full((2, 3, 32, 32), 255, dtype=torch.uint8)).any()


@pytest.mark.parametrize("scaling", SCALINGS)
def test_the_images_are_left_as_they_were(loaded, scaling):
    before = loaded.test.x.clone()
    scaled(loaded, scaling, loaded.test.x)
    assert torch.equal(loaded.test.x, before)


@pytest.mark.parametrize("side", [12, 32, 40])
def test_resized_as_torchvision_does(loaded, side):
    theirs = slow.resize(loaded.test.x.float(), [side, side], antialias=True)
    assert torch.allclose(resized(loaded.test.x, side).float(), theirs, atol=1e-3)


def test_resize_comes_before_scaling(loaded):
    x = inputs(loaded.test.x, replace(loaded, spec=replace(loaded.spec, resize=16, scaling="image_l2")))
    assert x.shape == (20, 3, 16, 16)
    assert torch.allclose(x.flatten(1).norm(dim=1), torch.ones(20), atol=1e-5)
