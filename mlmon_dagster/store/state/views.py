"""The views of the state database that others read: stable names and columns, newest rows only.

Migrations create them, docs/dashboards.md describes them; here are their columns and types.
"""

from __future__ import annotations

import sqlalchemy as sa

from mlmon_dagster.store.state import metric_log, schema
from mlmon_dagster.store.state.schema import UtcDateTime
from mlmon_dagster.store.state.statements import Row, fetch

_VIEWS = sa.MetaData()  # apart, since tables are created from the other one


def _of(table: sa.Table, *left_out: str) -> list[sa.Column[object]]:
    return [sa.Column(c.name, c.type) for c in table.c if c.name not in left_out]


_OF_METRICS: dict[str, sa.types.TypeEngine[object]] = {
    **{c.name: c.type for c in (*schema.series.c, *schema.metric_window.c, *schema.provenance.c)},
    **{c.name: c.type for c in schema.sample.c},
}
mlmon_metric = sa.Table(
    "mlmon_metric",
    _VIEWS,
    *(sa.Column(name, _OF_METRICS.get(name, sa.Text())) for name in metric_log.COLUMNS),
)

mlmon_monitor = sa.Table(
    "mlmon_monitor",
    _VIEWS,
    *_of(schema.monitor_result, "id", "details", "k", "of_n", "folded_at"),
)

mlmon_standing = sa.Table(
    "mlmon_standing",
    _VIEWS,
    *_of(mlmon_monitor),
    sa.Column("family_status", sa.Text),
)

mlmon_alert = sa.Table(
    "mlmon_alert",
    _VIEWS,
    sa.Column("fingerprint", sa.Text),
    sa.Column("episode", sa.Integer),
    *(
        sa.Column(name, sa.Text)
        for name in (
            "environment", "model", "monitor", "family", "metric", "column_name", "dataset",
            "slice_key", "slice_value", "state", "severity",
        )
    ),
    *(
        sa.Column(name, UtcDateTime)
        for name in ("opened_window", "opened_at", "resolved_window", "resolved_at")
    ),
    *(
        sa.Column(name, sa.Text)
        for name in ("muted_reason", "acked_by", "message", "owner", "runbook")
    ),
)  # fmt: skip

mlmon_window = sa.Table(
    "mlmon_window",
    _VIEWS,
    sa.Column("model", sa.Text),
    sa.Column("window_start", UtcDateTime),
    sa.Column("window_end", UtcDateTime),
    *(
        sa.Column(name, sa.BigInteger)
        for name in ("n", "n_actual", "n_exempt", "n_bad", "n_late_after_close")
    ),
    sa.Column("actual_coverage", sa.Float),
    sa.Column("maturity", sa.Text),
    sa.Column("data_version", sa.Text),
    sa.Column("input_at", UtcDateTime),
    sa.Column("computed_at", UtcDateTime),
    sa.Column("is_current", sa.Integer),  # 1 once the numbers are made from all that came
)

VIEWS = (mlmon_metric, mlmon_monitor, mlmon_standing, mlmon_alert, mlmon_window)


def newest_windows(engine: sa.Engine) -> list[Row]:
    """Return the newest window with predictions of every model, and how many windows wait.

    Returns:
        ``model``, ``n_waiting`` (windows whose newest inputs are not computed yet), and of the
        newest window ``window_end``, ``n`` and ``actual_coverage``, null if there is none.
    """
    c = mlmon_window.c
    newest = (
        sa.select(
            c.model,
            sa.func.max(sa.case((c.n > 0, c.window_start))).label("window_start"),
            sa.func.sum(1 - c.is_current).label("n_waiting"),
        )
        .group_by(c.model)
        .subquery()
    )
    query = sa.select(
        newest.c.model, newest.c.n_waiting, c.window_end, c.n, c.actual_coverage
    ).outerjoin_from(
        newest,
        mlmon_window,
        sa.and_(newest.c.model == c.model, newest.c.window_start == c.window_start),
    )
    with engine.connect() as conn:
        return fetch(conn, query.order_by(newest.c.model))
