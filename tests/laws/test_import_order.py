"""The order of the rooms: each may import only what stands above it.

Relative and absolute imports count alike, and so do those inside functions and those for type checkers only.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import prunery

PACKAGE = Path(prunery.__file__).parent

RUNTIME = "run time"  # the half of the engine that runs without torch: engine/runtime*.py and runtime.py
PUBLIC = "prunery"  # the package's own __init__.py, which re-exports from everywhere

ORDER = [
    {"refused"},
    {"spec"},
    {"arguments", "masks", "native"},
    {"runs"},
    {"data", "models", "pruning", "quantize", "listing"},
    {"train"},
    {RUNTIME},
    {"engine"},
    {"measure"},
    {"chain"},
    {"workbench", "compare"},
    {"tickets"},
    {"search", "report", "sweep"},
    {"cli"},
    {"__main__"},
]
ROOMS = set().union(*ORDER)
# Stricter than the order: the run time and the report work without torch, and training gets its masks as tensors.
ONLY = {
    PUBLIC: ROOMS | {PUBLIC, "torch"},
    "refused": {"refused"},
    "native": {"native", "refused"},
    RUNTIME: {"native", "refused", RUNTIME},
    "report": {"spec", "runs", "report"},
    "listing": {"spec", "runs", "listing"},
}
NEVER = {"train": {"pruning"}}
TORCH = {"torch", "torchvision", "timm", "torch_pruning"}
NAMELESS = {"util", "utils", "helper", "helpers", "common", "base", "core"}


def room_of(module):
    """The room that a dotted name below `prunery` lies in."""
    parts = module.split(".")[1:]
    if parts[:1] == ["runtime"] or (parts[:1] == ["engine"] and parts[1:] and parts[1].startswith("runtime")):
        return RUNTIME
    return parts[0] if parts else PUBLIC


def allowed(room):
    """The rooms, and "torch", that a room may import."""
    if room in ONLY:
        return ONLY[room]
    level = next(number for number, rooms in enumerate(ORDER) if room in rooms)
    return {room, "torch"}.union(*ORDER[:level]) - NEVER.get(room, set())


def module_name(path, package=PACKAGE):
    parts = ["prunery", *path.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(source, module, is_package):
    """The dotted names that a module's source imports, at any depth; `from a import b` counts as a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = absolute(node, module, is_package)
            yield from (f"{origin}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            if called in ("import_module", "__import__"):
                yield str(node.args[0].value)


def absolute(node, module, is_package):
    """The absolute module that a `from ... import` names."""
    if not node.level:
        return node.module
    steps_up = node.level - 1 if is_package else node.level
    parent = module.split(".")[: len(module.split(".")) - steps_up]
    return ".".join([*parent, node.module] if node.module else parent)


def target_of(imported):
    """The room (or "torch") that an import reaches; None for the rest of the world."""
    top, _, rest = imported.partition(".")
    if top != "prunery":
        return "torch" if top in TORCH else None
    if rest.startswith("__"):  # from prunery import __version__
        return None
    room = room_of(imported)
    return room if room in ROOMS else PUBLIC


def violations(source, module, is_package=False):
    """What a module imports against the order, one line each."""
    room = room_of(module)
    if room not in ROOMS | {PUBLIC}:
        return [f"{module} is in no room of the order: add {room} to ORDER, or move it"]
    reached = [(name, target_of(name)) for name in imported_modules(source, module, is_package)]
    return [f"{module} imports {name}" for name, target in reached if target and target not in allowed(room)]


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_go_upward(path):
    assert violations(path.read_text(), module_name(path), path.name == "__init__.py") == []


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_every_name_says_something(path):
    assert NAMELESS.isdisjoint(module_name(path).split("."))


WRONG = [
    ("prunery.refused", "import torch"),
    ("prunery.refused", "from .spec import quote"),
    ("prunery.spec", "import prunery.runs"),
    ("prunery.spec.steps", "from ..masks import ones"),
    ("prunery.masks", "from . import native"),
    ("prunery.native", "from prunery import masks"),
    ("prunery.native", "from .spec import Refused"),
    ("prunery.native.loader", "import torch"),
    ("prunery.data.digits", "from prunery.models import load"),
    ("prunery.pruning.erk", "from ..quantize.scales import fit"),
    ("prunery.train.loop", "def f():\n    from ..pruning import prune"),
    ("prunery.train.loop", "def f():\n    import prunery.engine as e"),
    ("prunery.train.loop", "from ..engine.runtime import forward"),
    ("prunery.train.loop", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..cli import main"),
    ("prunery.measure.latency", "from ..chain import run"),
    ("prunery.tickets.imp", "import importlib\nimportlib.import_module('prunery.search')"),
    ("prunery.report.page", "from ..masks import density"),
    ("prunery.report.page", "import torch"),
    ("prunery.search.grid", "from ..report import page"),
    ("prunery.chain", "from prunery import load"),
    ("prunery.chain", "import prunery"),
    ("prunery.engine.runtime", "from .graph import lower"),
    ("prunery.engine.runtime_file", "import torch.nn as nn"),
    ("prunery.runtime", "from prunery.spec import Recipe"),
    ("prunery.runtime", "from .spec import Refused"),
    ("prunery.runtime", "from prunery.engine import pack"),
    ("prunery.attic", "import os"),
]

RIGHT = [
    ("prunery.runs", "from .spec import Step\nimport torch\nfrom . import masks"),
    ("prunery.train.loop", "from . import schedule\nfrom .distil import loss\nfrom ..data import batches"),
    ("prunery.report.page", "from ..runs import read\nfrom ..spec import Recipe\nimport matplotlib"),
    ("prunery.engine.trial", "from .runtime import open_packed\nfrom ..native import library"),
    ("prunery.engine.runtime", "import numpy\nfrom ..native import library\nfrom .runtime_file import read"),
    ("prunery.runtime", "from .engine.runtime import open_packed\nfrom . import native"),
    ("prunery.runtime", "from .refused import Refused"),
    ("prunery.native", "from .refused import Refused"),
    ("prunery.spec.errors", "from ..refused import Refused"),
    ("prunery.measure.latency", "from ..engine.runtime import open_packed"),
    ("prunery.cli", "from prunery import __version__, chain, report, tickets"),
    ("prunery.__main__", "from .cli import main"),
    ("prunery", "from prunery.chain import run\nfrom prunery import runtime"),
]


@pytest.mark.parametrize(("module", "source"), WRONG)
def test_a_violation_is_caught(module, source):
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(("module", "source"), RIGHT)
def test_the_order_itself_is_allowed(module, source):
    assert violations(source, module, is_package=module == "prunery") == []


def test_the_run_time_brings_nothing_along():
    """Neither torch nor any other room than these: whoever only runs packed files waits for nothing else."""
    code = """
import sys, prunery.runtime
ours = {name.split(".")[1] for name in sys.modules if name.startswith("prunery.")}
assert ours == {"native", "refused", "runtime"}, ours
heavy = {"torch", "torchvision", "timm", "safetensors", "typer", "rich", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_relative_imports_of_a_package_count_from_itself():
    assert violations("from .loop import run", "prunery.train", is_package=True) == []
    assert violations("from ..chain import run", "prunery.train", is_package=True) != []
