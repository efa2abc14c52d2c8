"""Rows as CSV and Parquet."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from ..runs import write_file
from ..spec import Refused, install
from .expression import Row


def as_csv(rows: list[Row], columns: list[str]) -> str:
    """A row a line; what is missing is empty, lists are JSON."""
    text = io.StringIO(newline="")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(columns)
    lines.writerows([_cell(row.get(c)) for c in columns] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, list | tuple | bool) else value


def write_csv(path: Path, rows: list[Row], columns: list[str]) -> None:
    """The rows as a CSV file."""
    write_file(path, as_csv(rows, columns).encode())


def write_parquet(path: Path, rows: list[Row], columns: list[str]) -> None:
    """The rows as a Parquet file: numbers as numbers, texts as texts; a column of both is texts."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        needed = "--parquet needs the package pyarrow, which is missing"
        raise Refused(f"{needed}; {install('parquet', 'pyarrow')}, or write --csv FILE") from None
    table = pyarrow.table({c: pyarrow.array(_alike([row.get(c) for row in rows])) for c in columns})
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    write_file(path, sink.getvalue())


def _alike(values: list[Any]) -> list[Any]:
    """Values that one type can hold."""
    values = [json.dumps(v) if isinstance(v, list | tuple) else v for v in values]
    there = {type(v) for v in values if v is not None}
    if there <= {int, float} and len(there) > 1:
        return [None if v is None else float(v) for v in values]
    return values if len(there) <= 1 else [None if v is None else str(v) for v in values]
