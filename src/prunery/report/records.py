"""Step folders as plain records: everything that the page and the figures show, with nothing of ours left to ask."""

import string
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from ..runs import Step
from ..spec import Draw, Factorise, Lottery, Prune, Refused, Shrink, Spec, chosen, dumps
from .facts import Facts
from .lineage import Files, lineage, ordered, with_ancestors
from .recipes import recipe_text
from .titles import as_text, data, flat, given, network, remembered, role, titles

CURVES = (
    "step", "epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy",
    "seconds",
)  # fmt: skip
MOST_ROWS, LEAST_ROWS, ALL_ROWS = 600, 60, 60_000
"""of one history, and of all histories of a page together"""
EDITION = "2.8e8"
"""of the score game's rules: the current one"""
TICKETS = (Lottery.kind, Draw.kind)
"""what a lottery keeps in a folder of its own"""
SURGERY = (Shrink, Factorise)
"""steps after which there are fewer weights to be counted"""
LAYER_WHOLES = ("parameters", "prunable", "kept", "multiply_adds", "kept_multiply_adds")


@dataclass(frozen=True)
class Record:
    """One step as the report sees it; None is what its folder does not tell."""

    name: str
    short: str
    kind: str
    role: str
    label: str
    title: str
    control: bool
    parent: int | None
    missing: str
    network: str
    data: str
    settings: list[list[str]]
    accuracy: float | None
    se: float | None
    n: int | None
    loss: float | None
    val_accuracy: float | None
    val_n: int | None
    density: float | None
    of_first: float | None
    """what is left of the chain's first network: other than the density where surgery made the network smaller"""
    parameters: int | None
    kept: int | None
    multiply_adds: int | None
    kept_multiply_adds: int | None
    bytes: int | None
    score: float | None
    seconds: float | None
    parts: int | None
    started: float | None
    conditions: str
    images: list[int | None]
    steps: int
    early_stop_step: int | None
    images_per_second: float | None
    every: int
    curve: dict[str, list[float | None]]
    layers: list[dict[str, Any]]
    sensitivity: dict[str, Any]
    toml: str
    recipe: str


@dataclass(frozen=True)
class Album:
    """The records, parents first; what all share; and the conditions that they were made under, by letter."""

    records: list[Record]
    common: list[list[str]]
    conditions: dict[str, list[list[str]]]

    def chain(self, record: Record) -> list[Record]:
        """From the first step to this one."""
        found = [record]
        while found[-1].parent is not None:
            found.append(self.records[found[-1].parent])
        return found[::-1]


def gather(
    steps: list[Step], labels: Mapping[str, str] | None = None, allowed: Callable[[Path], bool] = lambda folder: True
) -> Album:
    """The steps and their ancestors in folders that are `allowed`.

    `labels` are a recipe's, by the steps' names; of other steps the folders of runs recall them.
    """
    if not steps:
        raise Refused("there are no steps to report; expected a finished one: make it with prunery run RECIPE")
    if any(s.name.partition("-")[0] in TICKETS for s in steps):
        seen = f"{steps[0].folder.parent} holds the networks of a lottery, which are no steps of a chain"
        raise Refused(f"{seen}; expected the folder of runs above it, and --lottery with what prunery lottery wrote")
    files = ordered(with_ancestors(steps, allowed))
    letters, settings = _Letters(), {f.name: _settings(f.spec) for f in files}
    common = _common([f.spec for f in files], list(settings.values()))
    shorts, at = _shorts([f.name for f in files]), {f.name: i for i, f in enumerate(files)}
    told = remembered({s.folder.parent for s in steps}, allowed) | dict(labels or {})
    labels, records, most = given(files, told), [], _most(files)
    for file, title in zip(files, titles(files, labels), strict=True):
        about: dict[str, Any] = {
            "short": shorts[file.name], "label": labels.get(file.name, ""), "title": title,
            "parent": (parent := at.get(file.parent)), "missing": file.parent if parent is None else "",
            "settings": [[k, v] for k, v in settings[file.name].items() if [k, v] not in common],
            "conditions": letters.of(file.env), "most": most,
        }  # fmt: skip
        records.append(_record(file, lineage(file, files, at), about))
    return Album(records, common, letters.conditions)


# --- one record -------------------------------------------------------------------------------------------------------


def _record(file: Files, chain: list[Files], about: dict[str, Any]) -> Record:
    result, env = file.result, file.env
    specs = [f.spec for f in chain]
    rows, every = _thinned(file.rows, about.pop("most"))
    return Record(
        name=file.name, kind=file.spec.kind, role=role(specs), control=_blind(specs), **about,
        network=network(specs), data=data(specs),
        seconds=env.number("seconds"), parts=env.whole("parts"), started=env.number("started"),
        **_measured(result), of_first=_of_first(chain), **_trained(result.table("train"), file.rows), every=every,
        curve={key: [_rounded(row.number(key)) for row in rows] for key in CURVES} if rows else {},
        layers=[_layer(facts) for facts in result.tables("layers")],
        sensitivity=_sensitivity(result.tables("sensitivity")),
        toml=dumps(file.spec), recipe=recipe_text(specs),
    )  # fmt: skip


def _measured(result: Facts) -> dict[str, Any]:
    test, validation, images = result.table("test"), result.table("validation"), result.table("data")
    return {
        "accuracy": test.number("accuracy"), "se": test.number("standard_error"), "n": test.whole("n"),
        "loss": test.number("loss"), "val_accuracy": validation.number("accuracy"), "val_n": validation.whole("n"),
        "density": result.number("density"), "parameters": result.whole("parameters"), "bytes": result.whole("bytes"),
        "kept": result.whole("kept_parameters"), "multiply_adds": result.whole("multiply_adds"),
        "kept_multiply_adds": result.whole("kept_multiply_adds"),
        "score": result.table("score").table(EDITION).number("score"),
        "images": [images.whole(k) for k in ("train", "validation", "test")],
    }  # fmt: skip


def _of_first(chain: list[Files]) -> float | None:
    """Kept weights over the first network's: density counts only those that surgery has left to be pruned."""
    density = chain[-1].result.number("density")
    cuts = [i for i, file in enumerate(chain) if isinstance(file.spec, SURGERY)]
    if density is None or not cuts:
        return density
    first, now = _prunable(chain[: cuts[0]]), _prunable(chain[cuts[-1] :])
    return density * (now / first) if first and now else density


def _prunable(files: list[Files]) -> int:
    """Weights that could be pruned, as the first step that measured its layers tells; 0 where none did."""
    sums = (sum(layer.whole("prunable") or 0 for layer in file.result.tables("layers")) for file in files)
    return next(filter(None, sums), 0)


def _trained(train: Facts, rows: list[Facts]) -> dict[str, Any]:
    last = rows[-1].whole("step") if rows else 0
    return {
        "steps": train.whole("steps") or last or 0,
        "early_stop_step": train.whole("early_stop_step"),
        "images_per_second": train.number("images_per_second"),
    }


def _layer(facts: Facts) -> dict[str, Any]:
    return {
        "name": facts.needed(facts.text, "name"), "type": facts.text("type") or "",
        "shape": facts.wholes("shape"), "output": facts.wholes("output"), "density": facts.number("density"),
        **{key: facts.whole(key) for key in LAYER_WHOLES},
    }  # fmt: skip


def _sensitivity(rounds: list[Facts]) -> dict[str, Any]:
    """What each layer bears, as the last round of pruning saw it: densities, and by what the loss rises at each."""
    if not rounds:
        return {}
    layers = [
        {"name": row.needed(row.text, "name"), "rises": [[_rounded(v) for v in pair] for pair in row.pairs("rises")]}
        for row in rounds[-1].tables("layers")
    ]
    return {"rounds": len(rounds), "density": rounds[-1].number("density"), "layers": layers}


def _thinned(rows: list[Facts], most: int) -> tuple[list[Facts], int]:
    """Rows for the page: all of them, or every k-th with the last and, where they are few, the evaluations."""
    every = -(-len(rows) // most) or 1
    last = len(rows) - 1
    looks = [i for i, r in enumerate(rows) if "val_loss" in r.values]
    kept = set(looks if len(looks) <= most else looks[:: -(-len(looks) // most)])
    return [r for i, r in enumerate(rows) if i % every == 0 or i == last or i in kept], every


def _most(files: list[Files]) -> int:
    """Rows that a history may have, so that a page of many stays light."""
    histories = sum(bool(f.rows) for f in files) or 1
    return max(LEAST_ROWS, min(MOST_ROWS, ALL_ROWS // histories))


def _rounded(value: float | None) -> float | None:
    return value if value is None else float(f"{value:.6g}")


def _blind(specs: list[Spec]) -> bool:
    """A control: its weights were chosen at random, so that others can be compared with it."""
    return any(isinstance(s, Prune) and s.criterion == "random" for s in specs)


# --- names and settings -----------------------------------------------------------------------------------------------


def _settings(spec: Spec) -> dict[str, str]:
    """What was chosen, as key and text; checksums are for machines and stand in the spec."""
    return {k: as_text(v) for k, v in flat(chosen(spec)) if not k.endswith("sha256")}


def _common(specs: list[Spec], settings: list[dict[str, str]]) -> list[list[str]]:
    """Data, network and seed settings that all steps with such a field chose alike: said once, not on every card."""
    values: dict[str, list[str]] = defaultdict(list)
    for own in settings:
        for key, value in own.items():
            values[key].append(value)
    able = {top: sum(hasattr(spec, top) for spec in specs) for top in ("data", "model", "seed")}
    shared = [k for k, v in values.items() if len(set(v)) == 1 and len(v) == able.get(k.partition(".")[0])]
    return [[k, values[k][0]] for k in shared]


def _shorts(names: list[str]) -> dict[str, str]:
    """The first digits of each name's hash: four, or as many as tell all names apart."""
    tails = {name: name.rpartition("-")[2] for name in names}
    for digits in count(4):
        shorts = {name: tail[:digits] for name, tail in tails.items()}
        if len(set(shorts.values())) == len(set(tails.values())):
            return shorts
    raise AssertionError


class _Letters:
    """A letter for each set of conditions: machine, threads, versions and commit."""

    def __init__(self) -> None:
        self.conditions: dict[str, list[list[str]]] = {}

    def of(self, env: Facts) -> str:
        rows = _conditions(env)
        known = next((letter for letter, other in self.conditions.items() if other == rows), None)
        letter = known or _letter(len(self.conditions))
        self.conditions[letter] = rows
        return letter


def _letter(i: int) -> str:
    """A ... Z, AA, AB, ..."""
    return (_letter(i // 26 - 1) if i >= 26 else "") + string.ascii_uppercase[i % 26]


def _conditions(env: Facts) -> list[list[str]]:
    machine, versions = env.table("machine"), env.table("versions")
    words = [machine.text(k) for k in ("system", "arch")]
    rows = {
        "processor": machine.text("cpu"),
        "cores": machine.whole("cores"),
        "threads": env.whole("threads"),
        "system": " ".join(w for w in words if w),
        **{package: versions.text(package) for package in versions.values},
        "commit": env.text("commit"),
    }
    return [[k, str(v)] for k, v in rows.items() if v not in (None, "")]
