"""Kill -9 at random moments of a run: every resume must end bit-identical to the run that nobody disturbed.

A chain (train, prune, finetune) on the built-in digits is started, killed without warning at a random moment, started
again, and compared file by file: the weights' bytes and the metrics (but for their clock times).
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from claim import arguments, claim, columns, finish

RECIPE = """
[data]
name = "digits"
flip = true
crop = 1
[model]
name = "lenet_300_100"
[[step]]
kind = "train"
epochs = 40
batch = 32
optimizer = "adam"
lr = 0.002
ema = 0.9
mixup = 0.2
[[step]]
kind = "prune"
density = 0.2
[[step]]
kind = "train"
label = "finetune"
epochs = 20
batch = 32
lr = 0.02
keep = "best"
"""


def main() -> None:
    asked = arguments(__doc__, kills="0")
    kills = int(asked.kills) or (1 if asked.quick else 30)
    text = RECIPE.replace("epochs = 40", "epochs = 10").replace("epochs = 20", "epochs = 5") if asked.quick else RECIPE
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.toml"
        recipe.write_text(text)
        process = start(recipe, Path(folder) / "undisturbed")
        whole = begun(Path(folder) / "undisturbed", process, process.wait)
        wanted = contents(Path(folder) / "undisturbed")
        tries = [disturbed(recipe, Path(folder) / f"run{i}", rng.uniform(0, 1) * whole) for i in range(kills)]
        equal = [contents(Path(folder) / f"run{i}") == wanted for i in range(kills)]
    rows = [["killed", "of", "steps whole then", "inside a step"]]
    rows += [[f"{t['at']:.1f} s", f"{whole:.1f} s", t["whole"], t["inside"]] for t in tries]
    inside = sum(t["inside"] != "" for t in tries)
    about = "runs that were killed with -9 and ended bit-identical after a resume"
    share = sum(equal) / kills
    spread = f"{sum(equal)} of {kills}; {inside} killed inside a training step"
    finish(
        [claim(about, share, "share", spread, kills, 1.0, share == 1.0 and len(wanted) == 4)],
        columns(rows),
        asked,
        text,
    )


def start(recipe: Path, runs: Path) -> subprocess.Popen:
    words = ["run", str(recipe), "--runs", str(runs), "--threads", "1", "--checkpoint-seconds", "0.02", "--quiet"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-m", "prunery", *words], start_new_session=True, **quiet)


def begun(runs: Path, process: subprocess.Popen, then: Callable[[], object]) -> float:
    """Wait until the first training step writes its first row, do something, and tell how long that took."""
    while not list(runs.glob(".work/train-*/metrics.jsonl")) and not list(runs.glob("train-*")):
        if process.poll():
            raise SystemExit("the run failed before its first row")
        time.sleep(0.002)
    started = time.perf_counter()
    then()
    return time.perf_counter() - started


def disturbed(recipe: Path, runs: Path, after: float) -> dict:
    """Start, kill so many seconds into the training, look at what is there, start again to the end."""
    process = start(recipe, runs)
    begun(runs, process, lambda: time.sleep(after))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = [p.parent.name for p in runs.glob("*/env.json")]
    checkpoints = [p.parent.name for p in runs.glob(".work/*/checkpoint.safetensors")]
    if start(recipe, runs).wait() != 0:
        raise SystemExit(f"the resumed run in {runs} failed")
    return {"at": after, "whole": len(finished), "inside": checkpoints[0] if checkpoints else ""}


def contents(runs: Path) -> dict[str, tuple[bytes, list]]:
    """Every finished step: its weights' bytes, and its metrics without the clock."""
    return {p.parent.name: (p.read_bytes(), rows(p.parent)) for p in sorted(runs.glob("*-*/weights.safetensors"))}


def rows(step: Path) -> list[dict]:
    path = step / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


if __name__ == "__main__":
    main()
