"""What torch.nn.utils.prune does to a network, fact by fact, and the way from there into Prunery."""

import torch
from torch import nn
from torch.nn.utils import prune

from prunery.masks import density
from prunery.pruning import from_torch, plain_, to_torch_

torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 10),
)  # fmt: skip
images, labels = torch.randn(32, 1, 28, 28), torch.randint(10, (32,))

# To prune a network of many layers, iterate over its modules and collect the convolutions and the linear layers.
layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
assert len(layers) == 4

# A pruning function keeps the original weights beside a mask, and so changes the structure of the module ...
fc = layers[3]
original = fc.weight
assert list(fc.state_dict()) == ["weight", "bias"]
for layer in layers:
    prune.random_unstructured(layer, "weight", amount=0.5)
assert sorted(fc.state_dict()) == ["bias", "weight_mask", "weight_orig"]
assert prune.is_pruned(network)

# ... in which weight_orig is the parameter, the same that weight was, and weight_mask is a buffer of zeros and ones ...
assert fc.weight_orig is original
assert isinstance(fc.weight_orig, nn.Parameter)
assert "weight_mask" in dict(fc.named_buffers())
assert set(fc.weight_mask.unique().tolist()) == {0.0, 1.0}
assert int(fc.weight_mask.sum()) == 600

# ... and weight is a plain attribute, their product: no parameter and no buffer any more.
assert not isinstance(fc.weight, nn.Parameter)
assert "weight" not in dict(fc.named_parameters()) | dict(fc.named_buffers())
assert torch.equal(fc.weight, fc.weight_orig * fc.weight_mask)

# The optimiser sees weight_orig: it is this tensor that training changes, and only where the mask is one ...
before, product = fc.weight_orig.detach().clone(), fc.weight.detach().clone()
optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
nn.functional.cross_entropy(network(images), labels).backward()
optimizer.step()
assert not torch.equal(fc.weight_orig, before)
assert torch.equal(fc.weight_orig[fc.weight_mask == 0], before[fc.weight_mask == 0])

# ... while weight still holds the old product, until the next forward pass computes it anew.
assert torch.equal(fc.weight, product)
network(images)
assert not torch.equal(fc.weight, product)
assert torch.equal(fc.weight, fc.weight_orig * fc.weight_mask)

# Momentum and weight decay do change what is masked (it does not show until the mask goes).
decaying = torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=0.1)
decaying.zero_grad()
nn.functional.cross_entropy(network(images), labels).backward()
decaying.step()
assert not torch.equal(fc.weight_orig[fc.weight_mask == 0], before[fc.weight_mask == 0])
outputs = network(images)

# Pruning again prunes what is left: half of a half. The masks are combined, and still there is one weight_orig.
conv = layers[1]
prune.l1_unstructured(conv, "weight", amount=0.5)
assert int(conv.weight_mask.sum()) == conv.weight_mask.numel() // 4
outputs = network(images)

# Until it is removed, pruning can be undone: the values below the mask are there. prune.remove makes it permanent:
# weight is a parameter again, with weight_orig where it was kept and zeros where it was pruned.
mask, values = fc.weight_mask.clone(), fc.weight_orig.detach().clone()
prune.remove(fc, "weight")
assert isinstance(fc.weight, nn.Parameter)
assert fc.weight is original
assert torch.equal(fc.weight, values * mask)
assert sorted(fc.state_dict()) == ["bias", "weight"]
assert torch.equal(network(images), outputs)

# To remove is not to shrink: as many numbers as ever, and nothing keeps the zeros at zero when training goes on.
assert fc.weight.numel() == 1200
nn.functional.cross_entropy(network(images), labels).backward()
assert fc.weight.grad[mask == 0].any()

# Prunery reads all of it: hooks that are there, and zeros that hooks have left.
found = from_torch(network)
assert list(found) == ["0.weight", "3.weight", "7.weight", "9.weight"]
assert torch.equal(found["9.weight"], mask.bool())
assert torch.equal(found["3.weight"], conv.weight_mask.bool())
for name, kept in found.items():
    print(f"{name:9} keeps {int(kept.sum()):6} of {kept.numel():6}")

# plain_ gives the ordinary network with that mask: no hooks, the same outputs. to_torch_ goes the other way.
assert plain_(network).keys() == found.keys()
assert not prune.is_pruned(network)
assert torch.equal(network(images), outputs)
to_torch_(network, found)
assert torch.equal(network(images), outputs)
assert prune.is_pruned(network)
print(f"density {density(found):.3f}")
