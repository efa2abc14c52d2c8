"""The score: the course's constants to the last digit, layers counted by hand, sums, and what cannot be."""

import pytest
import torch
from torch import nn

import prunery
from prunery.measure.score import (
    CURRENT,
    F28,
    PROFILE_F,
    PROFILE_W,
    RULES,
    Account,
    W,
    account,
    formula,
    values_of,
)
from prunery.models import build
from prunery.models.tiny import Tiny
from prunery.pruning import pairs
from prunery.quantize import Bits, folded, is_quantised, planned, quantised_
from prunery.spec import Model, Quantize, Refused


def resnet18():
    network = build(Model(name="resnet18", input=(3, 32, 32), classes=10), 0)
    with torch.no_grad():
        for p in network.parameters():  # a weight that happens to be drawn as zero would count as pruned
            p.masked_fill_(p == 0, 1e-9)
    return network


def test_resnet18_in_half_precision_is_the_reference():
    found = account(resnet18(), (3, 32, 32), 16)
    assert sum(line.storage for line in found.lines) == PROFILE_W == 5_586_981
    assert sum(line.work for line in found.lines) == 277_711_360
    functional = Account(tuple(line for line in found.lines if line.type != "ReLU" and "Avg" not in line.type))
    assert functional.scores()["profile.py"][1] * PROFILE_F == pytest.approx(834_362_870, abs=0.5)
    assert sum(found.scores()[CURRENT]) == pytest.approx(1.9895, abs=1e-4)
    assert sum(found.scores()["8.3e8"]) == pytest.approx(1.3323, abs=1e-4)
    assert sum(found.scores()["8.3e8, 2 operations"]) == pytest.approx(1.6669, abs=1e-4)


ENTRIES = [
    ({"w": 269_722, "f": 40.55e6, "q_w": 8, "q_a": 8, "p_s": 0.05, "p_u": 0.475}, 0.0401, 0.0173, 0.0289),
    ({"w": 269_722, "f": 40.55e6, "q_w": 8, "q_a": 8, "p_u": 0.5}, 0.0422, 0.0182, 0.0304),
    # low-bit ResNet-20s (APoT at 4, 3 and 2 bits, IR-Net and AdaBin at 1), whole layers at one width
    ({"w": 269_722, "f": 40.55e6, "q_w": 4, "q_a": 4}, 0.0241, 0.0121, None),
    ({"w": 269_722, "f": 40.55e6, "q_w": 3, "q_a": 3}, 0.0181, 0.0091, None),
    ({"w": 269_722, "f": 40.55e6, "q_w": 2, "q_a": 2}, 0.0121, 0.0061, None),
    ({"w": 269_722, "f": 40.55e6, "q_w": 1, "q_a": 1}, 0.0060, 0.0030, None),
    # binary weights alone: the larger of both widths rules the operations
    ({"w": 269_722, "f": 40.55e6, "q_w": 1, "q_a": 32}, 0.146, 0.050, None),
    ({"w": 0.22e6, "f": 28.6e6, "q_w": 16, "q_a": 16}, 0.0707, 0.0369, None),  # CondenseNet-50
    ({"w": 466e3, "f": 17e6, "q_w": 16, "q_a": 16}, 0.072, 0.052, None),  # a narrow MobileNetV2
]


@pytest.mark.parametrize(("values", "now", "old", "twice"), ENTRIES)
def test_public_entries_are_recomputed(values, now, old, twice):
    scores = {k: sum(v) for k, v in formula(values).items()}
    told = {CURRENT: now, "8.3e8": old, "8.3e8, 2 operations": twice}
    for edition, wanted in told.items():
        if wanted is not None:
            digits = 10.0 ** -len(str(wanted).partition(".")[2])
            assert scores[edition] == pytest.approx(wanted, abs=digits), edition


def test_the_network_of_most_entries_is_counted_as_they_count_it():
    """ResNet-20: 269,722 weights and normalisation's numbers, 40.55 million multiply-adds."""
    lines = account(build(Model(name="resnet20", input=(3, 32, 32), classes=10), 0), (3, 32, 32)).lines
    theirs = [line for line in lines if "shortcut" not in line.name]  # ours are convolutions, theirs are padding
    assert sum(line.weights + line.others for line in theirs) == 269_722
    assert sum(line.multiply_adds for line in theirs) == pytest.approx(40.55e6, rel=1e-4)
    narrow = Model(name="strided_resnet", widths=(32, 64, 128), depths=(1, 1, 1), input=(3, 32, 32), classes=10)
    lines = [line for line in account(build(narrow, 0), (3, 32, 32)).lines if "shortcut" not in line.name]
    assert sum(line.weights for line in lines) == pytest.approx(298e3, rel=0.01)
    assert sum(line.multiply_adds for line in lines) == pytest.approx(12.0e6, rel=0.01)


def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, stride=2, groups=2),
        nn.AvgPool2d(7), nn.Flatten(), nn.Linear(4, 10),
    )  # fmt: skip


def test_layers_are_what_hands_count():
    conv, norm, relu, grouped, pool, linear, _ = account(small(), (3, 16, 16)).lines
    assert (conv.weights, conv.multiply_adds, conv.terms, conv.outputs) == (216, 216 * 256, 27, 2048)
    assert (norm.others, norm.outputs) == (16, 2048)
    assert (grouped.weights, grouped.multiply_adds, grouped.terms, grouped.others) == (144, 144 * 49, 36, 4)
    assert (linear.weights, linear.multiply_adds, linear.others) == (40, 40, 10)
    assert (relu.outputs, pool.outputs) == (2048, 4)
    lines = account(small(), (3, 16, 16)).lines
    params, ops = account(small(), (3, 16, 16)).scores()[CURRENT]
    assert params == pytest.approx((216 + 16 + 144 + 4 + 40 + 10) / W)
    assert ops == pytest.approx((216 * 256 + 144 * 49 + 40) / F28)
    profile = [RULES["profile.py"][1](line) * PROFILE_F for line in lines]
    assert profile[:6] == pytest.approx(
        [216 * 256 + 26 * 2048, 3 * 2048, 2048, 144 * 49 + 35 * 196, 4, 40 + 3 * 10], rel=1e-12
    )


def quantised(weight, input, **more):
    network = small().eval()
    plan = {n: Bits(weight, input, **more) for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    quantised_(network, plan, [torch.randn(8, 3, 16, 16)])
    return network


@pytest.mark.parametrize(("weight", "input"), [(2, 2), (3, 8), (8, 4), (1, 1)])
def test_bits_of_each_layer_are_charged_as_they_are(weight, input):
    network = quantised(weight, input)
    conv, *_ = account(network, (3, 16, 16)).lines
    assert (conv.weight_bits, conv.input_bits, conv.bits) == (weight, input, max(weight, input))
    assert conv.work == 216 * 256 * max(weight, input) / 32
    assert conv.others == 8 + 1  # a step for each output, one for the inputs
    assert conv.storage == (conv.kept * weight + 9 * 32) / 32


def test_zeros_are_pruned_and_pay_for_their_places_only_where_the_rules_say_so():
    network = small()
    with torch.no_grad():
        network[0].weight[:, 0] = 0
    whole, pruned = account(small(), (3, 16, 16)), account(network, (3, 16, 16))
    assert pruned.p_u == pytest.approx(72 / 400)
    a, b = whole.scores(), pruned.scores()
    assert a[CURRENT][0] - b[CURRENT][0] == pytest.approx(72 / W)
    assert a[CURRENT][1] == b[CURRENT][1]
    assert a["strict"][0] - b["strict"][0] == pytest.approx((72 - 216 / 32) / PROFILE_W)
    assert b["strict"][1] < a["strict"][1]


def test_a_folded_network_is_charged_for_multipliers_and_biases_of_sixteen_bits():
    network = quantised(4, 4)
    made = folded(network, dict(pairs(network, torch.randn(2, 3, 16, 16), is_quantised)))
    lines = account(made, (3, 16, 16)).lines
    assert [line.type for line in lines] == [
        "QuantConv2d",
        "ReLU",
        "QuantConv2d",
        "AvgPool2d",
        "QuantLinear",
        "ReLU, sums",
    ]
    conv = lines[0]
    assert (conv.others, conv.other_bits) == (8 + 8 + 1, 16)
    assert conv.storage == (conv.kept * 4 + 17 * 16) / 32


def test_sums_of_the_lines_are_the_score_in_every_edition():
    network = build(Model(name="tiny", widths=(8, 16), depths=(1, 2), input=(3, 32, 32), classes=10), 0).eval()
    quantised_(network, planned(network, Quantize(bits=2, activations=3, depthwise=4)), [torch.randn(4, 3, 32, 32)])
    found = account(network, (3, 32, 32), 16)
    for name, (params, ops) in RULES.items():
        total = found.scores()[name]
        assert total == pytest.approx((sum(map(params, found.lines)), sum(map(ops, found.lines))))
        assert min(total) > 0
    assert found.weights == sum(p.numel() for n, p in network.named_parameters() if n.endswith("weight") and p.ndim > 1)
    assert {(line.weight_bits, line.input_bits) for line in found.lines if line.weights} == {(8, 8), (2, 3), (4, 4)}


def test_python_callers_score_a_network_in_hand():
    network = prunery.load("resnet20")
    told = prunery.score(network)
    assert told.score == pytest.approx(sum(line.storage / 5.6e6 + line.work / 2.8e8 for line in told.lines))
    assert prunery.score(network, floats=16).score < told.score
    masks = prunery.prune(network, density=0.5)
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert prunery.score(network).p_u == pytest.approx(1 - kept / told.weights, abs=0.01)
    with pytest.raises(Refused, match=r"score: input = \[32, 32\] is no image"):
        prunery.score(network, input=[32, 32])
    with pytest.raises(Refused, match="score: floats = 8 is not allowed; expected 16 or 32"):
        prunery.score(network, floats=8)
    with pytest.raises(Refused, match='score: network is the text "resnet20"'):
        prunery.score("resnet20")


def test_a_layer_that_runs_twice_is_stored_once_and_works_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1, bias=False)

        def forward(self, x):
            return self.conv(self.conv(x)).mean((2, 3))

    lines = [line for line in account(Twice(), (3, 4, 4)).lines if line.terms]
    assert sum(line.weights for line in lines) == 9
    assert sum(line.multiply_adds for line in lines) == 2 * 9 * 16


REFUSED = {
    "more than all": ({"w": 1e5, "f": 1e7, "p_s": 0.4, "p_u": 0.7}, "p_s \\+ p_u = 1.1 is more than all weights"),
    "no bits": ({"w": 1e5, "f": 1e7, "q_w": 0}, "q_w = 0 is not allowed"),
    "no weights": ({"f": 1e7}, "w is missing"),
    "a share": ({"w": 1e5, "f": 1e7, "p_u": 70}, "p_u = 70 is not allowed"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_numbers_that_cannot_be_are_refused(what):
    values, text = REFUSED[what]
    with pytest.raises(Refused, match=text):
        formula(values)


def test_words_are_read():
    assert values_of("w=2.7e5,f=4e7 q_w=8") == {"w": 2.7e5, "f": 4e7, "q_w": 8}
    for wrong in ("q=8", "w", "w=many"):
        with pytest.raises(Refused, match="is not allowed"):
            values_of(wrong)


def test_nothing_to_count_is_refused():
    with pytest.raises(Refused, match="no convolution and no linear layer"):
        account(nn.Sequential(nn.Flatten()), (3, 4, 4))
    with pytest.raises(Refused, match="numbers of 0 bits"):
        account(small(), (3, 16, 16), 0)


# --- the tiny networks ------------------------------------------------------------------------------------------------


def test_tiny_networks_have_the_sizes_that_they_were_planned_with():
    """facts: 3 blocks of 32 at 16x16 and 4 of 64 at 8x8 are 87 thousand weights and 8.1 million multiply-adds, more or
    less."""
    network = build(Model(name="tiny", widths=(32, 64), depths=(3, 4), input=(3, 32, 32), classes=10), 0)
    found = account(network, (3, 32, 32))
    assert 70_000 < found.weights < 90_000
    assert 7e6 < sum(line.multiply_adds for line in found.lines) < 8.5e6
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("widths", [(4, 8, 8), (8, 4), (5,)])
@pytest.mark.parametrize("side", [32, 28, 9])
def test_tiny_networks_take_any_widths_and_sides(widths, side):
    network = Tiny(widths, tuple(1 for _ in widths), (1, side, side), 3)
    assert network(torch.randn(2, 1, side, side)).shape == (2, 3)


def test_widths_and_depths_are_settings():
    network = build(Model(name="resnet", widths=(4, 8), depths=(1, 2), input=(3, 16, 16), classes=5), 0)
    assert [len(network.layer1), len(network.layer2)] == [1, 2]
    same = build(Model(name="resnet", widths=(16, 32, 64), depths=(3, 3, 3), input=(3, 32, 32), classes=10), 0)
    theirs = build(Model(name="resnet20", input=(3, 32, 32), classes=10), 0)
    assert {k: v.shape for k, v in same.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    for wrong, text in (
        ({"name": "tiny"}, "needs model.widths"),
        ({"name": "resnet20", "widths": (4,), "depths": (1,)}, "is for"),
    ):
        with pytest.raises(Refused, match=text):
            build(Model(input=(3, 32, 32), classes=10, **wrong), 0)
    with pytest.raises(Refused, match="as many of both"):
        Model(name="tiny", widths=(4,))
