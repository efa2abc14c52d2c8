"""The cache: used while its source is as it was, remade for any doubt, never in the way."""

import os

import pytest
import torch

from prunery.data import batches, idx, load
from prunery.runs import read_tensors, write_tensors
from prunery.spec import Data

SPEC = Data(name="mnist", validation=0)


@pytest.fixture
def root(tmp_path, lay):
    lay.idx(tmp_path / "root" / idx.MNIST.folder)
    return tmp_path / "root"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "prunery"


@pytest.fixture
def reads(monkeypatch):
    """How often the source was decoded."""
    calls, read = [], idx.read

    def counted(*args):
        calls.append(args)
        return read(*args)

    monkeypatch.setattr(idx, "read", counted)
    return calls


def only(folder):
    (file,) = folder.glob("*.safetensors")
    return file


def same(one, other):
    return all(torch.equal(getattr(one, p).x, getattr(other, p).x) for p in ("train", "test"))


def test_decoded_once(root, reads):
    first, second = load(SPEC, root), load(SPEC, root)
    assert same(first, second)
    assert torch.equal(first.mean, second.mean)
    assert len(reads) == 1
    assert [p.name for p in (root / ".prunery").iterdir()] == [only(root / ".prunery").name]


def test_a_changed_source_is_read_again(root, reads):
    load(SPEC, root)
    file = root / idx.MNIST.folder / idx.FILES[0]
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    load(SPEC, root)
    assert len(reads) == 2


SPOIL = {
    "truncated": lambda d: d[:-10],
    "empty": lambda d: b"",
    "garbage": lambda d: b"\xff" * 100,
    "a flipped bit": lambda d: d[:-1000] + bytes([d[-1000] ^ 1]) + d[-999:],
}


@pytest.mark.parametrize("fault", SPOIL)
def test_a_corrupt_cache_is_remade(fault, root, reads):
    first = load(SPEC, root)
    file = only(root / ".prunery")
    whole = file.read_bytes()
    file.write_bytes(SPOIL[fault](whole))
    assert same(load(SPEC, root), first)
    assert len(reads) == 2
    assert file.read_bytes() == whole


WRONG = {
    "label": lambda t: {**t, "test.y": t["test.y"] + 9},
    "kind": lambda t: {**t, "train.x": t["train.x"].float()},
    "count": lambda t: {**t, "train.x": t["train.x"][1:]},
    "shape": lambda t: {**t, "test.x": t["test.x"][:, :, 1:]},
    "moments": lambda t: {**t, "mean": t["mean"] * float("nan")},
    "missing": lambda t: {k: v for k, v in t.items() if k != "train.y"},
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_cache_with_a_right_sum_and_wrong_content_is_remade(fault, root, reads, monkeypatch):
    load(SPEC, root)
    file = only(root / ".prunery")
    tensors, about = read_tensors(file)
    monkeypatch.setattr("prunery.data.cache._sum", lambda tensors: about["sum"])
    write_tensors(file, WRONG[fault](tensors), about)
    assert load(SPEC, root).train.x.dtype == torch.uint8
    assert len(reads) == 2


def test_in_the_users_cache_where_the_root_cannot_be_written(root, home, reads):
    (root / ".prunery").write_text("a file in the way")
    assert same(load(SPEC, root), load(SPEC, root))
    assert len(reads) == 1
    assert only(home).name.startswith("mnist-")


def test_nowhere_to_write_is_no_reason_to_fail(root, home, reads):
    (root / ".prunery").write_text("")
    home.parent.write_text("")
    assert same(load(SPEC, root), load(SPEC, root))
    assert len(reads) == 2


def test_other_sets_sides_and_roots_have_their_own(root, tmp_path, home, lay):
    path = lay.folder(tmp_path / "pets")
    for resize in (0, 6):
        load(Data(name=f"folder:{path}", resize=resize), root)
        load(Data(name=f"folder:{path}", resize=resize), tmp_path / "nowhere")
    load(SPEC, root)
    assert len(list((root / ".prunery").iterdir())) == 3
    assert len(list(home.iterdir())) == 2


def test_a_root_that_is_not_there_is_not_made(tmp_path, lay):
    load(Data(name=f"folder:{lay.folder(tmp_path / 'pets')}"), tmp_path / "data")
    load(Data(), tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_digits_need_none(root, home):
    load(Data(), root)
    assert not (root / ".prunery").exists()
    assert not home.exists()


def test_batches_in_an_archive_and_in_a_folder_do_not_mix(tmp_path, lay):
    lay.batches(tmp_path / batches.CIFAR10.folder, batches.CIFAR10)
    first = load(Data(name="cifar10", validation=0), tmp_path)
    lay.batches(tmp_path / batches.CIFAR10.folder, batches.CIFAR10)
    assert not same(first, load(Data(name="cifar10", validation=0), tmp_path))
