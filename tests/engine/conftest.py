"""Small graphs by hand, for the tests of the engine."""

import numpy as np
import pytest

from prunery import native
from prunery.engine.graph import Graph, Op, Tensor

ISAS = native.available()


class Making:
    """A graph that grows by one operation at a time; each method gives the place of the new tensor."""

    def __init__(self, channels, rows=1, columns=1, seed=0):
        self.graph = Graph([Tensor(channels, rows, columns)])
        self.rng = np.random.default_rng(seed)

    def shape(self, t):
        return self.graph.tensors[t].shape

    def op(self, kind, inputs, shape, **more):
        out = self.graph.tensor(Tensor(*shape))
        self.graph.ops.append(Op(kind, f"layer{len(self.graph.ops)}", list(inputs), out, **more))
        self.graph.output = out
        return out

    def weight(self, outputs, inputs, density=1.0):
        w = self.rng.standard_normal((outputs, inputs)).astype(np.float32) / np.sqrt(max(1, inputs * density))
        return np.where(self.rng.random(w.shape) < density, w, 0).astype(np.float32)

    def conv(self, x, channels, kernel=3, stride=1, padding=None, groups=1, dilation=1, density=1.0, **more):
        kernel, stride, dilation = pair(kernel), pair(stride), pair(dilation)
        pads = (
            ((kernel[0] - 1) * dilation[0] // 2, (kernel[1] - 1) * dilation[1] // 2)
            if padding is None
            else pair(padding)
        )
        pads = (*pads, *pads) if len(pads) == 2 else pads
        c, rows, columns = self.shape(x)
        shape = (channels, *sizes((rows, columns), kernel, stride, dilation, pads))
        weight = self.weight(channels, c // groups * kernel[0] * kernel[1], density)
        bias = self.rng.standard_normal(channels).astype(np.float32)
        inputs = [x, *more.pop("residual", [])]
        return self.op(
            "conv", inputs, shape, kernel=kernel, stride=stride, dilation=dilation, padding=pads, groups=groups,
            weight=weight, bias=bias, **more,
        )  # fmt: skip

    def linear(self, x, outputs, density=1.0, **more):
        weight = self.weight(outputs, self.shape(x)[0], density)
        bias = self.rng.standard_normal(outputs).astype(np.float32)
        return self.op("linear", [x, *more.pop("residual", [])], (outputs, 1, 1), weight=weight, bias=bias, **more)

    def pool(self, kind, x, kernel=2, stride=2, padding=0, ceil=False, **more):
        c, rows, columns = self.shape(x)
        pads = (padding,) * 4
        size = sizes((rows, columns), pair(kernel), pair(stride), (1, 1), pads, ceil)
        return self.op(kind, [x], (c, *size), kernel=pair(kernel), stride=pair(stride), padding=pads, **more)

    def images(self, n):
        return self.rng.standard_normal((n, *self.shape(0))).astype(np.float32)


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def sizes(extent, kernel, stride, dilation, pads, ceil=False):
    """Rows and columns of a window operation's output."""
    found = []
    for i in range(2):
        room = extent[i] + pads[i] + pads[i + 2] - dilation[i] * (kernel[i] - 1) - 1
        n = (-(-room // stride[i]) if ceil else room // stride[i]) + 1
        if ceil and (n - 1) * stride[i] >= extent[i] + pads[i]:
            n -= 1
        found.append(n)
    return found


@pytest.fixture
def make():
    return Making
