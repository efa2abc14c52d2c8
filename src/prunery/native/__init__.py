"""The C++ kernels, and the loader that picks the instruction set.

Every kernel is compiled once per instruction set, into one library each: `library()` opens the best one that this
processor and operating system can run, or the one that PRUNERY_ISA names. Calls through ctypes release the
interpreter's lock.

Importing this room needs no compiled library, so that training works without them; calling does, and raises
NativeMissing.
"""

import ctypes
import os
from functools import cache
from pathlib import Path

from ..refused import Refused

__all__ = ["ISAS", "NativeMissing", "available", "features", "instruction_set", "library", "peak_gflops", "team"]

ISAS = ("baseline", "v3", "v4", "neon")  # x86-64 plain (SSE2), with AVX2 and FMA, with AVX-512; aarch64


class NativeMissing(Refused):
    """The compiled libraries are not where the package looks for them."""


def features() -> frozenset[str]:
    """What the processor has and the operating system lets us use: "avx512_vnni", "amx_int8", "dotprod", ..."""
    return frozenset(_ask_cpu("prunery_cpu_features"))


def available() -> tuple[str, ...]:
    """The instruction sets that are compiled and can run here, slowest first; none when nothing is compiled."""
    if not _find("cpu"):
        return ()
    return tuple(isa for isa in _ask_cpu("prunery_cpu_levels") if _find(isa))


def instruction_set() -> str:
    """The instruction set that kernels run with: PRUNERY_ISA when it is set, otherwise the best available."""
    named = os.environ.get("PRUNERY_ISA")
    return _checked(named, "PRUNERY_ISA") if named else _available_or_raise()[-1]


def library(isa: str | None = None) -> ctypes.CDLL:
    """The kernels compiled for an instruction set, by default the one of `instruction_set()`."""
    return _open(instruction_set() if isa is None else _checked(isa, "isa"))


def peak_gflops(isa: str | None = None, source: str = "registers", seconds: float = 0.02) -> float:
    """Measured multiply-adds of one core, each counted as two; operands come from "registers" or "l1" cache."""
    if source not in ("registers", "l1"):
        raise Refused(f'source = "{source}" is unknown; choose one of registers, l1')
    function = getattr(library(isa), f"prunery_peak_{source}")
    function.argtypes, function.restype = [ctypes.c_double], ctypes.c_double
    return function(seconds)


def team() -> ctypes.c_void_p | None:
    """GOMP_parallel of the OpenMP run-time that torch has loaded for all; None without one."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p)
    except AttributeError:
        return None


def _checked(isa: str, what: str) -> str:
    runnable = _available_or_raise()
    if isa in runnable:
        return isa
    seen = "cannot run on this processor and operating system" if isa in ISAS else "is unknown"
    advice = ", or leave it unset for the fastest" if len(runnable) > 1 else ""
    raise Refused(f'{what} = "{isa}" {seen}; choose one of {", ".join(runnable)}{advice}')


def _available_or_raise() -> tuple[str, ...]:
    found = available()
    if not found:
        raise NativeMissing(_missing("cpu"))
    return found


def _ask_cpu(function_name: str) -> list[str]:
    function = getattr(_open("cpu"), function_name)
    function.restype = ctypes.c_char_p
    return function().decode().split()


@cache
def _open(name: str) -> ctypes.CDLL:
    path = _find(name)
    if path is None:
        raise NativeMissing(_missing(name))
    return ctypes.CDLL(str(path))


def _find(name: str) -> Path | None:
    # An editable install keeps the sources and the libraries in two folders, and both are on __path__.
    paths = (Path(folder) / f"libprunery_{name}.so" for folder in __path__)
    return next((path for path in paths if path.is_file()), None)


def _missing(name: str) -> str:
    return (
        f"the compiled kernels are missing (seen: no libprunery_{name}.so in {' or '.join(__path__)}); "
        "build them with `make env` in a checkout, or `pip install .`, which needs g++ or clang++"
    )
