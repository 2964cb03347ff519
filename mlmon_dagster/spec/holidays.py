"""Public holidays of declared countries and regions, and days that the user names."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from functools import lru_cache

from mlmon_dagster.spec.names import did_you_mean, listed


def holiday_problem(entry: str) -> str | None:
    """Say why a text is neither a country, such as ``DE`` or ``DE-BE``, nor a date; else None."""
    if _date_of(entry) is not None:
        return None
    try:
        known = _regions()
    except ModuleNotFoundError:
        return (
            f"the holidays of '{entry[:40]}' need the package holidays: pip install "
            "'mlmon-dagster[holidays]'; a date, 2026-12-24, needs none"
        )
    country, dash, region = entry.partition("-")
    if country not in known:
        near = did_you_mean(country, known) if len(country) == 2 else ""
        return (
            f"'{entry[:40]}' is no country whose holidays are known; write its two letters, "
            f"such as DE, with a region, such as DE-BE or US-CA, or a date, 2026-12-24{near}"
        )
    if dash and region not in known[country]:
        regions = known[country]
        said = f"; {country} has {listed(regions, 20)}" if regions else f"; write {country} alone"
        return f"'{entry[:40]}': {country} has no region '{region[:30]}' with holidays{said}"
    return None


def name_holidays(entries: Sequence[str], first: dt.date, last: dt.date) -> dict[dt.date, str]:
    """Return the holidays from one day to another, both included, with their names in English.

    Args:
        entries: Countries, regions and dates, as `holiday_problem` accepts them.
        first: The first day.
        last: The last day.
    """
    found: dict[dt.date, str] = {}
    for entry in entries:
        day = _date_of(entry)
        if day is not None:
            found[day] = "a declared day"
            continue
        for year in range(first.year, last.year + 1):
            found |= _holidays_of_year(entry, year)
    return {day: name for day, name in sorted(found.items()) if first <= day <= last}


def _date_of(entry: str) -> dt.date | None:
    try:
        return dt.date.fromisoformat(entry) if len(entry) == len("2026-12-24") else None
    except ValueError:
        return None


@lru_cache(maxsize=1)
def _regions() -> dict[str, list[str]]:
    """Return the regions of each country, by its two letters."""
    import holidays  # loading it takes a sixth of a second, and few models declare a country

    countries = holidays.list_supported_countries(include_aliases=False)
    return {name: list(regions) for name, regions in countries.items() if len(name) == 2}


@lru_cache(maxsize=256)
def _holidays_of_year(entry: str, year: int) -> dict[dt.date, str]:
    import holidays

    country, _, region = entry.partition("-")
    found = holidays.country_holidays(
        country, subdiv=region or None, years=[year], language="en_US", expand=False
    )
    return {day: str(name) for day, name in found.items()}
