"""The page in a real browser: no complaint on its console, and every control does what it says."""

import csv
import io
import itertools
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from prunery.measure import count
from prunery.models import build
from prunery.pruning import kinds
from prunery.report import Look, More, Site, address, draw, gallery, measured, readings, served, write_report
from prunery.report.game import ENTRIES
from prunery.report.page import page as page_text
from prunery.report.records import gather
from prunery.runs import Runs, keep_times
from prunery.spec import Data, Init, Model, Node, Prune, Shrink, Train

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,900",
)  # fmt: skip
NONE = "\u2013"
RESULTS = Path(__file__).parents[2] / "results"
HOSTILE = "folder:</script><img src=x onerror=window.broken=1><!--"

pytestmark = pytest.mark.skipif(
    not (shutil.which(CHROMIUM) and shutil.which(DRIVER)), reason="needs Debian's chromium and chromium-driver"
)


@pytest.fixture(scope="module")
def downloads(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(tmp_path_factory, downloads):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def html(steps, tmp_path_factory) -> Path:
    return write_report(steps, tmp_path_factory.mktemp("page") / "page.html")


@pytest.fixture
def page(browser, html):
    browser.get(html.as_uri())
    yield browser
    assert browser.get_log("browser") == []


def one(page, selector):
    return page.find_element("css selector", selector)


def every(page, selector):
    return page.find_elements("css selector", selector)


def press(page, selector):
    """Scroll there and click."""
    found = one(page, selector)
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", found)
    found.click()


def current(page) -> str:
    return one(page, "[role=treeitem][aria-selected=true] .who").text


def test_tree_shows_all_steps_and_walks_by_keys(page, steps):
    assert len(every(page, "[role=treeitem]")) == len(steps)
    assert current(page).startswith("finetune")
    one(page, "[aria-selected=true]").send_keys("\ue012")  # arrow left: to what it started from
    assert current(page).startswith("prune")
    one(page, "[aria-selected=true]").send_keys("\ue011")  # home
    assert current(page).startswith("init")
    one(page, "[aria-selected=true]").send_keys("\ue014", "\ue015")  # arrow right, arrow down
    assert one(page, "#detail-h").text.startswith(current(page).split()[0])
    assert page.switch_to.active_element.get_attribute("aria-selected") == "true"


def test_pressing_a_step_shows_its_spec_and_conditions(page, steps):
    press(page, "[role=treeitem]:last-child")
    text = one(page, "#detail").text
    assert steps[-1].name in text
    assert 'kind = "pack"' in text
    assert "processor" in text
    assert f"prunery run {steps[-1].name}.toml" in text
    assert one(page, "#layers-of").text.startswith("of pack")
    assert one(page, "#status").get_attribute("textContent").endswith("selected")


def test_space_and_button_plot_a_step(page):
    press(page, "#t-1")
    before = len(every(page, "#legend tbody tr"))
    one(page, "#t-1").send_keys(" ")
    assert one(page, "#t-1").get_attribute("aria-checked") == "true"
    press(page, "#pin")
    assert one(page, "#t-1").get_attribute("aria-checked") == "false"
    press(page, "#t-1 .pin")
    assert one(page, "#t-1").get_attribute("aria-checked") == "true"
    assert len(every(page, "#legend tbody tr")) == before


def test_legend_hides_and_shows_a_curve(page):
    lines = len(every(page, "#panels .line"))
    press(page, ".key")
    assert one(page, ".key").get_attribute("aria-pressed") == "false"
    assert len(every(page, "#panels .line")) < lines
    press(page, ".key")
    assert len(every(page, "#panels .line")) == lines


def test_what_the_network_is_made_of_adds_up(page, steps):
    rows = every(page, "#kinds tbody tr")
    assert rows
    assert len(every(page, "#why dt")) == len(rows), "each kind is explained"
    whole = lambda cell: int("".join(c for c in cell.text if c.isdigit()))  # noqa: E731
    found = sum(whole(row.find_elements("css selector", "td")[1]) for row in rows)
    current = page.execute_script("return more(state.current).layers.map((layer) => layer.parameters)")
    assert found == sum(current)
    press(page, "#made > summary")
    assert not one(page, "#kinds").is_displayed()
    press(page, "#made > summary")
    assert one(page, "#kinds").is_displayed()


def test_all_of_a_dense_network_is_kept_its_biases_too(page, steps):
    press(page, "#t-1")
    assert current(page).startswith("train")
    kept = [row.find_elements("css selector", "td")[3].text for row in every(page, "#kinds tbody tr")]
    assert set(kept) == {"100\u202f%"}
    left = page.execute_script("return keptOf({ parameters: 132, prunable: 128, kept: 0 })")
    assert left == 4, "biases are never pruned"


def test_of_a_shrunk_chain_the_page_tells_both_densities(browser, tmp_path, fake):
    dense = Node(Train(epochs=1), Node(Init()))
    thin = Node(Prune(density=0.4), Node(Shrink(), dense))
    rows = ((dense.parent, 1, 1000), (dense, 1, 1000), (thin.parent, 1, 250), (thin, 0.4, 250))
    layer = {"name": "fc", "shape": [4, 4], "output": [1, 4]}
    made = [
        fake.make(Runs(tmp_path), node, fake.numbers(0.9, d), layers=[layer | {"prunable": n, "parameters": n}])
        for node, d, n in rows
    ]
    browser.get(write_report(made, tmp_path / "page.html").as_uri())
    assert "40.0\u202f%; 10.0\u202f% of the first network\u2019s weights" in one(browser, "#detail").text
    heads = [cell.text for cell in every(browser, "#grid thead th")]
    cells = one(browser, "#grid tbody tr:last-child").find_elements("css selector", "th, td")
    assert [cells[heads.index(name)].text[:4] for name in ("density", "of the first network")] == ["40.0", "10.0"]
    assert "10.0\u202f%" in one(browser, "#scatter svg").get_attribute("aria-label")
    assert browser.get_log("browser") == []


def test_kinds_of_layers_are_those_that_pruning_calls_so(page):
    network, shape = build(Model(name="efficientnet_b0", input=(3, 64, 64), classes=10), 0), (3, 64, 64)
    rows = [r for r in count(network, shape) if r.prunable]
    weights = dict(network.named_parameters())
    layers = [{"shape": list(weights[f"{r.name}.weight"].shape), "output": list(r.output)} for r in rows]
    found = page.execute_script("return arguments[0].map((layer, at) => kindOf(layer, at, arguments[0]))", layers)
    by_name = dict(zip((r.name for r in rows), found, strict=True))
    for kind, names in kinds(network).items():
        assert {n for n, k in by_name.items() if k == kind} == set(names), kind
    assert (
        page.execute_script("return kindOf(arguments[0], 1, [0, 0, 0])", {"shape": [4, 9], "output": [1, 4]})
        == "linear"
    )
    plain = {"shape": [4, 4, 3, 3], "output": [1, 4, 8, 8]}
    assert page.execute_script("return kindOf(arguments[0], 1, [0, 0, 0])", plain) == "convolution"


def test_cursor_reads_the_curves(page):
    read = [cell.text for cell in every(page, "td[data-key]")]
    one(page, "#cursor").send_keys("\ue011")  # home
    assert one(page, "#at").text == "0"
    one(page, "#cursor").send_keys(*["\ue014"] * 20)
    assert one(page, "#at").text == "20"
    assert [cell.text for cell in every(page, "td[data-key]")] != read
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", one(page, "#panels svg"))
    webdriver.ActionChains(page).move_to_element(one(page, "#panels svg")).perform()
    assert one(page, "#at").text not in ("0", "20")


def test_log_and_range_change_the_pictures(page):
    for button, picture in (("#logloss", "#panels"), ("#whole", "#scatter")):
        before = one(page, picture).get_attribute("innerHTML")
        press(page, button)
        assert one(page, button).get_attribute("aria-pressed") == "true"
        assert one(page, picture).get_attribute("innerHTML") != before


def test_cost_can_be_chosen_and_points_pressed(page):
    for value in ("bytes", "work", "score", "density"):
        press(page, f"#cost label:has([value={value}])")
        name = {"work": "multiply-adds"}.get(value, value)
        assert f"against {name}" in one(page, "#scatter svg").get_attribute("aria-label")
        needed = every(page, "#scatter svg [style*='stroke-dasharray: 4']")
        assert len(needed) == (value == "score")
    dots = every(page, "#scatter .dot")
    page.execute_script("arguments[0].dispatchEvent(new MouseEvent('mouseenter'))", dots[0])
    assert "%" in one(page, "#front-note").text
    page.execute_script("arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))", dots[0])
    assert current(page).split()[0] in ("train", "quantize", "pack", "finetune")


def test_what_others_have_published_stands_beside_scores_on_their_images(browser, page, tmp_path, fake):
    press(page, "#cost label:has([value=score])")
    assert not every(page, "#scatter .cross"), "these are other images"
    made = fake.tree(tmp_path / "runs", Data(name="cifar10"), "resnet20")
    browser.get(write_report(made, tmp_path / "page.html").as_uri())
    assert not every(browser, "#scatter .cross")
    press(browser, "#cost label:has([value=score])")
    seen = every(browser, "#scatter .cross")
    assert 0 < len(seen) <= len(ENTRIES)
    browser.execute_script("arguments[0].parentNode.dispatchEvent(new MouseEvent('mouseenter'))", seen[0])
    assert "published by others: " in one(browser, "#front-note").text
    inside = one(browser, "#scatter svg").rect
    assert all(inside["x"] <= dot.rect["x"] <= inside["x"] + inside["width"] for dot in seen)


def test_table_sorts_both_ways(page):
    for direction, reverse in (("descending", True), ("ascending", False)):
        press(page, "#grid th[data-key=accuracy] button")
        assert one(page, "#grid th[data-key=accuracy]").get_attribute("aria-sort") == direction
        cells = [row.text for row in every(page, "#grid tbody td:nth-child(4)")]
        numbers = [float(cell) for cell in cells if cell != NONE]
        assert numbers == sorted(numbers, reverse=reverse)
        assert cells[-1] == NONE
    press(page, "#grid th[data-key=role] button")
    assert one(page, "#grid th[data-key=accuracy]").get_attribute("aria-sort") == "none"


def test_table_filters_and_selects(page, steps):
    one(page, "#filter").send_keys("prune random")
    shown = [row for row in every(page, "#grid tbody tr") if row.is_displayed()]
    assert len(shown) == 1
    press(page, f"#grid [data-step='{shown[0].get_attribute('data-step')}'] .link")
    assert current(page).startswith("prune")


def test_theme_changes_the_ground(page):
    ground = "return getComputedStyle(document.documentElement).backgroundColor"
    before, pressed = page.execute_script(ground), one(page, "#theme").get_attribute("aria-pressed")
    press(page, "#theme")
    assert page.execute_script(ground) != before
    assert one(page, "#theme").get_attribute("aria-pressed") != pressed
    press(page, "#theme")
    assert page.execute_script(ground) == before


@pytest.mark.parametrize(("name", "columns"), [
    ("steps", {"name", "accuracy", "se", "n", "settings", "environment"}),
    ("curves", {"run", "step", "train_loss", "lr"}),
    ("layers", {"run", "name", "kept", "multiply_adds"}),
    ("front", {"run", "density", "accuracy", "standard_error", "n"}),
])  # fmt: skip
def test_data_can_be_taken_along(page, downloads, name, columns):
    press(page, f"[data-csv={name}]")
    rows = list(csv.DictReader(io.StringIO(waited(downloads / f"{name}.csv"))))
    assert rows
    assert columns <= rows[0].keys()


def waited(path: Path) -> str:
    """A download's text, once it is whole."""
    for _ in range(100):
        if path.exists() and path.stat().st_size:
            return path.read_text(encoding="utf-8")
        time.sleep(0.05)
    raise AssertionError(f"{path} never came")


def test_recipe_can_be_saved(page, downloads, steps):
    press(page, "#detail .command + button")
    assert "[[step]]" in waited(
        next(downloads / f"{s.name}.toml" for s in steps if s.name in one(page, "#detail-h").text)
    )


def test_fits_a_phone(page):
    size = {"width": 380, "height": 780, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= 380
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_on_a_phone_every_part_of_the_page_can_be_reached(page):
    size = {"width": 390, "height": 780, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    right = "return Math.max(...[...document.querySelectorAll('nav a')].map((a) => a.getBoundingClientRect().right))"
    cut = """return [...document.querySelectorAll("table")].filter((t) => t.scrollWidth > t.parentElement.clientWidth)
        .filter((t) => !["auto", "scroll"].includes(getComputedStyle(t.parentElement).overflowX)).map((t) => t.id)"""
    try:
        assert page.execute_script(right) <= 390
        assert page.execute_script(cut) == []
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_curves_of_other_data_have_panels_of_their_own(browser, tmp_path, fake):
    made = fake.tree(tmp_path / "runs") + fake.tree(tmp_path / "runs", Data(name="mnist"), "lenet5")
    browser.get(write_report(made, tmp_path / "page.html").as_uri())
    assert browser.get_log("browser") == []
    assert [h.text for h in every(browser, "#panels h3")] == ["convnet on digits", "lenet5 on mnist"]
    panels = [p.get_attribute("aria-label") for p in every(browser, "#panels svg")]
    assert len(panels) == 8
    assert {k.text.rpartition(", ")[2] for k in every(browser, ".key")} == {"convnet on digits", "lenet5 on mnist"}
    # The three ends of the first set and what they share; the other set's are in the other panels.
    assert len(every(browser, "#panels figure:nth-of-type(1) .line")) == 4


def test_a_recipes_labels_stand_in_the_tree(browser, steps, tmp_path):
    labels = {steps[6].name: "chance", steps[7].name: "chance_tuned"}
    browser.get(write_report(steps, tmp_path / "page.html", labels=labels).as_uri())
    names = [row.text.split()[0] for row in every(browser, "[role=treeitem] .who")]
    assert {"chance", "chance_tuned", "finetune", "prune"} <= set(names)
    assert "chance_tuned" in one(browser, "#grid").text


def test_every_control_has_a_name_and_ids_are_unique(page):
    unnamed = """return [...document.querySelectorAll("button, input, select, [role=img], [role=tree], [role=region]")]
        .filter((e) => !["aria-label", "aria-labelledby"].some((name) => e.getAttribute(name)))
        .filter((e) => !e.textContent.trim() && !e.closest("label"))
        .map((e) => e.outerHTML)"""
    assert page.execute_script(unnamed) == []
    ids = page.execute_script("return [...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    levels = page.execute_script(
        "return [...document.querySelectorAll('h1, h2, h3, h4')].map((e) => Number(e.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_hostile_names_are_shown_not_run(browser, tmp_path, fake):
    made = fake.tree(tmp_path / "runs", Data(name=HOSTILE), name=HOSTILE.removeprefix("folder:"))
    browser.get(write_report(made, tmp_path / "page.html", title=HOSTILE).as_uri())
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.broken") is None
    assert HOSTILE in one(browser, "h1").text
    assert HOSTILE in one(browser, "#grid tbody").text


# --- side by side, lottery, claims ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(steps, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "page.html"
    return write_report(steps, out, more=More(*measured(RESULTS, [])))


@pytest.fixture
def full(browser, whole):
    browser.get(whole.as_uri())
    yield browser
    assert browser.get_log("browser") == []


def test_plotted_steps_stand_side_by_side(full):
    heads = [cell.text for cell in every(full, "#compared thead th")]
    settings = one(full, "#compared tbody:last-child").text
    assert len(heads) == 3
    assert "prune: density default 0.3 default" in settings
    assert "train: epochs" not in settings
    press(full, "#alike")
    assert "train: epochs 12 12 12" in one(full, "#compared tbody:last-child").text
    press(full, "#compared .away")
    assert len(every(full, "#compared thead th")) == 2


def test_lottery_draws_arms_bands_and_the_papers_points(full):
    choice = Select(one(full, "#which-lottery"))
    of_lenet = next(option.text for option in choice.options if "lenet" in option.text.lower())
    choice.select_by_visible_text(of_lenet)
    arms = len(every(full, "#arms .key"))
    assert arms >= 4
    assert len(every(full, "#tickets .band")) == len(every(full, "#tickets .line")) == arms
    assert every(full, "#tickets .cross") == []
    before = one(full, "#tickets svg").get_attribute("aria-label")
    press(full, "#metric [value=stop_raw]")
    assert one(full, "#tickets svg").get_attribute("aria-label") != before
    crosses = len(every(full, "#tickets .cross"))
    assert crosses > 20
    press(full, "#arms [data-arm=random]")
    assert len(every(full, "#tickets .band")) == arms - 1
    assert 0 < len(every(full, "#tickets .cross")) < crosses
    drawn = one(full, "#tickets").get_attribute("innerHTML")
    press(full, "#lottery-log")
    assert one(full, "#tickets").get_attribute("innerHTML") != drawn
    assert one(full, "#lottery-claims tbody").text.count("PASS") > 5


def test_a_lottery_makes_a_page_by_itself(browser, tmp_path):
    more = More(*measured(None, [RESULTS / "lottery_conv2_cifar10"]))
    browser.get(write_report([], tmp_path / "page.html", more=more).as_uri())
    assert len(every(browser, "#tickets .line")) == 2
    shown = [part.get_attribute("id") for part in every(browser, "main > section[id]") if part.is_displayed()]
    assert shown == ["lottery"]
    assert [link.text for link in every(browser, "nav a") if link.is_displayed()] == ["Lottery"]
    assert browser.get_log("browser") == []


def test_claims_say_pass_and_miss(full):
    claims = measured(RESULTS, [])[0]
    assert len(every(full, "#promises tbody tr")) == len(claims)
    press(full, "#misses")
    assert len(every(full, "#promises tbody tr")) == sum(not c["passes"] for c in claims)


def test_the_front_may_be_linear(full):
    assert "(log)" in one(full, "#scatter").get_attribute("innerHTML")
    press(full, "#linear")
    assert "(log)" not in one(full, "#scatter").get_attribute("innerHTML")


@pytest.mark.parametrize(("name", "first"), [("compare", ""), ("lottery", "arm"), ("claims", "result")])
def test_their_data_can_be_taken_along(full, downloads, name, first):
    press(full, f"[data-csv={name}]")
    rows = list(csv.reader(io.StringIO(waited(downloads / f"{name}.csv"))))
    assert rows[0][0] == first
    assert len(rows) > 5


# --- milliseconds, sensitivity, the engine's account, pictures --------------------------------------------------------


def deep(step, ms):
    """A timed step with two operations."""
    work = {"name": "conv1", "kernel": "sparse 2x2 tiles, 4 outputs", "density": 0.1, "multiply_adds": 1800.0}
    work |= {"predicted_us": 3.0, "measured_us": 7.5, "bytes": 420, "why": "predicted 3.0 us sparse, 9.0 us dense"}
    free = {"name": "conv1", "kernel": "halo", "density": 1.0, "multiply_adds": 0.0, "why": HOSTILE}
    free |= {"predicted_us": 0.5, "measured_us": 2.5, "bytes": 0}
    more = {"bytes": 999, "same_answer": 0.998, "same_of": 512, "layer_images": 1, "layers": [free, work]}
    return {step.name: {"median_ms": ms, "low_ms": 0.9 * ms, "high_ms": 1.1 * ms, "best_ms": ms} | more}


def kept(steps, root, started, batch, cpu):
    """A reading in which a step is slower the later it was made."""
    about = {"started": started, "batch": batch, "threads": 1, "turns": 9, "repeats": 20, "machine": {"cpu": cpu}}
    rows = [deep(s, batch * (1 + i)) for i, s in enumerate(steps)]
    keep_times(root, about | {"steps": {k: v for row in rows for k, v in row.items()}})


def drawn_look(seed, images=2):
    rng = np.random.default_rng(seed)
    kept = rng.random((12, 3, 3, 3)) < 1 / (1 + seed)
    pixels = np.random.default_rng(9).integers(0, 256, (images, 3, 8, 8), dtype=np.uint8)
    filters = rng.standard_normal(kept.shape).astype(np.float32) * kept
    return draw(Look("conv1", filters, kept, rng.random((images, 12, 6, 6), np.float32), pixels, ("ant", "bee")))


@pytest.fixture(scope="module")
def seen(tmp_path_factory, fake) -> Path:
    """A page whose steps were timed under two sets of conditions, pruned by sensitivity, and looked at."""
    root = tmp_path_factory.mktemp("seen") / "runs"
    steps = fake.tree(root)
    rises = [{"name": f"{n}.weight", "rises": [[0.75, 0.01], [0.5, 0.1], [0.15, r]]} for n, r in SENSED.items()]
    curves = [{"density": 0.2, "layers": rises}]
    cut = Node(Prune(data=Data(name="digits"), density=0.2, scope="sensitivity"), node_of(steps[1]))
    steps.append(fake.make(Runs(root), cut, fake.numbers(0.6, 0.2), sensitivity=curves))
    kept(steps[1:6], root, 1.7e9, 1, "Slow Processor")
    kept(steps[1:9], root, 1.8e9, 8, "Fast Processor")
    looks = gallery((s.name, drawn_look(i)) for i, s in enumerate(steps) if i != 7)
    more = More(times=readings([root], [s.name for s in steps]), pictures=looks)
    return write_report(steps, root.parent / "page.html", more=more)


SENSED = {"conv1": 2.0, "conv2": 0.4, "fc1": None}


def node_of(step):
    return Node(step.spec, step.parent and node_of(step.parent))


@pytest.fixture
def instrument(browser, seen):
    browser.get(seen.as_uri())
    yield browser
    assert browser.get_log("browser") == []


def choose(page, selector, text):
    select = Select(one(page, selector))
    select.select_by_visible_text(next(o.text for o in select.options if text in o.text))


def pick(page, word):
    """Select the first step of a kind, or with a setting."""
    found = f"step.kind === '{word}' || step.settings.some(([, value]) => value === '{word}')"
    page.execute_script(f"select(STEPS.findIndex((step) => {found}))")


def test_accuracy_against_milliseconds_is_of_one_reading_at_a_time(instrument):
    assert not one(instrument, "#which-reading").is_displayed()
    press(instrument, "#cost label:has([value=ms])")
    assert one(instrument, "#which-reading").is_displayed()
    told = lambda: one(instrument, "#scatter svg").get_attribute("aria-label")  # noqa: E731
    assert "against milliseconds, 8 steps, 8 images, 1 thread, Fast Processor" in told()
    assert len(every(instrument, "#scatter .dot")) >= 5
    assert "Fast Processor" in one(instrument, "#front-note").text
    assert "milliseconds of a call, 8 images, 1 thread (log)" in one(instrument, "#scatter").text
    choose(instrument, "#which-reading", "1 image, 1 thread")
    assert "5 steps, 1 image, 1 thread, Slow Processor" in told()
    assert "Fast Processor" not in told()
    dot = one(instrument, "#scatter .dot")
    instrument.execute_script("arguments[0].dispatchEvent(new MouseEvent('mouseenter'))", dot)
    assert "(turns from 0.9" in one(instrument, "#front-note").text.replace("\u202f", " ")
    assert len(every(dot, ".whisker")) == 2
    press(instrument, "#cost label:has([value=density])")
    assert not one(instrument, "#which-reading").is_displayed()
    assert "milliseconds" in one(instrument, "#compared").text


def test_milliseconds_are_taken_along_with_their_conditions(instrument, downloads):
    (downloads / "front.csv").unlink(missing_ok=True)
    press(instrument, "#cost label:has([value=ms])")
    press(instrument, "[data-csv=front]")
    rows = list(csv.DictReader(io.StringIO(waited(downloads / "front.csv"))))
    assert len(rows) == 8
    assert all("Fast Processor" in r["conditions"] and float(r["low"]) < float(r["milliseconds"]) for r in rows)


def test_the_engine_tells_each_layers_kernel(instrument, downloads):
    pick(instrument, "train")
    cells = [[c.text for c in every(r, "th, td")] for r in every(instrument, "#kernels tbody tr")]
    assert cells[1][:3] == ["conv1", "sparse 2x2 tiles, 4 outputs", "10.0\u202f%"]
    assert cells[1][4:6] == ["3.00\u202fµs", "7.50\u202fµs"]
    assert cells[1][-1] == "predicted 3.0 us sparse, 9.0 us dense"
    assert cells[0][-1] == HOSTILE
    assert cells[0][2:4] == ["", ""]
    note = one(instrument, "#engine-note").text
    assert "Fast Processor" in note
    assert "add up to 10.0\u202fµs" in note
    assert "It answers 99.8\u202f% of 512 training images as the step does." in note
    choose(instrument, "#engine .reading", "1 image")
    assert "Slow Processor" in one(instrument, "#engine-note").text
    press(instrument, "[data-csv=engine]")
    rows = list(csv.DictReader(io.StringIO(waited(downloads / "engine.csv"))))
    assert [r["kernel"] for r in rows] == ["halo", "sparse 2x2 tiles, 4 outputs"]
    pick(instrument, "init")
    assert "prunery time init-" in one(instrument, "#kernels").text


def test_what_each_layer_bears_is_drawn_for_a_step_and_those_after_it(instrument, downloads):
    pick(instrument, "train")
    assert not one(instrument, "#sensitivity").is_displayed()
    assert not one(instrument, "#to-sensitivity").is_displayed()
    pick(instrument, "sensitivity")
    labels = [e.get_attribute("aria-label") for e in every(instrument, "#borne svg")]
    assert [text.split(",")[0] for text in labels] == list(SENSED)
    assert "0.1 at 50.0\u202f%, 2 at 15.0\u202f%. Left: " in labels[0]
    assert "15.0" not in labels[2].partition("Left")[0]  # a loss that is no number is a gap
    line = lambda: one(instrument, "#borne figure:nth-child(2) .line").get_attribute("d")  # noqa: E731
    before = line()
    press(instrument, "#own-scales")
    assert one(instrument, "#own-scales").get_attribute("aria-pressed") == "true"
    assert line() != before
    press(instrument, "[data-csv=sensitivity]")
    rows = list(csv.DictReader(io.StringIO(waited(downloads / "sensitivity.csv"))))
    assert (rows[2]["layer"], rows[2]["density"], rows[2]["loss_rise"]) == ("conv1", "0.15", "2")


def test_pictures_stand_before_and_after(instrument):
    pick(instrument, "quantize")
    heads = [e.text for e in every(instrument, "#drawn h3")]
    assert heads[0].startswith("before: finetune")
    assert heads[1].startswith("after: quantize")
    loaded = "return [...document.querySelectorAll('#drawn img')].map((i) => i.complete && i.naturalWidth)"
    WebDriverWait(instrument, 10).until(lambda b: all(b.execute_script(loaded)))
    assert len(instrument.execute_script(loaded)) == 2 * (2 + 2 * 2)
    texts = [e.get_attribute("alt") for e in every(instrument, "#drawn img")]
    assert all(texts)
    assert any(t.startswith("after: masks of conv1, ") and " of 324 weights kept" in t for t in texts)
    masks = lambda: one(instrument, "#drawn img[alt^='before: masks']").get_attribute("src")  # noqa: E731
    before = masks()
    choose(instrument, "#before", "init")
    assert one(instrument, "#drawn h3").text.startswith("before: init")
    assert masks() != before
    pick(instrument, "init")
    assert len(every(instrument, "#drawn h3")) == 1
    assert not one(instrument, "#before").is_displayed()


def test_a_step_without_pictures_says_so(instrument):
    instrument.execute_script("select(STEPS.findIndex((step) => !DRAWN.steps[step.name]))")
    assert "There are no pictures of this step." in one(instrument, "#drawn").text


def test_without_times_and_pictures_their_parts_are_hidden(page):
    for part in ("sensitivity", "engine", "pictures"):
        assert not one(page, f"#{part}").is_displayed()
        assert not one(page, f"#to-{part}").is_displayed()
    assert every(page, "#cost [value=ms]") == []


def test_the_new_parts_fit_a_phone_and_have_names(instrument):
    pick(instrument, "sensitivity")
    unnamed = "return [...document.querySelectorAll('img, select')].filter((e) => !e.alt && !e.ariaLabel).length"
    assert instrument.execute_script(unnamed) == 0
    size = {"width": 380, "height": 780, "deviceScaleFactor": 2, "mobile": True}
    instrument.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert instrument.execute_script("return document.documentElement.scrollWidth") <= 380
    finally:
        instrument.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


# --- many steps, and a served page ------------------------------------------------------------------------------------


def many(steps, times):
    """The same chains again and again under other names."""
    album = gather(steps)
    own = [
        (k, r, None if r.parent is None else r.parent + k * len(album.records))
        for k in range(times)
        for r in album.records
    ]
    records = [replace(r, name=f"{r.name}{k}", short=f"{r.short}{k}", parent=parent) for k, r, parent in own]
    return replace(album, records=records)


def test_a_long_tree_has_in_the_document_what_is_in_sight(browser, steps, tmp_path):
    album, path = many(steps, 30), tmp_path / "page.html"
    path.write_text(page_text(album, "many"), encoding="utf-8")
    browser.get(path.as_uri())
    WebDriverWait(browser, 10).until(lambda b: one(b, "body").get_attribute("data-drawn"))
    assert 10 < len(every(browser, "[role=treeitem]")) < 150
    one(browser, "[aria-selected=true]").send_keys("\ue010")  # end
    assert browser.switch_to.active_element.get_attribute("id") == one(browser, "[aria-selected=true]").get_attribute(
        "id"
    )
    assert one(browser, "[role=treeitem]:last-child").get_attribute("aria-selected") == "true"
    assert len(every(browser, "#grid tbody tr")) == 100
    press(browser, "#more")
    assert len(every(browser, "#grid tbody tr")) == 200
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert len(every(browser, "[role=treeitem]")) == len(every(browser, "#grid tbody tr")) == 300
    assert browser.get_log("browser") == []


def test_a_served_page_shows_what_is_made_and_stays_where_it_was(browser, tmp_path, fake):
    made = fake.tree(tmp_path / "runs")
    work = tmp_path / "runs" / ".work" / "train-0123456789ab"
    work.mkdir()
    (work / "metrics.jsonl").write_text('{"step": 7, "train_loss": 1.5}\n')
    wait = WebDriverWait(browser, 20).until
    with served(Site(tmp_path / "runs")) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            browser.get(address(server))
            wait(lambda b: "train-0123456789ab, step 7, loss 1.5" in one(b, "#live").text)
            press(browser, "#t-1")
            fake.make(
                Runs(tmp_path / "runs"),
                Node(Init(model=Model(name="new", input=(1, 8, 8), classes=10))),
                fake.numbers(0.1),
            )
            wait(lambda b: len(every(b, "[role=treeitem]")) == len(made) + 1)
            wait(lambda b: current(b).startswith("train"))
            assert browser.get_log("browser") == []
        finally:
            browser.get("about:blank")
            server.shutdown()
