"""The report's figures as files: SVG and PNG, the same bytes for the same steps."""

import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runs import Step, write_file, writing
from .game import ENTRIES, LEAST
from .palette import LIGHT, SURFACES
from .records import Album, Record, gather

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, RULE = (SURFACES[k][0] for k in ("ink", "soft", "rule"))
PANELS = (
    ("train_loss", "train loss"), ("val_loss", "validation loss"), ("val_accuracy", "validation accuracy"),
    ("test_accuracy", "test accuracy"), ("lr", "learning rate"),
)  # fmt: skip
MARKS = {
    "init": "o", "train": "o", "finetune": "s", "prune": "v", "quantize": "D", "pack": "P", "shrink": "^", "reset": "<",
    "factorise": "X",
}  # fmt: skip
STYLE: Any = {
    "svg.hashsalt": "prunery", "svg.fonttype": "path", "font.family": "DejaVu Sans", "font.size": 8,
    "text.parse_math": False, "axes.edgecolor": SOFT, "axes.labelcolor": INK, "axes.linewidth": 0.6,
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 8, "axes.titlelocation": "left", "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelsize": 7,
    "ytick.labelsize": 7, "axes.grid": True, "grid.color": RULE, "grid.linewidth": 0.5, "lines.linewidth": 1.2,
    "legend.frameon": False, "legend.fontsize": 7, "savefig.facecolor": "white", "axes.axisbelow": True,
}  # fmt: skip


def write_figures(steps: list[Step], folder: Path) -> list[Path]:
    """Curves, density of the layers, accuracy against density; a figure that has nothing to show is left out."""
    from matplotlib import rc_context, style

    album = gather(steps)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    with style.context("default"), rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a layer's name may be in any script; the font knows some
        for name, draw in FIGURES.items():
            figure = draw(album)
            paths += save(figure, folder, name) if figure else []
    return paths


def save(figure: "Figure", folder: Path, name: str) -> list[Path]:
    """Without dates and versions, so that equal figures are equal files."""
    return [_written(figure, folder / f"{name}.{kind}") for kind in ABOUT]


PLACES = ((5, 4, "left"), (5, -10, "left"), (-5, 4, "right"), (-5, -10, "right"), (5, 13, "left"))
"""of a point's name, in points from it"""
DOT = 7.0
"""width of a point, in pixels"""
ABOUT: dict[str, dict[str, Any]] = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
"""formats, and what their files leave unsaid"""


def _written(figure: "Figure", path: Path) -> Path:
    kind, buffer = path.suffix.removeprefix(".").lower(), io.BytesIO()
    figure.savefig(buffer, format=kind, metadata=ABOUT[kind], dpi=160, bbox_inches="tight")
    write_file(path, buffer.getvalue())
    return path


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> "tuple[Figure, list[Axes]]":
    """A figure of its own, away from pyplot's global state; saving picks the Agg canvas."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def leaves(album: Album) -> list[Record]:
    """The ends of chains, the most accurate first."""
    parents = {r.parent for r in album.records}
    ends = [r for i, r in enumerate(album.records) if i not in parents]
    return sorted(ends, key=lambda r: -(r.accuracy or 0))


def subject(record: Record) -> str:
    """What may share axes: one network on one set of images."""
    return f"{record.network or 'network'} on {record.data or 'data'}"


# --- curves -----------------------------------------------------------------------------------------------------------

Segment = tuple[Record, int, str, str]
"""A training step, where it starts along its chain, its colour and its label."""


def _curves(album: Album) -> "Figure | None":
    """Every training step of the shown chains once, where it begins in its chain; shared history in grey."""
    names = list(dict.fromkeys(subject(r) for r in album.records if r.curve))
    parts = {name: _segments(album, name, f", {name}" if len(names) > 1 else "") for name in names}
    rows = sum(-(-len(_panels(segments)) // 2) for segments in parts.values())
    if not rows:
        return None
    figure, axes = _figure(7.2, 1.9 * rows, rows, 2)
    free = iter(axes)
    for name, segments in parts.items():
        _draw_curves(free, segments, f", {name}" if len(parts) > 1 else "")
    _legend(figure, [axis for axis in axes if axis.lines])
    return figure


def _panels(segments: list[Segment]) -> list[tuple[str, str]]:
    return [(k, title) for k, title in PANELS if any(v is not None for s in segments for v in s[0].curve[k])]


def _draw_curves(free: "Iterator[Axes]", segments: list[Segment], of: str) -> None:
    """Two panels a row; the last axes of an uneven row stay empty."""
    panels = _panels(segments)
    for i, (key, title) in enumerate(panels):
        axis = next(free)
        axis.set_title(title + of)
        if key.endswith("accuracy"):
            axis.yaxis.set_major_formatter(_percent)
        for record, start, color, label in segments:
            axis.plot(*_points(record, key, start), color=color, label=label)
        if i >= len(panels) - 2:
            axis.set_xlabel("training step along the chain")
    if len(panels) % 2:
        next(free).set_visible(False)


def _segments(album: Album, name: str, of: str) -> list[Segment]:
    """The training steps of one subject, of as many chains as there are colours."""
    ours = lambda record: record.curve and subject(record) == name  # noqa: E731
    chains = [chain for leaf in leaves(album) if any(map(ours, chain := album.chain(leaf)))][: len(LIGHT)]
    owners = Counter(record.name for chain in chains for record in chain)
    found = {}
    for i, chain in enumerate(chains):
        start, leaf = 0, chain[-1]
        for record in chain:
            if ours(record):
                alone = owners[record.name] == 1
                look = (LIGHT[i], f"{leaf.title} {leaf.short}{of}") if alone else (SOFT, "shared")
                found[record.name] = (record, start, *look)
            start += record.steps
    return list(found.values())


def _points(record: Record, key: str, start: int) -> tuple[list[float], list[float]]:
    steps = record.curve["step"]
    pairs = [(start + (x or 0), y) for x, y in zip(steps, record.curve[key], strict=True) if y is not None]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _legend(figure: "Figure", axes: "list[Axes]") -> None:
    """One for all axes; as many columns as long names leave room for."""
    unique: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        unique |= zip(labels, handles, strict=True)
    columns = max(1, min(len(unique), 110 // (8 + max(map(len, unique), default=0))))
    figure.legend(list(unique.values()), list(unique), loc="outside upper left", ncols=columns)


# --- layers -----------------------------------------------------------------------------------------------------------


def _layers(album: Album) -> "Figure | None":
    """What is left of each layer, a mark for each chain's end."""
    ends = [r for r in leaves(album) if any(layer["density"] is not None for layer in r.layers)][: len(LIGHT)]
    names = list(dict.fromkeys(layer["name"] for r in ends for layer in r.layers if layer["density"] is not None))
    if not names:
        return None
    figure, (axis,) = _figure(7.2, 0.9 + 0.22 * len(names))
    for i, record in enumerate(ends):
        aside = 0.12 * (i - (len(ends) - 1) / 2)  # equal densities stay apart
        kept = [(x["density"], names.index(x["name"]) + aside) for x in record.layers if x["density"] is not None]
        label = f"{record.title} {record.short}"
        axis.plot(*zip(*kept, strict=True), "o", ms=5, color=LIGHT[i], label=label, mfc="none", mew=1.3)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(False, axis="y")
    axis.set_xlim(-0.02, 1.02)
    axis.xaxis.set_major_formatter(_percent)
    axis.set_xlabel("density: weights kept of each layer")
    _legend(figure, [axis])
    return figure


# --- accuracy against density -----------------------------------------------------------------------------------------


def _front(album: Album) -> "Figure | None":
    """Every measured step with its standard error; the best at each density joined."""
    groups: dict[str, list[Record]] = {}
    for record in album.records:
        if record.accuracy is not None and record.of_first:
            groups.setdefault(subject(record), []).append(record)
    if not groups:
        return None
    figure, axes = _figure(5.2, 3.2 * len(groups), len(groups))
    for axis, (name, measured) in zip(axes, groups.items(), strict=True):
        _draw_front(axis, album, measured, name if len(groups) > 1 else "")
    return figure


def _draw_front(axis: "Axes", album: Album, measured: list[Record], title: str) -> None:
    low = _floor(album, measured)
    seen = [r for r in measured if (r.accuracy or 0) >= low]
    _points_by_role(axis, seen)
    best = front([(r.of_first or 1, r.accuracy or 0) for r in seen])
    axis.step(*zip(*best, strict=True), where="post", color=SOFT, lw=0.8, zorder=1)
    _logarithmic(axis, _percent)
    hidden = f"between trainings, below the range: {len(measured) - len(seen)}" if len(seen) < len(measured) else ""
    axis.set_title("; ".join(filter(None, [title, hidden])), color=SOFT, fontsize=7)
    axis.yaxis.set_major_formatter(_percent)
    cut = "the first network's " if any(r.of_first != r.density for r in measured) else ""
    axis.set_xlabel(f"density: share of {cut}prunable weights that is kept")
    axis.set_ylabel("test accuracy, \u00b1 one standard error")
    axis.legend()


def _points_by_role(
    axis: "Axes", records: list[Record], cost: "Callable[[Record], float]" = lambda r: r.of_first or 1
) -> None:
    """Shape and colour tell what kind of step a point is."""
    colors = dict(zip(MARKS, (SOFT, *LIGHT, *LIGHT), strict=False))
    for role in dict.fromkeys(r.role for r in records):
        rows = [r for r in records if r.role == role]
        x, y = [cost(r) for r in rows], [r.accuracy or 0 for r in rows]
        errors = [r.se or 0 for r in rows]
        style: dict[str, Any] = {"fmt": MARKS[role], "color": colors[role], "label": role, "ms": 4.5, "lw": 0}
        axis.errorbar(x, y, yerr=errors, elinewidth=0.9, **style)


def _logarithmic(axis: "Axes", words: "Callable[..., str]") -> None:
    """An axis that names 1, 2 and 5 of each power of ten, so that a narrow range has numbers as well."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(words)


def _floor(album: Album, measured: list[Record]) -> float:
    """Where the range begins: the ends of chains and the dense ones set it, not the steps between trainings."""
    parents = {r.parent for r in album.records}
    ends = [r for r in measured if r.of_first == 1 or album.records.index(r) not in parents]
    return min((r.accuracy or 0) - (r.se or 0) for r in ends or measured)


def front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats in both: less on the first, more on the second."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (p[0], -p[1])):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return best


def _percent(value: float, _position: Any = None) -> str:
    return f"{100 * value:.4g} %"


# --- the score game ---------------------------------------------------------------------------------------------------


def _game(album: Album) -> "Figure | None":
    """Accuracy against score, the 90 % that are needed, and what others have published."""
    ours = [r for r in album.records if r.score and (r.accuracy or 0) > LEAST]
    if not ours:
        return None
    figure, (axis,) = _figure(6.4, 4.0)
    _points_by_role(axis, ours, lambda r: r.score or 1)
    _played(figure, axis, [(r.score or 1, r.accuracy or 0) for r in ours])
    axis.legend(loc="best")
    return figure


def _played(figure: "Figure", axis: "Axes", ours: list[tuple[float, float]]) -> None:
    """Around points of ours: the 90 %, their front, and what others have published."""
    axis.axhline(0.9, color=INK, lw=0.8, ls="--", zorder=1)
    _published(figure, axis)
    axis.step(*zip(*front(ours), strict=True), where="post", color=SOFT, lw=0.8, zorder=1)
    _score_axes(axis)


def game_figure(results: dict[str, list[tuple[float, float]]], folder: Path) -> list[Path]:
    """Kept results as (score, accuracy), with the 90 % that are needed, the front, and what others have published."""
    from matplotlib import rc_context, style

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with style.context("default"), rc_context(STYLE):
        figure, (axis,) = _figure(6.4, 4.4)
        seen = {name: [p for p in points if p[1] > LEAST] for name, points in results.items()}
        for i, (name, points) in enumerate(seen.items()):
            mark, color = list(MARKS.values())[1:][i % (len(MARKS) - 1)], LIGHT[i % len(LIGHT)]
            axis.plot(*zip(*points, strict=True), mark, color=color, ms=4.5, label=name.replace("_", " "))
        _played(figure, axis, [p for points in seen.values() for p in points])
        axis.set_ylabel("test accuracy on CIFAR-10")
        figure.legend(*axis.get_legend_handles_labels(), loc="outside upper left", ncols=4, fontsize=7)
        return save(figure, folder, "accuracy_score")


def front_figure(points: list[tuple[float, float, bool]], cost: str, line: float | None, folder: Path) -> list[Path]:
    """Trials as (cost, accuracy, whether the target is met), the accuracy that is wanted, and the front."""
    from matplotlib import rc_context, style

    if not points:
        return []
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with style.context("default"), rc_context(STYLE):
        figure, (axis,) = _figure(5.2, 3.4)
        for met, color, label in ((True, LIGHT[0], "target met"), (False, SOFT, "target missed")):
            there = [(x, y) for x, y, m in points if m == met]
            if there:
                axis.plot(*zip(*there, strict=True), "o", color=color, ms=4.5, label=label)
        if line is not None:
            axis.axhline(line, color=INK, lw=0.8, ls="--", zorder=1)
        axis.step(*zip(*front([(x, y) for x, y, _ in points]), strict=True), where="post", color=SOFT, lw=0.8, zorder=1)
        axis.yaxis.set_major_formatter(_percent)
        axis.set_xlabel(cost.replace("_", " "))
        axis.set_ylabel("validation accuracy")
        axis.legend()
        return save(figure, folder, "front")


Stage = tuple[str, float, float, float]


def path_figure(stages: list[Stage], folder: Path) -> list[Path]:
    """Stages of one path as (name, score, accuracy, standard error), in order, with the 90 % that are needed."""
    from matplotlib import rc_context, style

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with style.context("default"), rc_context(STYLE):
        return save(_path(stages), folder, "path")


def _path(stages: list[Stage]) -> "Figure":
    figure, (axis,) = _figure(6.4, 3.4)
    _, scores, accuracies, errors = zip(*stages, strict=True)
    axis.axhline(0.9, color=INK, lw=0.8, ls="--", zorder=1)
    axis.errorbar(scores, accuracies, yerr=errors, fmt="o-", color=LIGHT[0], ms=4.5, lw=0.9, elinewidth=0.9)
    axis.margins(0.12, 0.15)
    _score_axes(axis)
    _name(stages, figure, axis)
    return figure


def _name(stages: list[Stage], figure: "Figure", axis: "Axes") -> None:
    """Each stage by its point, the highest first, at the first of several places that is free, if one is."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # lays out, so that boxes are known
    dots = axis.transData.transform([(score, accuracy) for _, score, accuracy, _ in stages])
    taken = [Bbox.from_bounds(x - DOT / 2, y - DOT / 2, DOT, DOT) for x, y in dots]
    for name, score, accuracy, _ in sorted(stages, key=lambda stage: -stage[2]):
        place: dict[str, Any] = {"xytext": (0, 0), "textcoords": "offset points", "fontsize": 7, "color": INK}
        text = axis.annotate(name, (score, accuracy), **place)
        for aside, above, side in PLACES:
            text.set(position=(aside, above), horizontalalignment=side)
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)


def _score_axes(axis: "Axes") -> None:
    _logarithmic(axis, lambda value, _: f"{value:g}")
    axis.yaxis.set_major_formatter(_percent)
    axis.set_xlabel("score: parameters + operations, edition 2.8e8")
    axis.set_ylabel("test accuracy on CIFAR-10, \u00b1 one standard error")


def profile_figure(rows: list[dict[str, Any]], title: str, path: Path) -> Path:
    """Parts of a network from the first down: milliseconds, multiply-adds and parameters, pale what is pruned."""
    from matplotlib import rc_context, style

    panels = [("ms", "", "milliseconds"), ("kept_multiply_adds", "multiply_adds", "multiply-adds")]
    panels += [("kept", "parameters", "parameters")]
    panels = [panel for panel in panels if all(r[panel[0]] is not None for r in rows)]
    with style.context("default"), rc_context(STYLE):
        figure, axes = _figure(2.6 * len(panels), 1.0 + 0.16 * len(rows), 1, len(panels))
        for axis, (key, whole, label) in zip(axes, panels, strict=True):
            _bars(axis, [r[key] for r in rows], [r.get(whole) for r in rows], label)
        axes[0].set_yticks(range(len(rows)), [r["name"] for r in rows])
        figure.suptitle(title, fontsize=8, color=INK)
        return _written(figure, path)


def _bars(axis: "Axes", kept: list[Any], whole: list[Any], label: str) -> None:
    """One bar a part, the first on top."""
    from matplotlib.ticker import EngFormatter

    places = range(len(kept))
    if None not in whole and whole != kept:
        axis.barh(places, whole, color=RULE, height=0.7)
    axis.barh(places, kept, color=LIGHT[0], height=0.7)
    axis.set_yticks(places, [""] * len(kept))
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.set_xlabel(label)


def _published(figure: "Figure", axis: "Axes") -> None:
    """Others' entries as numbers, which are told below."""
    x, y = [e.score for e in ENTRIES], [e.accuracy for e in ENTRIES]
    axis.plot(x, y, "+", color=SOFT, ms=6, mew=1, label="published by others", zorder=1)
    lines = []
    for i, entry in enumerate(ENTRIES, 1):
        place: dict[str, Any] = {"xytext": (3, 3), "textcoords": "offset points", "fontsize": 6, "color": SOFT}
        axis.annotate(str(i), (entry.score, entry.accuracy), **place)
        lines += axis.plot([], [], " ", label=f"_{i}")
    names = [f"{i}  {entry.name}" for i, entry in enumerate(ENTRIES, 1)]
    figure.legend(lines, names, loc="outside lower left", ncols=3, fontsize=6, handlelength=0, labelcolor=SOFT)


FIGURES: "dict[str, Callable[[Album], Figure | None]]" = {
    "curves": _curves,
    "layers": _layers,
    "accuracy_density": _front,
    "accuracy_score": _game,
}
