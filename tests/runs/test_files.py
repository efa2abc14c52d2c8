"""Names that no file can have, and files of other kinds: one line each, which says what was seen and what to do."""

import os

import pytest
import torch
from safetensors.torch import save_file

from prunery.runs import folder_to_write, read_tensors, to_write, write_file
from prunery.spec import Refused

NAMES = [
    ("{tmp}", "{tmp} is a folder; expected a file's name, such as {tmp}/page.html"),
    (".", ". is a folder; expected a file's name, such as page.html"),
    ("", "is no file's name; expected one such as page.html"),
    ("{tmp}/a\0b", "is no file's name"),
    (
        "{tmp}/none/page.html",
        "{tmp}/none/page.html cannot be written: there is no folder {tmp}/none; make it, or choose",
    ),
    ("{tmp}/file/page.html", "{tmp}/file is a file; expected a folder"),
    ("{tmp}/" + "x" * 256, "its name is 256 bytes long; expected at most 255"),
    ("{tmp}/" + "ä" * 128, "its name is 256 bytes long"),
]


@pytest.mark.parametrize(("name", "words"), NAMES, ids=range(len(NAMES)))
def test_names_that_no_file_can_have(name, words, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Refused) as refused:
        to_write(name.format(tmp=tmp_path), "page.html")
    assert words.format(tmp=tmp_path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", [None, 5, b"page.html"])
def test_other_things_are_no_names(name):
    with pytest.raises(Refused, match="is no file's name; expected one such as"):
        to_write(name)


def test_write_file_refuses_folders_and_takes_the_longest_name(tmp_path):
    for folder in (tmp_path, tmp_path / "..", type(tmp_path)(".")):
        with pytest.raises(Refused, match=r"is a folder; expected a file's name"):
            write_file(folder, b"")
    for name in ("x" * 255, "ä" * 127):
        write_file(tmp_path / name, b"whole")
    assert sorted(os.listdir(tmp_path)) == ["x" * 255, "ä" * 127]


def test_a_folder_is_made_when_asked(tmp_path):
    assert to_write(tmp_path / "a/b/c.onnx", make=True) == tmp_path / "a/b/c.onnx"
    assert (tmp_path / "a/b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match=f"{tmp_path}/file is a file; expected a folder"):
        to_write(tmp_path / "file/c.onnx", make=True)


def test_folders_are_there_or_can_be_made(tmp_path):
    (tmp_path / "file").touch()
    for fine in (tmp_path, tmp_path / "new", tmp_path / "new/below"):
        assert folder_to_write(fine) == fine
    for wrong in ("file", "file/below"):
        with pytest.raises(
            Refused, match=f"{tmp_path}/file is a file; expected a folder's name, such as {tmp_path}/fig"
        ):
            folder_to_write(tmp_path / wrong)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folders_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    try:
        for look in (lambda: to_write(tmp_path / "a"), lambda: folder_to_write(tmp_path / "a")):
            with pytest.raises(Refused, match="read-only for you; choose another"):
                look()
    finally:
        tmp_path.chmod(0o700)


def test_files_of_other_kinds_are_told_by_what_they_are(tmp_path):
    state = {"w": torch.zeros(3)}
    torch.save(state, tmp_path / "a.pt")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save(state, tmp_path / "misnamed.safetensors")
    (tmp_path / "a.prunery").write_bytes(b"\x93PRUNERY and so on")
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 of something else")
    save_file(state, tmp_path / "a.safetensors")
    wrong = {
        "a.pt": ("PyTorch file (torch.save)", "--model FILE", f"--set model.weights={tmp_path}/a.pt", "prunery.load"),
        "old.pth": ("PyTorch file (torch.save)", "--model FILE.py:NAME"),
        "misnamed.safetensors": ("PyTorch file (torch.save)", "prunery.save"),
        "a.prunery": ("is a packed network", f"prunery bench {tmp_path}/a.prunery", "prunery.runtime.load"),
        "a.zip": ("is not a whole safetensors file",),
        "": ("is a folder; expected a .safetensors file",),
    }
    for name, words in wrong.items():
        with pytest.raises(Refused) as refused:
            read_tensors(tmp_path / name)
        assert str(refused.value).startswith(str(tmp_path / name))
        for word in words:
            assert word in str(refused.value)
    assert list(read_tensors(tmp_path / "a.safetensors")[0]) == ["w"]
