"""A fair comparison: one dense network, one retraining budget, many methods and densities, several seeds.

A comparison is an ordinary recipe with a step labelled `retrain`: the steps before it make the dense network, the step
itself is what every method may spend on each density. Every method's steps become a branch; folders are shared, kept
and resumed as those of any recipe.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from . import pruning
from .chain import Place, filled, run, skeleton
from .pruning.methods import FROM_DENSE, METHODS, STRUCTURED
from .runs import Step
from .spec import Prune, Recipe, Refused, Reset, Spec, Stage, Train, choose

RETRAIN, DENSE = "retrain", "dense"


@dataclass(frozen=True)
class Wanted:
    """Which methods at which densities."""

    methods: tuple[str, ...]
    densities: tuple[float, ...]
    parts: int = 4

    def __post_init__(self) -> None:
        for name in self.methods:
            choose(name, METHODS, "compare: a method")
        if not self.methods or not self.densities:
            raise Refused("compare: nothing to compare; expected at least one method and one density")
        wrong = [d for d in self.densities if not 0 < d < 1]
        if wrong:
            raise Refused(f"compare: density {wrong[0]:g} is not allowed; expected above 0 and below 1")


def tree(recipe: Recipe, wanted: Wanted, place: Place, seed: int) -> tuple[Recipe, dict[tuple[str, float], str]]:
    """The recipe with every method's branch, and the label of the step that each method ends at, by density."""
    *before, last = recipe.stages
    if last.label != RETRAIN or not isinstance(last.spec, Train):
        seen = f'the last step of {recipe.name} is "{last.label}"'
        raise Refused(f'compare: {seen}; expected a train step with label = "{RETRAIN}": what each density may cost')
    plan = _plan(recipe, wanted, place, last, seed)
    # The dense network as every branch begins with it, measured: a step that removes nothing.
    stages = [*before, Stage(DENSE, last.after, Prune(density=1.0, data=last.spec.data))]
    ends: dict[tuple[str, float], str] = {}
    for method in wanted.methods:
        after = DENSE
        for density in plan.densities:
            made = _branch(method, density, METHODS[method](plan, density), DENSE if method in FROM_DENSE else after)
            stages += made
            after = ends[method, density] = made[-1].label
    return replace(recipe, stages=tuple(stages)), ends


def _plan(recipe: Recipe, wanted: Wanted, place: Place, last: Stage, seed: int) -> pruning.Plan:
    densities = tuple(sorted(wanted.densities, reverse=True))
    assert isinstance(last.spec, Train)
    # A network that starts from a file has forgotten its first weights: they are drawn again.
    start = "fresh" if recipe.init.model.weights else "init"
    parts = tuple(_parts(recipe, wanted, place)) if set(wanted.methods) & set(STRUCTURED) else ((),)
    return pruning.Plan(
        densities, last.spec, Reset(to=start, data=last.spec.data, seed=recipe.init.seed, measure=False), parts, seed
    )


def _parts(recipe: Recipe, wanted: Wanted, place: Place) -> Iterator[tuple[str, ...]]:
    """The layers with channels that can go, in about equal parts from front to back."""
    import torch

    model = filled(recipe, place).init.model
    found = pruning.groups(skeleton(model), torch.zeros(2, *model.input))
    names = [g.name for g in found if not g.protected]
    if not names:
        raise Refused(f"compare: {model.name} has no channels that can go; leave out {', '.join(STRUCTURED)}")
    count = max(1, min(wanted.parts, len(names)))
    for i in range(count):
        yield tuple(names[len(names) * i // count : len(names) * (i + 1) // count])


def _branch(method: str, density: float, steps: list[Spec], after: str) -> list[Stage]:
    """Stages in a row, each with a label of its own."""
    found: list[Stage] = []
    for i, spec in enumerate(steps):
        label = f"{method}-{density:g}" + (f"-{i + 1}" if i + 1 < len(steps) else "")
        found.append(Stage(label, found[-1].label if found else after, spec))
    return found


def compare(recipe: Recipe, wanted: Wanted, place: Place, seed: int) -> Iterator[dict[str, Any]]:
    """One row a method and density: where it ended and what that is worth."""
    whole, ends = tree(recipe, wanted, place, seed)
    done = run(whole, place)
    first = done["init"].result
    yield _row("dense", 1.0, seed, done[DENSE], first, 0.0)
    for (method, density), label in ends.items():
        spent = _epochs(whole, label)
        yield _row(method, density, seed, done[label], first, spent)


def _epochs(recipe: Recipe, label: str) -> float:
    """Epochs of training between the dense network and a step."""
    stages, total = {s.label: s for s in recipe.stages}, 0.0
    while label != DENSE:
        spec = stages[label].spec
        total += spec.epochs if isinstance(spec, Train) and spec.steps is None else 0.0
        label = stages[label].after
    return total


def _row(method: str, density: float, seed: int, step: Step, first: dict[str, Any], epochs: float) -> dict[str, Any]:
    result = step.result
    return {
        "method": method,
        "structured": method in STRUCTURED,
        "density": density,
        "seed": seed,
        "accuracy": result["test"]["accuracy"],
        "validation": (result.get("validation") or {}).get("accuracy"),
        "parameters": result["kept_parameters"],
        "parameters_share": result["kept_parameters"] / first["parameters"],
        "multiply_adds": result["kept_multiply_adds"],
        "multiply_adds_share": result["kept_multiply_adds"] / first["multiply_adds"],
        "epochs": round(epochs, 6),
        "step": step.name,
        "commit": step.env.get("commit"),
    }
