"""The user's own network: a function or class in a Python file, called with what it wants to know."""

import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from ..spec import Refused, choose
from .small import Shape


def is_own(name: str) -> bool:
    """path/to/file.py:function"""
    return ".py:" in name or name.endswith(".py")


def own_file(name: str) -> str:
    """The file that holds the user's network; nothing for the networks of others."""
    return name.rpartition(".py:")[0] + ".py" if ".py:" in name else name if is_own(name) else ""


def own_network(name: str, input: Shape, classes: int) -> nn.Module:
    """The network that the file's function returns; whatever goes wrong in there is told with its file and line."""
    file, _, function = name.rpartition(":") if ".py:" in name else (name, "", "")
    path = Path(file).expanduser()
    if not path.is_file():
        raise Refused(f"{file} does not exist; expected model.name = path/to/file.py:function")
    with _visitor(path) as module, _blamed(path):
        exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
        make = _callable(module, function, path)
        network = make(**_wanted(make, {"input": input, "classes": classes}))
    if not isinstance(network, nn.Module):
        raise Refused(f"{name} returned {type(network).__name__}; expected a torch.nn.Module")
    return network


@contextmanager
def _visitor(path: Path) -> Iterator[ModuleType]:
    """A module for the file, importable only while it is being used; so are the files beside it."""
    module = ModuleType(f"_prunery_own_{path.stem}")
    module.__file__ = str(path)
    before, folder = dict(sys.modules), str(path.parent.resolve())
    sys.modules[module.__name__] = module
    sys.path.insert(0, folder)
    try:
        yield module
    finally:
        sys.path.remove(folder)
        for name in [n for n, m in sys.modules.items() if n not in before and (m is module or _beside(n, folder))]:
            del sys.modules[name]


def _beside(name: str, folder: str) -> bool:
    """Whether an import found its file or package next to the user's file."""
    top = Path(folder, name.partition(".")[0])
    return top.is_dir() or top.with_suffix(".py").is_file()


@contextmanager
def _blamed(path: Path) -> Iterator[None]:
    """Turns an error in the file into one line with its place."""
    try:
        yield
    except Refused:
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if f.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        place = f"{path}, line {line}" if line else str(path)
        text = " ".join(str(error).split())[:300]
        raise Refused(f"{place}: {type(error).__name__}: {text}; mend the file that model.name names") from None


def _callable(module: ModuleType, function: str, path: Path) -> Callable[..., Any]:
    """What the file defines under that name."""
    own = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
    if not function:
        raise Refused(f"{path} needs the name of a function in it; expected {path}:{own[0] if own else 'function'}")
    if not callable(getattr(module, function, None)):
        choose(function, own or ["(it has no function)"], f"the function of {path}")
    return getattr(module, function)


def _wanted(make: Callable[..., Any], facts: dict[str, Any]) -> dict[str, Any]:
    """Those facts that the function takes by name."""
    if getattr(make, "__init__", None) is nn.Module.__init__:  # it takes no keywords, whatever its signature says
        return {}
    parameters = inspect.signature(make).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    by_name = {n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return {k: v for k, v in facts.items() if anything or k in by_name}
