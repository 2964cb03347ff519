"""How commands print what they found: a text for people, or rows for programs and spreadsheets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlmon_dagster.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("text", "json", "csv")
Rows = Sequence[Mapping[str, object]]


def output_options(
    *more_formats: str, formats: Sequence[str] = FORMATS
) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Add --format and --output to a command that prints a table.

    Args:
        *more_formats: Formats that only this command has.
        formats: Those that it shares with others.
    """
    choices = [*formats, *more_formats]

    def add(command: Callable[..., object]) -> Callable[..., object]:
        where = click.option(
            "--output",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Write to this file instead of the terminal.",
        )
        how = click.option(
            "--format",
            "format_",
            type=click.Choice(choices),
            default="text",
            show_default=True,
            help="json: one object a line. csv: safe to open in a spreadsheet.",
        )
        return how(where(command))

    return add


def print_table(text: str, rows: Rows | pd.DataFrame, format_: str, output: Path | None) -> None:
    """Print a table in the format that was asked for.

    Args:
        text: The table for people.
        rows: The same for programs, with full precision; times in UTC.
        format_: One of `FORMATS`.
        output: The file to write; None for the terminal.
    """
    print_text(text if format_ == "text" else render_rows(rows, format_), output)


def render_rows(rows: Rows | pd.DataFrame, format_: str) -> str:
    """Return rows as JSON lines or CSV; no rows are an empty text."""
    import pandas as pd

    from mlmon_dagster.spec.text_table import csv_text, json_lines

    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if frame.empty:
        return ""
    return csv_text(frame) if format_ == "csv" else json_lines(frame)


def print_text(text: str, output: Path | None) -> None:
    """Print a text, or write it to a file; an empty one prints nothing."""
    with open_output(output) as say:
        if text:
            say(text)


@contextmanager
def open_output(output: Path | None) -> Iterator[Callable[[str], None]]:
    """Yield what prints text line by line: to the terminal, or to a file that appears when whole.

    Raises:
        ConfigError: If the file cannot be written.
    """
    if output is None:
        yield click.echo
        return
    from mlmon_dagster.store.places.location import whole_file

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(output) as draft, draft.open("w", encoding="utf-8") as file:
            yield partial(print, file=file)
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error}") from error
    click.echo(f"Written: {output}", err=True)
