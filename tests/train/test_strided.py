"""Strided depthwise convolutions in half precision: the numbers of torch's own, and taken where they are called."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunery.train.strided import Strided, quick


class Net(nn.Module):
    def __init__(self, bias, groups=8):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=groups, bias=bias)
        self.last = nn.Linear(16, 4)

    def forward(self, x):
        return self.last(self.depthwise(self.first(x)).mean((2, 3)))


def gradients(network, x, mode):
    network.zero_grad()
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16), mode:
        loss = network(x).float().square().sum()
    loss.backward()
    return loss.detach(), x.grad, {n: p.grad for n, p in network.named_parameters()}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
def test_forwards_and_gradients_are_those_of_half_precision(bias, layout):
    torch.manual_seed(0)
    network = Net(bias).to(memory_format=layout)
    x = torch.randn(4, 3, 12, 12).contiguous(memory_format=layout)
    loss, inwards, grads = gradients(network, x, quick(network, "bfloat16", "cpu"))
    same, torchs, others = gradients(network, x, quick(network, "float32", "cpu"))
    assert torch.equal(loss, same), "forwards nothing changes"
    for name in ("depthwise.weight", "last.weight", "last.bias"):
        assert torch.equal(grads[name], others[name]), f"{name} does not depend on the gradient towards the inputs"
    torch.testing.assert_close(inwards, torchs, rtol=0.02, atol=0.02 * float(torchs.abs().max()))


def test_the_gradient_towards_the_inputs_is_rounded_once():
    torch.manual_seed(1)
    x = torch.randn(2, 4, 9, 9).bfloat16().requires_grad_()
    weight = torch.randn(4, 1, 3, 3).bfloat16()
    y = Strided.apply(x, weight, None, ([2, 2], [1, 1], [1, 1], 4))
    grad = torch.randn_like(y)
    y.backward(grad)
    exact = x.detach().double().requires_grad_()
    F.conv2d(exact, weight.double(), None, 2, 1, 1, 4).backward(grad.double())
    apart = (x.grad.double() - exact.grad).abs() / exact.grad.abs().clamp(min=1e-3)
    assert float(apart.max()) <= 2**-8, "half a step of bfloat16"


def test_only_what_is_slow_goes_another_way(monkeypatch):
    taken = []
    apply = Strided.apply
    monkeypatch.setattr(Strided, "apply", lambda *a: taken.append(a[3]) or apply(*a))
    network = Net(True)
    x = torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16), quick(network, "bfloat16", "cpu"):
        network(x)
        F.conv2d(x, torch.randn(3, 1, 3, 3), padding=1, groups=3)
        F.conv2d(x, torch.randn(3, 1, 3, 3), stride=1, padding="same", groups=3)
    assert taken == [([2, 2], [1, 1], [1, 1], 8)]
    taken.clear()
    for precision, plain in (("float32", network), ("bfloat16", Net(True, groups=1))):
        with torch.autocast("cpu", torch.bfloat16), quick(plain, precision, "cpu"):
            plain(x)
    assert not taken


def test_frozen_weights_get_no_gradients():
    network = Net(True)
    network.depthwise.requires_grad_(False)
    _, inwards, grads = gradients(network, torch.randn(2, 3, 8, 8), quick(network, "bfloat16", "cpu"))
    assert grads["depthwise.weight"] is None
    assert float(inwards.abs().sum()) > 0
    assert float(grads["first.weight"].abs().sum()) > 0
