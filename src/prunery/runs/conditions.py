"""Where and with what a result was made."""

import functools
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import native
from ..spec import Node
from .step import Work


def environment(node: Node, started: float, work: Work) -> dict[str, Any]:
    """What a result was made with: versions, machine, threads, commit, time."""
    return {
        "name": node.name,
        "parent": node.parent.name if node.parent else None,
        "started": started,
        "seconds": round(work.seconds(), 3),
        "parts": work.parts,
        **conditions(),
        **work.notes,
    }


def conditions() -> dict[str, Any]:
    """Versions, machine, threads and commit of this process."""
    torch = sys.modules.get("torch")
    packages = ("prunery", "torch", "torchvision", "timm", "numpy", "safetensors")
    return {
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in packages}},
        "machine": {"system": platform.system(), "arch": platform.machine(), "cpu": cpu(), "cores": os.cpu_count()},
        "isa": isa(),
        "threads": torch.get_num_threads() if torch else None,
        "commit": commit(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def isa() -> str | None:
    """The instruction set of the kernels; None where they are not built."""
    return native.instruction_set() if native.available() else None


@functools.cache
def cpu() -> str:
    """The processor's own name for itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@functools.cache
def commit() -> str | None:
    """The commit of the source that runs, with + behind it when files differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parent.parent  # the whole package, not this room alone
    git = shutil.which("git")
    if not git or not any((p / ".git").exists() for p in here.parents):
        return None

    def ask(*words: str) -> str:
        return subprocess.run([git, "-C", str(here), *words], capture_output=True, text=True, timeout=20).stdout.strip()

    if not ask("ls-files", "--", "."):  # installed into somebody else's checkout
        return None
    head = ask("rev-parse", "--short=12", "HEAD")
    return head + ("+" if ask("status", "--porcelain", "--", ".") else "") if head else None
