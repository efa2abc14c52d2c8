"""The public surface: every name is there, and asking for none of them loads no torch."""

import subprocess
import sys

import pytest

import prunery


@pytest.mark.parametrize("name", prunery.__all__)
def test_every_public_name_is_there(name):
    assert getattr(prunery, name) is not None
    assert name in dir(prunery)


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="prunery has no thing"):
        _ = prunery.thing


def test_the_run_time_is_there_without_being_imported():
    code = "import sys, prunery; prunery.runtime.load; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert "runtime" in dir(prunery)


def test_importing_prunery_loads_no_torch():
    code = "import sys, prunery; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
