"""`prunery init`: a recipe for the user's network and data, tried as far as can be without training."""

import json
import shlex
import sys
import tomllib
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from .. import chain, data
from ..chain import Place
from ..runs import Runs, to_write, write_file
from ..spec import Data, Model, Refused, quote, recipe

SIDE = 64
"""pixels that images of different sizes are resized to"""
STEPS, LEAST, MOST = 3000, 2, 40
"""steps of training that are aimed at; epochs at least and at most"""
BATCH, MANY = 64, 50_000
"""images of a step; images of a set that is not here yet"""


def started(
    what: str, model: Model, resize: int, root: Path, out: Path, force: bool
) -> tuple[dict[str, Any], list[str]]:
    """Write the recipe; what it says, as JSON and in words."""
    to_write(out, "recipe.toml")
    if out.exists() and not force:
        raise Refused(f"{out} is there already; expected another name (--out), or --force to write over it")
    if resize < 0:
        raise Refused(f"--resize = {resize} is not allowed; expected 0 or more")
    name = data.named(what)
    with redirect_stdout(sys.stderr):
        spec, facts = _images(name, resize, root)
        count = _count(spec, root)
        text = written(spec, facts, model, count, _command(out))
        wanted = recipe(tomllib.loads(text), (), out.stem)
        place = Place(Runs("runs"), root)
        chain.preflight(chain.filled(wanted, place), place)
    write_file(out, text.encode())
    steps = [stage.label for stage in wanted.stages]
    told = {"file": str(out), "data": spec.name, "model": model.name, "input": list(facts.shape), "steps": steps}
    size = "x".join(map(str, facts.shape))
    words = [f"written: {out}: {model.name} on {spec.name} ({size}, {len(facts.classes)} classes): {', '.join(steps)}"]
    if spec.resize and not resize:
        words.append(
            f"the pictures are of several sizes: all are brought to {SIDE}x{SIDE} (--resize chooses another side)"
        )
    return told, [*words, f"carry it out: {_command(out)}", "then look at it: prunery report"]


def _command(out: Path) -> str:
    return f"prunery run {shlex.quote(str(out))}"


def _images(name: str, resize: int, root: Path) -> tuple[Data, data.Facts]:
    """Images of one size: their own, or the one that is asked for, or else one that all can be brought to."""
    spec = Data(name=name, resize=resize)
    try:
        return spec, data.facts(spec, root)
    except Refused:
        if resize or not name.startswith("folder:"):
            raise
    smaller = Data(name=name, resize=SIDE)
    return smaller, data.facts(smaller, root)


def _count(spec: Data, root: Path) -> int:
    """Training images, where they are here."""
    there = spec.name not in data.DATASETS or data.found(spec.name, root)
    return len(data.load(spec, root).train.y) if there else MANY


def written(spec: Data, facts: data.Facts, model: Model, count: int, command: str) -> str:
    """The recipe's text: every setting that a user is likely to change, and why one would."""
    batch = max(1, min(BATCH, count))
    epochs = max(LEAST, min(MOST, -(-STEPS * batch // max(count, 1))))
    again = max(1, epochs // 2)
    size = f"{count:,} training images of {'x'.join(map(str, facts.shape))}, {len(facts.classes)} classes"
    resized = (
        f"resize = {spec.resize}              # pixels: all images are brought to this side\n" if spec.resize else ""
    )
    first = FIRST.format(epochs=epochs, steps=epochs * -(-count // batch), batch=batch)
    return RECIPE.format(
        command=command, size=size, data=json.dumps(spec.name), resized=resized, model=json.dumps(model.name),
        weights=f"weights = {json.dumps(model.weights)}" if model.weights else NONE, again=again, batch=batch,
        first=GIVEN if model.weights else first,
    )  # fmt: skip


NONE = """# weights = "mine.pth"    # begin with weights that are trained already: a state_dict, .pth or .safetensors;
#                         # with epochs = 0 in the first step below they are measured as they are"""
FIRST = """[[step]]
kind = "train"            # the dense network, which all others are compared with
epochs = {epochs}               # about {steps:,} steps
batch = {batch}
optimizer = "adamw"
lr = 0.003                # the peak; the schedule rises to it and falls
schedule = "onecycle"
"""
GIVEN = """[[step]]
kind = "train"            # the network as it is, which all others are compared with
epochs = 0                # it is measured, not trained; only you know whether it has learned from the test images, and
#                         # whether the scaling above is that of its training
"""
RECIPE = """# {command}
# Every step's result is kept in runs/: change a setting, run it again, and only what follows from it is made anew.
# One setting for once: {command} --set prune.density=0.1
# Every setting of a step: prunery train --help, prunery prune --help

seed = 0                  # of the first weights, of the order of images, of what is drawn at random

[data]                    # {size}
name = {data}
# A folder that does not hold train/ and test/ is divided: a fifth of each class tests, a tenth of the rest validates.
{resized}scaling = "channel"       # pixels with mean 0 and deviation 1 in each channel
flip = false              # true: mirror half of the images; right for photographs, wrong for digits
crop = 0                  # pixels of random shift, 4 is usual for 32x32 photographs

[model]
name = {model}
{weights}

{first}
[[step]]
kind = "prune"
density = 0.2             # a fifth of the weights stays, exactly
criterion = "magnitude"   # the largest; prunery prune --help lists the others
# structure = "coupled"   # whole channels instead of single weights: then a step of kind = "shrink" removes them

[[step]]
kind = "train"            # what is left learns to do without the rest
label = "finetune"
epochs = {again}
batch = {batch}
optimizer = "adamw"
lr = 0.001
schedule = "onecycle"

[[step]]
kind = "pack"             # the result as one small file; prunery pack RUN writes the one that runs fast

# A control: as many weights, chosen blindly. What it reaches is no merit of the criterion.
[[step]]
kind = "prune"
label = "random"
after = "train"
density = 0.2
criterion = "random"

[[step]]
kind = "train"
label = "finetune_random"
epochs = {again}
batch = {batch}
optimizer = "adamw"
lr = 0.001
schedule = "onecycle"
"""


def checked_model(model: str, weights: str) -> Model:
    """A name that TOML and a user can read."""
    if not model.strip():
        raise Refused(f"--model = {quote(model)} is not allowed; expected a name, or FILE.py:function")
    if weights not in ("", "pretrained") and not Path(weights).expanduser().is_file():
        raise Refused(f"--weights = {quote(weights)} is no file; expected a state_dict (.pth, .safetensors)")
    return Model(name=model.strip(), weights=weights)
