"""Fake quantisation: gradients are LSQ's, zeros stay zeros, and evaluation is integer arithmetic bit for bit."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunery.models import build
from prunery.models.deep import ResNet
from prunery.pruning import pairs
from prunery.quantize import (
    Bits,
    Step,
    described,
    folded,
    in_integers,
    is_quantised,
    plan_of,
    planned,
    quantised_,
    quantised_layers,
    wear_,
    whole_weights,
)
from prunery.quantize.calibrate import best_steps, clustered
from prunery.quantize.fake import Rounded
from prunery.quantize.integer import _products
from prunery.spec import Model, Quantize, Refused, Train
from prunery.train.optim import optimizer


def network(seed=0, trained=True):
    torch.manual_seed(seed)
    net = ResNet((8, 16), 1, (3, 16, 16), 10)
    if trained:  # running statistics that are not those of a fresh network
        net.train()
        for _ in range(3):
            net(torch.randn(32, 3, 16, 16) * 2 + 1)
    return net.eval()


def images(n=32):
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 + 1


def plan(net, weight, input, **more):
    return {n: Bits(weight, input, **more) for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def made(weight, input, masks=None, **more):
    net = network()
    for name, mask in (masks or {}).items():
        dict(net.named_parameters())[name].data *= mask
    quantised_(net, plan(net, weight, input, **more), [images()])
    return net.eval()


CASES = [(8, 8), (4, 4), (3, 2), (2, 2), (1, 2), (1, 1), (8, 3)]


@pytest.mark.parametrize(("weight", "input"), CASES)
@pytest.mark.parametrize("per", ["channel", "tensor"])
def test_operands_are_whole_numbers_of_so_many_bits(weight, input, per):
    net = made(weight, input, per=per)
    seen = {}
    for name, layer in quantised_layers(net).items():
        layer.register_forward_pre_hook(lambda m, args, n=name: seen.update({n: m.operands(args[0])}))
    with torch.no_grad():
        net(images())
    for name, (x, w, scale) in seen.items():
        bits = quantised_layers(net)[name].bits
        for values, (low, high), width in ((x, bits.inputs, input), (w, bits.weights, weight)):
            assert torch.equal(values, values.round())
            assert low <= values.min()
            assert values.max() <= high
            assert high - low < 2**width or width == 1
        assert torch.equal(scale.bfloat16().float(), scale)


@pytest.mark.parametrize(("low", "high"), [(-4, 3), (0, 15), (-1, 1)])
def test_gradients_are_those_of_learned_steps(low, high):
    """The paper's formula, written with a straight-through round."""
    x = torch.randn(1000, dtype=torch.float64, requires_grad=True)
    step = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1000, dtype=torch.float64)
    u = (x / step).clamp(low, high)
    (((u.round() - u).detach() + u) * step * weight).sum().backward()
    expected = x.grad.clone(), step.grad.clone()
    x.grad = step.grad = None
    (Rounded.apply(x, step, low, high, False) * step * weight).sum().backward()
    assert torch.allclose(x.grad, expected[0])
    assert torch.allclose(step.grad, expected[1])


def test_gradients_of_steps_of_channels_add_up_over_each():
    x = torch.randn(3, 50, dtype=torch.float64, requires_grad=True)
    steps = torch.tensor([[0.2], [0.3], [0.5]], dtype=torch.float64, requires_grad=True)
    Rounded.apply(x, steps, -4, 3, False).square().sum().backward()
    for i in range(3):
        one = x[i].detach().clone().requires_grad_()
        step = steps[i, 0].detach().clone().requires_grad_()
        Rounded.apply(one, step, -4, 3, False).square().sum().backward()
        assert torch.allclose(step.grad, steps.grad[i, 0])
        assert torch.allclose(one.grad, x.grad[i])


def test_finer_steps_are_closer_and_eight_bits_are_close():
    whole, x = network(), images()
    with torch.no_grad():
        y = whole(x)
        far = {b: float((made(b, b)(x) - y).norm() / y.norm()) for b in (8, 6, 4, 2)}
    assert far[8] < far[6] < far[4] < far[2]
    assert far[8] < 0.03


@pytest.mark.parametrize(("weight", "input"), CASES)
def test_pruned_weights_stay_zero_while_training_and_behind_the_fold(weight, input):
    masks = {n: torch.rand(p.shape) < 0.5 for n, p in network().named_parameters() if p.ndim > 1}
    net = made(weight, input, masks)
    rule = optimizer(net, Train(lr=0.05, weight_decay=1e-3))
    for _ in range(3):
        loss = F.cross_entropy(net.train()(images()), torch.arange(32) % 10)
        rule.zero_grad()
        loss.backward()
        for name, mask in masks.items():
            dict(net.named_parameters())[name].grad.mul_(mask)
        rule.step()
        assert torch.isfinite(loss)
    for stage in (net, fold(net)):
        for name, layer in quantised_layers(stage).items():
            assert not whole_weights(layer)[~masks[f"{name}.weight"]].any()


def test_steps_do_not_decay_and_are_trained():
    net = made(4, 4)
    groups = optimizer(net, Train(weight_decay=0.1)).param_groups
    steps = [p for p in net.parameters() if isinstance(p, Step)]
    assert len(steps) == 2 * len(quantised_layers(net))
    decayed = {id(p) for g in groups if g["weight_decay"] for p in g["params"]}
    assert not decayed & {id(p) for p in steps}
    net.train()(images()).square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in steps)
    assert all(isinstance(p, Step) for p in copy.deepcopy(net).parameters() if p.shape == () and p.requires_grad)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_weights_alone_can_have_few_bits_and_learn(bits):
    """With one bit this is BinaryConnect (1511.00363), with a learned size for each output."""
    net = network()
    masks = {n: torch.rand(p.shape) < 0.5 for n, p in net.named_parameters() if p.ndim > 1}
    for name, mask in masks.items():
        dict(net.named_parameters())[name].data *= mask
    plan = planned(net, Quantize(bits=bits, learned=True))
    assert {b.input for b in plan.values()} == {0}
    assert [b.weight for b in plan.values()][1:-1] == [bits] * (len(plan) - 2)
    quantised_(net, plan, [images()])
    x = images()
    _, weight, _ = net.layer1[0].conv1.operands(torch.randn(2, 8, 16, 16))
    assert len(weight.unique()) <= 2**bits + 1
    rule = optimizer(net, Train(lr=0.1))
    losses = []
    for _ in range(20):
        loss = F.cross_entropy(net.train()(x), torch.arange(32) % 10)
        rule.zero_grad()
        loss.backward()
        for name, mask in masks.items():
            dict(net.named_parameters())[name].grad.mul_(mask)
        rule.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < losses[0] - 0.2
    made = fold(net)
    assert all(not whole_weights(m)[~masks[f"{n}.weight"]].any() for n, m in quantised_layers(made).items())
    with torch.no_grad():
        assert (made(x) - net.eval()(x)).norm() / net(x).norm() < 0.02
    assert described(made)["conv1"]["input"] == 0


# --- weights that share values ----------------------------------------------------------------------------------------


def shared(bits=3, input=0):
    net = network()
    masks = {n: torch.rand(p.shape) < 0.5 for n, p in net.named_parameters() if p.ndim > 1}
    for name, mask in masks.items():
        dict(net.named_parameters())[name].data *= mask
    how = {"activations": input} if input else {"learned": True}
    quantised_(net, planned(net, Quantize(bits=bits, clusters=True, first=0, last=0, **how)), [images()])
    return net.eval(), masks


@pytest.mark.parametrize("input", [0, 4])
def test_clusters_share_values_that_learn_and_zeros_stay(input):
    net, masks = shared(input=input)
    conv = net.layer1[0].conv1
    before = conv.weight_quantiser(conv.weight)[0]
    assert len(before.unique()) <= 8
    assert not before[~masks["layer1.0.conv1.weight"]].any()
    far = (before - conv.weight).square().mean() / conv.weight.square().mean()
    assert far < 0.05
    rule = optimizer(net, Train(lr=0.05, weight_decay=0.1))
    for _ in range(5):
        loss = F.cross_entropy(net.train()(images()), torch.arange(32) % 10)
        rule.zero_grad()
        loss.backward()
        rule.step()
    after = conv.weight_quantiser(conv.weight)[0]
    assert not torch.equal(after, before)
    assert len(after.unique()) <= 8
    for stage in (net.eval(), fold(net)):
        for name, layer in quantised_layers(stage).items():
            assert not whole_weights(layer)[~masks[f"{name}.weight"]].any()
    with torch.no_grad():
        x = images()
        assert (fold(net)(x) - net(x)).norm() / net(x).norm() < 0.03


def test_a_gradient_of_a_shared_value_is_the_sum_of_its_weights():
    net = nn.Sequential(nn.Linear(6, 4, bias=False))
    quantised_(net, planned(net, Quantize(bits=2, clusters=True, learned=True, first=0, last=0)), [torch.randn(8, 6)])
    book = net[0].weight_quantiser
    weight = book(net[0].weight)[0].detach().requires_grad_()
    x = torch.randn(8, 6)
    F.linear(x, weight).square().sum().backward()
    net.train()(x).square().sum().backward()
    for code in range(1, 4):
        assert book.values.grad[code - 1] == pytest.approx(weight.grad[book.codes == code].sum().item(), rel=1e-3)
    assert net[0].weight.grad is None


def test_k_means_is_no_worse_than_even_steps():
    numbers = torch.randn(2000, generator=torch.Generator().manual_seed(0)) ** 3
    values, codes = clustered(numbers, 7)
    even = torch.linspace(float(numbers.min()), float(numbers.max()), 7)
    nearest = (numbers[:, None] - even).square().min(1).values
    assert (numbers - values[codes]).square().mean() < 0.5 * nearest.mean()
    assert torch.equal(codes, (numbers[:, None] - values).abs().argmin(1))
    assert len(clustered(torch.zeros(0), 3)[1]) == 0


# --- whole numbers ----------------------------------------------------------------------------------------------------


def fold(net):
    net = copy.deepcopy(net).eval()
    return folded(net, dict(pairs(net, images()[:2], is_quantised)))


WHOLE = [*((w, i, False) for w, i in CASES), (2, 2, True)]


@pytest.mark.parametrize(("weight", "input", "ternary"), WHOLE)
def test_evaluation_is_integer_arithmetic_bit_for_bit(weight, input, ternary):
    net = fold(made(weight, input, ternary=ternary))
    assert not [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        floats = net(images())
        with in_integers(net):
            whole = net(images())
        again = net(images())
    assert torch.equal(whole, floats)
    assert torch.equal(again, floats)
    assert len(floats.unique()) > 10
    for layer in quantised_layers(net).values():
        assert torch.equal(layer.weight, layer.weight.round())
        assert torch.equal(layer.multiplier.bfloat16().float(), layer.multiplier)
        if ternary:
            assert layer.weight.abs().max() <= 1


def test_folding_moves_outputs_by_the_rounding_of_sixteen_bits_alone():
    net, x = made(8, 8), images()
    with torch.no_grad():
        a, b = net(x), fold(net)(x)
    assert (a - b).norm() / a.norm() < 0.02


def test_grouped_strided_and_linear_sums_are_integers():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=4), nn.ReLU(), nn.Conv2d(8, 8, (1, 3), dilation=(1, 2)),
        nn.ReLU(), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    x = torch.randn(5, 4, 16, 16)
    quantised_(net, plan(net, 4, 4), [x])
    net = folded(net.eval(), {})
    with torch.no_grad(), in_integers(net):
        whole = net(x)
    assert torch.equal(whole, net(x))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("vnni", [True, False])
def test_sums_that_floats_would_round_are_rounded_once(vnni, groups, monkeypatch):
    """Sums of about 2^26, odd and even: float32 holds only every fourth."""
    if vnni and not torch.cpu._is_vnni_supported():
        pytest.skip("this processor does not multiply bytes")
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(300 * groups, 6, 3, bias=False, groups=groups), nn.Flatten(), nn.Linear(24, 3))
    with torch.no_grad():
        net[0].weight.uniform_(0.5, 1.0)
    x = torch.rand(4, 300 * groups, 4, 4) + 1
    quantised_(net, plan(net, 8, 8), [x])
    net = folded(net.eval(), {})
    seen, sums = [], net[0].sums
    monkeypatch.setattr(net[0], "sums", lambda *a: seen.append((a, sums(*a))) or seen[-1][1])
    with torch.no_grad():
        floats = net(x)
        monkeypatch.undo()
        monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
        with in_integers(net):
            assert torch.equal(net(x), floats)
    ((whole, weight), found), *_ = seen
    exact = F.conv2d(whole.double(), weight.double(), groups=groups)
    assert float(exact.max()) > 2**24
    assert torch.equal(found, exact.float())
    assert (exact.float().double() != exact).any(), "the sums are rounded once"


@pytest.mark.parametrize("low", [0, -128])
def test_products_of_bytes_are_those_of_integers(low, monkeypatch):
    rng = torch.Generator().manual_seed(1)
    rows = torch.randint(-128, 128, (7, 33), generator=rng).float()
    columns = torch.randint(low, low + 256, (33, 50), generator=rng).float()
    found = _products(rows, columns)
    assert found.dtype == torch.int32
    assert torch.equal(found.double(), rows.double() @ columns.double())


def test_sums_that_integers_may_not_hold_are_refused():
    net = nn.Sequential(nn.Flatten(), nn.Linear(70_000, 1))
    with torch.no_grad():
        net[1].weight.fill_(1.0)
    quantised_(net, plan(net, 8, 8), [torch.rand(4, 70_000)])
    with pytest.raises(Refused, match="expected less than 2147483648: use fewer bits"):
        folded(net, {})


def test_normalisation_in_front_of_nothing_quantised_is_refused():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3))
    quantised_(net, plan(net, 4, 4), [torch.randn(4, 3, 8, 8)])
    with pytest.raises(Refused, match="0 normalises what no quantised layer wrote"):
        folded(net, dict(pairs(net.eval(), torch.randn(2, 3, 8, 8), is_quantised)))


# --- steps and plans --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(-128, 127), (-8, 7), (-2, 1), (-1, 1), (0, 15)])
def test_no_other_step_is_much_better(low, high):
    rows = torch.randn(4, 3000, generator=torch.Generator().manual_seed(2)) * torch.tensor([[0.01], [1], [5], [100]])
    rows = rows.abs() if low == 0 else rows
    error = lambda s: (((rows / s).round().clamp(low, high) * s - rows) ** 2).mean(1)  # noqa: E731
    best = best_steps(rows, low, high)[:, None]
    for factor in (0.5, 0.8, 0.95, 1.05, 1.2, 2):
        assert (error(best) <= 1.02 * error(best * factor)).all()


def test_rows_of_nothing_have_a_step():
    assert torch.equal(best_steps(torch.zeros(2, 9), -4, 3), torch.ones(2))
    assert torch.equal(best_steps(torch.zeros(2, 9), -1, 1, binary=True), torch.ones(2))


def mobile():
    return build(Model(name="mobilenet_v2", input=(3, 32, 32), classes=10), 0)


def test_a_plan_is_what_was_asked():
    net = network()
    found = planned(net, Quantize(bits=4, activations=3, layers=("layer2.*=2/5", "linear=0/0")))
    assert found["conv1"] == Bits(8, 8)
    assert found["layer1.0.conv1"] == Bits(4, 3)
    assert found["layer2.0.conv2"] == Bits(2, 5)
    assert "linear" not in found
    assert planned(net, Quantize(bits=4, activations=3, first=0, last=0))["conv1"] == Bits(4, 3)
    assert planned(net, Quantize(bits=2, activations=2, ternary=True))["layer1.0.conv1"].ternary
    depthwise = planned(mobile(), Quantize(bits=2, activations=2, depthwise=4))
    assert {b for n, b in depthwise.items() if n.endswith("conv.0.0")} >= {Bits(4, 4)}


def test_inputs_that_are_never_negative_are_unsigned():
    found = {n: b["signed"] for n, b in described(made(4, 4)).items()}
    assert found["conv1"]
    assert not found["layer1.0.conv1"]
    assert not found["linear"]


def test_a_description_comes_back_and_a_strangers_is_checked():
    net = made(4, 3, per="tensor")
    table = described(net)
    again = network(trained=False)
    wear_(again, plan_of(table, "x"))
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval()(images()), net(images()))
    for wrong in (5, {"conv1": 3}, {"conv1": table["conv1"] | {"weight": 99}}, {"conv1": table["conv1"] | {"more": 1}}):
        with pytest.raises(Refused, match="quantised"):
            plan_of(wrong, "x")
    with pytest.raises(Refused, match='the layer = "nowhere"'):
        wear_(again, {"nowhere": Bits(4, 4)})


REFUSED = {
    "no such layer": (("nowhere=4/4",), "meets no layer"),
    "no bits": (("conv1=9/4",), "expected LAYER=W/A"),
    "half a pair": (("conv1=4",), "expected LAYER=W/A"),
    "one of them nothing": (("conv1=0/4",), "expected LAYER=W/A"),
    "nothing left": (("*=0/0",), "leaves no layer"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_plans_that_cannot_be_are_refused(what):
    layers, text = REFUSED[what]
    with pytest.raises(Refused, match=text):
        planned(network(), Quantize(bits=4, activations=4, layers=layers))


def test_settings_that_need_activations_say_so():
    for wrong in ({"bits": 1}, {"ternary": True, "bits": 2}, {"first": 4}, {"layers": ("x=4/4",)}):
        with pytest.raises(Refused, match="needs activations"):
            Quantize(**wrong)
    with pytest.raises(Refused, match="needs two bits"):
        Quantize(bits=3, activations=3, ternary=True)


def test_a_layer_that_is_neither_is_refused():
    class Odd(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) + 1

    net = nn.Sequential(Odd(3, 4, 3))
    with pytest.raises(Refused, match="0 \\(Odd\\) cannot be quantised"):
        quantised_(net, {"0": Bits(4, 4)}, [torch.randn(2, 3, 8, 8)])


def test_blocks_of_several_layers_are_quantised(tmp_path):
    net = build(Model(name="lenet5", input=(1, 28, 28), classes=10), 0)
    x = torch.rand(16, 1, 28, 28)
    y = net(x)
    quantised_(net, planned(net, Quantize(bits=8, activations=8)), [x])
    assert (net.eval()(x) - y).norm() / y.norm() < 0.02
    again = copy.deepcopy(net)
    quantised_(again, planned(again, Quantize(bits=2, activations=2)), [x])
    assert again(x).shape == y.shape
    assert again.state_dict().keys() == net.state_dict().keys()
