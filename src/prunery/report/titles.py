"""What each step is called: a recipe's label where one is known, or its kind and what sets its branch apart."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_origin

from ..runs import records
from ..spec import Init, Spec, hints, plain
from .lineage import Files, lineage

Chain = list[Files]


def titles(files: list[Files], labels: Mapping[str, str]) -> list[str]:
    """One for each step, as short as tells those of one kind, network and data apart where settings can."""
    at = {f.name: i for i, f in enumerate(files)}
    chains = {f.name: lineage(f, files, at) for f in files}
    specs = {name: [f.spec for f in chain] for name, chain in chains.items()}
    branches = _branches(files, {name: role(s) for name, s in specs.items()})
    found: dict[str, str] = {}
    groups = defaultdict(list)
    for name, s in specs.items():
        groups[labels.get(name) or role(s), network(s), data(s)].append(name)
    for (called, *_), names in groups.items():
        found |= zip(names, _apart(called, [chains[n] for n in names], branches), strict=True)
    return [found[f.name] for f in files]


def given(files: list[Files], labels: Mapping[str, str]) -> dict[str, str]:
    """The labels that somebody chose: of those that a recipe counts out (train, train2), the kind says more."""
    own = {f.name: f.spec.kind for f in files if labels.get(f.name)}
    return {name: labels[name] for name, kind in own.items() if not re.fullmatch(rf"{kind}\d*", labels[name])}


def remembered(roots: Iterable[Path], allowed: Callable[[Path], bool]) -> dict[str, str]:
    """What recipes called their steps, as folders of runs recall it; the latest recipe's word counts."""
    found: dict[str, str] = {}
    for root in roots:
        with suppress(OSError):  # a record that went away in the meantime: names are worth no refusal
            for told in (t for t in records(root)[0] if allowed(t.file)):
                found |= {name: label for label, name in told.steps.items() if label != name}
    return found


def role(specs: list[Spec]) -> str:
    """What a step is called: its kind, and finetune for training after pruning."""
    pruned = any(s.kind == "prune" for s in specs)
    return "finetune" if specs[-1].kind == "train" and pruned else specs[-1].kind


def network(specs: list[Spec]) -> str:
    """The name of the network that a chain works on; nothing where its beginning is not known."""
    return specs[0].model.name if isinstance(specs[0], Init) else ""


def data(specs: list[Spec]) -> str:
    """The data of a chain's last step, or of the nearest one above it."""
    return next((s.data.name for s in reversed(specs) if hasattr(s, "data")), "")


def _apart(name: str, chains: list[Chain], branches: dict[str, str]) -> list[str]:
    """The first way of telling these steps apart that does."""
    ways: tuple[Callable[[Chain], str], ...] = (
        lambda chain: name,
        lambda chain: _after(name, chain, branches, 1),
        lambda chain: _after(name, chain, branches, len(chain)),
        lambda chain: _after(name, chain, branches, len(chain)) + _dense(chain[-1]),
    )
    rows = [[way(chain) for chain in chains] for way in ways]
    return next((row for row in rows if len(set(row)) == len(row)), max(rows, key=lambda row: len(set(row))))


def _after(name: str, chain: Chain, branches: dict[str, str], most: int) -> str:
    """With the nearest branches that the step lies on: itself, or those that it comes after."""
    own = branches.get(chain[-1].name, "").partition(" ")[2]
    above = [branches[f.name] for f in chain[:-1] if f.name in branches]
    above = above[max(0, len(above) - most + bool(own)) :]
    return " ".join([name, *([own] if own else []), *(["after", ", ".join(above)] if above else [])])


def _dense(file: Files) -> str:
    density = file.result.number("density")
    return "" if density is None else f", density {density:.3g}"


def _branches(files: list[Files], roles: Mapping[str, str]) -> dict[str, str]:
    """Where chains part: each of the steps there, by its kind and the settings that its siblings have not."""
    children: dict[str, list[Files]] = defaultdict(list)
    for file in files:
        children[file.parent if file.parent in roles else ""].append(file)
    found = {}
    for siblings in (group for group in children.values() if len(group) > 1):
        for file in siblings:
            rivals = [f.spec for f in siblings if f is not file and f.spec.kind == file.spec.kind]
            found[file.name] = roles[file.name] + (f" ({_unlike(file.spec, rivals)})" if rivals else "")
    return found


def _unlike(spec: Spec, rivals: list[Spec]) -> str:
    """The fewest settings that no rival has all of."""
    own, others = settings(spec), [settings(r) for r in rivals]
    keys = [k for k in own if any(other.get(k) != own[k] for other in others)]
    sizes = range(1, min(len(keys), 3) + 1)
    choices = (some for size in sizes for some in combinations(keys, size))
    alone = lambda some: not any(all(other.get(k) == own[k] for k in some) for other in others)  # noqa: E731
    return ", ".join(_words(spec, k, own[k]) for k in next(filter(alone, choices), tuple(keys)))


def _words(spec: Spec, key: str, value: str) -> str:
    """A setting; the name of a choice speaks for itself."""
    chosen = get_origin(hints(type(spec)).get(key)) is Literal and not value.isdigit()
    return value if chosen or key.endswith(".name") else f"{key} {value or 'none'}"


def settings(spec: Spec) -> dict[str, str]:
    """All of a spec's settings as key and text, checksums left out."""
    return {k: as_text(v) for k, v in flat(plain(spec)) if not k.endswith("sha256")}


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Tables in tables as one, with dots in the keys."""
    pairs = []
    for key, value in values.items():
        pairs += flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return pairs


def as_text(value: Any) -> str:
    """A setting's value as a person writes it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(as_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
