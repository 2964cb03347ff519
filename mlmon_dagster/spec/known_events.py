"""Events that people know of, such as a promotion: what they explain alerts nobody."""

from __future__ import annotations

import calendar
import datetime as dt
from collections.abc import Iterable
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.spec.names import DRIFT, offer
from mlmon_dagster.spec.scalars import Date, Declared, as_tuple, shown

Every = Literal["week", "month", "year"]
EVENT = "event"  # stands for a monitor where an event explains an alert: ``event/<name>``
MAX_NAME = 60
LONGEST = dt.timedelta(days=366)


def _families(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in FAMILIES:
            raise ValueError(f"{shown(name)} is no family of monitors{offer(name, FAMILIES)}")
    return names


Explained = Annotated[
    tuple[str, ...],
    BeforeValidator(as_tuple),
    AfterValidator(_families),
    WithJsonSchema({"type": "array", "items": {"enum": list(FAMILIES)}}),
]


class KnownEvent(Declared):
    """Days on which something happens that people know of, once or again and again.

    Alerts of the families that it explains are listed and not sent, as far as the windows of these
    days fail. The page marks it in every chart.
    """

    name: str = Field(min_length=1, max_length=MAX_NAME, pattern=r"^[^\r\n/|]+$")
    from_: Date = Field(alias="from")
    to: Date
    every: Every | None = None
    explains: Explained = (DRIFT,)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.to < self.from_:
            raise ValueError(f"to ({self.to}) is before from ({self.from_})")
        if self.to - self.from_ > LONGEST:
            raise ValueError("an event lasts at most a year; what lasts longer is a new baseline")
        return self

    def find_start(self, day: dt.date) -> dt.date | None:
        """Return the first day of the time that it happens, of which a day is one; None if none."""
        length = self.to - self.from_
        for start in _list_starts(self.from_, day, self.every):
            if self.from_ <= start <= day <= start + length:
                return start
        return None


def _list_starts(first: dt.date, day: dt.date, every: Every | None) -> Iterable[dt.date]:
    """Yield the starts of a recurring event that a day may belong to, the newest first.

    A day that a month does not have, such as 29 February, is its last one.
    """
    if every is None:
        yield first
    elif every == "week":
        yield day - (day - first) % dt.timedelta(days=7)
    elif every == "month":
        for months in (day.year * 12 + day.month - 1, day.year * 12 + day.month - 2):
            yield _name_day(months // 12, months % 12 + 1, first.day)
    else:
        for year in (day.year, day.year - 1):
            yield _name_day(year, first.month, first.day)


def _name_day(year: int, month: int, day: int) -> dt.date:
    return dt.date(year, month, min(day, calendar.monthrange(year, month)[1]))


def find_known(
    events: Iterable[KnownEvent], family: str, days: Iterable[dt.date]
) -> KnownEvent | None:
    """Return the first event that explains what a family found; None if none does.

    Args:
        events: What is known.
        family: Name of the family.
        days: The local days of the window; one of them is enough.
    """
    mine = [event for event in events if family in event.explains]
    found = (e for day in days for e in mine if e.find_start(day) is not None)
    return next(found, None)


def list_days(start: dt.datetime, end: dt.datetime, zone: str) -> list[dt.date]:
    """Return the local days of which a part lies between two moments."""
    first = start.astimezone(ZoneInfo(zone)).date()
    last = (end - dt.timedelta(microseconds=1)).astimezone(ZoneInfo(zone)).date()
    return [first + dt.timedelta(days=n) for n in range((last - first).days + 1)]
