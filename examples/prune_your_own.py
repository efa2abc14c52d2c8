"""Your own network and your own data: half of the channels go for good, and the file opens again without pickle."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import prunery


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16))
        self.last = nn.Linear(16 * 16, 10)

    def forward(self, x):
        x = self.first(x)
        x = torch.relu(x + self.second(x))  # the sum couples the channels of both convolutions
        return self.last(nn.functional.max_pool2d(x, 2).flatten(1))


torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
order = torch.randperm(len(labels))
x = torch.tensor(images, dtype=torch.float32)[order].view(-1, 1, 8, 8) / 16
y = torch.tensor(labels)[order]
loader = DataLoader(TensorDataset(x[300:], y[300:]), batch_size=64, shuffle=True)
x, y = x[:300], y[:300]  # the test


def told(what, network):
    right = (network.eval()(x).argmax(1) == y).float().mean()
    print(f"{what:7} {sum(p.numel() for p in network.parameters()):6,} parameters, accuracy {right:.1%}")


network = Small()
prunery.finetune(network, loader, epochs=3)
told("dense", network)
masks = prunery.prune(network, density=0.5, structure="coupled", example=x[:2])
prunery.finetune(network, loader, masks, epochs=2)  # what is pruned stays exactly zero
told("pruned", network)
smaller, masks = prunery.shrink(network, masks, x[:2])  # what is pruned is gone
told("shrunk", smaller)
assert torch.allclose(smaller(x), network(x), atol=1e-4)

prunery.save(smaller, "small.safetensors", masks)
loaded = prunery.load("small.safetensors", into=Small())  # the file tells the sizes of the layers
told("loaded", loaded)
assert torch.equal(loaded(x), smaller(x))
