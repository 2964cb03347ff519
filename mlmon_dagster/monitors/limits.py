"""Fixed limits on shares and amounts, shared by the families quality and service."""

from __future__ import annotations

from mlmon_dagster.monitors.evidence import Row
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
