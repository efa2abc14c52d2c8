"""A chain as the recipe that asks for it again: its finished steps are found under their names, not made anew."""

import json
from typing import Any

from ..spec import Init, Spec, chosen


def recipe_text(chain: list[Spec]) -> str:
    """A TOML recipe whose last step is the chain's last; empty where the chain's beginning is not known."""
    first = chain[0]
    if not isinstance(first, Init):
        return ""
    lines = [f"seed = {first.seed}", "", "[model]", *_pairs(chosen(first.model))]
    for spec in chain[1:]:
        lines += ["", *_step(spec)]
    return "\n".join(lines) + "\n"


def _step(spec: Spec) -> list[str]:
    """One [[step]]; the seed is always written, or it would be the recipe's."""
    values = chosen(spec)
    if hasattr(spec, "seed"):
        values["seed"] = spec.seed
    tables = {k: v for k, v in values.items() if isinstance(v, dict)}
    own = {k: v for k, v in values.items() if k not in tables}
    lines = ["[[step]]", f"kind = {json.dumps(spec.kind)}", *_pairs(own)]
    for name, table in tables.items():
        lines += [f"[step.{name}]", *_pairs(table)]
    return lines


def _pairs(values: dict[str, Any]) -> list[str]:
    # JSON's texts, numbers, booleans and lists of them are TOML's too.
    return [f"{k} = {json.dumps(v, ensure_ascii=False)}".replace("\x7f", "\\u007f") for k, v in values.items()]
