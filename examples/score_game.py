"""The score game: what a network is charged with, layer by layer, and what each measure saves."""

import torch

import prunery


def told(what, network):
    account = prunery.score(network)
    params, operations = account.scores()["2.8e8"]
    print(f"{what:26} {params:.4f} + {operations:.4f} = {account.score:.4f}")
    return account


torch.manual_seed(0)
network = prunery.load("resnet20", input=(3, 32, 32), classes=10)
told("as it is", network)

masks = prunery.prune(network, density=0.5)  # zeros save weights, and no operation
assert told("half of the weights zeros", network).p_u > 0.49

channels = prunery.load("resnet20", input=(3, 32, 32), classes=10)
example = torch.randn(2, 3, 32, 32)
masks = prunery.prune(channels, density=0.5, structure="coupled", scope="layer", example=example)
smaller, masks = prunery.shrink(channels, masks, example)  # channels that are gone save both
account = told("half of the channels gone", smaller)

dearest = max(account.lines, key=lambda line: line.work)
print(f"most of its work: {dearest.name}, {dearest.multiply_adds:,} multiply-adds at {dearest.bits} bits")
