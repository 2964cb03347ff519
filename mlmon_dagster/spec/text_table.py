"""Plain tables of text, for terminals, files and messages, and cells for spreadsheets."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Sequence

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\0")  # how a cell begins that a spreadsheet runs


def harmless(value: object) -> object:
    """Return a cell of a CSV file so that no spreadsheet takes it for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def text_table(
    head: Sequence[str],
    lines: Iterable[Sequence[str]],
    *,
    right: Collection[str] = (),
    width: int | None = None,
) -> str:
    """Return a table without lines or colours, its columns two spaces apart.

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
            Text(name), justify="right" if name in right else "left", no_wrap=width is None
        )
    for line in lines:
        table.add_row(*map(Text, line))
    buffer = io.StringIO()
    Console(file=buffer, width=width or 1_000_000, no_color=True).print(table)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())
