"""Rounding of weights: within half a step, zeros stay zeros, integers in range, twice is once."""

import pytest
import torch

from prunery.quantize import integers, quantize
from prunery.spec import Quantize, hints


def weights():
    rng = torch.Generator().manual_seed(0)
    found = {"conv": torch.randn(8, 3, 3, 3, generator=rng), "fc": 5 * torch.randn(4, 7, generator=rng)}
    found["conv"][:, 1] = 0
    found["fc"][2] = 0
    return found


BITS = [b for b in hints(Quantize)["bits"].__args__ if b > 1]  # a single bit needs learned scales
PER = hints(Quantize)["per"].__args__


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("per", PER)
def test_each_weight_moves_by_half_a_step_at_most_and_zeros_stay(bits, per):
    before = weights()
    after, scales = quantize(before, bits, per)
    for name, w in before.items():
        assert (after[name] - w).abs().le(scales[name] / 2 * (1 + 1e-5)).all()
        assert not after[name][w == 0].any()
        q = integers(after[name], scales[name])
        assert q.abs().max() == 2 ** (bits - 1) - 1
        assert len(after[name].unique()) <= (2**bits - 1) * (len(w) if per == "channel" else 1)
        assert scales[name].numel() == (len(w) if per == "channel" else 1)


@pytest.mark.parametrize("bits", BITS)
def test_rounding_twice_is_rounding_once(bits):
    once, scales = quantize(weights(), bits)
    twice, again = quantize(once, bits)
    for name in once:
        torch.testing.assert_close(twice[name], once[name], rtol=1e-6, atol=0)
        assert torch.equal(integers(once[name], scales[name]), integers(twice[name], again[name]))


def test_eight_bits_per_channel_lose_less_than_per_tensor():
    w = {"w": torch.diag(torch.tensor([1.0, 0.01])) + 0.003}
    loss = {per: (quantize(w, 4, per)[0]["w"] - w["w"]).square().sum() for per in PER}
    assert loss["channel"] < loss["tensor"] / 10
