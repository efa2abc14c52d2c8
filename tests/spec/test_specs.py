"""Every spec: checked at birth, the same through TOML and back, explained field by field, named for good."""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args, get_origin

import pytest

from prunery.spec import (
    SOURCE,
    STEPS,
    Data,
    Draw,
    Init,
    Lottery,
    Model,
    Node,
    Pack,
    Prune,
    Quantize,
    Refused,
    Spec,
    Train,
    build,
    choose,
    chosen,
    digest,
    dumps,
    helps,
    hints,
    loads,
    plain,
    quote,
    read_toml,
)  # fmt: skip

CLASSES = [*STEPS.values(), Data, Model, Lottery, Draw]
KINDS = {cls.kind: cls for cls in CLASSES}
NAMES = Path(__file__).parent.parent / "golden" / "names.json"

OWN = Model(name="own.py:net", input=(3, 7, 9), classes=4, init="orthogonal", weights="a b.pth")
ODD = Data(name='folder:/a "b"\\c\n\tü\x7f', scaling="raw", flip=True, crop=2, validation=0)
CHOSEN = {
    "init": Init(model=OWN, seed=7),
    "train": Train(
        data=ODD, epochs=0.1 + 0.2, steps=3, optimizer="adam", lr=1e-300, eps=5e-324, milestones=(0.5, 80.0)
    ),
    "train_best": Train(keep="best", decay_all=False, seed=2**63 - 1),
    "prune": Prune(density=1.0, criterion="random", scope="layer", exclude=("fc*", "", "a]b,c")),
    "quantize": Quantize(bits=2, per="tensor", data=Data(name="mnist")),
    "pack": Pack(values="float32"),
    "lottery": Lottery(steps=7, every=7, arms=("signs", "ticket"), curve_levels=(), scope="global"),
    "lottery_default": Lottery(),
    "draw": Draw(arm="reinit", level=3, seed=1, number=2),
    **{f"{kind}_default": cls() for kind, cls in STEPS.items()},
}


@pytest.mark.parametrize("spec", CHOSEN.values(), ids=CHOSEN)
def test_a_spec_survives_toml(spec):
    again = loads(dumps(spec))
    assert again == spec
    assert type(again) is type(spec)
    assert dumps(again) == dumps(spec)
    assert Node(again).name == Node(spec).name
    assert hash(again) == hash(spec)


@pytest.mark.parametrize("spec", CHOSEN.values(), ids=CHOSEN)
def test_a_spec_survives_plain_values(spec):
    assert build(type(spec), plain(spec)) == spec
    assert build(type(spec), json.loads(json.dumps(plain(spec)))) == spec


@pytest.mark.parametrize("cls", CLASSES, ids=KINDS)
def test_every_field_is_explained(cls):
    texts = helps(cls)
    assert set(texts) == {f.name for f in dataclasses.fields(cls)}
    assert all(len(text.split()) >= 2 and "\n" not in text for text in texts.values())


def core(hint):
    """`T` of `T | None` and of annotated `T`."""
    if get_origin(hint) is Annotated:
        return core(get_args(hint)[0])
    inner = [a for a in get_args(hint) if a is not type(None)]
    return core(inner[0]) if type(None) in get_args(hint) else hint


def wrong(hint):
    """Values that no field of the type takes."""
    kind = core(hint)
    if get_origin(kind) is Literal:
        return ["nonsense", None, [], True]
    if get_origin(kind) is tuple:
        return ["text", 3, [[]], {"a": 1}]
    if isinstance(kind, type) and issubclass(kind, Spec):
        return ["text", 3, [], {"unheard_of": 1}]
    texts = {str: [3, True, [], "\0", "\ud800"], bool: [0, 1, "true", "yes"]}
    numbers = [True, "3", "", [], {}, math.nan, math.inf, -math.inf, 10**400, -1]
    return texts.get(kind, [*numbers, 0.5] if kind is int else numbers)


FIELDS = [(cls, name) for cls in CLASSES for name in hints(cls)]


@pytest.mark.parametrize(("cls", "name"), FIELDS, ids=[f"{c.kind}.{n}" for c, n in FIELDS])
def test_a_wrong_value_is_refused_with_its_place(cls, name):
    for value in wrong(hints(cls)[name]):
        with pytest.raises(Refused) as refusal:
            build(cls, {name: value})
        line = str(refusal.value)
        assert f"{cls.kind}.{name}" in line
        assert "expected" in line or "choose one of" in line
        assert "\n" not in line
        assert quote(value) in line or isinstance(value, list | dict)


@pytest.mark.parametrize(("cls", "name"), FIELDS, ids=[f"{c.kind}.{n}" for c, n in FIELDS])
def test_a_misspelt_key_is_refused_with_the_right_one(cls, name):
    with pytest.raises(Refused, match=f'a key of {cls.kind} = "{name}_" is unknown; .*did you mean {name}'):
        build(cls, {f"{name}_": 1})


RANGES = [
    (Train, "lr", 0), (Train, "lr", -1e-9), (Train, "momentum", 1), (Train, "momentum", -0.1), (Train, "batch", 0),
    (Train, "batch", 2**31), (Train, "epochs", -0.5), (Train, "steps", -1), (Train, "gamma", 0), (Train, "eps", 0),
    (Train, "ema", 1), (Train, "distill", 1), (Train, "temperature", 0), (Train, "seed", 2**63), (Prune, "density", 0),
    (Prune, "density", 1.0000001), (Prune, "density", -0.1), (Data, "crop", -1), (Data, "split_seed", 2**64),
    (Model, "input", [0, 8, 8]), (Model, "input", [8, 8]), (Model, "input", [1, 2, 3, 4]), (Quantize, "bits", 1),
    (Quantize, "bits", 9), (Quantize, "bits", 8.5), (Train, "milestones", [80, 0]),
]  # fmt: skip


@pytest.mark.parametrize(("cls", "name", "value"), RANGES)
def test_a_number_outside_its_range_is_refused(cls, name, value):
    with pytest.raises(Refused, match=rf"{cls.kind}\.{name}(\[\d\])? = .*(expected|choose one of)"):
        build(cls, {name: value})


SAME = [
    (Train, "lr", 1, 1.0), (Train, "batch", 64.0, 64), (Quantize, "bits", 4.0, 4),
    (Train, "milestones", [1, 2], (1.0, 2.0)),
    (Model, "input", [1, 8.0, 8], (1, 8, 8)), (Prune, "exclude", [], ()), (Train, "epochs", 2**53, float(2**53)),
]  # fmt: skip


@pytest.mark.parametrize(("cls", "name", "value", "meant"), SAME)
def test_one_value_has_one_form_and_one_name(cls, name, value, meant):
    seen = getattr(build(cls, {name: value, **({"schedule": "multistep"} if name == "milestones" else {})}), name)
    assert seen == meant
    assert type(seen) is type(meant)
    assert all(type(a) is type(b) for a, b in zip(seen, meant, strict=True)) if isinstance(seen, tuple) else True


TOGETHER = [
    ({"schedule": "multistep"}, "train.milestones"),
    ({"keep": "best", "data": {"validation": 0}}, "data.validation is 0"),
    ({"unfreeze": ["1=a"]}, "train.unfreeze thaws what is frozen"),
    ({"unfreeze": ["a"], "freeze": ["b"]}, 'train.unfreeze: "a" is not allowed; expected EPOCH=LAYER'),
    ({"unfreeze": ["-1=a"], "freeze": ["b"]}, "expected EPOCH=LAYER"),
    ({"unfreeze": ["inf=a"], "freeze": ["b"]}, "expected EPOCH=LAYER"),
    ({"unfreeze_every": 1, "freeze": ["b"]}, "train.freeze_blocks is 0"),
    ({"sparse": "rigl", "freeze": ["b"]}, 'train.sparse = "rigl" moves masks, also of frozen layers'),
]


@pytest.mark.parametrize(("values", "text"), TOGETHER)
def test_fields_that_do_not_go_together_are_refused(values, text):
    with pytest.raises(Refused, match=re.escape(text)):
        build(Train, values)


HINTS = [
    ("magnitud", ["magnitude", "random"], "; did you mean magnitude? choose one of magnitude, random"),
    ("adma", ["sgd", "adam", "adadelta"], "; did you mean adam? choose one of sgd, adam, adadelta"),
    ("xyz", ["sgd", "adam"], "choose one of sgd, adam"),
    (3, [2, 4], "= 3 is unknown; choose one of 2, 4"),
    (None, ["a"], "= None is unknown; choose one of a"),
]


@pytest.mark.parametrize(("name", "names", "text"), HINTS)
def test_an_unknown_name_brings_the_nearest(name, names, text):
    with pytest.raises(Refused) as refusal:
        choose(name, names, "it")
    assert text in str(refusal.value)
    assert str(refusal.value).endswith(text) or "did you mean" not in text


def test_long_values_are_cut_and_stay_on_one_line():
    assert len(quote("x\n" * 1000)) == 100
    assert "\n" not in quote("x\n" * 1000)


BROKEN = [
    ("x", "not TOML"),
    ("kind = 'trian'", "did you mean train?"),
    ("lr = 1", "kind"),
    ("kind = 'train'\nlrr = 1", "lrr"),
]


@pytest.mark.parametrize(("text", "part"), BROKEN)
def test_a_broken_spec_file_is_refused(text, part):
    with pytest.raises(Refused, match=re.escape(part)):
        loads(text)


def test_a_toml_file_is_refused_by_name(tmp_path):
    for name, content in {"a.toml": b"[", "b.toml": b"\xff", "c.toml": b"x = " + b"[" * 9999}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Refused, match=re.escape(str(tmp_path / name))):
            read_toml(tmp_path / name)
    for path in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(Refused, match=f"{re.escape(str(path))} .*expected a TOML file"):
            read_toml(path)


# --- names ------------------------------------------------------------------------------------------------------------

LENET = Node(Init(model=Model(name="lenet5", input=(1, 28, 28), classes=10)))
DENSE = Node(Train(data=Data(name="mnist"), epochs=2.0, optimizer="adam", lr=1.2e-3, batch=64), LENET)
CUT = Node(Prune(data=Data(name="mnist"), density=0.1), DENSE)
LOTTERY = Lottery(model=Model(name="lenet_300_100", input=(1, 28, 28), classes=10, init="glorot_normal"))
PINNED = {
    "init": Node(Init()),
    "init, seed 1": Node(Init(seed=1)),
    "lenet5": LENET,
    "lenet5 from a file": Node(Init(model=Model(name="lenet5", weights="a.pth", weights_sha256="ab"))),
    "train, all defaults": Node(Train()),
    "train on init": Node(Train(), Node(Init())),
    "train lenet5": DENSE,
    "multistep": Node(Train(schedule="multistep", milestones=(80.0, 120.0), gamma=0.1), LENET),
    "distilled": Node(Train(teacher=DENSE.name, distill=0.5), LENET),
    "prune": CUT,
    "prune again": Node(Prune(data=Data(name="mnist"), density=0.05, exclude=("fc3",)), CUT),
    "finetune": Node(Train(data=Data(name="mnist", flip=True, validation=0), steps=100, lr=0.01), CUT),
    "quantize": Node(Quantize(bits=4), CUT),
    "pack": Node(Pack(values="float32"), Node(Quantize(bits=4), CUT)),
    "lottery": Node(LOTTERY),
    "draw": Node(Draw(arm="reinit", level=1, seed=2, number=1), Node(Draw(seed=2), Node(LOTTERY))),
}


def test_names_are_for_good():
    """They are on users' disks: when this fails, a change renames their runs. Undo the change, not the file."""
    assert {label: node.name for label, node in PINNED.items()} == json.loads(NAMES.read_text())


def test_each_history_has_its_own_name():
    assert len({node.name for node in PINNED.values()}) == len(PINNED)
    assert all(re.fullmatch(r"[a-z]+-[0-9a-f]{12}", node.name) for node in PINNED.values())


@pytest.mark.parametrize("cls", CLASSES, ids=KINDS)
def test_a_new_field_with_a_default_renames_nothing(cls):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Later(cls):
        kind: ClassVar[str] = cls.kind
        something_new: float = 0.5

    assert digest(Later(), "parent") == digest(cls(), "parent")
    assert digest(Later(something_new=0.25), "parent") != digest(cls(), "parent")


def test_a_new_field_inside_a_nested_spec_renames_nothing():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Later(Data):
        something_new: bool = False

    old, new = Train(data=Data(name="mnist", flip=True)), Train(data=Later(name="mnist", flip=True))
    assert chosen(new) == chosen(old) == {"data": {"name": "mnist", "flip": True}}


@pytest.mark.parametrize(("cls", "name"), FIELDS, ids=[f"{c.kind}.{n}" for c, n in FIELDS])
def test_every_field_is_part_of_the_name(cls, name):
    """Whatever is chosen differently is another step."""
    assert digest(
        build(cls, {name: other(cls, name)} | COMPANY.get(f"{cls.kind}.{name}", COMPANY.get(name, {}))), ""
    ) != digest(cls(), "")


COMPANY = {"table": {"scope": "table", "table": ["x=0.5"]}, "rounds": {"schedule": "geometric"}, "rewind": {"every": 5}}
COMPANY |= {f"quantize.{n}": {"activations": 8, n: 5} for n in ("first", "last", "depthwise")}
COMPANY |= {"quantize.bits": {"activations": 8}, "quantize.ternary": {"activations": 8, "bits": 2}}
COMPANY |= {"lottery.marks": {"marks": [100, 300]}}  # only what is looked at can be marked
COMPANY |= {"quantize.clusters": {"learned": True}}
COMPANY |= {f"train.{n}": {"freeze_blocks": 1, n: v} for n, v in (("unfreeze", ["2=x"]), ("unfreeze_every", 0.5))}
COMPANY |= {"quantize.layers": {"activations": 8, "layers": ["x=4/4"]}}
COMPANY |= {"model.widths": {"depths": [1, 1, 1]}, "model.depths": {"widths": [8, 8, 8]}}
SOURCED = {"arms": ["ticket", "transferred"]}
COMPANY |= {"rate_layers": {"rate_layers": ["x=0.5"]}} | dict.fromkeys(SOURCE, SOURCED)
"""Fields that mean nothing without another."""


def other(cls, name):
    """A value that is not the default."""
    kind, default = core(hints(cls)[name]), getattr(cls(), name)
    if isinstance(kind, type) and issubclass(kind, Spec):
        return {"name": "x"}
    if get_origin(kind) is Literal:
        return next(v for v in get_args(kind) if v != default)
    if name == "arms":
        return ["ticket", "signs"]
    if get_origin(kind) is tuple:
        return {int: [3, 5, 5], float: [7.0], str: ["x"]}[core(get_args(kind)[0])]
    return {str: "x", bool: not default, int: 5 + (default == 5), float: 0.03}[kind]
