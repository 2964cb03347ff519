"""The view of alerts that others read says what `mlmon alerts list` says."""

from __future__ import annotations

import numpy as np
import sqlalchemy as sa

from mlmon_dagster.store import Store
from mlmon_dagster.store.state.schema import mlmon_alert
from mlmon_dagster.store.state.sql import fetch
from mlmon_dagster.tables.alerts import list_alerts
from tests.alerts.worlds import day, observe, result, settle, spec_of

SPECS = [spec_of()]
COLUMNS = ("age", "plan", "income")


def test_episodes_of_the_view_are_those_of_the_list_over_40_random_days(any_store: Store) -> None:
    rng = np.random.default_rng(3)
    for number in range(1, 41):
        statuses = rng.choice(["OK", "WARN", "ERROR", "NO_DATA"], 3, p=[0.5, 0.2, 0.2, 0.1])
        rows = [
            result(number, str(status), column_name=column, monitor=f"drift/psi/{column}")
            for column, status in zip(COLUMNS, statuses, strict=True)
        ]
        observe(any_store, *rows)
        settle(any_store, SPECS, day(number + 1))
        listed = {(e.fingerprint, e.episode): e for e in list_alerts(any_store)}
        with any_store.state.connect() as conn:
            found = fetch(conn, sa.select(mlmon_alert))

        assert {(r["fingerprint"], r["episode"]) for r in found} == set(listed)
        for row in found:
            alert = listed[row["fingerprint"], row["episode"]]
            same = ("model", "monitor", "state", "severity", "opened_window", "resolved_window",
                    "muted_reason", "acked_by")  # fmt: skip
            assert {n: row[n] for n in same} == {n: getattr(alert, n) for n in same}
    assert len(listed) > 8
