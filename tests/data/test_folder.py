"""Folders of images: what is found, what is converted, and one refusal for each thing that can be wrong."""

from shutil import copyfile

import numpy as np
import pytest
import torch
from PIL import Image

from prunery.data import checksum, facts, load
from prunery.spec import Data, Refused


def spec(path, **more):
    return Data(name=f"folder:{path}", validation=0, **more)


def test_one_folder_gives_a_fifth_of_each_class_to_the_test(tmp_path, lay):
    splits = load(spec(lay.folder(tmp_path / "pets")), tmp_path)
    assert splits.facts.classes == ("ant", "bee", "cat")
    assert torch.bincount(splits.train.y).tolist() == [8, 8, 8]
    assert torch.bincount(splits.test.y).tolist() == [2, 2, 2]


def test_train_and_test_folders_are_kept_apart(tmp_path, lay):
    lay.folder(tmp_path / "pets/train", 5)
    lay.folder(tmp_path / "pets/test", 3, ("bee", "cat"))
    splits = load(spec(tmp_path / "pets"), tmp_path)
    assert torch.bincount(splits.train.y).tolist() == [5, 5, 5]
    assert torch.bincount(splits.test.y, minlength=3).tolist() == [0, 3, 3]


def test_pixels_are_those_in_the_files(tmp_path, lay):
    path = lay.folder(tmp_path / "train", 1).parent
    lay.folder(path / "test", 1)
    splits = load(spec(path), tmp_path)
    for label, name in enumerate(splits.facts.classes):
        pixels = np.array(Image.open(path / "test" / name / "000.png"))
        assert torch.equal(splits.test.x[label], torch.from_numpy(pixels).permute(2, 0, 1))


def test_grey_only_if_all_are_grey(tmp_path, lay):
    path = lay.folder(tmp_path / "pets", mode="L")
    assert facts(spec(path), tmp_path).shape == (1, 8, 8)
    Image.new("RGB", (8, 8), (1, 2, 3)).save(path / "ant" / "red.png")
    splits = load(spec(path), tmp_path)
    assert splits.facts.shape == (3, 8, 8)
    grey = (splits.train.x == splits.train.x[:, :1]).flatten(1).all(1)
    assert grey.sum() >= len(grey) - 1


@pytest.mark.parametrize("mode", ["1", "P", "RGBA", "LA", "CMYK", "YCbCr"])
def test_other_kinds_of_pixels_are_converted(mode, tmp_path, lay):
    path = lay.folder(tmp_path / "pets")
    suffix = "jpg" if mode in ("CMYK", "YCbCr") else "png"
    Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode).save(path / "ant" / f"x.{suffix}")
    assert facts(spec(path), tmp_path).shape == (3, 8, 8)


def test_sideways_photographs_are_turned(tmp_path, lay):
    path = lay.folder(tmp_path / "pets")
    exif = Image.Exif()
    exif[0x0112] = 6
    for file in (path / "ant").iterdir():
        Image.new("RGB", (4, 6)).save(file, exif=exif)
    with pytest.raises(Refused, match=r"000\.png has 8x8 pixels, .*000\.png 6x4"):
        load(spec(path), tmp_path)


def test_resize_brings_all_to_one_size(tmp_path, lay):
    path = lay.folder(tmp_path / "pets")
    Image.new("RGB", (30, 20), (9, 8, 7)).save(path / "cat" / "large.png")
    with pytest.raises(Refused, match=r"large\.png has 30x20 pixels, .*000\.png 8x8; set data\.resize"):
        load(spec(path), tmp_path)
    splits = load(spec(path, resize=16), tmp_path)
    assert splits.facts.shape == tuple(splits.train.x.shape[1:]) == (3, 16, 16)
    assert load(spec(path, resize=4), tmp_path).facts.shape == (3, 4, 4)


def test_hidden_and_other_files_are_passed_over(tmp_path, lay):
    path = lay.folder(tmp_path / "pets")
    (path / "ant" / "notes.txt").write_text("notes")
    (path / "ant" / "._000.png").write_bytes(b"")
    (path / ".cache").mkdir()
    (path / "ant" / "more").mkdir()
    (path / "ant" / "000.png").rename(path / "ant" / "more" / "000.png")
    assert len(load(spec(path), tmp_path).train) == 24


def test_hidden_folders_within_a_class_are_passed_over(tmp_path, lay):
    path = lay.folder(tmp_path / ".pets")  # where the images lie may itself be hidden
    seal = checksum(spec(path), tmp_path)
    for name in ("ant/.@__thumb", "bee/more/.thumbs/small"):
        (path / name).mkdir(parents=True)
        copyfile(path / "ant" / "000.png", path / name / "t0.png")
    assert len(load(spec(path), tmp_path).train) == 24
    assert checksum(spec(path), tmp_path) == seal


def test_images_that_are_not_those_of_the_checksum_are_refused(tmp_path, lay):
    path = lay.folder(tmp_path / "pets")
    sealed = spec(path, sha256=checksum(spec(path), tmp_path))
    assert len(load(sealed, tmp_path).train) == 24
    Image.new("RGB", (8, 8), (1, 2, 3)).save(path / "ant" / "000.png")
    with pytest.raises(Refused, match=f"pets have changed: their SHA-256 is not {sealed.sha256}"):
        load(sealed, tmp_path)
    assert len(load(spec(path), tmp_path).train) == 24


def spoil_empty_class(path):
    (path / "dog").mkdir()
    return "dog has no images"


def spoil_text(path):
    (path / "bee" / "bad.png").write_text("not an image")
    return r"bee/bad\.png cannot be read as an image \(cannot identify"


def spoil_truncated(path):
    file = path / "bee" / "005.png"
    file.write_bytes(file.read_bytes()[:120])
    return r"bee/005\.png cannot be read as an image"


def spoil_16_bit(path):
    Image.fromarray(np.full((8, 8), 60000, np.uint16)).save(path / "bee" / "deep.png")
    return r"bee/deep\.png has pixels of kind I;16"


def spoil_transparent(path):
    Image.new("RGBA", (8, 8), (1, 2, 3, 100)).save(path / "bee" / "glass.png")
    return r"bee/glass\.png has transparent pixels"


def spoil_palette(path):
    Image.new("P", (8, 8), 0).save(path / "bee" / "glass.png", transparency=0)
    return r"bee/glass\.png has transparent pixels"


SPOIL = [
    spoil_empty_class, spoil_text, spoil_truncated, spoil_16_bit, spoil_transparent, spoil_palette,
]  # fmt: skip


@pytest.mark.parametrize("spoil", SPOIL)
def test_what_is_wrong_inside_is_refused_by_name(spoil, tmp_path, lay):
    path = lay.folder(tmp_path / "pets")
    words = spoil(path)
    with pytest.raises(Refused, match=words) as refusal:
        load(spec(path), tmp_path)
    assert "\n" not in str(refusal.value)


def test_an_image_too_large_to_be_one_is_refused_before_it_is_decoded(tmp_path, lay, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = lay.folder(tmp_path / "pets")
    for side in (12, 20):  # Pillow warns of the first and refuses the second
        Image.new("L", (side, side)).save(path / "bee" / "bomb.png")
        with pytest.raises(Refused, match=r"bee/bomb\.png cannot be read as an image \(Image size"):
            load(spec(path), tmp_path)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ([], "pets is not a folder"),
        (["pets"], "pets has 0 sub-folders; expected one per class"),
        (["pets/ant"], "pets has 1 sub-folders"),
        (["pets/ant", "pets/bee"], "ant has no images"),
        (["pets/train/ant", "pets/train/bee"], "pets has train and nothing beside it"),
        (["pets/train/ant", "pets/test/ant"], "train has 1 sub-folders"),
    ],
)
def test_a_folder_that_is_no_set_is_refused(made, words, tmp_path):
    for name in made:
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(Refused, match=words):
        load(spec(tmp_path / "pets"), tmp_path)


def test_the_test_folder_must_have_known_classes_and_images(tmp_path, lay):
    lay.folder(tmp_path / "pets/train", 2)
    (tmp_path / "pets/test").mkdir()
    with pytest.raises(Refused, match="test is empty"):
        load(spec(tmp_path / "pets"), tmp_path)
    lay.folder(tmp_path / "pets/test", 2, ("dog",))
    with pytest.raises(Refused, match="dog is a class that train does not have"):
        load(spec(tmp_path / "pets"), tmp_path)


def test_one_image_a_class_leaves_nothing_to_test(tmp_path, lay):
    with pytest.raises(Refused, match="has no test images"):
        load(spec(lay.folder(tmp_path / "pets", 1)), tmp_path)


def test_a_class_folder_that_may_not_be_opened(tmp_path, lay, monkeypatch):
    path = lay.folder(tmp_path / "pets")

    def closed(*_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("prunery.data.folder._inside", closed)
    with pytest.raises(Refused, match="pets cannot be read: Permission denied"):
        load(spec(path), tmp_path)
