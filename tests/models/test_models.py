"""Laws of every network in the registry: it is what its paper says, its seed decides it, and it says no in one line."""

from fnmatch import fnmatchcase

import pytest
import torch

from prunery.models import MODELS, build, default_input
from prunery.spec import Model, Refused

PARAMETERS = {
    "convnet": 94_186, "lenet_300_100": 266_610, "lenet5": 110_782, "conv2": 4_301_642, "conv4": 2_425_930,
    "conv6": 2_262_602, "resnet20": 272_474, "resnet18": 11_173_962, "vgg19": 20_035_018, "vgg16_bn": 138_365_992,
    "mobilenet_v2": 3_504_872, "efficientnet_b0": 5_288_548,
}  # fmt: skip
PARAMETERS |= {f"{name}_dropout": PARAMETERS[name] for name in ("conv2", "conv4", "conv6")}
# The lottery paper counts weights, not biases and not normalisation (facts: figure 2 and its arithmetic).
WEIGHTS = {
    "lenet_300_100": 266_200, "conv2": 4_300_992, "conv4": 2_425_024, "conv6": 2_261_184,
    "resnet20": 267_696 + 2_560 + 640, "vgg19": 20_018_880 + 5_120,
}  # fmt: skip
SMALL = [name for name in MODELS if PARAMETERS[name] < 12e6]


def spec(name, **more):
    input, classes = default_input(name)
    return Model(**{"name": name, "input": input, "classes": classes} | more)


@pytest.mark.parametrize("name", MODELS)
def test_parameters(name):
    input, classes = default_input(name)
    with torch.device("meta"):
        network = MODELS[name](input=input, classes=classes)
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]
    weights = sum(p.numel() for p in network.parameters() if p.dim() > 1)
    assert weights == WEIGHTS.get(name, weights)


@pytest.mark.parametrize("name", MODELS)
def test_a_row_of_scores_for_each_image(name):
    input, _ = default_input(name)
    with torch.device("meta"):
        network = MODELS[name](input=input, classes=7).eval()
        assert network(torch.zeros(3, *input)).shape == (3, 7)


@pytest.mark.parametrize("name", SMALL)
def test_the_seed_decides_and_nobody_else_notices(name):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other = (build(spec(name), seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[k], two[k]) for k in one)
    differs = [k for k in one if not torch.equal(one[k], other[k])]
    assert any(fnmatchcase(k, "*weight") for k in differs)


def test_first_weights_are_pinned():
    """A seed means the same network on every machine and in every version."""
    first = build(spec("lenet5"), 0).state_dict()["conv1.weight"].flatten()[:3]
    assert first.tolist() == pytest.approx([-0.15610170, 0.07722674, 0.13607529], abs=1e-7)


def test_lenet5_is_the_briefs():
    network = build(spec("lenet5"), 0)
    shapes = [tuple(p.shape) for n, p in network.named_parameters() if n.endswith("weight")]
    assert shapes == [(6, 1, 5, 5), (16, 6, 5, 5), (300, 256), (100, 300), (10, 100)]


@pytest.mark.parametrize("input", [(1, 8, 8), (3, 32, 32), (1, 28, 20), (2, 9, 11)])
def test_convnet_takes_any_image(input):
    assert build(Model(name="convnet", input=input, classes=3), 0)(torch.zeros(2, *input)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "input", "classes"),
    [
        ("timm:test_vit", (1, 64, 32), 5),
        ("timm:resnet10t", (1, 64, 64), 5),
        ("torchvision:shufflenet_v2_x0_5", (3, 64, 64), 5),
        ("torchvision:googlenet", (3, 64, 64), 5),
        ("torchvision:maxvit_t", (3, 224, 224), 5),
    ],
)
def test_libraries(name, input, classes):
    network = build(Model(name=name, input=input, classes=classes), 0).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, *input)).shape == (1, classes)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lenet5", ((1, 28, 28), 10)),
        ("resnet18", ((3, 32, 32), 10)),
        ("vgg16_bn", ((3, 224, 224), 1000)),
        ("torchvision:inception_v3", ((3, 299, 299), 1000)),
        ("timm:test_vit", ((3, 160, 160), 1000)),
        ("net.py:f", ((3, 32, 32), 10)),
    ],
)
def test_default_input(name, expected):
    assert default_input(name) == expected


@pytest.mark.parametrize(
    ("name", "input", "pattern"),
    [
        ("conv7", (3, 32, 32), "did you mean conv6"),
        ("torchvision:resnet51", (3, 32, 32), "did you mean resnet50"),
        ("torchvision:zzzzzz", (3, 32, 32), "expected one of its"),
        ("timm:vit_tiny_patch16_24", (3, 32, 32), "did you mean vit_tiny_patch16_224"),
        ("timm:resnet18.nobody", (3, 32, 32), "did you mean resnet18."),
        ("timm:", (3, 32, 32), "is unknown"),
        ("lenet5", (1, 8, 8), "lenet5 cannot take images of 1x8x8; expected at least 16x16"),
        ("conv6", (3, 7, 9), "at least 8x8"),
        ("vgg19", (3, 8, 8), "vgg19 cannot take images of 3x8x8"),
        ("efficientnet_b0", (1, 28, 28), "to have 3 channels"),
        ("torchvision:vit_b_16", (3, 33, 33), "indivisible"),
        ("nowhere.py:net", (3, 32, 32), "nowhere.py does not exist"),
    ],
)
def test_refusals(name, input, pattern):
    with pytest.raises(Refused, match=pattern) as caught:
        build(Model(name=name, input=input, classes=10), 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", [{"input": ()}, {"classes": 0}])
def test_incomplete(missing):
    with pytest.raises(Refused, match=r"model\.input and model\.classes are not known"):
        build(spec("lenet5", **missing), 0)
