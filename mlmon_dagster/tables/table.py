"""A named table: what its columns are, and what one answer holds beside its rows.

People see the columns, each written in its format. Programs get every field of a row, with all
digits and times in UTC.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    import pandas as pd

R = TypeVar("R")
# As `str.format` takes it, which leaves a dash for None and for a number that is none; or a
# function of the value, and of the time zone in which it is written.
Format = str | Callable[[Any, str], str]


def digits(value: float | None, _zone: str) -> str:
    """Write a number with three significant digits, and all digits before the point.

    Example:
        >>> [digits(x, "UTC") for x in (1.0, 0.71234, 123.4, 12345.6, -0.0012345, None)]
        ['1.00', '0.712', '123', '12,346', '-0.00123', '-']
    """
    if value is None or value != value:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def minute(value: dt.datetime | None, zone: str) -> str:
    """Write a moment of a zone to the minute; nothing for None."""
    return "" if value is None else f"{value.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M}"


def utc_minute(value: dt.datetime | None, _zone: str) -> str:
    """Write a moment in UTC to the minute; nothing for None."""
    return minute(value, "UTC")


def day(value: dt.datetime | None, zone: str) -> str:
    """Write the day of a moment in a zone; a dash for None."""
    return "-" if value is None else f"{value.astimezone(ZoneInfo(zone)):%Y-%m-%d}"


@dataclass(frozen=True)
class Column(Generic[R]):
    """A column as people see it.

    Attributes:
        title: Its heading.
        value: The field of a row that it shows, or what takes it from a row.
        write: How a value is written; empty for as it is, and nothing for None.
        is_number: Whether it is flush right.
    """

    title: str
    value: str | Callable[[R], object]
    write: Format = ""
    is_number: bool = False

    def cell(self, row: R, zone: str) -> str:
        """Return the text of one cell."""
        if callable(self.value):
            value: Any = self.value(row)
        else:
            value = row[self.value] if isinstance(row, Mapping) else getattr(row, self.value)
        if callable(self.write):
            return self.write(value, zone)
        if self.write:
            return "-" if value is None or value != value else self.write.format(value)
        return "" if value is None else str(value)


@dataclass(frozen=True)
class Table(Generic[R]):
    """A table that people ask for.

    Attributes:
        name: What it is called.
        columns: What people see of a row.
        if_empty: What people are told where there is no row; empty for the headings alone.
    """

    name: str
    columns: Sequence[Column[R]]
    if_empty: str = ""


@dataclass(frozen=True)
class Answer(Generic[R]):
    """The rows of a table that were asked for.

    Attributes:
        table: Which table.
        rows: Its rows; a frame where the columns are the asker's.
        zones: Model -> time zone, or the zone of all rows; UTC for others.
        above: What people are told before the table.
        below: What they are told after it.
        text: What people read instead, where it is more than one table; None for the table.
        note: What is said beside the table, in every format.
        exit_code: What a command that asked this ends with.
    """

    table: Table[R]
    rows: Sequence[R] | pd.DataFrame
    zones: Mapping[str, str] | str = "UTC"
    above: str = ""
    below: str = ""
    text: str | None = None
    note: str = ""
    exit_code: int = 0

    def cells(self) -> list[list[str]]:
        """Return the texts of every row."""
        assert isinstance(self.rows, Sequence)
        columns = self.table.columns
        return [[column.cell(row, self._zone(row)) for column in columns] for row in self.rows]

    def _zone(self, row: R) -> str:
        if isinstance(self.zones, str):
            return self.zones
        model = row.get("model") if isinstance(row, Mapping) else getattr(row, "model", None)
        return self.zones.get(str(model), "UTC")


AnyAnswer = Answer[Any]  # of whichever table


def fields_of(row: object) -> dict[str, object]:
    """Return what programs get of a row: its own `fields`, if it has such, else every attribute."""
    if isinstance(row, Mapping):
        return dict(row)
    own = getattr(row, "fields", None)
    if own is not None:
        found: dict[str, object] = own()
        return found
    assert is_dataclass(row)
    assert not isinstance(row, type)
    return asdict(row)
