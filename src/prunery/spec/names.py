"""The rule that everything rests on: a step is named by its own spec and its parent's name."""

import hashlib
import json
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from typing import Any

from .steps import Spec

SEALED = {"weights": "weights_sha256", "teacher": "teacher_sha256"}
"""Fields whose file is known by its checksum: then its place is of no account."""


@dataclass(frozen=True)
class Node:
    """One step in its place: what it does and what it starts from."""

    spec: Spec
    parent: "Node | None" = None

    @cached_property
    def name(self) -> str:
        """kind-xxxxxxxxxxxx: equal for equal histories, on any machine and in any later version."""
        return f"{self.spec.kind}-{digest(self.spec, self.parent.name if self.parent else '')}"

    def chain(self) -> "list[Node]":
        """From the first step to this one."""
        return [*(self.parent.chain() if self.parent else []), self]


def digest(spec: Spec, parent: str) -> str:
    """Twelve hex digits of what was asked and what it was asked of."""
    text = json.dumps([spec.kind, parent, _identity(chosen(spec))], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _identity(values: dict[str, Any]) -> dict[str, Any]:
    """What the name depends on: of a file with a checksum, the checksum."""
    sealed = [field for field, checksum in SEALED.items() if values.get(checksum)]
    kept = {k: v for k, v in values.items() if k not in sealed}
    return {k: _identity(v) if isinstance(v, dict) else v for k, v in kept.items()}


def chosen(spec: Spec) -> dict[str, Any]:
    """The fields that differ from their defaults, so that a field added later renames nothing."""
    values = {f.name: (getattr(spec, f.name), _default(f)) for f in fields(spec)}
    return {name: _plain(value) for name, (value, default) in values.items() if value != default}


def _default(field: Any) -> Any:
    return None if field.default is MISSING else field.default


def _plain(value: Any) -> Any:
    return chosen(value) if isinstance(value, Spec) else list(value) if isinstance(value, tuple) else value
