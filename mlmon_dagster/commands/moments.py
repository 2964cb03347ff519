"""Moments on the command line: a day, a time, or how long ago or from now."""

from __future__ import annotations

import datetime as dt
import re

import click

_DURATION = re.compile(r"[0-9.]+\s*[smhdw]")


def past(context: click.Context, _option: click.Parameter, text: str | None) -> dt.datetime | None:
    """Read a moment; a duration such as 7d is that long before now."""
    return _moment(context, text, sign=-1)


def future(
    context: click.Context, _option: click.Parameter, text: str | None
) -> dt.datetime | None:
    """Read a moment; a duration such as 2h is that long from now."""
    return _moment(context, text, sign=1)


def _moment(context: click.Context, text: str | None, sign: int) -> dt.datetime | None:
    from mlmon_dagster.errors import ConfigError
    from mlmon_dagster.project import parse_now
    from mlmon_dagster.spec.scalars import parse_duration

    if text is None:
        return None
    try:
        if _DURATION.fullmatch(text.strip()):
            now: dt.datetime = context.obj.now()
            return now + sign * parse_duration(text)
        return parse_now(text)
    except (ConfigError, ValueError) as error:
        raise click.BadParameter(
            f"{text!r} is neither a day such as 2013-12-29, a time such as 2013-12-29T12:00:00Z, "
            "nor a duration such as 2h or 7d"
        ) from error
