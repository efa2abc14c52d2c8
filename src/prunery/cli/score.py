"""`prunery score`: what a network is charged with, and whether it may play."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from .. import chain, data, quantize
from ..data import Splits
from ..measure import score as game
from ..runs import RESULT, Runs
from ..spec import Refused, quote
from ..train import Evaluation, evaluate
from .pruning import as_seen

NEEDED = 0.9
"""of the test images; not rounded"""


def in_numbers(what: str) -> bool:
    """Whether somebody has counted already, and asks for the formula."""
    return "=" in what and "/" not in what and not Path(what).exists()


def by_hand(text: str, images: str, floats: int, verify: bool) -> tuple[dict[str, Any], list[Any]]:
    """The formula with the numbers of somebody who has counted, to whom no option says anything."""
    if (images, floats, verify) != (game.PLAYED, game.FLOAT, False):
        raise Refused("--data, --floats and --verify are for a checkpoint or a run; leave them out with numbers")
    scores = game.formula(game.values_of(text))
    return {"scores": game.as_dict(scores)}, [_editions(scores)]


def scored(
    what: str, images: str, root: Path, runs: Path, floats: int, verify: bool
) -> tuple[dict[str, Any], list[Any]]:
    """The account of a checkpoint, and its accuracy."""
    path = _file(what, runs)
    network, _, model = chain.opened(path)
    splits = data.load(as_seen(what, runs, images), root)
    chain.fits(splits.facts, model, images)
    account, precision = game.account(network, model.input, floats), "float32"
    if floats == game.SHORT:
        precision = _shortened(network, account, path)
    found = evaluate(network, splits.test, splits, precision)
    if found is None:
        raise Refused(f"{images} has no test images; expected some to measure the accuracy on")
    checks = _verified(network, splits, found, path) if verify else []
    return _facts(account, found, images, checks), _words(account, found, images, checks)


def _shortened(network: Any, account: game.Account, path: Path) -> str:
    """Numbers that are charged with 16 bits have no more; what the network then computes in."""
    quantised = quantize.quantised_layers(network)
    partly = [x.name for x in account.lines if x.terms and game.SHORT in (x.weight_bits, x.input_bits)]
    if quantised and partly:
        seen = f"--floats 16: {path} has {len(quantised)} quantised layers, and {partly[0]} multiplies floats"
        raise Refused(f"{seen}, which are measured with 32 bits beside them; leave --floats out")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.bfloat16())
    return "float32" if quantised else "bfloat16"


def _file(what: str, runs: Path) -> Path:
    """A checkpoint, or the file of a run."""
    if Path(what).is_file():
        return Path(what)
    if Path(what).is_dir() and not (Path(what) / RESULT).is_file():
        raise Refused(f"{what} is a folder; expected a checkpoint in it, a run, or numbers such as w=1e5,f=1e7")
    if not Path(what).exists() and ("/" in what or Path(what).suffix):
        raise Refused(f"{what} does not exist; expected a checkpoint, a run, or numbers such as w=1e5,f=1e7")
    folder = Runs(runs).find(what).folder
    packed = folder / chain.PACKED
    return packed if packed.is_file() else folder / chain.WEIGHTS


def _verified(network: Any, splits: Splits, found: Evaluation, path: Path) -> list[str]:
    """What was computed again, each as a line; a claim that does not hold is refused."""
    layers = quantize.quantised_layers(network)
    lines = []
    if layers:
        with quantize.in_integers(network):
            whole = evaluate(network, splits.test, splits)
        if whole != found:
            raise Refused(f"{path}: sums in integers give {whole}, sums in floats {found}; expected the same")
        lines.append(
            f"sums of all {len(layers)} quantised layers in integers: the same answer to all {found.n:,} images"
        )
    claimed = path.parent / RESULT
    test = _claimed(claimed, path.name) if claimed.is_file() else {}
    if test:
        if (test.get("n"), test.get("accuracy")) != (found.n, found.accuracy):
            seen = f"{test.get('accuracy')} of {test.get('n')} images"
            raise Refused(f"{claimed} claims {seen}; measured: {found.accuracy} of {found.n}")
        lines.append(f"{claimed.name} beside it claims the same accuracy of as many images")
    return lines


def _claimed(file: Path, name: str) -> dict[str, Any]:
    """What a run's result, or a kept one, says of a file beside it; nothing where it says nothing."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        found = told.get("files", {}).get(name) or (told.get("test") if name in (chain.PACKED, chain.WEIGHTS) else None)
    except (ValueError, AttributeError):
        raise Refused(f"{file} cannot be read; expected what a run or a benchmark wrote: move it elsewhere") from None
    return found if isinstance(found, dict) else {}


def _facts(account: game.Account, found: Evaluation, images: str, checks: list[str]) -> dict[str, Any]:
    return {
        "scores": game.as_dict(account.scores()), "weights": account.weights, "p_s": 0.0, "p_u": account.p_u,
        "test": found.as_dict(), "data": images, "plays": _plays(found, images), "verified": checks,
        "layers": [asdict(line) for line in account.lines],
    }  # fmt: skip


def _plays(found: Evaluation, images: str) -> bool:
    """Whether a network may be entered."""
    return images == game.PLAYED and found.accuracy >= NEEDED


def _words(account: game.Account, found: Evaluation, images: str, checks: list[str]) -> list[Any]:
    needed = "90 % are needed" if images == game.PLAYED else f"the game is on {game.PLAYED}"
    verdict = "plays" if _plays(found, images) else f"does not play: {needed}"
    error = 100 * found.standard_error
    return [
        _layers(account), COUNTED, "", _editions(account.scores()), "",
        f"accuracy {100 * found.accuracy:.2f} % of {found.n:,} test images of {images} "
        f"(standard error {error:.2f}): {verdict}",
        f"{account.weights:,} weights, p_s + p_u = 0 + {account.p_u:.3f}", *checks,
    ]  # fmt: skip


COUNTED = "multiply-adds: of whole layers, and the rules take zeros off in operations; prunery runs lists the kept ones"


def _layers(account: game.Account) -> Table:
    """A line a layer, in the current edition; what is small by itself is one line."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("layer", "weights", "kept", "bits", "multiply-adds", "parameters", "operations"):
        table.add_column(name, justify="left" if name == "layer" else "right")
    params, ops = game.RULES[game.CURRENT]
    with_weights = [line for line in account.lines if line.terms]
    rest = [line for line in account.lines if not line.terms]
    for line in with_weights:
        bits = f"{line.weight_bits}/{line.input_bits}"
        sums = (f"{params(line):.6f}", f"{ops(line):.6f}")
        table.add_row(line.name, f"{line.weights:,}", f"{line.kept:,}", bits, f"{line.multiply_adds:,}", *sums)
    table.add_row("others", "", "", "", "", f"{sum(map(params, rest)):.6f}", f"{sum(map(ops, rest)):.6f}")
    total = account.scores()[game.CURRENT]
    kept, work = sum(x.kept for x in with_weights), sum(x.multiply_adds for x in with_weights)
    sums = (f"{total[0]:.6f}", f"{total[1]:.6f}")
    table.add_row("all", f"{account.weights:,}", f"{kept:,}", "", f"{work:,}", *sums)
    return table


def _editions(scores: dict[str, tuple[float, float]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("edition", "parameters", "operations", "score"):
        table.add_column(name, justify="left" if name == "edition" else "right")
    for name, (params, ops) in scores.items():
        table.add_row(name, f"{params:.5f}", f"{ops:.5f}", f"{params + ops:.5f}")
    return table


def checked(floats: int) -> int:
    """Bits of numbers that are not quantised."""
    if floats not in (game.SHORT, game.FLOAT):
        raise Refused(f"--floats = {quote(floats)} is not allowed; expected 16 or 32")
    return floats
