"""Figures as files: there, well formed, and the same bytes each time."""

from itertools import combinations
from xml.etree import ElementTree

import pytest

from prunery.report import write_figures
from prunery.report.figures import _curves, _front, _path, front, path_figure
from prunery.report.records import gather
from prunery.runs import Runs
from prunery.spec import Data, Factorise, Init, Model, Node, Refused, Reset, Shrink, Train

NAMES = [
    f"{figure}.{kind}"
    for figure in ("curves", "layers", "accuracy_density", "accuracy_score")
    for kind in ("svg", "png")
]


def test_are_written(steps, tmp_path):
    paths = write_figures(steps, tmp_path / "figures")
    assert [p.name for p in paths] == NAMES
    for path in paths:
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
        else:
            assert path.read_bytes().startswith(b"\x89PNG")


def test_are_the_same_bytes_each_time(steps, tmp_path):
    one, two = (write_figures(steps, tmp_path / name) for name in ("one", "two"))
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]


def test_a_path_of_the_score_game_names_its_stages_and_its_numbers(tmp_path):
    stages = [("32 bits", 0.29, 0.911, 0.003), ("8 bits", 0.073, 0.91, 0.003), ("half", 0.067, 0.9, 0.003)]
    figure = _path(stages)
    figure.canvas.draw()
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.texts] == ["32 bits", "8 bits", "half"]
    low, high = axis.get_xlim()
    assert [t.get_text() for t in axis.get_xticklabels() if low < t.get_position()[0] < high] == ["0.1", "0.2"]
    assert [path.name for path in path_figure(stages, tmp_path / "figures")] == ["path.svg", "path.png"]


def test_names_of_stages_with_one_score_do_not_touch():
    stages = [("half", 0.047, 0.8752, 0.003), ("low rank", 0.0224, 0.8637, 0.003), ("distilled", 0.0224, 0.8651, 0.003)]
    figure = _path(stages)
    figure.canvas.draw()
    boxes = {text.get_text(): text.get_window_extent() for text in figure.axes[0].texts}
    assert set(boxes) == {"half", "low rank", "distilled"}
    assert not any(one.overlaps(two) for one, two in combinations(boxes.values(), 2))
    assert boxes["distilled"].y0 > boxes["low rank"].y1, "names are as high as their points"


def test_as_many_stages_as_you_like_on_one_point_are_all_named():
    figure = _path([(str(i), 0.05, 0.9, 0.003) for i in range(9)])
    assert sorted(text.get_text() for text in figure.axes[0].texts) == [str(i) for i in range(9)]


def test_nothing_to_show_is_left_out(tmp_path, fake):
    init = fake.make(Runs(tmp_path), Node(Init()), fake.numbers(0.1), layers=[])
    assert write_figures([init], tmp_path / "figures") == []


def test_any_name_can_be_drawn(tmp_path, fake):
    runs, init = Runs(tmp_path), Node(Init(model=Model(name="$\\frac{")))
    layers = [{"name": name, "density": 0.5} for name in ("$\\frac{", "層", "<&>", "\x07")]
    step = fake.make(runs, Node(Train(epochs=1), init), fake.numbers(0.9), layers=layers)
    assert [p.name for p in write_figures([step], tmp_path / "figures")] == NAMES


def test_a_place_that_cannot_be_written_is_refused(steps, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="cannot be written"):
        write_figures(steps, tmp_path / "file")


def test_front_keeps_what_no_other_beats():
    assert front([(0.1, 0.9), (0.1, 0.8), (0.3, 0.85), (0.5, 0.95), (1.0, 0.95)]) == [(0.1, 0.9), (0.5, 0.95)]


def test_curves_of_other_data_have_axes_of_their_own(tmp_path, fake):
    both = gather(fake.tree(tmp_path) + fake.tree(tmp_path, Data(name="mnist"), "lenet5"))
    for draw, panels in ((_curves, 8), (_front, 2)):
        axes = [axis for axis in draw(both).axes if axis.lines]
        assert len(axes) == panels
        assert sum("lenet5 on mnist" in axis.get_title("center") for axis in axes) == panels // 2


@pytest.mark.parametrize("spec", [Shrink(), Factorise(), Reset()], ids=lambda s: s.kind)
def test_every_kind_of_step_has_a_mark(spec, tmp_path, fake):
    step = fake.make(Runs(tmp_path), Node(spec, Node(Init())), fake.numbers(0.9))
    assert "accuracy_density.png" in [p.name for p in write_figures([step], tmp_path / "figures")]
