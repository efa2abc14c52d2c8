"""From PyTorch to one packed file that needs no torch: prune, retrain, pack, and run with numpy alone."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

import prunery

torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
    nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
    nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
)  # fmt: skip
x, y = torch.randn(256, 3, 32, 32), torch.randint(0, 10, (256,))  # your images and labels
batches = list(zip(x.split(64), y.split(64), strict=True))

masks = prunery.prune(network, density=0.1, scope="erk")
prunery.finetune(network, batches, masks, epochs=1)  # with your own training loop: prunery.masks.apply_ after each step

packed = prunery.pack(network, x[:1])
packed.save("network.prunery")
for layer in packed.explain():  # what is computed how, and why
    if layer.multiply_adds:
        print(f"{layer.name:>2}  {layer.density:4.0%} of the weights  {layer.kernel:28} {layer.why}")

assert np.allclose(packed(x.numpy()), network.eval()(x).detach().numpy(), atol=1e-4)
whole = sum(p.numel() for p in network.parameters()) * 4
print(f"{Path('network.prunery').stat().st_size / whole:.0%} of the bytes of its weights")

# Another program, on a machine without PyTorch:
program = """
import sys
import numpy as np
import prunery.runtime

network = prunery.runtime.load("network.prunery")
scores = network(np.zeros((1, 3, 32, 32), np.float32))
print(scores.shape, "torch" in sys.modules)
"""
print(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip())
