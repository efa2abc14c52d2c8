"""Weights from a file into a network: read safely, matched key by key, refused unless everything but the head fits."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..masks import PRUNABLE
from ..runs import checksum, read_state
from ..spec import Refused

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
PREFIXES = ("module.", "_orig_mod.")


def read_weights(path: Path, sha256: str = "") -> dict[str, Tensor]:
    """The tensors of a .safetensors file (ours without its masks) or of a .pth file, from which no code is run."""
    if not path.is_file():
        raise Refused(f"model.weights: {path} does not exist; expected a .safetensors or .pth file, or pretrained")
    if sha256 and checksum(path) != sha256:
        raise Refused(f"{path} has changed: its SHA-256 is not {sha256}; put the file back that was there")
    if path.suffix == ".safetensors":
        return read_state(path)[0].weights
    return _unwrap(_load(path), path)


def read_architecture(path: Path) -> Any:
    """What surgery has made of the layers that a file of ours holds; None where they are as built."""
    return read_state(path)[1].get("architecture") if path.suffix == ".safetensors" else None


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # about the age of the file: not the user's business
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise Refused(
            f"{path} does not hold plain tensors (Python objects in a file can run code, so they are not read); "
            "expected what torch.save(network.state_dict(), FILE) writes"
        ) from None
    except Exception as error:  # a damaged file fails in any part of the reader, each with an error of its own
        reason = str(error).split(". ")[0].split("\n")[0][:150] or type(error).__name__
        raise Refused(f"{path} is not a whole PyTorch file ({reason}); make or copy it again") from None


def _unwrap(found: Any, path: Path) -> dict[str, Tensor]:
    """Out of a training script's wrapping: {"state_dict": ...}."""
    while isinstance(found, dict) and (key := next((w for w in WRAPPERS if isinstance(found.get(w), dict)), None)):
        found = found[key]
    if not isinstance(found, dict) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        keys = f" of {', '.join(map(str, list(found)[:5]))}" if isinstance(found, dict) else ""
        raise Refused(f"{path} holds a {type(found).__name__}{keys}; expected names and tensors, a state_dict()")
    return found


def _bare(own: dict[str, Tensor], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes of DataParallel and torch.compile; a network may have a child of such a name itself."""
    for prefix in PREFIXES:
        if own.keys().isdisjoint(tensors) and all(k.startswith(prefix) for k in tensors):
            tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}
    return tensors


def fit(network: nn.Module, tensors: dict[str, Tensor], source: str, head: bool = True) -> list[str]:
    """Load in place, all or nothing; the report says what was loaded and which new head keeps its own weights.

    Without `head` every layer must fit.
    """
    own = network.state_dict()
    tensors = _bare(own, tensors)
    # Files from before PyTorch 0.4.1, torchvision's among them, do not count the batches that normalisation has seen.
    missing = [k for k in own if k not in tensors and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in tensors if k not in own]
    shapes = [k for k in own if k in tensors and own[k].shape != tensors[k].shape]
    new_head = _head(network, own, tensors, shapes) if head else ""
    wrong = {"missing": missing, "unexpected": unexpected, "of another shape": [] if new_head else shapes}
    if any(wrong.values()):
        parts = [f"{len(keys)} {what} ({_first(keys, own, tensors)})" for what, keys in wrong.items() if keys]
        raise Refused(f"{source} does not fit: {'; '.join(parts)}; expected the weights of this network")
    if whole := [
        k for k, w in own.items() if w.is_floating_point() and k in tensors and tensors[k].dtype == torch.int8
    ]:
        raise Refused(f"{source} has whole numbers for {whole[0]} and no scales of them; make or copy it again")
    _finite(tensors, source)
    with torch.no_grad():
        for key in own.keys() & tensors.keys() - set(shapes):
            own[key].copy_(tensors[key])
    return _report(own, tensors, shapes, new_head, source)


def _head(network: nn.Module, own: dict[str, Tensor], tensors: dict[str, Tensor], shapes: list[str]) -> str:
    """The one layer that differs, in its outputs only; were it not the last, the layer behind it would differ too."""
    layers = {k.rpartition(".")[0] for k in shapes}
    same_inputs = all(own[k].shape[1:] == tensors[k].shape[1:] and own[k].dim() for k in shapes)
    return layers.pop() if len(layers) == 1 and same_inputs and _is_head(network, layers) else ""


def _is_head(network: nn.Module, layers: set[str]) -> bool:
    return all(isinstance(network.get_submodule(name), PRUNABLE) for name in layers)


def _first(keys: list[str], own: dict[str, Tensor], tensors: dict[str, Tensor]) -> str:
    """The first few keys, with both shapes where they differ."""
    both = {k: f" {list(tensors[k].shape)}, expected {list(own[k].shape)}" for k in keys if k in own and k in tensors}
    return ", ".join(k + both.get(k, "") for k in keys[:3]) + (", ..." if len(keys) > 3 else "")


def _finite(tensors: dict[str, Tensor], source: str) -> None:
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.isnan().any():
            raise Refused(f"{source} holds NaN in {key}; expected weights from a training that did not diverge")


def _report(own: dict[str, Tensor], tensors: dict[str, Tensor], shapes: list[str], head: str, source: str) -> list[str]:
    lines = [f"{len(own.keys() & tensors.keys()) - len(shapes)} of {len(own)} tensors loaded from {source}"]
    types = sorted({str(t.dtype).removeprefix("torch.") for k, t in tensors.items() if t.dtype != own[k].dtype})
    lines += [f"stored as {', '.join(types)}, now {own[next(iter(own))].dtype}".replace("torch.", "")] if types else []
    if head:
        theirs, ours = tensors[shapes[0]].shape[0], own[shapes[0]].shape[0]
        lines += [f"{head}: new head of {ours} classes (the file has {theirs}); it keeps its initial weights"]
    return lines
