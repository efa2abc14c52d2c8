"""How the code is cut: per file its lines, median and longest function, and the share of functions over 40 lines."""

import ast
import sys
from pathlib import Path
from statistics import median

LONG = 40
DEFAULT = Path(__file__).parent.parent / "src" / "prunery"


def function_lengths(source: str) -> dict[str, int]:
    """Lines of every function and method, from its `def` to its end."""
    nodes = ast.walk(ast.parse(source))
    functions = (node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {f"{node.name}:{node.lineno}": (node.end_lineno or node.lineno) - node.lineno + 1 for node in functions}


def row(name: str, lines: int, lengths: dict[str, int]) -> str:
    if not lengths:
        return f"{name:<40} {lines:6d} {'-':>10} {'-':>7} {'-':>8} {'-':>8}"
    longest = max(lengths, key=lambda key: lengths[key])
    share = sum(length > LONG for length in lengths.values()) / len(lengths)
    middle = median(lengths.values())
    return f"{name:<40} {lines:6d} {len(lengths):10d} {middle:7g} {lengths[longest]:8d} {share:8.0%}  {longest}"


def report(root: Path) -> None:
    print(f"{'file':<40} {'lines':>6} {'functions':>10} {'median':>7} {'longest':>8} {'over ' + str(LONG):>8}")
    total, everything = 0, dict[str, int]()
    for path in sorted(root.rglob("*.py")):
        source, name = path.read_text(encoding="utf-8"), str(path.relative_to(root))
        lines, lengths = len(source.splitlines()), function_lengths(source)
        print(row(name, lines, lengths))
        total += lines
        everything |= {f"{name}:{key}": length for key, length in lengths.items()}
    print(row("all", total, everything))


if __name__ == "__main__":
    report(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT)
