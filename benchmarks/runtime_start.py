"""The start of a program that only runs a packed network: import, load, first answer; and how much it needs on disk.

ResNet-18 (CIFAR) with all its weights and with a tenth, each time in a fresh process in which torch cannot be imported.
The process measures itself: numpy, which a program that has images to show has imported anyway, then
`import prunery.runtime`, then `load`, which maps the file, checks every byte of it and packs the weights for this
processor, then the first image. ONNX Runtime does the same with the same networks, where it is installed. The files
are in the page cache: a disk would add its own time.
"""

import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
import torch
from claim import arguments, claim, columns, finish, turns
from contest import network, prunable, pruned

from prunery.engine import pack, to_onnx

LIMIT_MS = 100
SHAPE = (3, 32, 32)
CLOCK = """
import json, sys, time
sys.modules["torch"] = None
start = time.perf_counter()
import numpy
numbers = time.perf_counter()
{imports}
imported = time.perf_counter()
{load}
loaded = time.perf_counter()
answer = {answer}
done = time.perf_counter()
moments = (start, numbers, imported, loaded, done)
print(json.dumps([1000 * (b - a) for a, b in zip(moments, moments[1:])]), answer.sum())
"""
OURS = {
    "imports": "import prunery.runtime",
    "load": "net = prunery.runtime.load({file!r}, threads=1)",
    "answer": "net(numpy.ones((1, 3, 32, 32), numpy.float32))",
}
THEIRS = {
    "imports": "import onnxruntime",
    "load": "o = onnxruntime.SessionOptions(); o.intra_op_num_threads = 1\n"
    "net = onnxruntime.InferenceSession({file!r}, o, providers=['CPUExecutionProvider'])",
    "answer": "net.run(None, {{net.get_inputs()[0].name: numpy.ones((1, 3, 32, 32), numpy.float32)}})[0]",
}


def main() -> None:
    asked = arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        programs = dict(made(Path(folder), quick=asked.quick))
        found = turns({n: lambda n=n: started(programs[n]) for n in programs}, 3 if asked.quick else 15)
    rows = [["program", "numpy ms", "import ms", "load ms", "first image ms", "import + load ms", "with numpy ms"]]
    together = {}
    for name, each in found.items():
        medians = [median(column) for column in zip(*each, strict=True)]
        together[name] = [import_ + load for _, import_, load, _ in each]
        rows.append([name, *medians, median(together[name]), median(sum(parts[:3]) for parts in each)])
    sizes = needed()
    table = columns(rows) + "\n\n" + columns([["on disk", "MB"], *([n, b / 1e6] for n, b in sizes.items())])
    claims = [started_in_time(n, ms) for n, ms in together.items() if n.startswith("prunery")]
    finish(claims, table, asked)


def made(folder: Path, quick: bool):
    """Programs that start a network, each with its file."""
    for density in (0.1,) if quick else (0.1, 1.0):
        net = network("resnet18", SHAPE)
        pruned(prunable(net), density, "magnitude")
        example = torch.randn(1, *SHAPE)
        ours = folder / f"{density}.prunery"
        pack(net, example).save(ours)
        yield f"prunery, {density:.0%} of the weights", program(OURS, ours)
        if find_spec("onnxruntime") and find_spec("onnx"):
            theirs = folder / f"{density}.onnx"
            to_onnx(net, example, theirs)
            yield f"onnxruntime, {density:.0%}", program(THEIRS, theirs)


def program(parts: dict[str, str], file: Path) -> str:
    return CLOCK.format(**{name: text.format(file=str(file)) for name, text in parts.items()})


def started(text: str) -> list[float]:
    """What a fresh process says of its own start."""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.rpartition("]")[0] + "]")


def started_in_time(name: str, ms: list[float]):
    spread = f"{min(ms):.3g} to {max(ms):.3g}"
    text = f"{name}: import and load of ResNet-18 in a fresh process that has numpy"
    return claim(text, median(ms), "ms", spread, len(ms), f"below {LIMIT_MS}", median(ms) < LIMIT_MS)


def needed() -> dict[str, int]:
    """What must be installed to run packed files, and what need not."""
    house = Path(find_spec("prunery").origin).parent
    native = [f for place in find_spec("prunery.native").submodule_search_locations for f in Path(place).glob("*.so")]
    python = [house / name for name in ("__init__.py", "refused.py", "runtime.py", "native/__init__.py")]
    numpy = Path(np.__file__).parent
    libraries = numpy.parent / "numpy.libs"
    return {
        "prunery.runtime and what it imports of ours": sum(f.stat().st_size for f in python),
        f"compiled library, {len(native)} instruction sets": sum(f.stat().st_size for f in native),
        "numpy": sum(f.stat().st_size for place in (numpy, libraries) for f in place.rglob("*") if f.is_file()),
    }


if __name__ == "__main__":
    main()
