"""The user's own file: called with what it wants to know; what goes wrong in it is told with its line."""

import sys
from textwrap import dedent

import pytest
import torch

from prunery.models import build
from prunery.spec import Model, Refused

GOOD = {
    "both": "def net(classes, input): return nn.Sequential(nn.Flatten(), nn.Linear(16 * input[0], classes))",
    "keywords": "def net(**facts): return nn.Sequential(nn.Flatten(), nn.Linear(48, facts['classes']))",
    "one": "def net(*, classes, width=4): return nn.Sequential(nn.Flatten(), nn.Linear(48, classes))",
    "none": "def net(): return nn.Sequential(nn.Flatten(), nn.Linear(48, 5))",
    "class": """
        class net(nn.Module):
            def __init__(self, classes):
                super().__init__()
                self.fc = nn.Linear(48, classes)
            def forward(self, x):
                return self.fc(x.flatten(1)) if x.sum() > 1e9 else -self.fc(x.flatten(1))
        """,
    "sibling": "from beside import net",
    "dataclass": """
        from dataclasses import dataclass
        @dataclass
        class Size:
            width: "int" = 48
        def net(classes): return nn.Sequential(nn.Flatten(), nn.Linear(Size().width, classes))
        """,
}  # fmt: skip


def written(tmp_path, text):
    (tmp_path / "beside.py").write_text("from torch import nn\n" + GOOD["one"])
    path = tmp_path / "mine.py"
    path.write_text("from torch import nn\n" + dedent(text))
    return path


def made(path, function="net", seed=0):
    return build(Model(name=f"{path}:{function}", input=(3, 4, 4), classes=5), seed)


@pytest.mark.parametrize("how", GOOD)
def test_good(tmp_path, how):
    path = written(tmp_path, GOOD[how])
    modules, places = dict(sys.modules), list(sys.path)
    one, two = made(path), made(path)
    assert one(torch.zeros(2, 3, 4, 4)).shape == (2, 5)
    assert all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))
    assert not any("mine" in name or "beside" in name for name in sys.modules.keys() - modules.keys())
    assert sys.path == places
    assert not (tmp_path / "__pycache__" / "mine.cpython-311.pyc").exists()


BAD = {
    "def net(:\n    pass": r"mine\.py, line 2: SyntaxError",
    "def net():\n    return 1 / 0": r"mine\.py, line 3: ZeroDivisionError: division by zero",
    "import nowhere_to_be_found": r"mine\.py, line 2: ModuleNotFoundError",
    "raise SystemExit(3)": r"mine\.py, line 2: SystemExit: 3",
    "def net(depth): pass": r"mine\.py: TypeError: .*missing 1 required positional argument: 'depth'",
    "def nett(): pass": "did you mean nett",
    "net = 3": "it has no function",
    "def net(): return 'text'": r"returned str; expected a torch\.nn\.Module",
    "def net(): return nn.Linear(4, 5)": r"gives \[2, 3, 4, 5\] for 2 images of 3x4x4; expected \[2, 5\]",
    "def net(): return nn.Flatten()": r"gives \[2, 48\] for 2 images of 3x4x4; expected \[2, 5\]",
    "def net(): return nn.Linear(9, 5)": "cannot take images of 3x4x4",
    "def net(): return nn.LSTM(4, 5)": "cannot take images of 3x4x4",
    "class net(nn.Module):\n    def forward(self, x): return x, x": "gives tuple for 2 images",
}


@pytest.mark.parametrize("text", BAD)
def test_bad(tmp_path, text):
    path = written(tmp_path, text)
    with pytest.raises(Refused, match=BAD[text]) as caught:
        made(path)
    assert "\n" not in str(caught.value)


def test_no_function_named(tmp_path):
    path = written(tmp_path, GOOD["one"])
    for name in (f"{path}", f"{path}:"):
        with pytest.raises(Refused, match=r"expected .*mine\.py:net"):
            build(Model(name=name, input=(3, 4, 4), classes=5), 0)
