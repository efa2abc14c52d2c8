"""Half of the channels of every network: those of torchvision's and timm's families, masked, shrunk, and compared.

Each network is built with random weights on small images, its normalisations, scales and running statistics drawn at
random so that dead channels still give constants. In each group of coupled channels that may go, the half with the
smallest L1 norm is masked. `shrink` must then give a network that is really smaller, computes on images that it has not
seen what the masked one computes (1e-5, relative to the largest output), gives every parameter a finite gradient in
training mode, and comes back from a safetensors file into a freshly built network that the file's description reshaped.
A network of which nothing can be pruned is REFUSED with the reason; one that fails a check is WRONG. All networks take
most of an hour: with --rows FILE each row is kept there when it is done, and the same command goes on after it.
"""

import copy
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from claim import arguments, claim, columns, finish
from torch import Tensor, nn

from prunery.masks import PRUNABLE, Mask, apply_
from prunery.measure import count, totals
from prunery.models import build, describe, fit, reshape_
from prunery.pruning import Group, groups, shrink, unit_mask
from prunery.runs import commit, read_tensors, write_tensors
from prunery.spec import Model, Refused

EQUAL = 1e-5
CLASSES = 10
SIDE = 64
SIDES = {
    "torchvision:inception_v3": 80,
    "timm:inception_v4": 80,
    "torchvision:maxvit_t": 224,
    "timm:efficientformer_l1": 224,
}
"""smallest images where 64 pixels are too few"""
TORCHVISION = [
    "alexnet", "vgg11", "vgg16_bn", "resnet18", "resnet50", "wide_resnet50_2", "resnext50_32x4d",
    "densenet121", "squeezenet1_1", "googlenet", "inception_v3", "mobilenet_v2", "mobilenet_v3_small",
    "mobilenet_v3_large", "mnasnet0_5", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "efficientnet_b0",
    "efficientnet_v2_s", "regnet_x_400mf", "regnet_y_400mf", "convnext_tiny", "vit_b_16", "swin_t",
    "swin_v2_t", "maxvit_t",
]  # fmt: skip
TIMM = [
    "resnet18", "resnet26d", "seresnet50", "resnetv2_50", "resnest14d", "res2net50_26w_4s", "ghostnet_100",
    "hrnet_w18_small", "dla34", "ese_vovnet19b_dw", "densenet121", "mobilenetv4_conv_small",
    "mobilenetv3_small_050", "tf_efficientnet_b0", "efficientnetv2_rw_t", "mixer_s32_224",
    "deit_tiny_patch16_224", "beit_base_patch16_224", "levit_128s", "coat_tiny", "inception_v4", "xception41",
    "cspresnet50", "repvgg_a0", "regnety_002", "convnext_atto", "mobileone_s0", "fastvit_t8",
    "edgenext_xx_small", "poolformer_s12", "rexnet_100", "dpn48b", "hardcorenas_a", "tinynet_e", "selecsls42",
    "nfnet_l0", "gmixer_12_224", "resmlp_12_224", "pvt_v2_b0", "efficientformer_l1", "mobilevit_xxs",
    "lcnet_050",
]  # fmt: skip
ZOO = [*(f"torchvision:{n}" for n in TORCHVISION), *(f"timm:{n}" for n in TIMM)]
QUICK = [
    "torchvision:resnet18",
    "torchvision:squeezenet1_1",
    "torchvision:mobilenet_v3_small",
    "timm:mobilenetv3_small_050",
]


@dataclass
class Row:
    """What came of one network."""

    name: str
    status: str = "WRONG"
    pruned: int = 0
    protected: int = 0
    parameters: float = 1.0
    multiply_adds: float = 1.0
    difference: float = 0.0
    why: str = ""
    commit: str = ""


def main() -> None:
    asked = arguments(__doc__, only="", rows="")
    names = QUICK if asked.quick else [n for n in ZOO if asked.only in n]
    known = finished(Path(asked.rows)) if asked.rows else {}
    rows = []
    for name in names:
        rows.append(known.get(name) or tried(name))
        if asked.rows and name not in known:
            with Path(asked.rows).open("a") as file:
                file.write(json.dumps(asdict(rows[-1])) + "\n")
        if not asked.json:
            print(columns([told(rows[-1])]), flush=True)
    at = ", ".join(sorted({r.commit or "unknown" for r in rows}))
    finish(claims(rows, asked.quick or bool(asked.only)), table(rows), asked, more=reasons(rows), at=at)


def finished(path: Path) -> dict[str, Row]:
    """What an earlier call has kept; a line that it was killed in the middle of counts as nothing."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    rows = [Row(**json.loads(line)) for line in lines if line.endswith("\n")]
    path.write_text("".join(json.dumps(asdict(r)) + "\n" for r in rows))
    return {r.name: r for r in rows}


def tried(name: str) -> Row:
    """A network through all checks; what it is refused or wrong for is the row's last word."""
    row = Row(name, commit=commit() or "")
    try:
        row.status = checked(row)
    except Refused as refusal:
        row.status, row.why = "REFUSED", str(refusal)
    except Exception as error:  # an error of ours must not hide the networks behind it: it counts as wrong
        row.why = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return row


def checked(row: Row) -> str:
    side = SIDES.get(row.name, SIDE)
    model = Model(name=row.name, input=(3, side, side), classes=CLASSES)
    network = randomised(build(model, 0).eval())
    rng = torch.Generator().manual_seed(1)
    example, unseen = (torch.randn(2, 3, side, side, generator=rng) for _ in range(2))
    found = groups(network, example)
    free = [g for g in found if not g.protected]
    row.pruned, row.protected = len(free), len(found) - len(free)
    row.why = "; ".join(f"{n} x {why}" for why, n in Counter(g.protected for g in found if g.protected).most_common(3))
    if not free:
        raise Refused(f"nothing can be pruned: {row.why}")
    masks = halved(network, free)
    smaller, _ = shrink(network, masks, example)
    masked = copy.deepcopy(network)
    apply_({n: p.data for n, p in masked.named_parameters()}, masks)
    row.difference = difference(masked, smaller, unseen)
    measured(row, network, smaller)
    problems = [
        *(["outputs differ"] if not row.difference <= EQUAL else []),
        *(["masks changed nothing: nothing was checked"] if difference(network, masked, unseen) < 0.001 else []),
        *(["nothing became smaller"] if row.parameters >= 1 else []),
        *untrained(copy.deepcopy(smaller), side),
        *unlike(smaller, rebuilt(smaller, model), unseen),
    ]
    if problems:
        row.why = "; ".join(problems)
    return "WRONG" if problems else "equal"


def randomised(network: nn.Module) -> nn.Module:
    """Scales, shifts and running statistics at random, also those that start as zero, which would hide differences."""
    rng = torch.Generator().manual_seed(2)
    for module in network.modules():
        for leaf, p in module.named_parameters(recurse=False):
            if isinstance(module, PRUNABLE) and leaf == "weight":
                usual = p[0].numel() ** -0.5
                if float(p.detach().abs().mean()) < 0.01 * usual:  # some heads start as good as zero
                    p.data = torch.randn(p.shape, generator=rng) * usual
            elif p.numel() == max(p.shape, default=1):
                p.data = torch.randn(p.shape, generator=rng) * 0.3 + (0 if leaf == "bias" else 1)
        if getattr(module, "running_mean", None) is not None:
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=rng) * 0.1)
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=rng) + 0.5)
    return network


def halved(network: nn.Module, free: list[Group]) -> Mask:
    """Masks of the half of each group's units whose rows have the smallest L1 norm."""
    named = dict(network.named_parameters())
    shapes = {n: tuple(p.shape) for n, p in named.items()}
    masks: Mask = {}
    for group in free:
        norm = torch.zeros(group.units)
        for part in group.slices:
            if part.role == "out":
                norm += rows_of(named[part.parameter].detach(), part.axis, part.places)
        keep = torch.zeros(group.units, dtype=torch.bool)
        keep[norm.argsort(descending=True, stable=True)[: -(-group.units // 2)]] = True
        for n, m in unit_mask(group, keep, shapes).items():
            masks[n] = masks[n] & m if n in masks else m
    return masks


def rows_of(weight: Tensor, axis: int, places: Tensor) -> Tensor:
    """The L1 norm of each unit's rows."""
    return weight.movedim(axis, 0).abs().flatten(1).sum(1)[places].sum(1)


def difference(want: nn.Module, got: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        a, b = want(x), got(x)
    return float((a - b).abs().max() / a.abs().max())


def measured(row: Row, network: nn.Module, smaller: nn.Module) -> None:
    """The shares that are left."""
    side = SIDES.get(row.name, SIDE)
    before, after = (totals(count(n, (3, side, side))) for n in (network, smaller))
    row.parameters = after["parameters"] / before["parameters"]
    row.multiply_adds = after["multiply_adds"] / before["multiply_adds"]


def untrained(smaller: nn.Module, side: int) -> Iterator[str]:
    """Parameters that a backward pass in training mode leaves without a finite gradient."""
    smaller.train()
    rng = torch.Generator().manual_seed(3)
    smaller(torch.randn(4, 3, side, side, generator=rng)).square().mean().backward()
    bad = [n for n, p in smaller.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    if bad:
        yield f"{len(bad)} parameters without a finite gradient, the first {bad[0]}"


def rebuilt(smaller: nn.Module, model: Model) -> nn.Module:
    """The network from a file: built anew from its name, reshaped as the file says, filled with the file's tensors."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "smaller.safetensors"
        tensors = {n: t.contiguous() for n, t in smaller.state_dict().items()}
        write_tensors(path, tensors, {"architecture": describe(smaller)})
        read, about = read_tensors(path)
    fresh = build(model, 5).eval()
    reshape_(fresh, json.loads(json.dumps(about["architecture"])))
    fit(fresh, read, "the file")
    return fresh


def unlike(smaller: nn.Module, again: nn.Module, x: Tensor) -> Iterator[str]:
    with torch.no_grad():
        if not torch.equal(smaller(x), again(x)):
            yield "the network rebuilt from its file computes something else"


def told(row: Row) -> list[object]:
    return [
        row.name,
        row.status,
        row.pruned,
        row.protected,
        row.parameters,
        row.multiply_adds,
        f"{row.difference:.1e}",
        row.why[:110],
    ]


def table(rows: list[Row]) -> str:
    head = ["network", "status", "groups", "protected", "parameters", "multiply-adds", "difference"]
    return columns([head, *(told(r)[:7] for r in rows)])


def reasons(rows: list[Row]) -> str:
    """Why channels were left alone, or a network was."""
    return "Why groups are protected, and networks refused:\n\n" + "\n".join(
        f"- {r.name}: {r.why}" for r in rows if r.why
    )


def claims(rows: list[Row], part: bool) -> list[dict]:
    good = [r for r in rows if r.status == "equal"]
    wrong = [r.name for r in rows if r.status == "WRONG"]
    refused = [r.name for r in rows if r.status == "REFUSED"]
    target = len(rows) if part else 40
    spread = f"{len(refused)} refused, {len(wrong)} wrong" + (
        f": {', '.join([*refused, *wrong])}" if refused or wrong else ""
    )
    worst = max((r.difference for r in good), default=0.0)
    share = sorted(r.parameters for r in good)
    text = "networks that lose half of their free channels and compute the same as the masked ones"
    return [
        claim(text, len(good), "networks", spread, len(rows), f"at least {target}", len(good) >= target),
        claim("networks that came back wrong", len(wrong), "networks", None, len(rows), 0, not wrong),
        claim("largest difference of outputs", worst, "share of the largest", None, len(good), EQUAL, worst <= EQUAL),
        claim(
            "parameters left", share[len(share) // 2] if share else 1.0, "share (median)",
            f"{share[0]:.3g} to {share[-1]:.3g}" if share else None, len(good), "< 1", bool(share) and share[-1] < 1,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
