"""Sets of the hub, with a stand-in for the package that loads them."""

import sys

import pytest
from PIL import Image

from prunery.data import load
from prunery.spec import Data, Refused

SPEC = Data(name="hf:some/set", validation=4)


def test_train_and_test_splits(hub, tmp_path):
    splits = load(SPEC, tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (16, 4, 6)
    assert splits.facts.classes == ("no", "yes")
    assert splits.test.x[:, 0, 0, 0].tolist() == list(range(6))
    assert splits.test.y.tolist() == [0, 1] * 3


def test_validation_stands_in_for_test_and_a_fifth_for_neither(hub, tmp_path, lay):
    hub["some/set"] = {"train": lay.Part(20), "validation": lay.Part(7)}
    assert len(load(SPEC, tmp_path).test) == 7
    hub["some/set"] = {"train": lay.Part(20)}
    assert len(load(SPEC, tmp_path).test) == 4


def test_a_new_fingerprint_is_read_again(hub, tmp_path, lay):
    assert len(load(SPEC, tmp_path).train) == 16
    hub["some/set"]["train"] = lay.Part(30)
    assert len(load(SPEC, tmp_path).train) == 26


def test_resized_while_decoding(hub, tmp_path):
    hub["some/set"]["train"][3]["picture"] = Image.new("RGB", (20, 10))
    with pytest.raises(Refused, match="hf:some/set: image 3 has 20x10 pixels"):
        load(SPEC, tmp_path)
    assert load(Data(name="hf:some/set", validation=4, resize=6), tmp_path).facts.shape == (3, 6, 6)


def test_without_the_package_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(Refused, match=r"install datasets: .*pip install "):
        load(SPEC, tmp_path)


def test_a_set_that_cannot_be_loaded(hub, tmp_path):
    with pytest.raises(Refused, match="hf:other cannot be loaded: 'other'"):
        load(Data(name="hf:other"), tmp_path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda s: s.update(training=s.pop("train")), "has the splits test, training; expected one called train"),
        (lambda s: s["train"].features.pop("answer"), "has the columns id, picture; expected one of images"),
        (lambda s: s["test"][0].update(answer=-1), "has the label -1; expected 0 to 1"),
        (lambda s: s["test"][0].update(answer=None), "has the label None"),
        (lambda s: s["train"][2].update(picture=None), "image 2 cannot be read as an image"),
    ],
)
def test_what_is_wrong_is_refused(spoil, words, hub, tmp_path):
    spoil(hub["some/set"])
    with pytest.raises(Refused, match=words):
        load(SPEC, tmp_path)
