"""A recipe in Python: the same steps, names and folders as from TOML."""

from pathlib import Path

from prunery import Model, Place, Prune, Runs, Train, in_a_row, run

recipe = in_a_row(
    Model(name="convnet", init="kaiming_normal"),
    Train(epochs=4, optimizer="adamw", lr=0.003, schedule="onecycle", batch=64),
    Prune(density=0.1),
    Train(epochs=4, optimizer="adamw", lr=0.002, schedule="onecycle", batch=64),
)
done = run(recipe, Place(Runs("runs"), Path("data")))
for label, step in done.items():
    if test := step.result.get("test"):
        print(f"{label:8} {step.name}  accuracy {test['accuracy']:.3f}  density {step.result['density']:.2f}")
