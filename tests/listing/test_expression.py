"""What --where understands, and what it refuses."""

import pytest

from prunery.listing import Expression
from prunery.spec import Refused

ROW = {"name": "train-1", "kind": "train", "accuracy": 0.93, "density": 0.05, "model.name": "lenet5", "score": None}
COLUMNS = [*ROW, "train.lr"]

HOLDS = [
    ("accuracy > 0.9 and density < 0.1", True),
    ("accuracy > 0.9 and density < 0.01", False),
    ("accuracy > 0.99 or density < 0.1", True),
    ("not accuracy > 0.9", False),
    ("0.9 < accuracy < 0.95", True),
    ("0.9 < accuracy < 0.92", False),
    ('kind == "train"', True),
    ('kind != "train"', False),
    ('kind in ["train", "pack"]', True),
    ('kind not in ("train", "pack")', False),
    ('"lenet" in model.name', True),
    ("accuracy - density * 2 >= 0.83", True),
    ("-accuracy < 0 and +accuracy > 0", True),
    ("(1 - accuracy) / density < 1.5", True),
    ("1 / (density - density) > 0", False),
    # what is missing is in no order, and equals none
    ("score > 0", False),
    ("score <= 0", False),
    ("score == none", True),
    ("accuracy == none", False),
    ("score + 1 > 0", False),
    ("-score < 1", False),
    ("train.lr > 0", False),
    ("true and not false", True),
]


@pytest.mark.parametrize(("text", "expected"), HOLDS)
def test_an_expression_means_what_it_says(text, expected):
    assert bool(Expression(text, COLUMNS)(ROW)) is expected


REFUSED = [
    ("accuracy >", "no expression"),
    ("accuracy = 0.9", "no expression"),
    ("", "no expression"),
    ("acuracy > 0.9", '"acuracy" is no column'),
    ("model.nam == 1", '"model.nam" is no column'),
    ("model.name.upper() == 1", "means nothing here"),
    ("__import__('os').system('true')", "means nothing here"),
    ("kind.__class__", "is no column"),
    ("[x for x in kind]", "means nothing here"),
    ("(lambda: 1)()", "means nothing here"),
    ("kind[0] == 't'", "means nothing here"),
    ("f'{kind}' == 't'", "means nothing here"),
    ("2 ** 99999999 > 1", "means nothing here"),
    ("accuracy is none", "means nothing here"),
    ("accuracy if true else 1", "means nothing here"),
    ("b'x' == kind", "means nothing here"),
    ("1" + "+1" * 900, "nested too deeply"),
    ("1" + "0" * 3000 + " > accuracy", "at most 2000"),
    ("(" * 300 + "1" + ")" * 300, "no expression"),
]


@pytest.mark.parametrize(("text", "why"), REFUSED, ids=[t[:30] for t, _ in REFUSED])
def test_everything_else_is_refused(text, why):
    with pytest.raises(Refused, match=r"columns|at most") as refused:
        Expression(text, COLUMNS)
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["kind > 1", 'accuracy < "a"', "kind * 3 == 1", "accuracy in 3", "kind + kind == 1"])
def test_what_cannot_be_compared_names_the_step(text):
    with pytest.raises(Refused, match="does not fit train-1"):
        Expression(text, COLUMNS)(ROW)


def test_columns_that_are_used_are_known():
    assert Expression("accuracy > 0.9 and model.name != none", COLUMNS).used == {"accuracy", "model.name"}
