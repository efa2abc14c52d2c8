"""The fused block: torch's results and gradients for every shape and instruction set, and when which code is taken."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunery import native
from prunery.models import blocks
from prunery.models.blocks import ConvReLUPool

#         images, in, out, height, width, kernel, padding, pool
SHAPES = [
    (64, 1, 6, 28, 28, 5, 0, 2), (64, 6, 16, 12, 12, 5, 0, 2), (1, 1, 1, 2, 2, 1, 0, 2), (1, 3, 4, 7, 9, 3, 1, 2),
    (3, 2, 7, 9, 8, 3, 1, 1), (60, 3, 5, 11, 10, 5, 2, 2), (100, 4, 8, 6, 7, 3, 0, 2), (17, 20, 20, 5, 6, 3, 1, 2),
    (16, 7, 13, 8, 5, 1, 0, 2), (5, 2, 3, 4, 5, 1, 2, 2), (33, 5, 1, 6, 6, 5, 2, 1), (4, 1, 20, 5, 5, 5, 0, 1),
    (8, 13, 2, 3, 3, 3, 2, 2), (2, 1, 2, 1, 1, 1, 1, 1), (15, 2, 9, 3, 19, 3, 0, 1), (9, 11, 17, 4, 4, 2, 1, 2),
]  # fmt: skip
ISAS = native.available()


@pytest.fixture(params=ISAS)
def isa(request, monkeypatch):
    monkeypatch.setenv("PRUNERY_ISA", request.param)
    monkeypatch.setenv(blocks.VARIABLE, "native")
    _forget()
    yield request.param
    _forget()


@pytest.fixture
def native_path(monkeypatch):
    monkeypatch.setenv(blocks.VARIABLE, "native")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _forget():
    blocks._kernels.cache_clear()
    blocks._plan.cache_clear()


def make(images, before, after, height, width, kernel, padding, pool, whole=False, bias=True, seed=0):
    """A block, an input and a gradient; whole numbers make ties and exact sums."""
    rng = torch.Generator().manual_seed(seed)
    block = ConvReLUPool(before, after, kernel, padding=padding, pool=pool, bias=bias)
    draw = (lambda *s: torch.randint(-2, 3, s, generator=rng).float()) if whole else (
        lambda *s: torch.randn(s, generator=rng))  # fmt: skip
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(draw(*parameter.shape))
    sides = ((side + 2 * padding - kernel + 1) // pool for side in (height, width))
    return block, draw(images, before, height, width), draw(images, after, *sides)


def ours(block, x, dy):
    x = x.detach().requires_grad_()
    assert block.path(x) == "native"
    y = block(x)
    return [y.detach(), *torch.autograd.grad(y, [x, *block.parameters()], dy)]


def torchs(block, x, dy, dtype=torch.float64):
    inputs = [t.detach().to(dtype).requires_grad_() for t in (x, *block.parameters())]
    y = F.relu(F.conv2d(*inputs, padding=block.padding))
    y = F.max_pool2d(y, 2) if block.pool == 2 else y
    return [y.detach(), *torch.autograd.grad(y, inputs, dy.to(dtype))]


def assert_close(seen, expected):
    for a, b in zip(seen, expected, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= 1e-5 * b.abs().max().clamp(min=1e-3)


def test_every_instruction_set_is_tested():
    assert ISAS


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_equals_torch(isa, shape):
    block, x, dy = make(*shape)
    assert_close(ours(block, x, dy), torchs(block, x, dy))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ties_and_zeros_give_exactly_torchs_gradient(isa, shape):
    block, x, dy = make(*shape, whole=True)
    for a, b in zip(ours(block, x, dy), torchs(block, x, dy, torch.float32), strict=True):
        assert torch.equal(a, b)


def test_without_a_bias(isa):
    block, x, dy = make(*SHAPES[3], bias=False)
    y = block(x.requires_grad_())
    seen = [y.detach(), *torch.autograd.grad(y, [x, block.weight], dy)]
    block.bias = nn.Parameter(torch.zeros(4))
    assert_close(seen, torchs(block, x, dy)[:3])


def test_nothing_positive_gives_zeros(isa):
    block, x, dy = make(*SHAPES[1])
    nn.init.constant_(block.bias, -1e4)
    assert not any(t.any() for t in ours(block, x, dy))


def test_not_a_number_stays_where_it_is(isa):
    block, x, _ = make(*SHAPES[5])
    x[7, 1, 4, 4] = torch.nan
    seen, expected = block(x), block.eval()(x)
    assert torch.equal(seen.isnan(), expected.isnan())
    assert seen.isnan().any()
    assert not seen[6].isnan().any()


@pytest.mark.parametrize("team", ["torch's", "own"])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[1], SHAPES[5]], ids=str)
def test_threads_and_repeats_change_no_bit(isa, shape, team, two_threads, monkeypatch):
    if team == "own":
        monkeypatch.setattr(blocks._kernels(), "team", None)
    block, x, dy = make(*shape)
    expected = ours(block, x, dy)
    for threads in (1, 2, 2, 3, 3, 2):
        torch.set_num_threads(threads)
        assert all(map(torch.equal, ours(block, x, dy), expected))


def test_the_own_pool_survives_a_fork_and_several_callers():
    code = """
import os, threading, torch
from prunery.models import blocks
blocks._kernels().team = None
torch.set_num_threads(1)
block, x = blocks.ConvReLUPool(1, 6, 5), torch.randn(64, 1, 28, 28)
block(x).sum().backward()
expected = block.weight.grad.clone()
shape = (64, 1, 28, 28, 6, 5, 0, 2)
plan = blocks._plan(shape, 3)
def call(rounds=20):
    for _ in range(rounds):
        y, saved = blocks._kernels().forward(plan, x, block.weight.detach(), block.bias.detach())
        dy, weight = torch.ones_like(y), block.weight.detach()
        _, dw, _ = blocks._kernels().backward(plan, dy, weight, saved, (False, True, True))
        assert torch.equal(dw, expected)
call()
child = os.fork()
if not child:
    call()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
done = []
def caller():
    call()
    done.append(1)
threads = [threading.Thread(target=caller) for _ in range(3)]
[t.start() for t in threads]; [t.join() for t in threads]
assert len(done) == 3
"""
    environment = {**os.environ, blocks.VARIABLE: "native"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("arrange", [
    lambda t: t.to(memory_format=torch.channels_last), lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
    lambda t: torch.stack([t, t], 1)[:, 1],
], ids=["channels last", "transposed", "strided"])  # fmt: skip
def test_any_arrangement_in_memory(native_path, arrange):
    block, x, dy = make(*SHAPES[1])
    expected = ours(block, x, dy)
    assert all(map(torch.equal, ours(block, arrange(x), arrange(dy)), expected))
    block.weight.data = arrange(block.weight.data)
    assert all(map(torch.equal, ours(block, x, dy), expected))


def test_frozen_inputs_and_parameters(native_path):
    block, x, dy = make(*SHAPES[1])
    expected = ours(block, x, dy)
    block.bias.requires_grad_(False)
    (dweight,) = torch.autograd.grad(block(x), [block.weight], dy)
    assert torch.equal(dweight, expected[2])
    block.weight.requires_grad_(False)
    (dx,) = torch.autograd.grad(block(x.requires_grad_()), [x], dy)
    assert torch.equal(dx, expected[1])


def test_a_second_derivative_is_torchs(native_path):
    block, x, dy = make(*SHAPES[3])

    def curvature():
        (slope,) = torch.autograd.grad((block(x) * dy).square().sum(), [block.weight], create_graph=True)
        return torch.autograd.grad(slope.square().sum(), [block.weight, block.bias])

    seen = curvature()
    block.eval()
    assert_close(seen, curvature())


def test_an_input_changed_in_between_is_noticed(native_path):
    block, x, dy = make(*SHAPES[3])
    y = block(x.requires_grad_() * 1)
    with torch.no_grad():
        block.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward(dy)


class TestPath:
    @pytest.fixture(autouse=True)
    def unset(self, monkeypatch):
        monkeypatch.delenv(blocks.VARIABLE, raising=False)
        if not ISAS:
            pytest.skip("nothing is compiled")

    @pytest.fixture
    def block(self):
        return ConvReLUPool(1, 6, 5)

    def test_the_small_network_of_1998_is_native(self, block):
        assert block.path(torch.zeros(64, 1, 28, 28)) == "native"

    @pytest.mark.parametrize("change", [
        {"stride": 2}, {"dilation": 2}, {"groups": 2}, {"padding": "same"}, {"padding": (1, 0)},
        {"kernel_size": (3, 5)}, {"padding_mode": "reflect", "padding": 1},
    ], ids=str)  # fmt: skip
    def test_what_the_kernel_cannot_do_is_torchs(self, change, native_path):
        block = ConvReLUPool(**{"in_channels": 2, "out_channels": 4, "kernel_size": 3, **change})
        x = torch.randn(8, 2, 9, 9)
        assert block.path(x) == "torch"
        assert block(x).shape == F.max_pool2d(nn.Conv2d.forward(block, x), 2).shape

    @pytest.mark.parametrize(("block", "shape"), [
        (lambda: ConvReLUPool(64, 64, 3), (64, 64, 8, 8)), (lambda: ConvReLUPool(1, 6, 5), (64, 1, 64, 64)),
        (lambda: ConvReLUPool(1, 6, 5, pool=1), (64, 1, 28, 28)),
    ], ids=["many channels", "large image", "no pool"])  # fmt: skip
    def test_what_torch_does_as_fast_is_torchs(self, block, shape, monkeypatch):
        block, x = block(), torch.zeros(shape)
        assert block.path(x) == "torch"
        monkeypatch.setenv(blocks.VARIABLE, "native")
        assert block.path(x) == "native"

    def test_no_training_no_kernel(self, block):
        x = torch.zeros(64, 1, 28, 28)
        with torch.no_grad():
            assert block.path(x) == "torch"
        assert block.eval().path(x) == "torch"

    def test_other_types_and_places(self, block):
        x = torch.zeros(64, 1, 28, 28)
        for other in (x.double(), x.bfloat16(), x.to("meta"), x[0], x[:0]):
            assert block.path(other) == "torch"
        with torch.autocast("cpu"):
            assert block.path(x) == "torch"
        assert block.to("meta")(x.to("meta")).shape == (64, 6, 12, 12)

    def test_a_trace_or_transform_sees_torchs_operators(self, block):
        x = torch.randn(64, 1, 28, 28)
        expected = block.eval()(x)
        block.train()
        exported = torch.export.export(block, (x,))
        assert any("max_pool2d" in str(node.target) for node in exported.graph.nodes)
        torch.testing.assert_close(exported.module()(x), expected)
        state = dict(block.named_parameters())
        each = torch.func.vmap(lambda one: torch.func.functional_call(block, state, one[None])[0])(x)
        torch.testing.assert_close(each, expected)
        loss = torch.func.grad(lambda state: torch.func.functional_call(block, state, x).sum())
        torch.testing.assert_close(loss(state)["bias"].shape, block.bias.shape)

    def test_the_environment_decides_or_is_refused(self, block, monkeypatch):
        x = torch.zeros(64, 1, 28, 28)
        monkeypatch.setenv(blocks.VARIABLE, "torch")
        assert block.path(x) == "torch"
        monkeypatch.setenv(blocks.VARIABLE, "cuda")
        with pytest.raises(ValueError, match=r'^PRUNERY_CONVPOOL = "cuda" is unknown; choose one of native, torch'):
            block.path(x)

    def test_nothing_compiled_is_torchs(self, block, monkeypatch):
        monkeypatch.setattr(native, "available", lambda: ())
        _forget()
        assert block.path(torch.zeros(64, 1, 28, 28)) == "torch"
        _forget()


def test_it_is_a_convolution_by_name_and_state():
    block = ConvReLUPool(3, 4, 3, padding=1)
    assert list(block.state_dict()) == ["weight", "bias"]
    nn.Conv2d(3, 4, 3, padding=1).load_state_dict(block.state_dict())
    assert repr(block) == "ConvReLUPool(3, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), pool=2)"
    with pytest.raises(ValueError, match=r"^pool = 3 is not supported; choose one of 1, 2$"):
        ConvReLUPool(1, 1, 1, pool=3)
