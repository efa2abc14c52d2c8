"""What the steps come to, in words: the best accuracy, the fewest weights that keep it, the smallest file."""

from dataclasses import dataclass

from .records import Album, Record

NARROW = "\u202f"
OF_FIRST = "of the first network's weights"


@dataclass(frozen=True)
class Reading:
    """A number with its name and what it rests on."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True)
class Headline:
    """The sentences, the readings of the first of them, and the step to look at first."""

    sentences: list[str]
    readings: list[Reading]
    current: str


def headline(album: Album) -> Headline:
    """One sentence for each network and data set, the one with most steps first."""
    if not album.records:
        return Headline(["Lotteries and claims; no steps of chains are shown."], [], "")
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in album.records:
        if record.accuracy is not None:
            groups.setdefault((record.network, record.data), []).append(record)
    if not groups:
        number = len(album.records)
        return Headline([f"{number} step{'s' * (number != 1)}; nothing is measured yet."], [], album.records[-1].name)
    ranked = sorted(groups.values(), key=lambda rows: -len(rows))
    first = _worth(ranked[0])
    return Headline([_sentence(_worth(r)) for r in ranked], _readings(first), _smallest(first).name)


def _worth(rows: list[Record]) -> list[Record]:
    """What may be praised: not the controls, unless there is nothing else to speak of."""
    return [r for r in rows if not r.control] or rows


def _best(rows: list[Record]) -> Record:
    """Of equals, the one with the fewest weights."""
    return max(rows, key=lambda r: (r.accuracy or 0, -_density(r)))


def _smallest(rows: list[Record]) -> Record:
    """The fewest weights within one standard error of the best; where none is pruned, the best."""
    best = _best(rows)
    near = [r for r in rows if (r.accuracy or 0) >= (best.accuracy or 0) - (best.se or 0)]
    return min(near, key=lambda r: (_density(r), -(r.accuracy or 0), r.bytes or 0))


def _density(record: Record) -> float:
    """What is left of the chain's first network: a shrunk one is not dense, though it keeps all of its own."""
    return 1.0 if record.of_first is None else record.of_first


def _cut(record: Record) -> bool:
    """Whether the step's own density is another, as surgery made its network smaller."""
    return record.of_first != record.density


def _sentence(rows: list[Record]) -> str:
    """The finding: the smallest that keeps up; else the best that is pruned; else the best."""
    dense = [r for r in rows if _density(r) == 1]
    sparse = [r for r in rows if _density(r) < 1]
    kept = _smallest(rows)
    shown = kept if _density(kept) < 1 or not sparse else _best(sparse)
    name, data = shown.network or "the network", shown.data or "test"
    right = f"{name} gets {percent(shown.accuracy)} of the {data} test images right"
    if _density(shown) == 1:
        return f"{_capital(right)}."
    with_all = f"; with all of them, {percent(_best(dense).accuracy)}" if dense else ""
    if shown.control:
        return f"With {share(_density(shown))} of its weights, chosen blindly, {right}{with_all}."
    return f"With {share(_density(shown))} of its weights, {right}{with_all}.{_files(rows)}"


def _files(rows: list[Record]) -> str:
    times = _times(rows)
    if not times:
        return ""
    dense = "dense one" if any(_density(r) == 1 for r in rows) else "largest"
    return f" The smallest file is {times} than the {dense}, at {percent(_tiniest(rows).accuracy)}."


def _times(rows: list[Record]) -> str:
    """How much smaller the smallest file is; nothing where it is as good as the same size."""
    large, small = _sizes(rows)
    times = large / small if small else 0
    return f"{times:.1f} times smaller" if times >= 1.05 else ""


def _tiniest(rows: list[Record]) -> Record:
    return min((r for r in rows if r.bytes), key=lambda r: (r.bytes or 0, -(r.accuracy or 0)))


def _sizes(rows: list[Record]) -> tuple[int, int]:
    """Bytes of the largest dense file and of the smallest file of all."""
    sizes = [r.bytes for r in rows if r.bytes]
    dense = [r.bytes for r in rows if r.bytes and _density(r) == 1]
    return max(dense or sizes or [0]), min(sizes or [0])


def _readings(rows: list[Record]) -> list[Reading]:
    """Nothing where all are controls."""
    if rows[0].control:
        return []
    best, kept = _best(rows), _smallest(rows)
    left = share(_density(best))
    first = f"{_spread(best)}{best.title}, {f'{left} {OF_FIRST}' if _cut(best) else f'density {left}'}"
    least = f"{percent(kept.accuracy)} {_spread(kept)}{kept.title}{f'; {OF_FIRST}' if _cut(kept) else ''}"
    return [
        Reading("Best accuracy", percent(best.accuracy), first),
        Reading("Least density that keeps up", share(_density(kept)), least),
        *_file_reading(rows),
        *_work_reading(rows),
    ]


def _file_reading(rows: list[Record]) -> list[Reading]:
    large, small = _sizes(rows)
    if not small:
        return []
    tiny, times = _tiniest(rows), _times(rows)
    than = f"{times} than {size(large)}; " if times else ""
    return [Reading("Smallest file", size(small), f"{than}{percent(tiny.accuracy)}, {tiny.title}")]


def _work_reading(rows: list[Record]) -> list[Reading]:
    counted = [r for r in rows if r.kept_multiply_adds is not None and r.multiply_adds]
    if not counted:
        return []
    least = min(counted, key=lambda r: (r.kept_multiply_adds or 0, -(r.accuracy or 0)))
    most = max(r.multiply_adds or 0 for r in counted)
    detail = f"{si(least.kept_multiply_adds)} of {si(most)}; {percent(least.accuracy)}, {least.title}"
    return [Reading("Fewest multiply-adds", share((least.kept_multiply_adds or 0) / most), detail)]


def _spread(record: Record) -> str:
    n = f" (n{NARROW}={NARROW}{record.n:,})" if record.n else ""
    return f"±{NARROW}{100 * record.se:.2f}{n}, " if record.se is not None else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# --- numbers as text --------------------------------------------------------------------------------------------------


def percent(value: float | None) -> str:
    """An accuracy: two decimals."""
    return "no number" if value is None else f"{100 * value:.2f}{NARROW}%"


def share(value: float | None) -> str:
    """A density: three digits that count."""
    return percent(value) if value is None else f"{_digits(100 * value)}{NARROW}%"


def size(count: float) -> str:
    """Bytes in the units of disks."""
    return f"{si(count)}B" if count >= 1000 else f"{count:.0f}{NARROW}B"


def si(count: float | None) -> str:
    """A count with k, M, G or T."""
    value, unit = float(count or 0), 0
    while value >= 999.5 and unit < 4:
        value, unit = value / 1000, unit + 1
    return f"{_digits(value)}{NARROW}{' kMGT'[unit]}".rstrip(f" {NARROW}") if unit else f"{value:.0f}"


def _digits(value: float) -> str:
    """Three digits, never an exponent."""
    decimals = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{decimals}f}"
