"""Lottery tickets by hand, with their two controls: is it the mask that matters, or the weights it was drawn with?"""

import copy
from statistics import mean, stdev

import torch
from sklearn.datasets import load_digits
from torch import nn

import prunery
from prunery.masks import apply_

images, labels = load_digits(return_X_y=True)
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
x = torch.tensor(images, dtype=torch.float32)[order] / 16
y = torch.tensor(labels)[order]
train = list(zip(x[600:].split(32), y[600:].split(32), strict=True))
x, y = x[:600], y[:600]  # the test


def drawn(seed):
    """A network with the weights of a seed."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 10))


def trained(network, masks=None, epochs=8):
    apply_({name: network.get_parameter(name).data for name in masks or {}}, masks or {})
    prunery.finetune(network, train, masks, epochs=epochs, lr=0.1)
    return network


def accuracy(network):
    return (network.eval()(x).argmax(1) == y).float().mean().item()


found = {"dense": [], "ticket": [], "other weights": [], "other mask": []}
for seed in range(5):
    dense = trained(drawn(seed))
    found["dense"].append(accuracy(dense))
    masks = None
    for density in (0.5, 0.25, 0.12):  # iterative magnitude pruning: train, prune, begin again
        network = trained(drawn(seed), masks)
        masks = prunery.prune(network, density, masks=masks)
    found["ticket"].append(accuracy(trained(drawn(seed), masks)))
    found["other weights"].append(accuracy(trained(drawn(seed + 100), masks)))
    blind = prunery.prune(copy.deepcopy(drawn(seed)), 0.12, criterion="random", seed=seed)
    found["other mask"].append(accuracy(trained(drawn(seed), blind)))

for name, values in found.items():
    print(f"{name:14} {mean(values):.1%} \u00b1 {stdev(values):.1%}")
assert mean(found["ticket"]) > mean(found["other mask"])
