"""Laws of what is seen of a network: against autograd, finite differences and sums by hand; nothing of it changes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunery.masks import apply_, prunable
from prunery.measure import count
from prunery.models import build
from prunery.pruning import COLLECTORS, collect
from prunery.pruning.evidence import losses, seen_of
from prunery.spec import Model, Refused


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def conv(i, o, k=3, **more):
    return nn.Conv2d(i, o, k, **({"padding": k // 2} | more))


class Net(nn.Module):
    """A body that ends in feature maps, their mean, and a head."""

    def __init__(self, *body, width):
        super().__init__()
        self.body, self.head = nn.Sequential(*body), nn.Linear(width, 4)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def restless(network):
    """Normalisation that does something."""
    for n, p in network.named_parameters():
        if p.ndim == 1:
            p.data = random(*p.shape, seed=len(n)) * 0.5 + 0.5
    for b in network.buffers():
        if b.ndim:
            b.copy_(random(*b.shape, seed=9).abs() + 0.5)
    return network


def chain():
    """conv, norm, relu and a grouped convolution."""
    torch.manual_seed(0)
    return restless(Net(conv(3, 6), nn.BatchNorm2d(6), nn.ReLU(inplace=True), conv(6, 8, groups=2), width=8))


BATCHES = [(random(5, 3, 8, 8, seed=s), torch.arange(5) % 4) for s in (1, 2)]


def smooth():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


FLAT = [(random(7, 6, seed=s).double(), torch.arange(7) % 3) for s in (1, 2)]


def plain_gradients(network, batches):
    network = copy.deepcopy(network).eval()
    loss = sum(F.cross_entropy(network(x), y) for x, y in batches) / len(batches)
    loss.backward()
    return {n: p.grad for n, p in network.named_parameters() if n in prunable(network)}


@pytest.mark.parametrize("need", COLLECTORS)
@pytest.mark.parametrize("broken", [False, True])
def test_the_network_is_left_exactly_as_it_was(need, broken):
    network = chain().train()
    network.body[1].eval()
    network.head.weight.requires_grad_(False)
    network.body[0].weight.grad = torch.ones_like(network.body[0].weight)
    before = {n: t.clone() for n, t in network.state_dict().items()}
    pointers = {n: t.data_ptr() for n, t in network.state_dict().items()}
    rng = torch.random.get_rng_state()
    if broken and need not in ("shapes", "transposed"):
        with pytest.raises(Refused, match=r"^prune: Net cannot take inputs of \[\d, 5, 8, 8\]"):
            COLLECTORS[need](network, [(random(2, 5, 8, 8), torch.zeros(2, dtype=torch.int64))])
    else:
        COLLECTORS[need](network, BATCHES)
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())
    assert {n: t.data_ptr() for n, t in network.state_dict().items()} == pointers
    assert torch.equal(torch.random.get_rng_state(), rng)
    assert [m.training for m in network.modules()] == [True, True, True, False, True, True, True]
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in network.modules())
    assert [n for n, p in network.named_parameters() if not p.requires_grad] == ["head.weight"]
    assert [n for n, p in network.named_parameters() if p.grad is not None] == ["body.0.weight"]
    assert (network.body[0].weight.grad == 1).all()
    assert network.body[2].inplace
    assert "forward" not in vars(network.body[1])


def test_gradients_are_the_mean_of_the_batches():
    found = COLLECTORS["grad"](chain(), BATCHES)
    wanted = plain_gradients(chain(), BATCHES)
    assert found.keys() == wanted.keys()
    for n, g in wanted.items():
        torch.testing.assert_close(found[n], g)


def test_gradients_reach_frozen_layers_and_say_nothing_of_idle_ones():
    network = chain()
    network.idle = nn.Linear(3, 3)
    network.requires_grad_(False)
    found = COLLECTORS["grad"](network, BATCHES)
    assert set(found) == {"body.0.weight", "body.3.weight", "head.weight"}
    with pytest.raises(Refused, match="idle shows no gradient; exclude it"):
        seen_of({"grad": found}, "idle.weight", ("grad",))


def test_curvature_is_the_difference_of_gradients_along_the_gradient():
    """H g = (g(w + e g) - g(w - e g)) / 2e, where g are the gradients of the weights that may be pruned."""
    found = COLLECTORS["curved"](smooth(), FLAT[:1])
    g, e = plain_gradients(smooth(), FLAT[:1]), 1e-5
    ends = []
    for sign in (1, -1):
        network = smooth()
        for n, p in network.named_parameters():
            p.data += sign * e * g.get(n, 0)
        ends.append(plain_gradients(network, FLAT[:1]))
    for n in g:
        torch.testing.assert_close(found[n], (ends[0][n] - ends[1][n]) / (2 * e), rtol=1e-6, atol=1e-9)


def test_curvature_is_the_mean_of_the_batches():
    both = COLLECTORS["curved"](smooth(), FLAT)
    each = [COLLECTORS["curved"](smooth(), [b]) for b in FLAT]
    for n in both:
        torch.testing.assert_close(both[n], (each[0][n] + each[1][n]) / 2)


def test_flow_of_two_layers_by_hand():
    """R = 1 |W2| |W1| 1: through a weight of the first flows what leaves its unit, of the second what comes."""
    network = nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    found = COLLECTORS["flow"](network, [(random(2, 4), torch.zeros(2))])
    first, second = (network[i].weight.detach().abs() for i in (0, 2))
    torch.testing.assert_close(found["0.weight"], second.sum(0)[:, None].expand(3, 4))
    torch.testing.assert_close(found["2.weight"], first.sum(1)[None].expand(2, 3))


def test_flow_is_conserved():
    """Without biases as much flows through each layer, and out of a unit as came in (Tanaka et al., theorem 1)."""
    layers = [conv(3, 6, bias=False), nn.BatchNorm2d(6), nn.ReLU(), conv(6, 8, bias=False), nn.ReLU()]
    network = Net(*layers, width=8)
    network.head.bias = None
    w = prunable(network)
    found = COLLECTORS["flow"](network, BATCHES)
    through = {n: w[n].abs() * g for n, g in found.items()}
    assert [float(t.sum()) for t in through.values()] == pytest.approx(
        [float(through["head.weight"].sum())] * 3, rel=1e-5
    )
    torch.testing.assert_close(through["body.0.weight"].sum((1, 2, 3)), through["body.3.weight"].sum((0, 2, 3)))


def test_flow_does_not_look_at_the_data():
    once, again = (COLLECTORS["flow"](chain(), [b]) for b in BATCHES)
    assert all(torch.equal(once[n], again[n]) for n in once)


def test_flow_through_a_hundred_layers_is_a_number():
    layers = [m for _ in range(100) for m in (nn.Linear(4, 4, bias=False), nn.ReLU())]
    found = COLLECTORS["flow"](nn.Sequential(*layers), [(random(2, 4), torch.zeros(2))])
    assert all(torch.isfinite(g).all() for g in found.values())


def test_movement_is_minus_weight_times_gradient_along_descent():
    from prunery.pruning.evidence import MOVING_RATE

    network, wanted = chain().eval(), {}
    for batch in BATCHES:
        g = plain_gradients(network, [batch])
        named = dict(network.named_parameters())
        for n in g:
            wanted[n] = wanted.get(n, 0) - named[n].detach() * g[n]
            named[n].data -= MOVING_RATE * g[n]
    found = COLLECTORS["movement"](chain(), BATCHES)
    for n, m in wanted.items():
        torch.testing.assert_close(found[n], m)


def test_inputs_are_the_root_mean_square_of_each_channel():
    network, x = chain().eval(), torch.cat([x for x, _ in BATCHES])
    found = COLLECTORS["inputs"](network, BATCHES)
    rms = lambda t, axes: t.square().mean(axes).sqrt()  # noqa: E731
    with torch.no_grad():
        between = network.body[:3](x)
        pooled = network.body(x).mean((2, 3))
    torch.testing.assert_close(found["body.0.weight"].flatten(), rms(x, (0, 2, 3)))
    torch.testing.assert_close(found["head.weight"].flatten(), rms(pooled, 0))
    # a filter of the second group reads channels 3, 4 and 5
    wanted = rms(between, (0, 2, 3)).view(2, 3).repeat_interleave(4, 0)
    torch.testing.assert_close(found["body.3.weight"].view(8, 3), wanted)


LAYERS = {
    "linear": (nn.Linear(6, 4), (5, 6)),
    "linear on a sequence": (nn.Linear(6, 4), (5, 3, 6)),
    "convolution": (conv(6, 4), (2, 6, 5, 5)),
    "in groups": (conv(6, 4, groups=2), (2, 6, 5, 5)),
    "depthwise": (conv(6, 6, groups=6), (2, 6, 5, 5)),
    "transposed": (nn.ConvTranspose2d(6, 4, 2, stride=2), (2, 6, 5, 5)),
    "transposed in groups": (nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2), (2, 6, 5, 5)),
    "of a signal": (nn.Conv1d(6, 4, 3), (2, 6, 9)),
    "of a volume": (nn.Conv3d(6, 4, 2), (2, 6, 3, 3, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_value_stands_at_the_weights_that_it_speaks_of(name):
    """Silencing an input silences what `inputs` says of the weights that read it, and of no others."""
    layer, shape = copy.deepcopy(LAYERS[name][0]), LAYERS[name][1]
    layer.bias.data.zero_()
    network = nn.Sequential(layer)
    x, channel = random(*shape), -1 if isinstance(layer, nn.Linear) else 1
    x.select(channel, 2).zero_()
    found = COLLECTORS["inputs"](network, [(x, torch.zeros(len(x)))])["0.weight"]
    unread = found.expand_as(layer.weight) == 0
    hot = copy.deepcopy(network).requires_grad_(True)
    hot(x).square().sum().backward()
    assert torch.equal(unread, hot[0].weight.grad == 0)
    assert unread.any()


@pytest.mark.parametrize("need", ["outputs", "zeros"])
@pytest.mark.parametrize("name", LAYERS)
def test_outputs_stand_at_the_weights_that_make_them(name, need):
    """Weights that make channel 1 alone: what is seen of all others is nothing."""
    layer, shape = copy.deepcopy(LAYERS[name][0]), LAYERS[name][1]
    network, x, channel = nn.Sequential(layer), random(*shape), -1 if isinstance(layer, nn.Linear) else 1
    hot = copy.deepcopy(network)
    hot(x).select(channel, 1).square().sum().backward()
    makes = hot[0].weight.grad != 0
    with torch.no_grad():
        layer.weight.mul_(makes)
        layer.bias.fill_(0.0 if need == "outputs" else 1e9).select(0, 1).fill_(0.0 if need == "outputs" else -1e9)
    found = COLLECTORS[need](network, [(x, torch.zeros(len(x)))])["0.weight"]
    assert torch.equal(found.expand_as(layer.weight) > 0, makes)
    y = network(x).detach().select(channel, 1)
    wanted = y.abs().mean() if need == "outputs" else torch.ones(())
    torch.testing.assert_close(found.expand_as(layer.weight)[makes], wanted.expand(int(makes.sum())))


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.second, self.head = conv(3, 6), nn.BatchNorm2d(6), conv(6, 5), nn.Linear(5, 4)

    def forward(self, x):
        return self.head(self.second(F.relu(self.norm(self.conv(x)))).mean((2, 3)))


@pytest.mark.parametrize("inplace", [False, True])
def test_feature_maps_are_seen_behind_normalisation_and_activation(inplace):
    network = chain().eval()
    network.body[2].inplace = inplace
    x = torch.cat([x for x, _ in BATCHES])
    with torch.no_grad():
        maps, second = network.body[:3](x), network.body(x)
    outputs, zeros = (COLLECTORS[need](network, BATCHES) for need in ("outputs", "zeros"))
    torch.testing.assert_close(outputs["body.0.weight"].flatten(), maps.abs().mean((0, 2, 3)))
    torch.testing.assert_close(zeros["body.0.weight"].flatten(), (maps == 0).float().mean((0, 2, 3)))
    torch.testing.assert_close(outputs["body.3.weight"].flatten(), second.abs().mean((0, 2, 3)))


def test_feature_maps_before_a_functional_relu_count_what_it_will_make_zero():
    torch.manual_seed(0)
    network = restless(Functional()).eval()
    x = torch.cat([x for x, _ in BATCHES])
    with torch.no_grad():
        maps = F.relu(network.norm(network.conv(x)))
    zeros = COLLECTORS["zeros"](network, BATCHES)["conv.weight"]
    torch.testing.assert_close(zeros.flatten(), (maps == 0).float().mean((0, 2, 3)))


def test_scales_are_those_of_the_normalisation_that_reads_the_layer():
    network = chain()
    found = COLLECTORS["scale"](network, BATCHES)
    assert set(found) == {"body.0.weight"}
    assert torch.equal(found["body.0.weight"].flatten(), network.body[1].weight)
    other = restless(Functional())
    assert torch.equal(COLLECTORS["scale"](other, BATCHES)["conv.weight"].flatten(), other.norm.weight)


def test_an_activation_that_several_layers_use_belongs_to_none_of_them():
    relu = nn.ReLU()
    network = Net(conv(3, 6), relu, conv(6, 5), relu, width=5).eval()
    with torch.no_grad():
        before = network.body[0](BATCHES[0][0])
    found = COLLECTORS["outputs"](network, BATCHES[:1])["body.0.weight"]
    torch.testing.assert_close(found.flatten(), before.abs().mean((0, 2, 3)))


class Patches(nn.Module):
    """A layer that sees each image as four."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = conv(3, 5), nn.Linear(5, 4)

    def forward(self, x):
        parts = x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        return self.head(self.conv(parts).mean((2, 3)).view(len(x), 4, 5).mean(1))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = conv(3, 3), nn.Linear(3, 4)

    def forward(self, x):
        return self.head(self.conv(self.conv(x)[..., ::2]).mean((2, 3)))


def ours(name, *input):
    return lambda: build(Model(name=name, input=input, classes=10), 0)


PLACES = {
    "lenet5": (ours("lenet5", 1, 28, 28), (1, 28, 28)),
    "lenet_300_100": (ours("lenet_300_100", 1, 28, 28), (1, 28, 28)),
    "convnet": (ours("convnet", 1, 8, 8), (1, 8, 8)),
    "resnet20": (ours("resnet20", 3, 16, 16), (3, 16, 16)),
    "strided": (lambda: Net(conv(3, 4, 5, stride=2), conv(4, 5, 3, stride=(1, 3), padding=0), width=5), (3, 17, 15)),
    "dilated": (lambda: Net(conv(3, 4, 3, dilation=2), width=4), (3, 9, 9)),
    "same": (lambda: Net(nn.Conv2d(3, 4, (2, 5), padding="same", dilation=2), width=4), (3, 9, 8)),
    "valid": (lambda: Net(conv(3, 4, padding="valid"), width=4), (3, 9, 8)),
    "in groups": (lambda: Net(conv(3, 6), conv(6, 6, groups=6), conv(6, 4, groups=2), width=4), (3, 8, 8)),
    "transposed": (lambda: Net(nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1), width=4), (3, 5, 6)),
    "several at once": (Patches, (3, 8, 8)),
    "used twice": (Twice, (3, 8, 8)),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_weights_times_places_are_the_multiply_adds_that_are_counted(name):
    make, shape = PLACES[name]
    network = make()
    found = COLLECTORS["places"](network, [(random(3, *shape), torch.zeros(3))])
    rows = {}
    for row in count(network, shape):
        rows[f"{row.name}.weight"] = rows.get(f"{row.name}.weight", 0) + row.multiply_adds
    assert {n: float(found[n]) * w.numel() for n, w in prunable(network).items()} == {
        n: rows[n] for n in prunable(network)
    }


def test_losses_are_those_of_the_masked_networks_and_nothing_is_left_of_the_trial():
    network = chain().train()
    mask = {n: random(*w.shape, seed=3) > 0 for n, w in prunable(network).items()}
    before = {n: t.clone() for n, t in network.state_dict().items()}
    found = losses(network, BATCHES, {"whole": {}, "half": mask})
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())
    masked = copy.deepcopy(network).eval()
    apply_({n: p.data for n, p in masked.named_parameters()}, mask)
    x, y = (torch.cat(parts) for parts in zip(*BATCHES, strict=True))
    with torch.no_grad():
        logits = masked(x)
    assert found["half"][0] == pytest.approx(float(F.cross_entropy(logits, y)), rel=1e-5)
    assert found["half"][1] == int((logits.argmax(1) == y).sum()) / len(y)
    assert found["whole"] != found["half"]


@pytest.mark.parametrize("need", ["inputs", "outputs", "zeros", "scale"])
def test_what_is_seen_lies_where_the_network_does(need):
    """On a device that only keeps shapes: what were summed up elsewhere would not meet it."""
    network, batches = chain().to("meta"), [(x.to("meta"), y.to("meta")) for x, y in BATCHES]
    found = collect(network, {need}, batches)[need]
    assert found
    assert {str(t.device) for t in found.values()} == {"meta"}
    with pytest.raises(RuntimeError):
        torch.zeros(6) + found[next(iter(found))].flatten()[:6]


def test_what_cannot_be_seen_is_refused():
    with pytest.raises(Refused, match="grad, inputs must be seen on data; expected batches"):
        collect(chain(), {"grad", "inputs"}, [])
    with pytest.raises(Refused, match="first weights"):
        collect(chain(), {"initial"}, BATCHES)
    assert set(collect(chain(), {"shapes"}, [])["shapes"]) == {n for n, _ in chain().named_parameters()}
