"""bfloat16 on a CPU: the numbers of torch's own, and other ways taken where torch's are slow and nowhere else."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunery.train import half, rows
from prunery.train.half import Grouped, _Instead, _Single, arithmetic


class Net(nn.Module):
    def __init__(self, bias, groups=8, side=3, stride=2):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 16, side, stride, side // 2, groups=groups, bias=bias)
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


def near(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02 * float(wanted.abs().max()))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("bias", "side", "stride"), [(True, 3, 2), (False, 3, 2), (False, 5, 1), (True, 5, 2), (False, 5, 3)]
)
def test_forwards_and_gradients_are_those_of_half_precision(bias, side, stride, layout):
    torch.manual_seed(0)
    network = Net(bias, side=side, stride=stride).to(memory_format=layout)
    x = torch.randn(4, 3, 12, 12).contiguous(memory_format=layout)
    loss, inwards, grads = gradients(network, x, _Instead())
    same, torchs, others = gradients(network, x, nullcontext())
    assert torch.equal(loss, same), "forwards nothing changes"
    assert torch.equal(grads["last.weight"], others["last.weight"])
    if side == 3:
        assert torch.equal(grads["depthwise.weight"], others["depthwise.weight"]), "towards the weights torch's own way"
    if stride == 1:
        assert torch.equal(inwards, torchs), "towards the inputs torch's own way"
    near(inwards, torchs)
    for name, found in grads.items():
        near(found, others[name])


@pytest.mark.parametrize(("side", "stride"), [(3, 2), (5, 1), (5, 2)])
def test_such_gradients_are_rounded_once(side, stride):
    torch.manual_seed(1)
    x = torch.randn(2, 4, 9, 9).bfloat16().requires_grad_()
    weight = torch.randn(4, 1, side, side).bfloat16().requires_grad_()
    pad = side // 2
    y = Grouped.apply(x, weight, None, ([stride, stride], [pad, pad], [1, 1], 4))
    grad = torch.randn_like(y)
    y.backward(grad)
    exact = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    F.conv2d(*exact, None, stride, pad, 1, 4).backward(grad.double())
    single = ((x, exact[0], stride > 1), (weight, exact[1], side > 3))
    for found, wanted in ((found, wanted) for found, wanted, once in single if once):
        apart = (found.grad.double() - wanted.grad).abs() / wanted.grad.abs().clamp(min=1e-2)
        assert float(apart.max()) <= 2**-8, "half a step of bfloat16"


def test_only_what_is_slow_goes_another_way(monkeypatch):
    taken = []
    apply = Grouped.apply
    monkeypatch.setattr(Grouped, "apply", lambda *a: taken.append(a[3]) or apply(*a))
    network = Net(True)
    x = torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16), _Instead():
        network(x)
        F.conv2d(x, torch.randn(3, 1, 3, 3), padding=1, groups=3)
        F.conv2d(x, torch.randn(3, 1, 5, 5), stride=1, padding="same", groups=3)
        F.conv2d(x, torch.randn(3, 1, 5, 5), padding=(2, 2), groups=3)
        F.conv2d(x[..., :2, :2], torch.randn(3, 1, 3, 3), padding=1, groups=3)
    assert taken == [([2, 2], [1, 1], [1, 1], 8), ([1, 1], [2, 2], [1, 1], 3), ([1, 1], [1, 1], [1, 1], 3)]
    taken.clear()
    with torch.autocast("cpu", torch.bfloat16), _Instead():
        Net(True, groups=1)(x)
    assert not taken


def test_frozen_weights_get_no_gradients():
    network = Net(True)
    network.depthwise.requires_grad_(False)
    _, inwards, grads = gradients(network, torch.randn(2, 3, 8, 8), _Instead())
    assert grads["depthwise.weight"] is None
    assert float(inwards.abs().sum()) > 0
    assert float(grads["first.weight"].abs().sum()) > 0


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("groups", [1, 8])
def test_a_processor_without_bfloat16_finds_the_numbers_of_one_that_has_it(groups, layout):
    torch.manual_seed(0)
    network = Net(True, groups).to(memory_format=layout)
    x = torch.randn(4, 3, 12, 12).contiguous(memory_format=layout)
    loss, inwards, grads = gradients(network, x, _Single())
    same, torchs, others = gradients(network, x, nullcontext())
    near(loss, same)
    near(inwards, torchs)
    for name, found in grads.items():
        near(found, others[name])


@pytest.mark.parametrize("product", [F.conv2d, F.linear, torch.matmul, lambda x, w: x @ w, lambda x, w: x.matmul(w)])
def test_products_are_rounded_once(product):
    torch.manual_seed(1)
    x, w = (torch.randn(2, 4, 5, 5), torch.randn(3, 4, 3, 3)) if product is F.conv2d else torch.randn(2, 6, 6)
    with torch.autocast("cpu", torch.bfloat16), _Single():
        found = product(x, w)
    assert found.dtype == torch.bfloat16, "what comes next reads what it would read of torch's own"
    exact = product(x.bfloat16().double(), w.bfloat16().double())
    apart = (found.double() - exact).abs() / exact.abs().clamp(min=1e-2)
    assert 2**-12 < float(apart.max()) <= 2**-8, "half a step of bfloat16"


class Points(nn.Module):
    """Filters of one point, the first three of which are products of rows where channels lie together."""

    def __init__(self, bias):
        super().__init__()
        self.first = nn.Conv2d(6, 10, 1, bias=bias)
        self.same = nn.Conv2d(10, 8, 1, padding="same", bias=bias)
        self.last = nn.Conv2d(8, 9, 1, bias=bias)
        self.stride = nn.Conv2d(9, 6, 1, stride=2, bias=bias)
        self.groups = nn.Conv2d(6, 4, 1, groups=2, bias=bias)
        self.padding = nn.Conv2d(4, 3, 1, padding=1, bias=bias)

    def forward(self, x):
        return self.padding(self.groups(self.stride(self.last(self.same(self.first(x)).relu()))))


def points_of(network, x, monkeypatch, layout, way):
    taken = []
    pointwise = rows.pointwise
    with monkeypatch.context() as m:
        m.setattr(half, "pointwise", lambda *a: taken.append(a[1].shape) or pointwise(*a))
        if way == "whole":
            m.setattr(half, "_points", lambda *_: None)
        network, x = network.to(memory_format=layout), x.contiguous(memory_format=layout)
        return gradients(network, x, _Single()), taken


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("piece", [1, 2000, 2**21])
def test_rows_in_pieces_give_what_whole_tensors_give(bias, piece, monkeypatch):
    torch.manual_seed(2)
    monkeypatch.setattr(rows, "PIECE", piece)
    network, x = Points(bias), torch.randn(5, 6, 7, 9)
    (loss, inwards, grads), taken = points_of(network, x, monkeypatch, torch.channels_last, "rows")
    assert taken == [(10, 6, 1, 1), (8, 10, 1, 1), (9, 8, 1, 1)]
    (same, others, wanted), nothing = points_of(network, x, monkeypatch, torch.channels_last, "whole")
    assert not nothing
    near(loss, same)
    near(inwards, others)
    for name, found in grads.items():
        assert found.dtype == torch.float32
        near(found, wanted[name])


def test_rows_are_taken_only_where_the_channels_of_a_point_lie_together(monkeypatch):
    network = Points(True)
    assert not points_of(network, torch.randn(5, 6, 7, 9), monkeypatch, torch.contiguous_format, "rows")[1]
    x = torch.randn(0, 6, 4, 4).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16), _Single():
        assert network(x).shape == (0, 3, 4, 4), "no images at all"
        assert network.first(torch.randn(6, 4, 4)).shape == (10, 4, 4), "an image without a batch"


def test_gradients_of_rows_are_rounded_once():
    torch.manual_seed(3)
    x, weight, bias = (t.bfloat16().requires_grad_() for t in (torch.randn(90, 7), torch.randn(5, 7), torch.randn(5)))
    y = rows.Rows.apply(x, weight, bias)
    grad = torch.randn_like(y)
    y.backward(grad)
    exact = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    wanted = F.linear(*exact)
    wanted.backward(grad.double())
    pairs = [(y.detach(), wanted.detach()), *((t.grad, e.grad) for t, e in zip((x, weight, bias), exact, strict=True))]
    for found, right in pairs:
        assert found.dtype == torch.bfloat16
        apart = (found.double() - right).abs() / right.abs().clamp(min=1e-2)
        assert float(apart.max()) <= 2**-8, "half a step of bfloat16"


@pytest.mark.parametrize("frozen", ["x", "weight", "bias"])
def test_rows_compute_no_gradient_that_nobody_wants(frozen):
    told = {"x": torch.randn(9, 7), "weight": torch.randn(5, 7), "bias": torch.randn(5)}
    told = {k: t.bfloat16().requires_grad_(k != frozen) for k, t in told.items()}
    y = rows.Rows.apply(*told.values())
    assert all(t.dtype == torch.bfloat16 for t in y.grad_fn.saved_tensors), "wide numbers are not kept for later"
    y.sum().backward()
    assert {k for k, t in told.items() if t.grad is not None} == told.keys() - {frozen}


def test_second_derivatives_do_not_depend_on_how_images_lie():
    torch.manual_seed(4)
    network, x, found = Points(True), torch.randn(2, 6, 5, 5), []
    for layout in (torch.channels_last, torch.contiguous_format):
        own = x.contiguous(memory_format=layout).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16), _Single():
            y = network(own).float().square().sum()
        (first,) = torch.autograd.grad(y, own, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), [own, network.first.weight]))
    for a, b in zip(*found, strict=True):
        assert float(a.abs().sum()) > 0
        near(a, b)


def test_gradients_are_the_same_where_the_way_back_is_taken_inside(monkeypatch):
    torch.manual_seed(5)
    monkeypatch.setattr(rows, "PIECE", 1)
    network, x = Points(True), torch.randn(2, 6, 5, 5).contiguous(memory_format=torch.channels_last)
    _, _, wanted = gradients(network, x, _Single())
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16), _Single():
        network(x).float().square().sum().backward()
    assert all(torch.equal(p.grad, wanted[n]) for n, p in network.named_parameters())


@pytest.mark.parametrize("mode", [_Instead, _Single])
def test_all_else_goes_its_way_in_single_precision(mode):
    x, images = torch.randn(3, 3), torch.randn(2, 4, 6, 6)
    with torch.autocast("cpu", torch.bfloat16), mode():
        with torch.autocast("cpu", enabled=False):
            assert torch.equal(x @ x, torch.mm(x, x))
            assert (x @ x).dtype == torch.float32
            assert F.conv2d(images, torch.randn(4, 1, 3, 3), stride=2, groups=4).dtype == torch.float32
        assert (x + x).dtype == torch.float32
        assert F.conv2d(images, torch.randn(4, 1, 3, 3), stride=2, groups=4).dtype == torch.bfloat16


@pytest.mark.parametrize("mode", [_Instead, _Single])
def test_what_autocast_leaves_alone_is_left_alone(mode):
    wide, whole, turned = torch.randn(4, 4).double(), torch.tensor([[257]]), torch.tensor([[1j]])
    images, out = torch.randn(2, 4, 6, 6).double(), torch.zeros(4, 4)
    with torch.autocast("cpu", torch.bfloat16), mode():
        assert torch.equal(wide @ wide, torch.linalg.multi_dot([wide, wide]))
        assert (whole @ torch.ones_like(whole)).item() == 257
        assert (turned @ torch.ones_like(turned)).item() == 1j
        assert F.conv2d(images, torch.randn(4, 1, 3, 3).double(), stride=2, groups=4).dtype == torch.float64
        given = torch.mm(wide.float(), wide.float(), out=out)
    assert given is out
    assert float(out.abs().sum()) > 0


def attention(x):
    torch.manual_seed(6)
    return nn.MultiheadAttention(8, 2)(x, x, x)[0]


CALLS = {
    "matmul": lambda x: x @ x.mT,
    "method": lambda x: x.matmul(x.mT),
    "bmm": lambda x: torch.bmm(x, x.mT),
    "baddbmm": lambda x: torch.baddbmm(torch.ones(5, 5), x, x.mT),
    "addmm": lambda x: torch.addmm(torch.ones(5), x[0], x[1].T),
    "einsum": lambda x: torch.einsum("nij,nkj->nik", x, x),
    "einsum of a list": lambda x: torch.einsum("nij,nkj->nik", [x, x]),
    "linear": lambda x: F.linear(x, x[0]),
    "transposed": lambda x: F.conv_transpose1d(x, x[:, :, :3].mT.reshape(5, 4, -1)),
    "dot products": lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=torch.ones(5, 5, dtype=torch.bool)),
    "attention": attention,
}


@pytest.mark.parametrize("call", CALLS)
def test_every_product_is_taken_in_single_precision_and_is_the_same(call, monkeypatch):
    torch.manual_seed(7)
    x, taken, held = torch.randn(4, 5, 8), [], half._held
    with torch.autocast("cpu", torch.bfloat16):
        wanted = CALLS[call](x)
    monkeypatch.setattr(half, "_held", lambda told: taken.append(told) or held(told))
    with torch.autocast("cpu", torch.bfloat16), _Single():
        found = CALLS[call](x)
    assert taken
    assert found.dtype == wanted.dtype == torch.bfloat16
    near(found.detach(), wanted.detach())


@pytest.mark.parametrize("machine", ["x86_64", "AMD64", "aarch64"])
@pytest.mark.parametrize("torchs", [True, False])
@pytest.mark.parametrize(("avx512", "amx"), [(True, False), (False, True), (False, False)])
def test_on_x86_the_instructions_must_be_there_and_not_only_their_registers(machine, torchs, avx512, amx, monkeypatch):
    monkeypatch.setattr(half.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: torchs)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert half.has_bfloat16.__wrapped__() == (torchs and (avx512 or amx or machine == "aarch64"))


@pytest.mark.parametrize(("there", "way"), [(True, "_Instead"), (False, "_Single")])
def test_the_way_is_the_processors(monkeypatch, there, way):
    taken = []
    monkeypatch.setattr(half, "has_bfloat16", lambda: there)
    for name in ("_Instead", "_Single"):
        made = getattr(half, name)
        monkeypatch.setattr(half, name, lambda name=name, made=made: taken.append(name) or made())
    x = torch.randn(2, 3)
    with arithmetic("bfloat16", "cpu"):
        assert (x @ x.T).dtype == torch.bfloat16
    assert taken == [way]
    with torch.autocast("cpu", torch.bfloat16), arithmetic("float32", "cpu"):
        assert (x @ x.T).dtype == torch.float32
    assert taken == [way]
