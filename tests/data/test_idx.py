"""MNIST's files: read where they lie, refused by name where they are not what they should be."""

import gzip
import shutil

import pytest
import torch

from prunery.data import load
from prunery.spec import Data, Refused

SPEC = Data(name="mnist", validation=4)
RAW = "MNIST/raw"
FILE = "train-images-idx3-ubyte"
LABELS = "t10k-labels-idx1-ubyte"


@pytest.mark.parametrize("place", [RAW, "mnist", "mnist/MNIST/raw", "."])
@pytest.mark.parametrize("packed", [False, True])
def test_read_wherever_it_may_lie(place, packed, tmp_path, lay):
    folder = lay.idx(tmp_path / place)
    if packed:
        for path in list(folder.glob("*ubyte")):
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    splits = load(SPEC, tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (16, 4, 20)


def test_pixels_and_labels_are_those_in_the_file(tmp_path, lay):
    folder = lay.idx(tmp_path / RAW)
    splits = load(SPEC, tmp_path)
    assert bytes(splits.test.x.numpy()) == (folder / "t10k-images-idx3-ubyte").read_bytes()[16:]
    assert torch.equal(splits.test.y, torch.arange(20) % 10)


def test_bare_files_are_fashion_only_where_the_folder_says_so(tmp_path, lay):
    lay.idx(tmp_path / "Fashion")
    load(Data(name="fashion_mnist", validation=4), tmp_path / "Fashion")
    with pytest.raises(Refused, match="mnist: train-images-idx3-ubyte is not in"):
        load(SPEC, tmp_path / "Fashion")


def cut(data):
    return data[:-1]


def grown(data):
    return data + b"\0"


SPOILT = {
    "truncated": (FILE, cut, "truncated"),
    "trailing": (FILE, grown, "followed by something else"),
    "half a header": (FILE, lambda d: d[:9], "begins with 00 00 08 03"),
    "no bytes": (LABELS, lambda d: b"", "begins with nothing"),
    "magic": (FILE, lambda d: b"\0\0\x0d\x03" + d[4:], "begins with 00 00 0d 03"),
    "labels for images": (LABELS, lambda d: b"\0\0\x08\x03" + d[4:], "begins with 00 00 08 03"),
    "huge": (FILE, lambda d: d[:4] + b"\xff" * 12 + d[16:], "truncated"),
    "no images": (FILE, lambda d: d[:4] + bytes(12), "empty"),
    "label": (LABELS, lambda d: d[:-1] + b"\x0a", "the label 10"),
    "fewer labels": (LABELS, lambda d: d[:7] + b"\x05" + d[8:13], "5 labels for the 20 images"),
    "other size": (FILE, lambda d: d[:8] + b"\0\0\0\x0e\0\0\0\x38" + d[16:], "images of 14x56"),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_spoilt_file_is_refused_by_name(fault, tmp_path, lay):
    name, spoil, words = SPOILT[fault]
    path = lay.idx(tmp_path / RAW) / name
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(Refused, match=words) as refusal:
        load(SPEC, tmp_path)
    assert str(path) in str(refusal.value)
    assert "again" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_part_of_the_set_does_not_pass_for_the_whole(tmp_path, lay):
    lay.idx(tmp_path / RAW, lay.n // 2)
    with pytest.raises(Refused, match=f"{FILE} holds {lay.n // 2} images; expected the published {lay.n}"):
        load(SPEC, tmp_path)


@pytest.mark.parametrize("length", [0, 5, 30, -9])
def test_a_half_downloaded_gz_is_refused_by_name(length, tmp_path, lay):
    path = lay.idx(tmp_path / RAW) / FILE
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes())[:length])
    path.unlink()
    with pytest.raises(Refused, match=f"{FILE}.gz"):
        load(SPEC, tmp_path)


def test_a_missing_file_is_refused_by_name_and_not_fetched_over_the_others(tmp_path, lay):
    (lay.idx(tmp_path / RAW) / LABELS).unlink()
    with pytest.raises(Refused, match=f"{LABELS} is missing: 3 of 4 files of mnist"):
        load(SPEC, tmp_path)


def test_without_files_and_network_one_line_says_what_to_do(tmp_path):
    with pytest.raises(Refused, match=r"mnist: train-images.*no route to host.*lay the published files") as refusal:
        load(SPEC, tmp_path / "new")
    assert str(tmp_path / "new" / RAW) in str(refusal.value)
    assert not list((tmp_path / "new").glob("**/.fetch*"))


def test_a_download_lands_whole(tmp_path, lay, monkeypatch):
    from torchvision import datasets

    asked = []

    def fetch(folder, download):
        asked.append(folder)
        print("progress")
        lay.idx(tmp_path / folder / RAW)

    monkeypatch.setattr(datasets, "MNIST", fetch)
    load(SPEC, tmp_path)
    load(SPEC, tmp_path)
    assert len(asked) == 1
    assert len(list((tmp_path / RAW).iterdir())) == 4
    shutil.rmtree(tmp_path / "MNIST")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".prunery"]


def test_a_root_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="fetching it failed"):
        load(SPEC, tmp_path / "file")
