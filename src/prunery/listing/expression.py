"""What `--where` understands: Python's own grammar, of which only what is listed here means anything."""

import ast
import operator
from collections.abc import Callable, Iterable
from typing import Any

from ..spec import Refused, quote

Row = dict[str, Any]
Term = Callable[[Row], Any]

ARITHMETIC: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}  # fmt: skip
COMPARISONS: dict[type[ast.AST], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
EQUALITIES: dict[type[ast.AST], Callable[[Any, Any], bool]] = {ast.Eq: operator.eq, ast.NotEq: operator.ne}
SUCH = 'expected such as accuracy > 0.9 and density < 0.1, or kind in ["train", "pack"]'
WORDS = {"true": True, "false": False, "none": None, "True": True, "False": False, "None": None}
LONGEST, DEEPEST = 2_000, 40
"""characters; levels of brackets and operators"""


class Expression:
    """A text, checked against the columns that there are; called with a row it gives the value.

    What a row lacks is None: comparing it is false, and counting with it gives None.
    """

    def __init__(self, text: str, columns: Iterable[str]) -> None:
        self.text, self.columns, self.used = text, set(columns), set[str]()
        if len(text) > LONGEST:
            raise Refused(f"{quote(text)} is {len(text)} characters long; expected at most {LONGEST}")
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._refused(getattr(error, "msg", "") or "it cannot be read") from None
        self._term = self._of(tree.body, 0)

    def __call__(self, row: Row) -> Any:
        try:
            return self._term(row)
        except ZeroDivisionError:
            return None
        except (TypeError, ValueError, OverflowError) as error:
            seen = f"{quote(self.text)} does not fit {row.get('name', 'a row')}: {error}"
            raise Refused(f"{seen}; compare numbers with numbers and texts with texts") from None

    def _refused(self, why: str) -> Refused:
        return Refused(f"{quote(self.text)} is no expression: {why}; {SUCH}; {self._known()}")

    def _known(self) -> str:
        return f"columns: {', '.join(sorted(self.columns))}"

    def _of(self, node: ast.expr, depth: int) -> Term:
        """What one part of the text gives for a row."""
        if depth > DEEPEST:
            raise self._refused("it is nested too deeply")
        inner = [self._of(child, depth + 1) for child in _inside(node)]
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str | bool | None):
            value = node.value
            return lambda row: value
        if isinstance(node, ast.Name | ast.Attribute):
            return self._column(node)
        if isinstance(node, ast.List | ast.Tuple):
            return lambda row: [term(row) for term in inner]
        if isinstance(node, ast.BoolOp):
            return _all(inner) if isinstance(node.op, ast.And) else _any(inner)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return lambda row: not inner[0](row)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            sign = -1 if isinstance(node.op, ast.USub) else 1
            return lambda row: None if (value := inner[0](row)) is None else sign * value
        if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
            return _counted(ARITHMETIC[type(node.op)], *inner)
        if isinstance(node, ast.Compare):
            return _compared([type(op) for op in node.ops], inner, self._refused)
        raise self._refused(f"{quote(ast.unparse(node))} means nothing here")

    def _column(self, node: ast.expr) -> Term:
        name = _dotted(node)
        if name in WORDS and name not in self.columns:
            value = WORDS[name]
            return lambda row: value
        if name not in self.columns:
            raise Refused(f"{quote(name or ast.unparse(node))} is no column; {self._known()}")
        self.used.add(name)
        return lambda row: row.get(name)


def _inside(node: ast.expr) -> list[ast.expr]:
    """The parts that are expressions themselves; a column's dots are none."""
    if isinstance(node, ast.Compare):
        return [node.left, *node.comparators]
    if isinstance(node, ast.BoolOp):
        return node.values
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    if isinstance(node, ast.UnaryOp):
        return [node.operand]
    return node.elts if isinstance(node, ast.List | ast.Tuple) else []


def _dotted(node: ast.expr) -> str:
    """a.b.c as it was written; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    above = _dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{above}.{node.attr}" if above and isinstance(node, ast.Attribute) else ""


def _all(terms: list[Term]) -> Term:
    return lambda row: all(term(row) for term in terms)


def _any(terms: list[Term]) -> Term:
    return lambda row: any(term(row) for term in terms)


def _counted(how: Callable[[Any, Any], Any], left: Term, right: Term) -> Term:
    """Arithmetic of numbers; nothing where there is no number."""

    def term(row: Row) -> Any:
        a, b = left(row), right(row)
        if a is None or b is None:
            return None
        if isinstance(a, str) or isinstance(b, str) or isinstance(a, list) or isinstance(b, list):
            raise TypeError(f"{quote(a)} and {quote(b)} are not both numbers")
        return how(a, b)

    return term


def _compared(ops: list[type[ast.AST]], terms: list[Term], refused: Callable[[str], Refused]) -> Term:
    """a < b < c, as Python means it; what is missing equals only none."""
    if any(op not in COMPARISONS and op not in EQUALITIES for op in ops):
        raise refused("is means nothing here, write == none")

    def holds(op: type[ast.AST], a: Any, b: Any) -> bool:
        if op in EQUALITIES:
            return EQUALITIES[op](a, b)
        return a is not None and b is not None and COMPARISONS[op](a, b)

    def term(row: Row) -> bool:
        values = [t(row) for t in terms]
        return all(holds(op, a, b) for op, a, b in zip(ops, values, values[1:], strict=False))

    return term
