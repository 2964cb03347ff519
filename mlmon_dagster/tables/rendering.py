"""The renderers of tables: text for people, HTML for notebooks, JSON lines and CSV for programs.

OpenMetrics is `tables/openmetrics.py`, since Prometheus asks for series and not for rows.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Collection, Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, TypeVar

from mlmon_dagster.spec.scalars import printable
from mlmon_dagster.tables.table import Answer, fields_of

if TYPE_CHECKING:
    import pandas as pd

R = TypeVar("R")
_OUTSIDE_QUOTES = re.compile(r'("(?:[^"]|"")*")|\r\n')
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\0")  # how a cell begins that a spreadsheet runs


def render(answer: Answer[R], format_: str) -> str:
    """Return an answer in a format: ``text``, ``html``, ``json`` or ``csv``."""
    if format_ == "text":
        return render_text(answer)
    if format_ == "html":
        return render_html(answer)
    frame = frame_of(answer)
    if frame.empty:
        return ""
    return csv_text(frame) if format_ == "csv" else json_lines(frame)


def frame_of(answer: Answer[R]) -> pd.DataFrame:
    """Return what programs get of an answer as a frame."""
    import pandas as pd

    if isinstance(answer.rows, pd.DataFrame):
        return answer.rows
    return pd.DataFrame([fields_of(row) for row in answer.rows])


def render_text(answer: Answer[R]) -> str:
    """Return an answer as people read it: what is told above, the table, what is told below."""
    table, rows = answer.table, answer.rows
    if answer.text is not None:
        return answer.text
    if not isinstance(rows, Sequence):
        shown = frame_text(rows)
    elif rows or not table.if_empty:
        numbers = {column.title for column in table.columns if column.is_number}
        shown = text_table([c.title for c in table.columns], answer.cells(), right=numbers)
    else:
        shown = table.if_empty
    return "\n".join(part for part in (answer.above, shown, answer.below) if part)


def render_html(answer: Answer[R]) -> str:
    """Return an answer as a table of HTML, its cells escaped."""
    head = "".join(f"<th>{escape(column.title)}</th>" for column in answer.table.columns)
    rows = (
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
        for cells in answer.cells()
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def frame_text(frame: pd.DataFrame) -> str:
    """Return a frame whose columns are the asker's as a table of text, long cells wrapped."""
    return text_table(
        [str(name) for name in frame.columns],
        [[_cell(value) for value in row] for row in frame.itertuples(index=False)],
        right=[str(n) for n in frame.columns if frame[n].dtype.kind in "iuf"],
        width=max(160, 24 * len(frame.columns)),
    )


def _cell(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def harmless(value: object) -> object:
    """Return a cell of a CSV file so that no spreadsheet takes it for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def restore_cell(cell: str) -> str:
    """Return what a cell was before `harmless`.

    Example:
        >>> restore_cell("'=1+1"), restore_cell("'plain")
        ('=1+1', "'plain")
    """
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(_FORMULA) else cell


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
