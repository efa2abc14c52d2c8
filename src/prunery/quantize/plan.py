"""How many bits each layer gets: the settings of the step, of the first, depthwise and last layers, and exceptions."""

from fnmatch import fnmatchcase

from torch import nn

from ..masks import PRUNABLE
from ..spec import Quantize, Refused, layer_bits, quote
from .fake import Bits


def planned(network: nn.Module, spec: Quantize) -> dict[str, Bits]:
    """Bits by layer, in the network's order; a layer of 0/0 stays as it is."""
    layers = {n: m for n, m in network.named_modules() if isinstance(m, PRUNABLE)}
    order = list(layers)
    found = {}
    for name, layer in layers.items():
        weight, input = spec.bits, spec.activations
        depthwise = getattr(layer, "groups", 1) > 1 and layer.groups == layer.in_channels
        if spec.depthwise and depthwise:
            weight, input = spec.depthwise, max(spec.depthwise, spec.activations) if spec.activations else 0
        if name in (order[0], order[-1]):
            own = spec.first if name == order[0] else spec.last
            weight, input = (own, own if spec.activations else 0) if own else (weight, input)
        found[name] = weight, input
    for pattern, bits in (layer_bits(entry) for entry in spec.layers):
        hit = [n for n in order if fnmatchcase(n, pattern)]
        if not hit:
            raise Refused(f"quantize.layers: {quote(pattern)} meets no layer; there are {', '.join(order)}")
        found |= dict.fromkeys(hit, bits)
    plan = {n: (w, a) for n, (w, a) in found.items() if w}
    if not plan:
        raise Refused("quantize.layers leaves no layer to be quantised; expected bits for at least one")
    return {
        n: Bits(w, a, spec.per, ternary=spec.ternary and w == 2, clusters=spec.clusters) for n, (w, a) in plan.items()
    }
