"""The page as a file: whole, self-contained, and deaf to what names try to say."""

import json
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from prunery.report import More, measured, write_report
from prunery.report.palette import DARK, LIGHT, SURFACES
from prunery.report.records import gather
from prunery.runs import Runs, Step
from prunery.spec import Data, Init, Lottery, Model, Node, Refused, Train, recipe

HOSTILE = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>\u2028{{data}}&amp;"


class Blocks(HTMLParser):
    """The tags of a page and the JSON inside it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.data: dict[str, dict] = {}
        self.open = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open = dict(attrs).get("id", "") if dict(attrs).get("type") == "application/json" else ""

    def handle_data(self, text):
        if self.open:
            self.data[self.open] = json.loads(text)
            self.open = ""


@pytest.fixture(scope="module")
def text(steps, tmp_path_factory) -> str:
    return write_report(steps, tmp_path_factory.mktemp("page") / "page.html").read_text(encoding="utf-8")


def test_holds_every_step_with_its_conditions(text, steps):
    data = Blocks(text).data
    assert {s["name"] for s in data["data"]["steps"]} == {s.name for s in steps}
    assert all(f"step-{i}" in data for i in range(len(steps)))
    conditions = dict(data["data"]["conditions"]["A"])
    assert {"processor", "cores", "python", "prunery"} <= conditions.keys()
    for step, row in ((s, r) for s in steps for r in data["data"]["steps"] if s.name == r["name"]):
        assert row["accuracy"] == step.result.get("test", {}).get("accuracy")


def test_asks_nothing_of_the_network(text):
    tags = Blocks(text).tags
    links = [v for _, attrs in tags for k, v in attrs.items() if k in ("src", "href", "data", "action")]
    assert all(v.startswith(("#", "data:,")) for v in links)
    assert not re.search(
        r"@import|url\(|\bfetch\(|XMLHttpRequest|innerHTML|insertAdjacentHTML|document\.write|\beval\(", text
    )
    policy = next(attrs["content"] for tag, attrs in tags if tag == "meta" and "http-equiv" in attrs)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_says_what_was_found(text):
    assert "With 10.0\u202f% of its weights, convnet gets 98.33\u202f% of the digits test images right" in text
    assert "with all of them, 98.61\u202f%" in text


def test_steps_bring_their_ancestors(steps, tmp_path):
    last = steps[-1]
    names = [r.name for r in gather([last]).records]
    assert names == [s.name for s in last.chain()]
    assert [r.role for r in gather([last]).records] == ["init", "train", "prune", "finetune", "quantize", "pack"]


def test_recipe_of_a_chain_names_the_same_steps(steps):
    for record in gather(steps).records:
        if record.kind != "init":
            nodes = recipe(tomllib.loads(record.recipe)).nodes()
            assert list(nodes.values())[-1].name == record.name


def test_hostile_names_stay_text(tmp_path, fake):
    runs, layer = Runs(tmp_path / "runs"), {"name": HOSTILE, "type": HOSTILE, "shape": [1], "density": 0.5}
    init = Node(Init(model=Model(name=HOSTILE)))
    train = Node(Train(data=Data(name=f"folder:{HOSTILE}"), epochs=1), init)
    made = [fake.make(runs, init, fake.numbers(0.1)), fake.make(runs, train, fake.numbers(0.9), layers=[layer])]
    text = write_report(made, tmp_path / "page.html", title=HOSTILE).read_text(encoding="utf-8")
    found = Blocks(text)
    more = ("claims", "lotteries", "times", "pictures")
    ids = ["data", *(f"{name}-data" for name in more), "step-0", "step-1", None]
    assert [attrs.get("id") for tag, attrs in found.tags if tag == "script"] == ids
    assert not any(tag == "img" for tag, _ in found.tags)
    assert found.data["step-1"]["layers"][0]["name"] == HOSTILE
    assert {s["network"] for s in found.data["data"]["steps"]} == {HOSTILE}


def test_a_lost_parent_is_said(tmp_path, fake):
    made = fake.tree(tmp_path / "runs")
    for name in ("env.json", "spec.toml", "result.json"):
        (made[0].folder / name).unlink()
    first = gather([Step(made[1].folder)]).records[0]
    assert (first.parent, first.missing, first.recipe) == (None, made[0].name, "")


def test_a_diverged_run_leaves_gaps(tmp_path, fake):
    made = fake.tree(tmp_path / "runs")
    with open(made[1].folder / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 133, "train_loss": NaN, "lr": 1.0}\n')
    record = next(r for r in gather(made).records if r.name == made[1].name)
    assert record.curve["step"][-1] == 133
    assert record.curve["train_loss"][-1] is None
    write_report(made, tmp_path / "page.html")


def test_the_last_rounds_sensitivity_is_shown(tmp_path, fake):
    curve = lambda rise: [{"name": "conv1.weight", "rises": [[0.5, rise], [0.15, None]]}]  # noqa: E731
    rounds = [{"density": 0.5, "layers": curve(0.1)}, {"density": 0.1, "layers": curve(0.25)}]
    made = fake.make(Runs(tmp_path), Node(Train(), Node(Init())), fake.numbers(0.9), sensitivity=rounds)
    found = gather([made]).records[0].sensitivity
    assert found == {
        "rounds": 2,
        "density": 0.1,
        "layers": [{"name": "conv1.weight", "rises": [[0.5, 0.25], [0.15, None]]}],
    }


def test_no_steps_is_refused(tmp_path):
    with pytest.raises(Refused, match="no steps to report"):
        write_report([], tmp_path / "page.html")


def test_a_lottery_makes_a_page_by_itself(tmp_path):
    results = Path(__file__).parents[2] / "results"
    for more in (More(*measured(None, [results / "lottery_conv2_cifar10"])), More(*measured(results, []))):
        text = write_report([], tmp_path / "page.html", more=more).read_text(encoding="utf-8")
        data = Blocks(text).data
        assert (data["data"]["steps"], data["data"]["current"]) == ([], None)
        assert [found["name"] for found in data["lotteries-data"]] == [found["name"] for found in more.lotteries]
        assert len(data["claims-data"]) == len(more.claims)
        assert "no steps of chains are shown" in text
        assert "±" not in text.partition("<noscript>")[0].partition("<body>")[2]


def test_the_networks_of_a_lottery_are_no_steps(tmp_path, fake):
    step = fake.make(Runs(tmp_path / "lottery"), Node(Lottery()), fake.numbers(0.9))
    with pytest.raises(Refused, match=r"lottery holds the networks of a lottery, .* expected the folder of runs above"):
        write_report([step], tmp_path / "page.html")


def test_a_place_that_cannot_be_written_is_refused(steps, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "none" / "page.html", tmp_path / "file" / "page.html", tmp_path):
        with pytest.raises(Refused, match=r"cannot be written|is a folder; expected .*/report\.html"):
            write_report(steps, out)


BROKEN = {
    "not JSON": ("result.json", "{", "cannot be read"),
    "not a table": ("result.json", "[]", "expected a table"),
    "a text for a number": ("result.json", '{"density": "0.1"}', 'density = "0.1" is not allowed; expected a number'),
    "true for a number": ("result.json", '{"bytes": true}', "bytes = true is not allowed; expected a whole number"),
    "a number for a table": ("result.json", '{"test": 1}', "test = 1 is not allowed; expected a table"),
    "deep inside": ("result.json", '{"test": {"accuracy": []}}', "test.accuracy = "),
    "a layer without a name": ("result.json", '{"layers": [{}]}', r"layers\[0\].name is missing"),
    "a layer that is none": ("result.json", '{"layers": [3]}', r"layers\[0\] = 3 is not allowed"),
    "a wrong row": ("metrics.jsonl", '{"step": 1}\n{"step": "two"}\n', 'line 2: step = "two"'),
    "a row that is no table": ("metrics.jsonl", "7\n", "line 1: "),
    "a curve that is none": (
        "result.json",
        '{"sensitivity": [{"layers": [{"name": "a", "rises": [[1]]}]}]}',
        r"rises = \[\[",
    ),
    "a curve of no layer": (
        "result.json",
        '{"sensitivity": [{"layers": [{"rises": []}]}]}',
        r"layers\[0\].name is missing",
    ),
    "no spec": ("spec.toml", "kind = ", "spec.toml cannot be read"),
    "a parent elsewhere": ("env.json", '{"parent": "../../etc"}', 'parent = "../../etc" is not allowed'),
}


@pytest.mark.parametrize("name", BROKEN)
def test_wrong_values_are_refused_with_file_and_field(name, tmp_path, fake):
    file, content, words = BROKEN[name]
    step = fake.tree(tmp_path / "runs")[1]
    (step.folder / file).write_text(content)
    with pytest.raises(Refused, match=words) as refusal:
        gather([Step(step.folder)])
    assert file in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_circle_of_parents_is_refused(tmp_path, fake):
    made = fake.tree(tmp_path / "runs")
    env = made[0].env | {"parent": made[1].name}
    (made[0].folder / "env.json").write_text(json.dumps(env))
    with pytest.raises(Refused, match="in a circle"):
        gather([Step(made[1].folder)])


def test_many_rows_are_thinned_and_said(tmp_path, fake):
    runs = Runs(tmp_path)
    init = Node(Init())
    made = fake.make(runs, Node(Train(epochs=200), init), fake.numbers(0.9))
    record = gather([made]).records[0]
    assert record.every == 4
    assert len(record.curve["step"]) < 900
    assert record.curve["step"][-1] == 2200


def test_reports_without_torch(steps, tmp_path):
    code = (
        "import sys; from pathlib import Path; from prunery.runs import Runs; from prunery.report import *\n"
        "out = Path(sys.argv[2]); steps = Runs(sys.argv[1]).steps()\n"
        "write_report(steps, out / 'page.html'); write_figures(steps, out)\n"
        "assert len(steps) == 10 and 'torch' not in sys.modules, sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(steps[0].folder.parent), str(tmp_path)], check=True)


# --- colours ----------------------------------------------------------------------------------------------------------


def _luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """As WCAG counts it."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("side", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["paper", "panel", "sunk"])
def test_text_and_lines_can_be_seen(side, ground):
    behind = SURFACES[ground][side]
    assert min(contrast(SURFACES[k][side], behind) for k in ("ink", "soft", "good", "bad")) >= 4.5
    assert min(contrast(color, behind) for color in (LIGHT, DARK)[side]) >= 3


def test_a_setting_of_one_step_is_not_said_of_all():
    from prunery.report.records import _common, _settings
    from prunery.spec import Data, Init, Train

    specs = [Init(seed=1), Train(seed=3, data=Data(flip=True)), Train(data=Data(flip=True))]
    assert _common(specs, [_settings(s) for s in specs]) == [["data.flip", "true"]]
    alike = [Init(seed=3), Train(seed=3)]
    assert _common(alike, [_settings(s) for s in alike]) == [["seed", "3"]]
