"""A lottery by the name of its network, or from a TOML file; and the changes that a user asks for."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from .changes import table, value_of
from .check import check
from .errors import Refused, choose, quote
from .lottery import Lottery
from .steps import Data, Model, hints
from .toml import build, plain, read_toml

CONV = Lottery(
    data=Data(name="cifar10", scaling="channel"), arms=("ticket", "reinit"), levels=20, curve_levels=(), curve_steps=1
)


def _conv(name: str, steps: int, lr: float, rate_conv: float) -> Lottery:
    """Frankle and Carbin's figure 2; they do not say how pixels are scaled."""
    return replace(CONV, model=Model(name=name, init="glorot_normal"), steps=steps, lr=lr, rate_conv=rate_conv)


CONV6 = _conv("conv6", 30_000, 3e-4, 0.15)
DEEP = replace(
    CONV, data=replace(CONV.data, flip=True, crop=4), optimizer="sgd", momentum=0.9, weight_decay=1e-4, scope="global",
    rate_conv=0.2, rate_fc=0.0, rate_output=0.0,
)  # fmt: skip
RESNET = replace(
    DEEP, model=Model(name="resnet20", init="glorot_normal"), steps=30_000, batch=128, lr=0.1, drops=(20_000, 25_000),
    marks=(10_000, 20_000, 30_000), rate_layers=("layer2.0.shortcut.0=0", "layer3.0.shortcut.0=0"),
)  # fmt: skip
VGG = replace(
    DEEP, model=Model(name="vgg19", init="glorot_normal"), steps=112_480, batch=64, lr=0.1, drops=(56_240, 84_360),
    marks=(30_000, 60_000, 112_400),
)  # fmt: skip
LOTTERIES: dict[str, Lottery] = {
    "lenet_300_100": Lottery(),
    "conv2": _conv("conv2", 20_000, 2e-4, 0.1),
    "conv4": _conv("conv4", 25_000, 3e-4, 0.1),
    "conv6": CONV6,
    "conv6_as_printed": replace(CONV6, rate_layers=("conv1=0.2", "conv2=0.2"), rate_output=0.2),
    "conv2_dropout": _conv("conv2_dropout", 60_000, 3e-4, 0.1),
    "conv4_dropout": _conv("conv4_dropout", 75_000, 2e-4, 0.1),
    "conv6_dropout": _conv("conv6_dropout", 90_000, 2e-4, 0.15),
    "resnet20": RESNET,
    "resnet20_low_rate": replace(RESNET, lr=0.01),
    "resnet20_warmup": replace(RESNET, lr=0.03, warmup=20_000),
    "vgg19": VGG,
    "vgg19_low_rate": replace(VGG, lr=0.01),
    "vgg19_warmup": replace(VGG, warmup=10_000),
}
"""The paper's, by the name of the network, and of what is different. Of Conv-6 the paper prints shares of the weights
that follow from another rule than the one it states; ResNet-20 and VGG-19 are trained in three ways (figures 7, 8)."""


def read_lottery(what: str, settings: list[str] | tuple[str, ...] = ()) -> Lottery:
    """The lottery of a network's name or of a TOML file, changed by `--set` arguments."""
    if not what.endswith(".toml"):
        return lottery(plain(LOTTERIES[choose(what, [*LOTTERIES, "a RECIPE.toml"], "lottery")]), settings)
    try:
        return lottery(read_toml(Path(what)), settings)
    except Refused as error:
        raise error if what in str(error) else Refused(f"{what}: {error}") from None


def lottery(values: dict[str, Any], settings: list[str] | tuple[str, ...] = ()) -> Lottery:
    """A lottery from plain values."""
    values = deepcopy(values)
    for key in ("name", "about"):
        check(values.pop(key, ""), str, key)
    for key in values:
        choose(key, [*hints(Lottery), "name", "about"], "a key of the lottery")
    for key in ("model", "data"):
        values[key] = plain(getattr(Lottery(), key)) | table(values, key)
    for setting in settings:
        _apply(setting, values)
    return build(Lottery, values)


def _apply(setting: str, values: dict[str, Any]) -> None:
    """KEY=VALUE, model.KEY=VALUE or data.KEY=VALUE."""
    path, equals, text = setting.partition("=")
    where, dot, key = path.strip().rpartition(".")
    if not equals or not key or (dot and where not in ("lottery", "model", "data")):
        raise Refused(f"--set {quote(setting)} is not allowed; expected KEY=VALUE such as lr=0.001 or data.name=digits")
    found = values[where] if where in ("model", "data") else values
    found[key] = value_of(text.strip())
