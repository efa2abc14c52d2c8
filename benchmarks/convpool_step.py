"""Claim: a training step of LeNet-5 (batch 64, Adam) is faster with fused blocks than with torch's own layers.

Checks first that both give the same losses, then takes turns and compares medians of short stretches.
Set --threads 1 on a busy machine: OpenMP's threads, torch's or ours, wait for one another.
"""

import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from claim import arguments, claim, finish, ratios, turns
from torch import nn

from prunery import native
from prunery.models.blocks import ConvReLUPool

CLAIM = "a LeNet-5 training step with fused blocks against torch's layers"
TARGET = 1.8
STEPS = 15  # in one stretch


def torchs() -> list[nn.Module]:
    return [nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]


def fused() -> list[nn.Module]:
    return [ConvReLUPool(1, 6, 5), ConvReLUPool(6, 16, 5)]


def network(convolutions: list[nn.Module], seed: int = 0) -> nn.Sequential:
    dense = [nn.Flatten(), nn.Linear(256, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)]
    model = nn.Sequential(*convolutions, *dense)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():  # the same weights, whatever the layers are called
            fan_in = parameter[0].numel()
            parameter.copy_(torch.randn(parameter.shape, generator=rng) / fan_in**0.5)
    return model


def stepper(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], torch.Tensor]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def contestants() -> dict[str, Callable[[], torch.Tensor]]:
    rng = torch.Generator().manual_seed(1)
    x, y = torch.randn(64, 1, 28, 28, generator=rng), torch.randint(0, 10, (64,), generator=rng)
    model = network(fused())
    assert model[0].path(x) == model[1].path(torch.empty(64, 6, 12, 12)) == "native", "the kernel is not taken"
    return {"torch": stepper(network(torchs()), x, y), "fused": stepper(model, x, y)}


def check(steps: int = 10) -> None:
    losses = {name: [float(step()) for _ in range(steps)] for name, step in contestants().items()}
    torch.testing.assert_close(losses["fused"], losses["torch"], rtol=1e-4, atol=1e-4)


def stretch_ms(step: Callable[[], torch.Tensor]) -> float:
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return 1e3 * median(times)


def main() -> None:
    asked = arguments(__doc__ or "", threads=str(torch.get_num_threads()))
    torch.set_num_threads(int(asked.threads))
    check()
    stretches = {name: partial(stretch_ms, step) for name, step in contestants().items()}
    turns(stretches, 1)  # warms up
    times = turns(stretches, 5 if asked.quick else 25)
    faster, spread = ratios(times["torch"], times["fused"])
    table = [f"{name:<6} {median(took):6.2f} ms a step (best {min(took):.2f})" for name, took in times.items()]
    table.append(f"{asked.threads} threads, kernels for {native.instruction_set()}")
    found = claim(CLAIM, faster, "times faster", spread, len(times["fused"]), TARGET, faster >= TARGET)
    finish([found], "\n".join(table), asked)


if __name__ == "__main__":
    main()
