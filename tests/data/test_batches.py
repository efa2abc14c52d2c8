"""CIFAR's batches: any order, any protocol; nothing but lists and bytes comes out of a pickle."""

import collections
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch

from prunery.data import batches, load
from prunery.data.files import Blob
from prunery.spec import Data, Refused

SPECS = {"cifar10": batches.CIFAR10, "cifar100": batches.CIFAR100}


def spec(name):
    return Data(name=name, validation=4)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_reads_alike(name, protocol, tmp_path, lay):
    folder = lay.batches(tmp_path / SPECS[name].folder, SPECS[name], protocol=protocol)
    test = load(spec(name), tmp_path).test
    raw = pickle.loads((folder / SPECS[name].files[-1]).read_bytes())
    assert torch.equal(test.x, torch.from_numpy(raw["data"]).view(-1, 3, 32, 32))
    assert test.y.tolist() == raw.get("labels", raw.get("fine_labels"))


def python2(data: np.ndarray, labels: list[int]) -> bytes:
    """As the published files were written: protocol 2, keys and pixels as Python 2's byte strings."""

    def text(b: bytes) -> bytes:
        return b"T" + len(b).to_bytes(4, "little") + b

    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    dtype = (
        b"cnumpy\ndtype\n"
        + text(b"u1")
        + b"K\x00K\x01\x87R(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    shape = b"M" + data.shape[0].to_bytes(2, "little") + b"M" + data.shape[1].to_bytes(2, "little") + b"\x86"
    state = b"(K\x01" + shape + dtype + b"\x89" + text(data.tobytes()) + b"tb"
    items = b"](" + b"".join(b"K" + bytes([i]) for i in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + state + text(b"labels") + items + b"u."


def test_the_published_python_2_pickles(tmp_path, lay):
    raw = lay.batch(20, 10, "labels")
    found = batches.batch(Blob(tmp_path / "b", python2(raw["data"], raw["labels"])), 20, 10)
    assert torch.equal(found.x.view(20, -1), torch.from_numpy(raw["data"]))
    assert found.y.tolist() == raw["labels"]


def test_columns_first_in_memory_is_the_same_array(tmp_path, lay):
    raw = lay.batch(20, 10, "labels")
    columns = {**raw, "data": np.asfortranarray(raw["data"])}
    for protocol in (2, 5):
        found = batches.batch(Blob(tmp_path / "b", pickle.dumps(columns, protocol)), 20, 10)
        assert torch.equal(found.x.view(20, -1), torch.from_numpy(raw["data"]))


def test_the_order_of_files_is_that_of_their_names(tmp_path, lay):
    folder = lay.batches(tmp_path / "cifar-10-batches-py", batches.CIFAR10)
    parts = [pickle.loads((folder / f"data_batch_{i}").read_bytes())["data"] for i in range(1, 6)]
    splits = load(Data(name="cifar10", validation=0), tmp_path)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(42))
    assert torch.equal(splits.train.x.view(100, -1), torch.from_numpy(np.concatenate(parts))[order])


@pytest.mark.parametrize("place", [".", "cifar10", "cifar10/cifar-10-batches-py"])
def test_read_wherever_it_may_lie(place, tmp_path, lay):
    lay.batches(tmp_path / place, batches.CIFAR10)
    assert len(load(spec("cifar10"), tmp_path).train) == 96


def pack(root, layout):
    with tarfile.open(root / layout.archive, "w:gz") as tar:
        tar.add(root / layout.folder, layout.folder)
    for path in (root / layout.folder).iterdir():
        path.unlink()
    return root / layout.archive


@pytest.mark.parametrize("name", SPECS)
def test_the_archive_itself_will_do(name, tmp_path, lay):
    folder = lay.batches(tmp_path / SPECS[name].folder, SPECS[name])
    raw = pickle.loads((folder / SPECS[name].files[-1]).read_bytes())
    pack(tmp_path, SPECS[name])
    assert torch.equal(load(spec(name), tmp_path).test.x.view(20, -1), torch.from_numpy(raw["data"]))


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.99])
def test_a_half_downloaded_archive_is_refused_by_name(share, tmp_path, lay):
    lay.batches(tmp_path / batches.CIFAR10.folder, batches.CIFAR10)
    path = pack(tmp_path, batches.CIFAR10)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(Refused, match=r"cifar-10-python\.tar\.gz.*damaged"):
        load(spec("cifar10"), tmp_path)


def test_an_archive_without_a_batch_is_refused(tmp_path, lay):
    (lay.batches(tmp_path / batches.CIFAR10.folder, batches.CIFAR10) / "test_batch").unlink()
    pack(tmp_path, batches.CIFAR10)
    with pytest.raises(Refused, match=r"cifar-10-python\.tar\.gz is damaged \(it has no test_batch\)"):
        load(spec("cifar10"), tmp_path)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


SPOILT = {
    "truncated": lambda d: pickle.dumps(d)[:-100],
    "empty": lambda d: b"",
    "no pickle": lambda d: b"<html>not found</html>",
    "trailing": lambda d: pickle.dumps(d) + b"\0",
    "a program": lambda d: pickle.dumps({**d, "labels": Evil()}),
    "another class": lambda d: pickle.dumps(collections.OrderedDict(d)),
    "a list": lambda d: pickle.dumps(list(d)),
    "no data": lambda d: pickle.dumps({"labels": d["labels"]}),
    "no labels": lambda d: pickle.dumps({"data": d["data"]}),
    "label too large": lambda d: pickle.dumps({**d, "labels": [10, *d["labels"][1:]]}),
    "label below zero": lambda d: pickle.dumps({**d, "labels": [-1, *d["labels"][1:]]}),
    "label of text": lambda d: pickle.dumps({**d, "labels": ["1", *d["labels"][1:]]}),
    "fewer labels": lambda d: pickle.dumps({**d, "labels": d["labels"][1:]}),
    "fewer images": lambda d: pickle.dumps({"data": d["data"][1:], "labels": d["labels"][1:]}),
    "floats": lambda d: pickle.dumps({**d, "data": d["data"].astype(np.float32)}),
    "narrow": lambda d: pickle.dumps({**d, "data": d["data"][:, :3071].copy()}),
    "objects": lambda d: pickle.dumps({**d, "data": np.array([None] * 3072, dtype=object).reshape(1, -1)}),
    "bytes for an array": lambda d: pickle.dumps({**d, "data": d["data"].tobytes()}),
    "array without content": lambda d: (
        b"\x80\x02}(X\x04\x00\x00\x00datacnumpy\nndarray\n)\x81X\x06\x00\x00\x00labels](K\x00eu."
    ),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_spoilt_batch_is_refused_by_name(fault, tmp_path, lay, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = lay.batches(tmp_path / batches.CIFAR10.folder, batches.CIFAR10) / "data_batch_3"
    path.write_bytes(SPOILT[fault](lay.batch(20, 10, "labels")))
    with pytest.raises(Refused) as refusal:
        load(spec("cifar10"), tmp_path)
    assert str(path) in str(refusal.value)
    assert "again" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "evil").exists()


def test_any_flipped_byte_is_read_or_refused(tmp_path, lay, known):
    whole = pickle.dumps(lay.batch(3, 10, "labels"), protocol=2)
    interesting = [i for i in range(len(whole)) if i < 150 or i > len(whole) - 150]
    for i in interesting:
        spoilt = bytearray(whole)
        spoilt[i] ^= int(torch.randint(1, 256, (1,), generator=known))
        try:
            found = batches.batch(Blob(tmp_path / "b", bytes(spoilt)), 3, 10)
        except Refused:
            continue
        assert found.x.shape == (3, 3, 32, 32)


def test_a_missing_batch_is_refused_by_name(tmp_path, lay):
    (lay.batches(tmp_path / batches.CIFAR10.folder, batches.CIFAR10) / "data_batch_2").unlink()
    with pytest.raises(Refused, match="data_batch_2 is missing: 5 of 6 files of cifar10"):
        load(spec("cifar10"), tmp_path)


@pytest.mark.parametrize("name", SPECS)
def test_without_files_and_network_one_line_names_the_archive(name, tmp_path):
    with pytest.raises(Refused, match=f"{name}: .*{SPECS[name].archive}"):
        load(spec(name), tmp_path)
