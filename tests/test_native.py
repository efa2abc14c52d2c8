"""The native room: which instruction set is chosen, what is refused, and that the compiled kernels run."""

import sys
from pathlib import Path

import pytest

from prunery import native


@pytest.fixture
def unset(monkeypatch):
    monkeypatch.delenv("PRUNERY_ISA", raising=False)


@pytest.fixture
def nothing_compiled(monkeypatch, tmp_path, unset):
    """A package whose folder holds no library."""
    native._open.cache_clear()
    monkeypatch.setattr(native, "__path__", [str(tmp_path)])
    yield
    native._open.cache_clear()


def test_something_is_available():
    assert native.available()
    assert set(native.available()) <= set(native.ISAS)


def test_levels_agree_with_the_features():
    found = native.features()
    assert ("v3" in native.available()) <= {"avx2", "fma", "f16c"}.issubset(found)
    assert ("v4" in native.available()) <= {"avx512f", "avx512bw", "avx512vl"}.issubset(found)
    assert ("neon" in native.available()) <= ("neon" in found)


def test_the_operating_system_agrees():
    """Linux lists the flags that it lets a program use; it may list more, never fewer."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = next((set(line.split(":")[1].split()) for line in lines if line.startswith("flags")), None)
    if flags is None:
        pytest.skip("there is no /proc/cpuinfo here that lists x86 flags")
    spelled = {"bmi": "bmi1", "lzcnt": "abm"}
    assert {spelled.get(name, name) for name in native.features()} <= flags


def test_the_fastest_is_the_default(unset):
    assert native.instruction_set() == native.available()[-1]


@pytest.mark.parametrize("isa", native.ISAS)
def test_the_environment_chooses_or_is_refused(monkeypatch, isa):
    monkeypatch.setenv("PRUNERY_ISA", isa)
    if isa in native.available():
        assert native.instruction_set() == isa
        assert native.library()._name.endswith(f"libprunery_{isa}.so")
    else:
        with pytest.raises(ValueError, match=f'^PRUNERY_ISA = "{isa}" cannot run on this processor .*; choose one of '):
            native.instruction_set()


def test_an_unsupported_level_is_refused(monkeypatch):
    monkeypatch.setattr(native, "_ask_cpu", lambda _: ["baseline"])
    monkeypatch.setattr(native, "_find", lambda name: name)
    monkeypatch.setenv("PRUNERY_ISA", "v4")
    with pytest.raises(ValueError, match=r'^PRUNERY_ISA = "v4" cannot run on .* system; choose one of baseline$'):
        native.instruction_set()


@pytest.mark.parametrize("isa", ["v5", "AVX2", " v3", "../v3", "cpu"])
def test_an_unknown_name_is_refused(monkeypatch, isa):
    monkeypatch.setenv("PRUNERY_ISA", isa)
    with pytest.raises(ValueError, match=r"^PRUNERY_ISA = .* is unknown; choose one of ") as refusal:
        native.instruction_set()
    assert "\n" not in str(refusal.value)
    with pytest.raises(ValueError, match=r"^isa = .* is unknown; choose one of "):
        native.peak_gflops(isa)


def test_an_empty_variable_is_an_unset_one(monkeypatch):
    monkeypatch.setenv("PRUNERY_ISA", "")
    assert native.instruction_set() == native.available()[-1]


def test_an_unknown_source_is_refused():
    with pytest.raises(ValueError, match=r'^source = "l9" is unknown; choose one of registers, l1$'):
        native.peak_gflops(source="l9")


@pytest.mark.parametrize("source", ["registers", "l1"])
@pytest.mark.parametrize("isa", native.available())
def test_peak_is_positive_and_wider_is_not_slower(isa, source):
    peak = native.peak_gflops(isa, source)
    assert 0.1 < peak < 10_000
    assert peak > 0.5 * native.peak_gflops(native.available()[0], source)


@pytest.mark.parametrize("isa", native.available())
def test_denormals_survive_the_kernels(isa):
    """A library built with -ffast-math would flush them to zero in the whole process."""
    native.peak_gflops(isa, seconds=0.001)
    assert sys.float_info.min / 2 > 0


def test_missing_libraries_are_named_only_when_called(nothing_compiled):
    assert native.available() == ()
    for call in (native.features, native.instruction_set, native.library, native.peak_gflops):
        with pytest.raises(native.NativeMissing, match=r"^the compiled kernels are missing \(seen: no .*make env"):
            call()


def test_one_missing_level_is_not_available(monkeypatch, unset):
    gone = native.available()[-1]
    find = native._find
    monkeypatch.setattr(native, "_find", lambda name: None if name == gone else find(name))
    assert gone not in native.available()
