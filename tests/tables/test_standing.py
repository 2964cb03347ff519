"""What a model's status says of families that could judge, failed, or could not."""

from __future__ import annotations

import pytest

from mlmon_dagster.tables.standing import Standing, overall


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        (("OK", "OK", "-"), "OK"),
        (("OK", "NO_DATA", "-"), "NO_DATA"),
        (("WARN", "NO_DATA"), "WARN"),
        (("ERROR", "WARN", "NO_DATA"), "ERROR"),
        (("-", "-"), "NO_DATA"),
        ((), "NO_DATA"),
    ],
)
def test_what_was_not_judged_is_not_healthy(statuses, status):
    assert overall([Standing("drift", one, "", "") for one in statuses]) == status
