"""Pictures of a first layer: what a pixel means, how many there are, and how large they may become."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from prunery.report import Look, draw, gallery
from prunery.report.pictures import KEPT


def look(n=10, channels=3, size=3, images=2, kept=None, maps=6, seed=0):
    rng = np.random.default_rng(seed)
    filters = rng.standard_normal((n, channels, size, size)).astype(np.float32)
    kept = np.ones(filters.shape, bool) if kept is None else kept
    seen = rng.standard_normal((images, n if maps else 0, maps, maps)).astype(np.float32)
    pixels = rng.integers(0, 256, (images, channels, 8, 8), dtype=np.uint8)
    return Look("conv1", filters * kept, kept, seen, pixels, ("cat", "dog")[:images])


def opened(uri):
    kind, _, text = uri.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGBA")).astype(int)


def cell(sheet, i, size=3, across=8):
    top, left = i // across * (size + 1), i % across * (size + 1)
    return sheet[top : top + size, left : left + size]


def test_three_channels_are_red_green_and_blue_and_zero_is_grey():
    given = look()
    given.filters[4] = 0
    drawn = draw(given)
    sheet = opened(drawn["filters"])
    assert sheet.shape == (7, 31, 4)  # eight in a row, with a clear line between
    assert (sheet[3, :, 3] == 0).all()
    assert (cell(sheet, 4)[..., :3] == 128).all()
    largest = np.abs(given.filters).max()
    wanted = np.rint(128 + 127 * given.filters[9].transpose(1, 2, 0) / largest)
    np.testing.assert_allclose(cell(sheet, 9)[..., :3], wanted, atol=1)
    assert drawn["largest"] == pytest.approx(largest)


@pytest.mark.parametrize("channels", [1, 2, 16])
def test_other_channels_are_a_mean_in_grey(channels):
    given = look(channels=channels)
    sheet = cell(opened(draw(given)["filters"]), 0)
    assert (sheet[..., 0] == sheet[..., 1]).all()
    wanted = 128 + 127 * given.filters[0].mean(0) / np.abs(given.filters).max()
    np.testing.assert_allclose(sheet[..., 0], wanted, atol=1)


def test_masks_show_the_share_of_channels_that_is_kept():
    kept = np.ones((10, 3, 3, 3), bool)
    kept[0] = False
    kept[1, :2] = False
    drawn = draw(look(kept=kept))
    sheet = opened(drawn["masks"])
    none, third, whole = (set(cell(sheet, i)[..., 3].ravel()) for i in (0, 1, 2))
    assert (none, whole) == ({28}, {255})
    assert 28 < min(third) == max(third) < 255
    assert tuple(cell(sheet, 2)[0, 0, :3]) == KEPT
    assert (drawn["kept"], drawn["of"], drawn["empty"]) == (int(kept.sum()), 270, 1)


def test_maps_of_an_image_are_on_one_scale():
    given = look()
    drawn = draw(given)
    assert (drawn["shown_maps"], drawn["size"], len(drawn["maps"])) == (8, [6, 6], 2)
    sheet, maps = opened(drawn["maps"][1]), given.maps[1, :8]
    wanted = 255 * (maps[5] - maps.min()) / (maps.max() - maps.min())
    np.testing.assert_allclose(cell(sheet, 5, 6)[..., 0], wanted, atol=1)


def test_a_layer_without_maps_and_a_dead_one_can_be_drawn():
    assert draw(look(maps=0))["maps"] == []
    dead = look(kept=np.zeros((10, 3, 3, 3), bool))
    dead.maps[:] = 0
    drawn = draw(dead)
    assert (drawn["largest"], drawn["kept"], drawn["empty"]) == (0, 0, 10)
    assert (opened(drawn["filters"])[0, 0, :3] == 128).all()


@pytest.mark.filterwarnings("error")
def test_what_is_no_number_is_drawn_as_zero():
    given = look()
    given.filters[2], given.filters[3, 0, 0, 0] = np.nan, np.inf
    given.maps[0, 1], given.maps[1, 0, 0, 0] = np.nan, -np.inf
    drawn = draw(given)
    json.dumps(drawn, allow_nan=False)
    assert (cell(opened(drawn["filters"]), 2)[..., :3] == 128).all()
    assert drawn["largest"] < 10
    assert len(set(cell(opened(drawn["maps"][0]), 0, 6)[..., 0].ravel())) > 5


def test_large_filters_are_fewer():
    drawn = draw(look(n=300, channels=1, size=28, maps=0))
    assert (drawn["shown"], drawn["shape"]) == (20, [300, 1, 28, 28])
    assert draw(look(n=300))["shown"] == 64


def test_images_that_steps_share_are_there_once():
    drawn = draw(look())
    found = gallery([("a", drawn), ("b", draw(look(n=4))), ("c", draw(look(seed=5)))])
    assert len(found["images"]) == 6  # of b other images, as its numbers are drawn in another order
    again = gallery([("a", drawn), ("b", drawn)])
    assert len(again["images"]) == 2
    assert set(again["steps"]["b"]["images"]) == set(again["images"])
    assert not again["full"]


def test_the_page_stays_small(monkeypatch):
    monkeypatch.setattr("prunery.report.pictures.BUDGET", 20_000)
    drawn = [(str(i), draw(look(seed=i))) for i in range(40)]
    found = gallery(drawn)
    assert found["full"]
    assert 1 < len(found["steps"]) < 40
    size = sum(len(p) for s in found["steps"].values() for p in (s["filters"], s["masks"], *s["maps"]))
    assert 10_000 < size + sum(map(len, found["images"].values())) <= 20_000


def test_the_largest_step_is_within_what_the_docs_say():
    drawn = draw(look(n=64, channels=3, size=11, images=4, maps=32))
    assert sum(map(len, [drawn["filters"], drawn["masks"], *drawn["maps"], *drawn["images"]])) < 120_000
