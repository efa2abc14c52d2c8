"""Networks of torchvision and timm by name, and the weights that they publish."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..spec import Refused, quote
from .small import Shape

IMAGENET: tuple[Shape, int] = ((3, 224, 224), 1000)
# Their auxiliary heads exist for one old training recipe: a tuple in training mode, which no loop of ours expects.
AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}


def torchvision_network(name: str, input: Shape, classes: int) -> nn.Module:
    """One of torchvision's classification networks, with its own initial weights."""
    from torchvision import models

    _known(name, models.list_models(module=models), "torchvision")
    return models.get_model(name, weights=None, num_classes=classes, **_torchvision_extras(name, input))


def _torchvision_extras(name: str, input: Shape) -> dict[str, Any]:
    """What some networks must be told: the size of the image, or to leave out auxiliary heads."""
    if name in AUXILIARY:
        return {"aux_logits": False, "init_weights": True}
    if name == "maxvit_t":
        return {"input_size": input[1:]}
    return {"image_size": input[1]} if name.startswith("vit_") else {}


def torchvision_weights(name: str) -> dict[str, Tensor]:
    """The published weights; from torch's cache folder, or downloaded into it."""
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT
    try:
        tensors = weights.get_state_dict(progress=False, check_hash=True)
    except Exception as error:
        place = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
        raise _no_download(f"torchvision:{name}", weights.url, error, f"put it at {place}, or ") from None
    return {k: v for k, v in tensors.items() if not k.startswith(AUXILIARY.get(name, ("\0",)))}


def torchvision_input(name: str) -> tuple[Shape, int]:
    """The image size and number of classes of the published weights."""
    from torchvision import models

    _known(name, models.list_models(module=models), "torchvision")
    weights = models.get_model_weights(name).DEFAULT
    side = weights.transforms.keywords["crop_size"]
    return (3, side, side), len(weights.meta["categories"])


def timm_network(name: str, input: Shape, classes: int, pretrained: bool = False) -> nn.Module:
    """One of timm's networks; timm itself fits published weights to other channels and classes."""
    import timm

    cfg = _timm_cfg(name)
    sized: dict[str, Any] = {"img_size": tuple(input[1:])} if getattr(cfg, "fixed_input_size", False) else {}
    return timm.create_model(name, pretrained=pretrained, num_classes=classes, in_chans=input[0], **sized)


def timm_pretrained(name: str, input: Shape, classes: int) -> nn.Module:
    """With the published weights, downloaded from the hub when they are not in its cache."""
    try:
        return timm_network(name, input, classes, pretrained=True)
    except Refused:
        raise
    except Exception as error:
        cfg = _timm_cfg(name)
        hub = getattr(cfg, "hf_hub_id", None)
        where = (
            f"https://huggingface.co/{hub} (model.safetensors)"
            if hub
            else getattr(cfg, "url", None) or "timm's page of the network"
        )
        raise _no_download(f"timm:{name}", where, error) from None


def timm_input(name: str) -> tuple[Shape, int]:
    """The image size and number of classes that timm's configuration gives."""
    cfg = _timm_cfg(name)
    return (tuple(cfg.input_size), cfg.num_classes or IMAGENET[1]) if cfg else IMAGENET


def _timm_cfg(name: str) -> Any:
    """timm's facts about a network (None for those without published weights); refuses a name it does not have."""
    import timm

    _known(name.partition(".")[0], timm.list_models(), "timm")
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:
        _known(name, timm.list_pretrained(f"{name.partition('.')[0]}.*"), "timm")
        return None


def _known(name: str, names: Iterable[str], library: str) -> None:
    """Libraries have hundreds of names: a refusal shows the nearest few."""
    known = list(names)
    if name not in known:
        near = get_close_matches(name, known, n=5, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else f"expected one of its {len(known)} networks"
        raise Refused(f"model.name = {quote(f'{library}:{name}')} is unknown to {library}; {hint}")


def _no_download(name: str, where: str, error: Exception, place: str = "") -> Refused:
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    return Refused(
        f"the pretrained weights of {name} could not be had ({reason[:200]}); download {where} on a machine with a "
        f"network, and {place}give the file: --set model.weights=FILE"
    )
