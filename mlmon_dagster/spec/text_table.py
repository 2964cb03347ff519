"""Plain tables of text, for terminals, files and messages, and cells for spreadsheets."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from mlmon_dagster.spec.scalars import printable

if TYPE_CHECKING:
    import pandas as pd

_OUTSIDE_QUOTES = re.compile(r'("(?:[^"]|"")*")|\r\n')
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\0")  # how a cell begins that a spreadsheet runs


def harmless(value: object) -> object:
    """Return a cell of a CSV file so that no spreadsheet takes it for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def csv_text(frame: pd.DataFrame, *, with_head: bool = True) -> str:
    """Return a frame as CSV without the last line's end; every cell and name is `harmless`."""
    safe = frame.map(harmless).rename(columns=harmless)
    # With this line end a lone carriage return is quoted, too; it would begin another row.
    text = safe.to_csv(index=False, header=with_head, lineterminator="\r\n")
    return _OUTSIDE_QUOTES.sub(lambda found: found[1] or "\n", text).rstrip("\n")


def json_lines(frame: pd.DataFrame) -> str:
    """Return a frame as a JSON object a row and line; numbers to 15 digits, times as ISO 8601."""
    records = frame.to_json(orient="records", double_precision=15, date_format="iso")
    return "\n".join(json.dumps(record) for record in json.loads(records))


def text_table(
    head: Sequence[str],
    lines: Iterable[Sequence[str]],
    *,
    right: Collection[str] = (),
    width: int | None = None,
) -> str:
    """Return a table without lines or colours, its columns two spaces apart.

    What would break a line or steer the terminal is escaped in every cell.

    Args:
        head: The columns' names.
        lines: The cells, row by row, as they are to be shown.
        right: Columns that are flush right.
        width: A table that is wider has its longest cells wrapped; None never.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in head:
        table.add_column(
            Text(printable(name)),
            justify="right" if name in right else "left",
            no_wrap=width is None,
        )
    for line in lines:
        table.add_row(*(Text(printable(cell)) for cell in line))
    buffer = io.StringIO()
    Console(file=buffer, width=width or 1_000_000, no_color=True).print(table)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())
