"""The rounding kernel gives torch's whole numbers and gradients on every instruction set, and torch does the rest."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from prunery import native
from prunery.quantize import fake, rounding
from prunery.quantize.fake import Rounded

LAYOUTS = {"rows": (7, 33), "images": (3, 5, 6, 7), "last": (4, 20, 9, 11), "one": (1,), "large": (9, 8, 30, 31)}
BOUNDS = [(0, 15), (-8, 7), (0, 255), (-128, 127), (-2, 1)]


@pytest.fixture(params=native.available())
def isa(request, monkeypatch):
    monkeypatch.setenv("PRUNERY_ISA", request.param)
    rounding._kernels.cache_clear()
    yield request.param
    rounding._kernels.cache_clear()


def numbers(layout, dtype, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(LAYOUTS[layout], generator=rng)
    x.view(-1)[::3] = (x.view(-1)[::3] * 2).round() / 2  # ties, zeros and, divided by a step, bounds
    x = x.to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if layout == "last" else x


def both(x, step, bounds, monkeypatch, grad=None):
    """(whole numbers, gradient of x, gradient of the step) of the kernel, and of torch."""
    found = []
    for kernel in (True, False):
        with monkeypatch.context() as m:
            if not kernel:
                m.setattr(fake, "kernels_for", lambda *_: None)
            own, learned = x.clone().requires_grad_(), step.clone().requires_grad_()
            whole = Rounded.apply(own, learned, *bounds, False)
            assert bool(whole.grad_fn.kernels) == kernel
            given = torch.randn_like(whole, dtype=torch.float32).to(whole.dtype) if grad is None else grad
            grad = given
            whole.backward(given)
            found.append((whole.detach(), own.grad, learned.grad))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("step", [0.5, 0.0371, 3.0])
def test_whole_numbers_and_gradients_are_torchs(isa, dtype, layout, bounds, step, monkeypatch):
    torch.manual_seed(0)
    kernel, torchs = both(numbers(layout, dtype), torch.tensor(step), bounds, monkeypatch)
    for found, wanted in zip(kernel[:2], torchs[:2], strict=True):
        assert found.dtype == dtype
        assert found.stride() == wanted.stride()
        assert torch.equal(found, wanted)
    assert kernel[2].shape == ()
    products = torchs[1].double() * (numbers(layout, dtype) / step).double()
    assert float(kernel[2]) == pytest.approx(-float(products.sum()), rel=0, abs=2**-18 * float(products.abs().sum()))
    torch.testing.assert_close(kernel[2], torchs[2], rtol=0.01, atol=2**-9 * float(products.abs().sum()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_steps_gradient_is_the_exact_sum(isa, dtype, monkeypatch):
    x, step = numbers("large", dtype), torch.tensor(0.25)  # a power of two: quotients are exact
    torch.manual_seed(1)
    grad = torch.randint(-2, 3, x.shape).to(dtype)
    kernel, _ = both(x, step, (-8, 7), monkeypatch, grad)
    u = x.double() / 0.25
    inside = torch.where((u > -8) & (u < 7), grad.double() / 0.25, 0.0)
    assert float(kernel[2]) == pytest.approx(-float((inside * u).sum()), rel=1e-5)


def test_what_is_no_number_stays_none_and_what_is_endless_is_bounded(isa, monkeypatch):
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 0.0, 1.0] * 5, dtype=dtype)
        kernel, torchs = both(x, torch.tensor(0.1), (-8, 7), monkeypatch)
        assert torch.equal(kernel[0].isnan(), x.isnan())
        torch.testing.assert_close(kernel[0], torchs[0], rtol=0, atol=0, equal_nan=True)
        assert torch.equal(kernel[1][~x.isnan()], torchs[1][~x.isnan()])
        assert not kernel[1][x.isnan()].any(), "as torch's vectors have it; the few numbers behind the last vector pass"


def test_a_gradient_that_lies_otherwise_is_met_by_place(isa, monkeypatch):
    x = numbers("last", torch.bfloat16)
    kernel, torchs = both(x, torch.tensor(0.5), (-8, 7), monkeypatch, torch.randn(x.shape).bfloat16())
    assert torch.equal(kernel[1], torchs[1])
    expanded = torch.ones((), dtype=torch.bfloat16).expand(x.shape)
    kernel, torchs = both(x, torch.tensor(0.5), (-8, 7), monkeypatch, expanded)
    assert torch.equal(kernel[1], torchs[1])


def test_any_number_of_threads_gives_the_same_bits(monkeypatch):
    x, step, before, found = torch.randn(64, 8, 40, 40), torch.tensor(0.3), torch.get_num_threads(), []
    grad = torch.randn_like(x)
    if native.team() is None:
        pytest.skip("torch here brings no OpenMP whose threads could be shared")
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(both(x, step, (-8, 7), monkeypatch, grad)[0])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_what_the_kernel_cannot_take_is_torchs(monkeypatch):
    step = torch.tensor(0.5)
    assert rounding.kernels_for(torch.randn(3, 4), step)
    gaps, swapped, doubles = torch.randn(6, 4)[::2], torch.randn(3, 4).t(), torch.randn(3, 4).double()
    for x in (gaps, swapped, doubles, torch.randn(0, 4), torch.randn(3, 4, device="meta")):
        assert rounding.kernels_for(x, step) is None
    assert rounding.kernels_for(torch.randn(3, 4), torch.ones(3, 1)) is None, "a step for each output"
    monkeypatch.setattr(native, "available", lambda: ())
    rounding._kernels.cache_clear()
    assert rounding.kernels_for(torch.randn(3, 4), step) is None, "nothing is compiled"
    rounding._kernels.cache_clear()


def test_traces_and_transforms_see_torchs_operators():
    step, taken = torch.tensor(0.5), []

    def ask(x):
        taken.append(rounding.kernels_for(x, step))
        return x

    torch.func.vmap(ask)(torch.randn(3, 4))
    make_fx(ask)(torch.randn(3, 4))
    with FakeTensorMode():
        ask(torch.randn(3, 4))
    assert taken == [None, None, None]


def test_second_derivatives_are_torchs(monkeypatch):
    found = []
    for kernel in (True, False):
        if not kernel:
            monkeypatch.setattr(fake, "kernels_for", lambda *_: None)
        x, step = torch.linspace(-3, 3, 40).requires_grad_(), torch.tensor(0.5).requires_grad_()
        y = (Rounded.apply(x, step, -4, 3, False) * x).square().sum()
        firsts = torch.autograd.grad(y, [x, step], create_graph=True)
        sums = [first.square().sum() for first in firsts]
        found.append([torch.autograd.grad(s, [x, step], retain_graph=True) for s in sums])
    assert all(torch.equal(a, b) for of, to in zip(*found, strict=True) for a, b in zip(of, to, strict=True))


def test_the_steps_second_derivative_is_that_of_what_it_is_differentiated_as():
    """Straight through: d y / d step is -sum(inside x) / step^2."""
    x, step = torch.linspace(-1, 2, 9).requires_grad_(), torch.tensor(0.5).requires_grad_()
    (first,) = torch.autograd.grad(Rounded.apply(x, step, -8, 7, False).sum(), step, create_graph=True)
    to_x, to_step = torch.autograd.grad(first, [x, step])
    torch.testing.assert_close(to_x, torch.full_like(x, -1 / 0.25))
    torch.testing.assert_close(to_step, 2 * x.detach().sum() / 0.125)


def test_no_images_at_all_are_quantised():
    for batched in (True, False):
        quantiser = fake.Quantiser((0, 15), False, (), batched)
        assert quantiser(torch.randn(0, 3, 4, 4))[0].shape == (0, 3, 4, 4)
