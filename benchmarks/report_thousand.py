"""1,000 runs: how long it takes to list them, to write their report, and until a browser shows it first.

250 chains of four steps (init, train, prune, finetune), each with a history of 200 rows and eight layers, are laid by
the real store. Listing is what `prunery runs` does with them (read every step, filter, sort), in a process that is
running; beside it the whole command, Python's start included. The page needs Debian's chromium and chromium-driver; its
first paint is what the browser's own clock says from the start of the navigation, with the file in the page cache.
"""

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from claim import arguments, claim, columns, finish
from selenium import webdriver

from prunery.listing import listing
from prunery.report import write_report
from prunery.runs import Runs, Step, Work
from prunery.spec import Data, Init, Model, Node, Prune, Train

CHAINS, HISTORY, LAYERS = 250, 200, 8
DRAWN = "return document.body.dataset.drawn === 'all'"
PAINT = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"


def result(accuracy: float, density: float) -> dict[str, Any]:
    """What a small network's step leaves."""
    layer = {"type": "Conv2d", "shape": [16, 16, 3, 3], "output": [1, 16, 8, 8], "parameters": 2320, "prunable": 2304}
    work = {"kept": round(2304 * density), "density": density, "multiply_adds": 147_456}
    layers = [
        layer | work | {"name": f"block{i}.conv", "kept_multiply_adds": round(147_456 * density)} for i in range(LAYERS)
    ]
    error = math.sqrt(accuracy * (1 - accuracy) / 10_000)
    test = {"accuracy": accuracy, "standard_error": error, "n": 10_000, "loss": 0.3}
    sums = {"parameters": 18_560, "kept_parameters": round(18_560 * density), "bytes": round(74_240 * density)}
    adds = {"multiply_adds": 1_179_648, "kept_multiply_adds": round(1_179_648 * density)}
    return {"test": test, "density": density, "layers": layers, **sums, **adds}


def lay(runs: Runs, node: Node, accuracy: float, density: float) -> Step:
    def make(work: Work) -> None:
        rows = range(1, HISTORY + 1) if isinstance(node.spec, Train) else ()
        for i in rows:
            falls = math.exp(-4 * i / HISTORY)
            looks = {"val_loss": 0.3 + 2 * falls, "val_accuracy": accuracy * (1 - falls)} if i % 10 == 0 else {}
            work.log({"step": i, "lr": 0.1, "train_loss": 0.2 + 2.1 * falls, "seconds": i / 10, **looks})
        work.result(result(accuracy, density))

    return runs.once(node, make)


def thousand(folder: Path) -> list[Step]:
    """All chains."""
    runs, data, steps = Runs(folder), Data(name="digits"), []
    for i in range(CHAINS):
        density = 0.02 + 0.96 * (i % 50) / 50
        init = Node(Init(model=Model(name="convnet", input=(1, 8, 8), classes=10), seed=i))
        dense = Node(Train(data=data, epochs=4, seed=i), init)
        prune = Node(Prune(data=data, density=density), dense)
        tune = Node(Train(data=data, epochs=2, seed=i), prune)
        best = 0.99 - 0.1 * (1 - density) ** 8 - 0.0001 * (i % 7)
        told = ((init, 0.1, 1.0), (dense, 0.99, 1.0), (prune, best / 2, density), (tune, best, density))
        steps += [lay(runs, *each) for each in told]
    return steps


WHERE, SORT = "accuracy > 0.9 and density < 0.3", "-accuracy"


def listed(folder: Path) -> tuple[float, float]:
    """Seconds to read, filter and sort all runs, and those of the whole command."""
    began = time.perf_counter()
    found = listing(folder).where(WHERE).sorted(SORT)
    inside = time.perf_counter() - began
    words = ["runs", "--runs", str(folder), "--where", WHERE, "--sort", SORT, "--json"]
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *own(), "-m", "prunery", *words], capture_output=True, text=True, check=True)
    whole = time.perf_counter() - began
    told = json.loads(done.stdout)
    assert (len(told["steps"]), told["of"]) == (len(found.rows), 4 * CHAINS)
    assert found.rows
    return inside, whole


def own() -> list[str]:
    """The interpreter's own options, for another like this one."""
    return ["-S"] if sys.flags.no_site else []


def browser() -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1280,900"):
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))


def opened(driver: webdriver.Chrome, page: Path) -> tuple[float, float]:
    """Milliseconds to the first picture, and to the end of drawing as seen from here."""
    began = time.perf_counter()
    driver.get(page.as_uri())
    while not driver.execute_script(DRAWN):
        time.sleep(0.01)
    whole = 1000 * (time.perf_counter() - began)
    while (paint := driver.execute_script(PAINT)) is None:
        time.sleep(0.01)
    return paint, whole


def main() -> None:
    asked = arguments(__doc__.split("\n", 1)[0])
    turns = 3 if asked.quick else 9
    with tempfile.TemporaryDirectory() as folder:
        steps, page = thousand(Path(folder) / "runs"), Path(folder) / "page.html"
        writes = []
        for _ in range(2 if asked.quick else 5):
            began = time.perf_counter()
            write_report(steps, page)
            writes.append(time.perf_counter() - began)
        lists = [listed(Path(folder) / "runs") for _ in range(turns + 1)][1:]
        driver = browser()
        try:
            found = [opened(driver, page) for _ in range(turns + 1)][1:]
            rows = len(driver.find_elements("css selector", "[role=treeitem]"))
            told = driver.execute_script("return STEPS.length")
        finally:
            driver.quit()
        size = page.stat().st_size
    assert told == len(steps) == 4 * CHAINS, (told, len(steps))
    assert 0 < rows < 200, rows
    paints, wholes = ([each[k] for each in found] for k in (0, 1))
    paint, write = statistics.median(paints), statistics.median(writes)
    spread = f"{min(paints):.0f} to {max(paints):.0f}"
    inside, command = ([each[k] for each in lists] for k in (0, 1))
    reads = statistics.median(inside)
    scatter = f"{min(inside):.2f} to {max(inside):.2f}"
    claims = [
        claim("first paint of a report of 1,000 runs", paint, "ms", spread, turns, "below 1000", paint < 1000),
        claim("1,000 runs listed, filtered and sorted", reads, "s", scatter, turns, "below 0.5", reads < 0.5),
        claim(
            "the same as a command, Python's start included",
            statistics.median(command),
            "s",
            f"{min(command):.2f} to {max(command):.2f}",
            turns,
            "reported",
            True,
        ),
        claim("the whole page is drawn", statistics.median(wholes), "ms", None, turns, "reported", True),
        claim("writing it", write, "s", f"{min(writes):.2f} to {max(writes):.2f}", len(writes), "reported", True),
        claim("its size", size / 1e6, "MB", None, 1, "reported", True),
    ]
    table = columns([["", "median", "least", "most"], ["first paint, ms", paint, min(paints), max(paints)],
                     ["all drawn, ms", statistics.median(wholes), min(wholes), max(wholes)],
                     ["listed, s", reads, min(inside), max(inside)],
                     ["the command, s", statistics.median(command), min(command), max(command)],
                     ["written, s", write, min(writes), max(writes)]])  # fmt: skip
    finish(claims, table, asked)


if __name__ == "__main__":
    main()
