"""Create the tables, as `schema.py` declares them, and the views on them; see docs/dashboards.md.

Version 0.1 has no past: a change of a table changes what this makes. The first migration after a
release is written together with the tables of that release here, for it changes databases that
have them (`alembic revision --autogenerate` on an empty database writes them out). If it changes a
table below the views, it drops these first and creates them again.
"""

from alembic import op

from mlmon_dagster.store.state.monitor_results import write_standing_view
from mlmon_dagster.store.state.schema import METADATA, mlmon_monitor

revision = "0002"
down_revision = None
branch_labels = None
depends_on = None

# An end of an interval that is not stored is the value itself, an infinite one is open; of what
# stands in the place of ends see `series.ends`.
METRIC = """
CREATE VIEW mlmon_metric AS
SELECT
    series.model, series.model_version, series.dataset, metric_window.window_start,
    metric_window.window_end, metric_window.granularity, series.slice_key, series.slice_value,
    series.column_name, series.metric, sample.value,
    CASE
        WHEN series.ends = 'chance' THEN sample.lower
        WHEN sample.lower IS NULL AND sample.upper IS NOT NULL THEN sample.value
        WHEN sample.lower >= -1.7976931348623157e308 THEN sample.lower
    END AS lower,
    CASE
        WHEN series.ends = 'chance' THEN sample.value + (sample.value - sample.lower)
        WHEN sample.upper IS NULL AND sample.lower IS NOT NULL THEN sample.value
        WHEN sample.upper <= 1.7976931348623157e308 THEN sample.upper
    END AS upper,
    coalesce(sample.n, provenance.n) AS n,
    coalesce(sample.n_baseline, provenance.n_baseline) AS n_baseline,
    provenance.baseline_kind, baseline.text AS baseline_id, sample.p_value,
    CASE WHEN series.ends = 'chance' THEN sample.upper END AS by_chance,
    provenance.actual_coverage, provenance.maturity, provenance.reason, series.method_version,
    provenance.data_version, run.text AS run_id, provenance.computed_at
FROM sample
JOIN series ON series.id = sample.series_id
JOIN provenance ON provenance.id = sample.provenance_id
JOIN metric_window ON metric_window.id = provenance.window_id AND metric_window.model = series.model
JOIN shared_text AS baseline ON baseline.id = provenance.baseline
JOIN shared_text AS run ON run.id = provenance.run
"""

MONITOR = """
CREATE VIEW mlmon_monitor AS
SELECT
    model, monitor, family, metric, column_name, dataset, slice_key, slice_value, window_start,
    window_end, granularity, status, value, lower, upper, baseline_value, n, threshold, excess,
    excess_error, p_value, p_adjusted, family_size, maturity, reason, message, owner, runbook,
    method_version, data_version, run_id, is_backfill, created_at
FROM monitor_result AS newest
WHERE NOT EXISTS (  -- a hash or an index finds it; to rank all rows would sort every text of them
    SELECT 1
    FROM monitor_result AS later
    WHERE later.model = newest.model
        AND later.monitor = newest.monitor
        AND later.dataset = newest.dataset
        AND later.slice_key = newest.slice_key
        AND later.slice_value = newest.slice_value
        AND later.window_start = newest.window_start
        AND later.family = newest.family
        AND later.id > newest.id
)
"""

ALERT = """
CREATE VIEW mlmon_alert AS
SELECT
    alert.fingerprint, opened.episode, alert.environment, alert.model, alert.monitor,
    alert.family, alert.metric, alert.column_name, alert.dataset, alert.slice_key,
    alert.slice_value,
    CASE WHEN ended.id IS NULL THEN alert.state
        WHEN EXISTS (
            SELECT 1 FROM alert_event AS gone
            WHERE gone.fingerprint = opened.fingerprint AND gone.episode = opened.episode
                AND gone.kind = 'withdrawn'
        ) THEN 'WITHDRAWN'
        ELSE 'RESOLVED' END AS state,
    (
        SELECT last.severity FROM alert_event AS last
        WHERE last.fingerprint = opened.fingerprint AND last.episode = opened.episode
        ORDER BY last.id DESC LIMIT 1
    ) AS severity,
    (
        SELECT known.first_window FROM alert_event AS known
        WHERE known.fingerprint = opened.fingerprint AND known.episode = opened.episode
            AND known.kind <> 'acknowledged'
        ORDER BY known.id DESC LIMIT 1
    ) AS opened_window,
    opened.created_at AS opened_at,
    CASE WHEN ended.id IS NULL THEN NULL ELSE (
        SELECT known.window_start FROM alert_event AS known
        WHERE known.fingerprint = opened.fingerprint AND known.episode = opened.episode
            AND (known.kind = 'resolved' OR (known.kind = 'revised' AND known.is_late))
        ORDER BY known.id DESC LIMIT 1
    ) END AS resolved_window,
    ended.created_at AS resolved_at,
    CASE WHEN opened.episode = alert.episode THEN alert.muted_reason
        ELSE opened.muted_reason END AS muted_reason,
    CASE WHEN ended.id IS NULL THEN alert.acked_by ELSE '' END AS acked_by,
    (
        SELECT told.message FROM alert_event AS told
        WHERE told.fingerprint = opened.fingerprint AND told.episode = opened.episode
            AND told.kind NOT IN ('resolved', 'withdrawn', 'acknowledged') AND told.message <> ''
        ORDER BY told.id DESC LIMIT 1
    ) AS message,
    alert.owner, alert.runbook
FROM alert
JOIN alert_event AS opened
    ON opened.fingerprint = alert.fingerprint AND opened.kind = 'opened'
LEFT JOIN alert_event AS ended
    ON ended.fingerprint = opened.fingerprint AND ended.episode = opened.episode
    AND ended.kind = 'resolved'
UNION ALL
SELECT
    fingerprint, 0, environment, model, monitor, family, metric, column_name, dataset, slice_key,
    slice_value, state, severity, last_window_start, NULL, NULL, NULL, '', '', message, owner,
    runbook
FROM alert
WHERE state = 'PENDING'
"""

# The maturity is that of the newest numbers about ground truth.
WINDOW = """
CREATE VIEW mlmon_window AS
SELECT
    w.model, w.window_start, w.window_end, w.n, w.n_actual, w.n_exempt,
    coalesce(refused.n, 0) AS n_bad, w.n_late_after_close,
    CAST(w.n_actual AS DOUBLE PRECISION) / nullif(w.n - w.n_exempt, 0) AS actual_coverage,
    coalesce(performance.maturity, '') AS maturity, w.data_version, w.input_at, w.computed_at,
    CASE WHEN w.computed_revision >= w.input_revision THEN 1 ELSE 0 END AS is_current
FROM window_state AS w
LEFT JOIN window_step AS performance ON performance.model = w.model
    AND performance.step = 'performance' AND performance.window_start = w.window_start
LEFT JOIN (
    SELECT model, window_start, count(*) AS n
    FROM (SELECT DISTINCT model, stream, sha256, row_number, window_start FROM dead_letter) AS rows
    GROUP BY model, window_start
) AS refused ON refused.model = w.model AND refused.window_start = w.window_start
"""


def upgrade() -> None:
    """Create all of it; a table of another program with one of the names is an error."""
    METADATA.create_all(op.get_bind(), checkfirst=False)
    standing = write_standing_view(op.get_bind().dialect.name, mlmon_monitor.c.keys())
    for view in (METRIC, MONITOR, ALERT, WINDOW, standing):
        op.execute(view)
