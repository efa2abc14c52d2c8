"""Laws of the interchange with PyTorch's own pruning: nothing is lost there, on the way back, or in a file."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune as torch_prune
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from prunery.masks import Mask, apply_
from prunery.pruning.interchange import from_state_dict, from_torch, plain_, to_torch_
from prunery.spec import Refused


class Product(nn.Module):
    """A parametrisation like that of torch.ao.pruning, whose state dict holds the mask."""

    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, x):
        return self.mask * x


def sequential(*layers):
    return nn.Sequential(*layers)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)[0]


class Last(nn.Module):
    """A recurrent layer's outputs alone."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(5, 4, num_layers=2)

    def forward(self, x):
        return self.lstm(x)[0]


MAKERS = {
    "linear": (lambda: nn.Linear(5, 3), (4, 5)),
    "small": (lambda: sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3, bias=False)), (4, 5)),
    "conv": (lambda: sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 2)), (2, 3, 5, 5)),
    "conv1d": (lambda: sequential(nn.Conv1d(3, 4, 2, groups=1)), (2, 3, 5)),
    "conv3d": (lambda: sequential(nn.Conv3d(2, 3, 2)), (2, 2, 3, 3, 3)),
    "transposed": (lambda: sequential(nn.ConvTranspose2d(3, 4, 2, groups=1)), (2, 3, 4, 4)),
    "grouped": (lambda: sequential(nn.Conv2d(4, 8, 3, groups=4)), (2, 4, 5, 5)),
    "norm": (lambda: sequential(nn.Linear(5, 6), nn.LayerNorm(6)), (4, 5)),
    "lstm": (Last, (3, 2, 5)),
    "attention": (Attention, (2, 3, 8)),
}


def made(name):
    torch.manual_seed(0)
    return MAKERS[name][0]().eval()


def inputs(name):
    return torch.randn(MAKERS[name][1], generator=torch.Generator().manual_seed(1))


def prunable_by_hooks(network):
    """Everything that PyTorch's hooks can mask."""
    return {n: p for n, p in network.named_parameters() if "out_proj" not in n}


def some_mask(network) -> Mask:
    rng = torch.Generator().manual_seed(2)
    return {n: torch.rand(p.shape, generator=rng) < 0.6 for n, p in prunable_by_hooks(network).items()}


def masked(network, mask):
    twin = copy.deepcopy(network)
    apply_({n: p.detach() for n, p in twin.named_parameters()}, mask)
    return twin


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[n], b[n]) for n in a)


def owner(network, name):
    prefix, _, leaf = name.rpartition(".")
    return network.get_submodule(prefix), leaf


def hook_all(network, mask):
    for name, kept in mask.items():
        torch_prune.custom_from_mask(*owner(network, name), kept)
    return network


def parametrise_all(network, mask):
    for name, kept in mask.items():
        parametrize.register_parametrization(*owner(network, name), Product(kept.float()))
    return network


@pytest.mark.parametrize("name", MAKERS)
def test_there_and_back_is_the_masked_network(name):
    network, x = made(name), inputs(name)
    mask = some_mask(network)
    expected = masked(network, mask)
    names, objects = [n for n, _ in network.named_parameters()], {id(p) for p in network.parameters()}
    to_torch_(network, mask)
    assert torch.equal(network(x), expected(x))
    read = from_torch(network)
    assert {n: m for n, m in read.items() if n in mask}.keys() == mask.keys()
    assert same({n: read[n] for n in mask}, mask)
    assert same(plain_(network), read)
    assert torch.equal(network(x), expected(x))
    assert sorted(n for n, _ in network.named_parameters()) == sorted(names)
    assert {id(p) for p in network.parameters()} == objects
    assert same(dict(sorted(network.state_dict().items())), dict(sorted(expected.state_dict().items())))
    assert not any(m._forward_pre_hooks for m in network.modules())
    assert not torch_prune.is_pruned(network)


@pytest.mark.parametrize("name", [n for n in MAKERS if n != "lstm"])
def test_the_order_of_parameters_comes_back(name):
    """Where every weight has one bias: PyTorch puts what it masks last, and does not say where it was."""
    network = made(name)
    before = list(network.state_dict())
    for make in (hook_all, parametrise_all):
        for subset in ("weight", "bias", ""):
            mask = {n: m for n, m in some_mask(network).items() if n.endswith(subset)}
            make(network, mask)
            plain_(network)
            assert list(network.state_dict()) == before


@pytest.mark.parametrize("name", MAKERS)
def test_ours_is_what_pytorch_makes(name):
    """Keys, values and hooks: nobody could tell."""
    ours, theirs = made(name), made(name)
    mask = some_mask(ours)
    to_torch_(ours, mask)
    hook_all(theirs, mask)
    assert same(ours.state_dict(), theirs.state_dict())
    kinds = [[type(h) for m in n.modules() for h in m._forward_pre_hooks.values()] for n in (ours, theirs)]
    assert kinds[0] == kinds[1]
    for name_ in mask:
        torch_prune.remove(*owner(ours, name_))
    assert not torch_prune.is_pruned(ours)


@pytest.mark.parametrize("how", ["hooks", "parametrised"])
@pytest.mark.parametrize("name", MAKERS)
def test_state_dicts_are_read_without_the_network(name, how):
    network = made(name)
    mask, expected = some_mask(network), masked(network, some_mask(network)).state_dict()
    {"hooks": hook_all, "parametrised": parametrise_all}[how](network, mask)
    weights, read = from_state_dict(network.state_dict())
    assert same(dict(sorted(weights.items())), dict(sorted(expected.items())))
    assert same(dict(sorted(read.items())), dict(sorted(mask.items())))
    made(name).load_state_dict(weights)


@pytest.mark.parametrize("name", MAKERS)
def test_parametrised_networks_become_plain(name):
    network, x = made(name), inputs(name)
    mask = some_mask(network)
    expected = masked(network, mask)
    parametrise_all(network, mask)
    read = plain_(network)
    assert same({n: read[n] for n in mask}, mask)
    assert torch.equal(network(x), expected(x))
    assert not any(parametrize.is_parametrized(m) for m in network.modules())


def test_training_goes_on_masked_and_the_optimiser_goes_on_when_it_is_plain():
    network, x = made("small"), inputs("small")
    mask = some_mask(network)
    to_torch_(network, mask)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)

    def step():
        optimizer.zero_grad()
        network(x).square().sum().backward()
        optimizer.step()

    step()
    out = network(x)
    before = network[0].weight_orig.clone()
    step()
    assert not torch.equal(network[0].weight_orig, before)
    assert not network[0].weight[~mask["0.weight"]].any()
    out = network(x)
    plain_(network)
    assert torch.equal(network(x), out)
    step()
    assert not torch.equal(network(x), out)
    assert all(p.grad is not None for p in network.parameters())


def test_frozen_parameters_stay_frozen():
    for make in (hook_all, parametrise_all):
        network = made("small")
        network[0].weight.requires_grad_(False)
        make(network, some_mask(network))
        plain_(network)
        assert [n for n, p in network.named_parameters() if not p.requires_grad] == ["0.weight"]


@pytest.mark.parametrize("prune", ["random_unstructured", "l1_unstructured", "random_structured", "ln_structured"])
@pytest.mark.parametrize("removed", [False, True])
def test_every_method_of_pytorch_is_read(prune, removed):
    network, x = made("conv"), inputs("conv")
    more = {"dim": 0} if prune.endswith("_structured") else {}
    more |= {"n": 2} if prune == "ln_structured" else {}
    for layer in (network[0], network[3]):
        for _ in range(2):  # the second one makes a container
            getattr(torch_prune, prune)(layer, "weight", amount=0.3, **more)
    expected = {f"{i}.weight": network[i].weight_mask.bool() for i in (0, 3)}
    if removed:
        for layer in (network[0], network[3]):
            torch_prune.remove(layer, "weight")
    out = network(x)
    assert same(from_torch(network), expected)
    assert same(plain_(network), expected)
    assert torch.equal(network(x), out)


def test_global_pruning_is_read():
    network = made("conv")
    layers = [(network[0], "weight"), (network[3], "weight")]
    torch_prune.global_unstructured(layers, torch_prune.L1Unstructured, amount=100)
    assert sum(int((~m).sum()) for m in from_torch(network).values()) == 100


def test_torch_ao_pruning_is_read():
    from torch.ao.pruning import WeightNormSparsifier

    network = made("small")
    sparsifier = WeightNormSparsifier(sparsity_level=0.5, sparse_block_shape=(1, 1), zeros_per_block=1)
    sparsifier.prepare(network, [{"tensor_fqn": "0.weight"}])
    sparsifier.step()
    expected = network[0].parametrizations.weight[0].mask.bool().clone()
    assert not expected.all()
    with pytest.raises(Refused, match="no mask for it"):
        from_state_dict(network.state_dict())
    mask = plain_(network)
    assert torch.equal(mask["0.weight"], expected)
    assert torch.equal(network[0].weight != 0, expected)


def test_an_untouched_network_keeps_everything_and_a_plain_state_dict_is_as_it_was():
    network = made("conv")
    assert all(m.all() for m in from_torch(network).values())
    weights, mask = from_state_dict(network.state_dict())
    assert same(weights, dict(network.state_dict()))
    assert mask == {}


def test_what_was_infinite_or_negative_is_exactly_zero():
    layer = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-1.0, math.inf, 2.0]]))
    torch_prune.custom_from_mask(layer, "weight", torch.tensor([[0, 0, 1]]))
    weights, _ = from_state_dict(layer.state_dict())
    plain_(layer)
    removed = torch_prune.custom_from_mask(nn.Linear(3, 1, bias=False), "weight", torch.tensor([[0, 0, 1]]))
    removed.weight_orig.data.copy_(torch.tensor([[-1.0, 1.0, 2.0]]))
    plain_(torch_prune.remove(removed, "weight"))
    for w in (layer.weight, removed.weight, weights["weight"]):
        assert w.tolist() == [[0.0, 0.0, 2.0]]
        assert not w.signbit().any()


def test_shared_weights_masked_alike_are_one_parameter():
    network = sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    kept = torch.rand(4, 4) < 0.5
    for layer in network:
        torch_prune.custom_from_mask(layer, "weight", kept)
    assert list(plain_(network)) == ["0.weight"]
    assert network[1].weight is network[0].weight
    assert torch.equal(network[0].weight != 0, kept)


def test_names_that_only_look_alike_are_left_alone():
    network = sequential(spectral_norm(nn.Linear(4, 4)), weight_norm(nn.Linear(4, 4)), nn.Linear(4, 2))
    network.register_buffer("attn_mask", torch.ones(3))
    network.register_parameter("scale_orig", nn.Parameter(torch.ones(2)))
    torch_prune.l1_unstructured(network[2], "weight", amount=3)
    mask = from_torch(network)
    assert list(mask) == ["2.weight"]
    state = network.state_dict()
    weights, read = from_state_dict(state)
    assert list(read) == ["2.weight"]
    assert set(state) - set(weights) == {"2.weight_orig", "2.weight_mask"}
    plain_(network)
    assert parametrize.is_parametrized(network[0])
    assert parametrize.is_parametrized(network[1])


def lone_linear():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def shared():
    network = sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    return network


def shared_with_one_hook():
    network = shared()
    torch_prune.l1_unstructured(network[0], "weight", amount=3)
    return network


def soft():
    return torch_prune.custom_from_mask(lone_linear(), "weight", torch.full((2, 3), 0.5))


def half_removed():
    layer = torch_prune.l1_unstructured(lone_linear(), "weight", amount=3)
    layer._forward_pre_hooks.clear()
    return layer


def without_mask():
    layer = torch_prune.l1_unstructured(lone_linear(), "weight", amount=3)
    del layer._buffers["weight_mask"]
    return layer


def parametrised(*steps):
    layer = lone_linear()
    for step in steps:
        parametrize.register_parametrization(layer, "weight", step)
    return layer


class Shifted(Product):
    def forward(self, x):
        return self.mask * x + 1


UNREADABLE = {
    "shared": (shared_with_one_hook, "shared by layers"),
    "soft mask": (soft, "more than 0 and 1"),
    "no hook": (half_removed, "not PyTorch's hook"),
    "no mask": (without_mask, "not both"),
    "lazy": (lambda: nn.LazyLinear(3), "no shape yet"),
    "not a product": (lambda: parametrised(Shifted(torch.ones(2, 3))), "more than a product"),
    "two steps": (lambda: parametrised(Product(torch.ones(2, 3)), Product(torch.ones(2, 3))), "more than a product"),
    "a broadcast": (lambda: parametrised(Product(torch.ones(2, 1))), "more than a product"),
    "a soft product": (lambda: parametrised(Product(torch.full((2, 3), 2.0))), "more than 0 and 1"),
}


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize("read", [from_torch, plain_])
def test_what_cannot_be_read_is_refused_in_one_line_and_left_as_it_is(name, read):
    make, said = UNREADABLE[name]
    network = make()
    keys = [*network._parameters, *network._buffers]
    with pytest.raises(Refused, match=said) as caught:
        read(network)
    assert "\n" not in str(caught.value)
    assert [*network._parameters, *network._buffers] == keys


def with_own_mask():
    layer = lone_linear()
    layer.weight_mask = 3
    return layer


def old_spectral_norm():
    return nn.utils.spectral_norm(lone_linear())


W = torch.ones(2, 3, dtype=torch.bool)
UNFIT = {
    "name": (lone_linear, {"weight": W, "weihgt": W}, "did you mean weight"),
    "shape": (lone_linear, {"weight": W.T}, r"shape \[3, 2\]"),
    "type": (lone_linear, {"weight": W.float()}, "torch.bool"),
    "twice": (lambda: torch_prune.identity(lone_linear(), "weight"), {"weight": W}, "call plain_ first"),
    "parametrised": (lambda: parametrised(Product(W)), {"weight": W}, "call plain_ first"),
    "shared": (shared, {"0.weight": torch.ones(4, 4, dtype=torch.bool)}, "used by 2 layers"),
    "attention": (Attention, {"attention.out_proj.bias": torch.ones(8, dtype=torch.bool)}, "hook would never run"),
    "list": (lambda: nn.ParameterList([torch.ones(2)]), {"0": torch.ones(2, dtype=torch.bool)}, "hook would never run"),
    "own mask": (with_own_mask, {"weight": W}, "expected these names to be free"),
    "lazy": (lambda: nn.LazyLinear(3), {}, "no shape yet"),
    "normalised": (old_spectral_norm, {"weight_orig": W}, "before the mask's"),
}


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("name", UNFIT)
def test_what_cannot_be_attached_is_refused_in_one_line_and_nothing_is(name):
    make, mask, said = UNFIT[name]
    network = make()
    hooks = sum(len(m._forward_pre_hooks) for m in network.modules())
    with pytest.raises(Refused, match=said) as caught:
        to_torch_(network, mask)
    assert "\n" not in str(caught.value)
    assert sum(len(m._forward_pre_hooks) for m in network.modules()) == hooks


ONES = torch.ones(2, 3)
BROKEN = {
    "not a tensor": ({"epoch": 3}, "epoch is a int"),
    "both": ({"w": ONES, "w_orig": ONES, "w_mask": ONES}, "both w and w_orig"),
    "shape": ({"w_orig": ONES, "w_mask": ONES.T}, r"shape \[3, 2\]"),
    "soft": ({"w_orig": ONES, "w_mask": ONES / 2}, "more than 0 and 1"),
    "no mask": ({"a.parametrizations.w.original": ONES}, "no mask for it"),
    "more": (
        {f"parametrizations.w.{k}": ONES for k in ("original", "0.mask", "1.scale")},
        "by more than a mask",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_state_dicts_that_cannot_be_read_are_refused_in_one_line(name):
    tensors, said = BROKEN[name]
    with pytest.raises(Refused, match=said) as caught:
        from_state_dict(tensors)
    assert "\n" not in str(caught.value)
