"""Limits on shares and amounts, and how far past one a value is."""

from __future__ import annotations

from mlmon_dagster.monitors.evidence import Row, finite
from mlmon_dagster.spec import Condition

MIN_COUNT = 3


def rate_fails(condition: Condition, row: Row) -> bool:
    """Judge a share: past the limit, and not because of one or two rows.

    One unseen value among 50 rows is 2 %, but no evidence for more than 1 %. So a share above its
    limit fails when at least 3 rows show it, or when its 95 % interval is above the limit too
    (always so for a limit of 0). A share below its limit fails as it is.
    """
    value = row["value"]
    if not condition.fails(value):
        return False
    if condition.above is None:
        return True
    return bool(round(value * row["n"]) >= MIN_COUNT or row["lower"] > condition.above)


def excess(worse: float, limit: float, error: float | None = None) -> Row:
    """Say how far past its limit a window is, in units of the limit, as fields of its result.

    Alerts tell by it a severe window from one just past the limit, and a recovery from a lucky
    window.

    Args:
        worse: How much worse than nothing the window is, in any unit.
        limit: From where that is too much, in the same unit. With a limit of 0 the unit is that of
            ``worse``, and 0 is all that is right.
        error: Half the 95 % interval of ``worse``; None if unknown.

    Returns:
        ``excess`` (-1: nothing, 0: at the limit, 1: twice as far) and ``excess_error``, with six
        decimals; None for what is not finite.
    """
    unit = abs(limit) or 1.0
    past = (worse - limit) / unit if limit or worse > 0 else -1.0
    known = finite(past), finite(None if error is None else abs(error) / unit)
    return dict(
        zip(
            ("excess", "excess_error"),
            (None if number is None else round(number, 6) for number in known),
            strict=True,
        )
    )


def excess_of(condition: Condition, row: Row) -> Row:
    """Say how far past a fixed limit a value is, see `excess`; below a limit counts as above it."""
    value, lower, upper = row["value"], row.get("lower"), row.get("upper")
    if condition.above is not None:
        near = finite(lower)
        return excess(value, condition.bound, None if near is None else value - near)
    near, unit = finite(upper), condition.bound
    return excess(2 * unit - value, unit, None if near is None else near - value)
