"""Laws that every set keeps, and the real ones where they are at hand."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prunery.data import DATASETS, SCALINGS, describe, facts, inputs, load
from prunery.data.sets import moments
from prunery.spec import Data, Refused

PARTS = ("train", "validation", "test")


def test_every_set_is_bytes_with_labels_of_its_classes(base, shelf):
    splits = load(base, shelf)
    for images in (getattr(splits, p) for p in PARTS):
        assert images.x.dtype == torch.uint8
        assert images.y.dtype == torch.int64
        assert images.x.shape == (len(images), *splits.facts.shape)
        assert ((images.y >= 0) & (images.y < len(splits.facts.classes))).all()
    assert splits.mean.shape == splits.deviation.shape == (splits.facts.shape[0],)


def test_facts_are_those_of_the_loaded_set(base, shelf):
    assert facts(base, shelf) == load(base, shelf).facts
    assert facts(replace(base, resize=12), shelf).shape[1:] == (12, 12)


@pytest.mark.parametrize("name", DATASETS)
def test_facts_of_a_known_set_need_no_files(name, tmp_path):
    told = facts(Data(name=name), tmp_path / "nowhere")
    assert told.name == name
    assert len(set(told.classes)) == len(told.classes) == (100 if name == "cifar100" else 10)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_every_scaling_of_every_set_is_finite(base, scaling, shelf):
    spec = replace(base, scaling=scaling)
    if scaling == "imagenet" and facts(base, shelf).shape[0] == 1:
        with pytest.raises(Refused, match="needs colour"):
            load(spec, shelf)
        return
    splits = load(spec, shelf)
    x = inputs(splits.test.x, splits)
    assert x.dtype == torch.float32
    assert x.shape == splits.test.x.shape
    assert x.isfinite().all()


def test_validation_images_are_those_of_random_split(base, shelf):
    whole = load(replace(base, validation=0), shelf)
    rows = torch.arange(len(whole.train))
    train, held = torch.utils.data.random_split(
        rows, [len(rows) - 4, 4], generator=torch.Generator().manual_seed(base.split_seed)
    )
    split = load(base, shelf)
    # With nothing held out the order is still that of the permutation: undo it to get the published order.
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(base.split_seed))
    published = torch.empty_like(whole.train.x)
    published[order] = whole.train.x
    assert torch.equal(split.train.x, published[train.indices])
    assert torch.equal(split.validation.x, published[held.indices])
    assert len(whole.validation) == 0


def test_another_split_seed_holds_out_others(base, shelf):
    one, other = load(base, shelf), load(replace(base, split_seed=1), shelf)
    assert not torch.equal(one.validation.x, other.validation.x)
    assert torch.equal(one.test.x, other.test.x)
    assert torch.equal(one.mean, other.mean)


def test_validation_must_leave_training_images(base, shelf):
    with pytest.raises(Refused, match=r"data\.validation = 9999 leaves nothing of the \d+"):
        load(replace(base, validation=9999), shelf)


def test_own_numbers_of_validation_images(shelf):
    assert len(load(Data(), shelf).validation) == 143
    assert len(load(Data(name=f"folder:{shelf / 'pets'}"), shelf).validation) == 2
    assert {n: d.held_out for n, d in DATASETS.items() if d.held_out} == dict.fromkeys(list(DATASETS)[1:], 5000)


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    splits = load(Data(validation=0), Path("nowhere"))
    x = torch.cat([splits.train.x, splits.test.x])
    assert (len(splits.train), len(splits.test), *x.shape[1:]) == (1438, 359, 1, 8, 8)
    assert x.unique().tolist() == [round(v * 255 / 16) for v in range(17)]
    whole = torch.from_numpy(load_digits().images).sum() * 255 / 16
    assert abs(float(x.double().sum() - whole)) < 0.001 * float(whole)
    assert torch.bincount(splits.test.y).min() >= 35


def test_moments_are_those_of_the_published_training_images(base, shelf):
    splits = load(base, shelf)
    x = torch.cat([splits.train.x, splits.validation.x]).double() / 255
    assert torch.allclose(splits.mean.double(), x.mean((0, 2, 3)))
    assert torch.allclose(splits.deviation.double(), x.std((0, 2, 3), correction=0))
    assert torch.equal(moments(splits.train.x)[0], moments(splits.train.x.flip(0))[0])


def test_describe_counts_every_image(base, shelf):
    splits = load(base, shelf)
    told = json.loads(json.dumps(describe(splits)))
    assert told["sizes"] == {p: len(getattr(splits, p)) for p in PARTS}
    assert {k: sum(v) for k, v in told["per_class"].items()} == told["sizes"]
    assert (told["name"], told["shape"]) == (base.name, list(splits.facts.shape))
    assert len(told["mean"]) == len(told["deviation"]) == splits.facts.shape[0]


def test_an_unknown_name_gets_a_suggestion(tmp_path):
    with pytest.raises(Refused, match=r'data\.name = "mnits" is unknown; .*did you mean mnist\?'):
        facts(Data(name="mnits"), tmp_path)


def test_a_crop_that_can_miss_the_image_is_refused(tmp_path):
    with pytest.raises(Refused, match=r"data\.crop = 8 can miss an image of 8x8"):
        load(Data(crop=8), tmp_path)


REAL = {
    "mnist": ([0.1307], [0.3081], [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616], [5000] * 10),
}


@pytest.mark.parametrize("name", REAL)
def test_the_real_sets_have_their_known_moments(name, monkeypatch):
    from prunery.data import batches

    root, layout = Path(os.environ.get("PRUNERY_DATA", "nowhere")), {"mnist": "MNIST", "cifar10": "cifar-10-batches-py"}
    if not (root / layout[name]).is_dir():
        pytest.skip(f"no {layout[name]} under PRUNERY_DATA")
    monkeypatch.setattr(batches, "COUNTS", dict.fromkeys(batches.CIFAR10.files, 10_000))
    splits = load(Data(name=name, validation=0), root)
    mean, deviation, counts = REAL[name]
    assert splits.mean.tolist() == pytest.approx(mean, abs=6e-5)
    assert splits.deviation.tolist() == pytest.approx(deviation, abs=6e-5)
    assert describe(splits)["per_class"]["train"] == counts
    assert len(splits.test) == 10_000
