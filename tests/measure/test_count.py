"""The counter against hand counts, against torch's own counter, and against the brief's table."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.prune import l1_unstructured
from torch.utils.flop_counter import FlopCounterMode

from prunery.masks import ones, prunable
from prunery.measure.count import count, totals
from prunery.measure.table import summary_text
from prunery.models import MODELS, build, default_input
from prunery.models.library import timm_network, torchvision_network
from prunery.spec import Model, Refused

# --- layers counted by hand: (layer, input, products for one image, bias adds for one image) --------------------------


class ByHand(nn.Module):
    """A linear layer without a layer; what comes before it is element-wise."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(6, 5)), nn.Parameter(torch.ones(5))
        self.scale, self.shift = nn.Parameter(torch.ones(6)), nn.Parameter(torch.ones(6))

    def forward(self, x):
        return (x * self.scale + self.shift) @ self.a + self.b


class Turn(nn.Module):
    def forward(self, x):
        return x.transpose(2, 3)


HAND = {
    "conv": (nn.Conv2d(3, 8, 3, padding=1), (3, 10, 10), 8 * 100 * 27, 800),
    "stride": (nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), (3, 11, 11), 8 * 36 * 27, 0),
    "dilation": (nn.Conv2d(3, 8, 3, dilation=2), (3, 10, 10), 8 * 36 * 27, 8 * 36),
    "groups": (nn.Conv2d(8, 16, 3, groups=4), (8, 6, 6), 16 * 16 * 2 * 9, 16 * 16),
    "depthwise": (nn.Conv2d(8, 8, 5, groups=8, padding=2, bias=False), (8, 6, 6), 8 * 36 * 25, 0),
    "pointwise": (nn.Conv2d(8, 4, 1), (8, 6, 6), 4 * 36 * 8, 4 * 36),
    "oblong": (nn.Conv2d(2, 4, (1, 3)), (2, 5, 9), 4 * 5 * 7 * 6, 4 * 35),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), (4, 5, 5), 4 * 25 * 6 * 9, 6 * 121),
    "transposed groups": (nn.ConvTranspose2d(4, 6, 2, groups=2, bias=False), (4, 5, 5), 4 * 25 * 3 * 4, 0),
    "linear": (nn.Sequential(nn.Flatten(), nn.Linear(12, 7)), (3, 2, 2), 84, 7),
    "linear no bias": (nn.Sequential(nn.Flatten(), nn.Linear(12, 7, bias=False)), (3, 2, 2), 84, 0),
    "linear on places": (nn.Linear(6, 5), (3, 4, 6), 3 * 4 * 6 * 5, 3 * 4 * 5),
    "linear by hand": (ByHand(), (3, 4, 6), 3 * 4 * 6 * 5, 3 * 4 * 5),
    "linear on turned places": (nn.Sequential(Turn(), nn.Linear(4, 5)), (3, 4, 6), 3 * 6 * 4 * 5, 3 * 6 * 5),
    "attention": (nn.Sequential(nn.Flatten(1, 2), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)), (2, 3, 8),
                  6 * (8 * 24 + 8 * 8 + 2 * 8 * 16) + 2 * 6 * 6 * 8, 6 * (24 + 8 + 16 + 8)),
    "free": (nn.Sequential(nn.BatchNorm2d(3), nn.GELU(), nn.AvgPool2d(2), nn.Softmax(1), nn.Upsample(scale_factor=2)),
             (3, 4, 4), 0, 0),
}  # fmt: skip


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", HAND)
def test_by_hand(name, batch):
    network, input, products, biases = HAND[name]
    found = totals(count(network, input, batch))
    assert (found["multiply_adds"], found["bias_adds"]) == (batch * products, batch * biases)
    assert found["kept_multiply_adds"] == batch * products


class Looking(nn.Module):
    """A network that looks at its values can only be counted with data."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) if x.sum() < 1e9 else x


@pytest.mark.parametrize("name", HAND)
def test_with_data_as_without(name):
    network, input, products, biases = HAND[name]
    found = totals(count(Looking(network), input, 2))
    assert (found["multiply_adds"], found["bias_adds"]) == (2 * products, 2 * biases)


# --- whole networks against torch's counter (two FLOPs a product) -----------------------------------------------------

NETWORKS = {name: maker for name, maker in MODELS.items() if name != "vgg16_bn"} | {
    f"torchvision:{name}": partial(torchvision_network, name)
    for name in ("resnet50", "vit_b_16", "swin_t", "inception_v3", "convnext_tiny")
} | {f"timm:{name}": partial(timm_network, name) for name in ("vit_tiny_patch16_224", "mixer_s16_224")}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_against_torch(name):
    input, classes = default_input(name)
    with torch.device("meta"):
        network = NETWORKS[name](input=input, classes=classes).eval()
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as theirs:
        network(torch.zeros(2, *input))
    rows = count(network, input, 2)
    assert 2 * totals(rows)["multiply_adds"] == theirs.get_total_flops()
    assert totals(rows)["parameters"] == sum(p.numel() for p in network.parameters())
    assert rows[0].depth == 0
    assert rows[0].output == (2, classes)


def test_resnet18():
    found = totals(count(build(Model(name="resnet18", input=(3, 32, 32), classes=10), 0), (3, 32, 32)))
    assert (found["multiply_adds"], found["parameters"]) == (555_422_720, 11_173_962)


# --- masks ------------------------------------------------------------------------------------------------------------


class Tied(nn.Module):
    """One layer called twice, and once through a function."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return F.linear(self.fc(self.fc(x.flatten(1))), self.fc.weight)


def test_shared_layers_are_one_layer():
    network = Tied()
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[0, :3] = True
    rows = count(network, (1, 2, 2), 2, {"fc.weight": mask})
    assert [(r.name, r.parameters, r.kept, r.prunable, r.prunable_kept) for r in rows] == [
        ("", 0, 0, 0, 0), ("fc", 20, 7, 16, 3), ("fc", 0, 0, 0, 0), ("unused", 6, 6, 4, 4),
    ]  # fmt: skip
    assert [(r.multiply_adds, r.kept_multiply_adds, r.bias_adds) for r in rows] == [
        (32, 6, 0),
        (32, 6, 8),
        (32, 6, 8),
        (0, 0, 0),
    ]
    assert totals(rows)["density"] == 7 / 20


@pytest.mark.parametrize("name", ["conv", "stride", "groups", "transposed", "linear", "linear on places"])
def test_kept_products_are_those_that_meet_a_kept_weight(name):
    network, input, *_ = HAND[name]
    full = count(network, input, 2)
    for density in (0, 0.3, 1):
        generator = torch.Generator().manual_seed(0)
        masks = {n: torch.rand(w.shape, generator=generator) < density for n, w in prunable(network).items()}
        found = totals(count(network, input, 2, masks))
        (mask,) = masks.values()
        uses, rest = divmod(totals(full)["multiply_adds"], mask.numel())
        assert rest == 0
        assert found["kept_multiply_adds"] == uses * int(mask.sum())
        assert found["prunable_kept"] == int(mask.sum())
        assert found["kept_parameters"] == found["parameters"] - int((~mask).sum())


def test_kept_products_by_brute_force():
    """With weights of one for kept and zero for pruned, a convolution of ones adds up the products that are kept."""
    layer = nn.Conv2d(4, 6, 3, groups=2, stride=2, bias=False)
    mask = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    with torch.no_grad():
        layer.weight.copy_(mask)
    by_hand = int(layer(torch.ones(2, 4, 9, 9)).sum())
    assert totals(count(layer, (4, 9, 9), 2, {"weight": mask}))["kept_multiply_adds"] == by_hand


def test_zeros_without_a_mask_are_kept():
    layer = nn.Conv2d(3, 4, 3)
    nn.init.zeros_(layer.weight)
    found = totals(count(layer, (3, 5, 5)))
    assert found["kept_multiply_adds"] == found["multiply_adds"]
    assert found["density"] == 1


def test_full_masks_change_nothing():
    network = build(Model(name="resnet20", input=(3, 32, 32), classes=10), 0)
    assert count(network, (3, 32, 32)) == count(network, (3, 32, 32), masks=ones(prunable(network)))


WRONG = [
    ({"fc1.weigth": torch.ones(1)}, "did you mean fc1.weight"),
    ({"fc1.weight": torch.ones(3, 2)}, r"expected its weight's, \[300, 256\]"),
]


@pytest.mark.parametrize(("masks", "pattern"), WRONG)
def test_masks_of_another_network(masks, pattern):
    with pytest.raises(Refused, match=pattern):
        count(build(Model(name="lenet5", input=(1, 28, 28), classes=10), 0), (1, 28, 28), masks=masks)


# --- nothing is disturbed ---------------------------------------------------------------------------------------------


class Moody(nn.Module):
    """Looks at its values, which a network without data cannot do; fails on demand."""

    def __init__(self):
        super().__init__()
        self.norm, self.fc, self.drop = nn.BatchNorm2d(1), nn.Linear(4, 2), nn.Dropout()
        self.fails = False

    def forward(self, x):
        x = self.drop(self.norm(x))
        if x.sum() < 1e9 and self.fails:
            raise ValueError("no")
        return self.fc(x.flatten(1))


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("make", [Moody, lambda: nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 2))])
def test_the_network_is_left_as_it_was(make, fails):
    network = make().train()
    network[0].eval() if isinstance(network, nn.Sequential) else network.drop.eval()
    network.fails = fails
    modes = [m.training for m in network.modules()]
    before, random = {k: v.clone() for k, v in network.state_dict().items()}, torch.get_rng_state()
    if fails and isinstance(network, Moody):
        with pytest.raises(ValueError, match="no"):
            count(network, (1, 2, 2), 3)
    else:
        assert totals(count(network, (1, 2, 2), 3))["multiply_adds"] == 24
    assert [m.training for m in network.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert all(p.device.type == "cpu" and p.grad is None for p in network.parameters())


def test_pruned_the_way_of_torch():
    """torch.nn.utils.prune leaves a computed weight as a mere attribute."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    l1_unstructured(network[1], "weight", 3)
    assert totals(count(network, (1, 2, 2)))["multiply_adds"] == 8
    assert network[1].weight.device.type == "cpu"


# --- the table --------------------------------------------------------------------------------------------------------


def table(name, batch, masks=None, **more):
    input, classes = default_input(name)
    rows = count(build(Model(name=name, input=input, classes=classes), 0), input, batch, masks)
    return summary_text(rows, totals(rows), input, batch, **more)


CONV6 = """
==========================================================================================
Layer (type:depth-idx)                   Output Shape              Param #
==========================================================================================
Conv6                                    [60, 10]                  --
├─Conv2d: 1-1                            [60, 64, 32, 32]          1,792
├─ReLU: 1-2                              [60, 64, 32, 32]          --
├─Conv2d: 1-3                            [60, 64, 32, 32]          36,928
├─ReLU: 1-4                              [60, 64, 32, 32]          --
├─MaxPool2d: 1-5                         [60, 64, 16, 16]          --
├─Conv2d: 1-6                            [60, 128, 16, 16]         73,856
├─ReLU: 1-7                              [60, 128, 16, 16]         --
├─Conv2d: 1-8                            [60, 128, 16, 16]         147,584
├─ReLU: 1-9                              [60, 128, 16, 16]         --
├─MaxPool2d: 1-10                        [60, 128, 8, 8]           --
├─Conv2d: 1-11                           [60, 256, 8, 8]           295,168
├─ReLU: 1-12                             [60, 256, 8, 8]           --
├─Conv2d: 1-13                           [60, 256, 8, 8]           590,080
├─ReLU: 1-14                             [60, 256, 8, 8]           --
├─MaxPool2d: 1-15                        [60, 256, 4, 4]           --
├─Flatten: 1-16                          [60, 4096]                --
├─Linear: 1-17                           [60, 256]                 1,048,832
├─ReLU: 1-18                             [60, 256]                 --
├─Linear: 1-19                           [60, 256]                 65,792
├─ReLU: 1-20                             [60, 256]                 --
├─Linear: 1-21                           [60, 10]                  2,570
==========================================================================================
Total params: 2,262,602
Trainable params: 2,262,602
Non-trainable params: 0
Total mult-adds (G): 9.25
Products alone (G): 9.23 (Prunery's multiply-adds; 13,793,880 bias adds stand apart)
==========================================================================================
Input size (MB): 0.74
Forward/backward pass size (MB): 110.35
Params size (MB): 9.05
Estimated Total Size (MB): 120.14
==========================================================================================
"""


def test_conv6_is_the_briefs_table():
    """Line for line brief 000's, and one line of ours."""
    assert table("conv6", 60) == CONV6.strip()


def test_tree():
    lines = table("resnet20", 2).split("\n")
    assert "├─Sequential: 1-4                        [2, 16, 32, 32]           --" in lines
    assert "│    └─Block: 2-1                        [2, 16, 32, 32]           --" in lines
    assert "│    │    └─Conv2d: 3-1                  [2, 16, 32, 32]           2,304" in lines
    assert max(map(len, lines)) == 90


def test_folded_tables_lose_nothing():
    text = table("resnet20", 1, depth=1)
    assert "├─Sequential: 1-6                        [1, 64, 8, 8]             205,696" in text.split("\n")
    assert "Total params: 272,474" in text


def test_pruned_table():
    network = build(Model(name="lenet5", input=(1, 28, 28), classes=10), 0)
    masks = ones(prunable(network))
    masks["fc1.weight"][:, 64:] = False
    lines = [line.split() for line in table("lenet5", 1, masks).split("\n")]
    assert ["├─Linear:", "1-4", "[1,", "300]", "77,100", "19,500", "25.00%"] in lines
    assert any(line[:3] == ["Kept", "products", "(K):"] for line in lines)


def test_totals_are_sums():
    rows = count(build(Model(name="lenet5", input=(1, 28, 28), classes=10), 0), (1, 28, 28), 4)
    found = totals(rows)
    assert found["input_bytes"] == 4 * 4 * 784
    assert found["params_bytes"] == 4 * found["parameters"]
    assert found["multiply_adds"] == 4 * (
        math.prod((6, 24, 24, 25)) + math.prod((16, 8, 8, 150)) + 256 * 300 + 30000 + 1000
    )
    assert found["trainable"] == found["parameters"] == 110_782
