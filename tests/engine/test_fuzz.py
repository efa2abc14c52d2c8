"""Spoilt files, many a second: the reader refuses or accepts, and never leaves the file's bytes.

The harness is built with the sanitizers. By default it is the reader alone, for some seconds; PRUNERY_FUZZ=20000 adds
the kernels, which take minutes to build, and that many mutations with every instruction set that runs here.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prunery import native
from prunery.engine.file import write

sys.path.insert(0, str(Path(__file__).parent))
from nets import NETS

ENGINE = Path(native.__file__).parent / "engine"
SANITIZED = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-O1", "-g", "-ffp-contract=fast"]
SANITIZED += ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"]
V3 = ["-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2", "-mlzcnt"]
FLAGS = {
    "baseline": [],
    "v3": V3,
    "v4": [*V3, "-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"],
    "neon": [],
}
MANY = int(os.environ.get("PRUNERY_FUZZ", 0))


@pytest.fixture(scope="module")
def compiler(tmp_path_factory):
    """The command of a compiler whose sanitizers work here."""
    named = shlex.split(os.environ.get("CXX", ""))
    found = next((c for c in [named, ["c++"], ["g++"], ["clang++"]] if c and shutil.which(c[0])), None)
    if found is None:
        pytest.skip("there is no C++ compiler here")
    trial = tmp_path_factory.mktemp("trial") / "trial"
    trial.with_suffix(".cpp").write_text("int main() {}")
    built = subprocess.run([*found, *SANITIZED, f"{trial}.cpp", "-o", trial], capture_output=True, check=False)
    if built.returncode or subprocess.run([trial], capture_output=True, check=False).returncode:
        pytest.skip(f"{found[0]} has no working -fsanitize=address,undefined here")
    return found


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    for name, (make, values) in NETS.items():
        (folder / f"{name}.prunery").write_bytes(write(make(), {"net": name}, values))
    return folder


def build(compiler, folder, sources, flags=()):
    """The harness, linked with these files of the engine."""

    def compiled(source):
        target = folder / f"{Path(source).name}.o"
        command = [*compiler, *SANITIZED, *flags, "-c", ENGINE / source, "-o", target]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return target

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        parts = list(threads.map(compiled, ["fuzz/fuzz.cpp", *sources]))
    subprocess.run([*compiler, *SANITIZED, *parts, "-o", folder / "fuzz"], check=True)
    return folder / "fuzz"


def campaign(harness, seeds, iterations):
    """The fates of mutations, counted; a finding fails with the sanitizer's words and leaves crash.prunery."""
    command = [harness, seeds, str(iterations), "1"]
    done = subprocess.run(command, cwd=harness.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{harness.parent}/crash.prunery:\n{done.stderr[-5000:]}"
    words = re.search(r"(\d+) accepted, (\d+) refused, (\d+) ran", done.stdout)
    assert words, done.stdout
    return [int(count) for count in words.groups()]


def test_the_reader_stays_within_the_file(compiler, seeds, tmp_path):
    accepted, refused, _ = campaign(build(compiler, tmp_path, ["reader.cpp"]), seeds, 20000)
    assert accepted > 2000
    assert refused > 10000


@pytest.mark.skipif(not MANY, reason="takes minutes: PRUNERY_FUZZ=20000 runs it")
@pytest.mark.parametrize("isa", native.available())
def test_the_kernels_stay_within_their_memory_and_agree(isa, compiler, seeds, tmp_path):
    sources = sorted(path.name for path in ENGINE.glob("*.cpp") if path.name != "run.cpp")
    harness = build(compiler, tmp_path, sources, ["-DPRUNERY_FUZZ_RUN", *FLAGS[isa]])
    assert campaign(harness, seeds, MANY)[2] > MANY / 10
