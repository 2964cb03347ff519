"""Tables and views of the state database; only Alembic migrations create and change them.

Times are UTC and timezone-aware in Python; `UtcDateTime` keeps them so on SQLite too.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.names import ALL, TABLE

METADATA = sa.MetaData()

SQLITE_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


class UtcDateTime(sa.TypeDecorator[dt.datetime]):
    """A timezone-aware UTC instant; ISO text on SQLite, timestamptz on PostgreSQL."""

    impl = sa.String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        """Pick the column type of the dialect."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.DateTime(timezone=True))
        return dialect.type_descriptor(sa.String(32))

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> object:
        """Refuse naive times; write fixed-width text on SQLite so that it sorts."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive time {value!r} given to the state database; pass UTC")
        value = value.astimezone(dt.UTC)
        return value if dialect.name == "postgresql" else value.strftime(SQLITE_TIME)

    def process_result_value(self, value: Any, dialect: Dialect) -> dt.datetime | None:
        """Return an aware UTC datetime."""
        if value is None or isinstance(value, dt.datetime):
            return value if value is None else value.astimezone(dt.UTC)
        moment: dt.datetime = dt.datetime.fromisoformat(value)  # ten times as fast as strptime
        return moment


# An id that counts up on both databases; only INTEGER does so on SQLite.
Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
Columns = list[sa.Column[Any]]


def table(
    name: str,
    *parts: Columns | sa.schema.SchemaItem,
    metadata: sa.MetaData = METADATA,
    **options: Any,
) -> sa.Table:
    """A table of columns, several of one kind at a time, and of what else there is to it."""
    items = chain.from_iterable(part if isinstance(part, list) else [part] for part in parts)
    return sa.Table(name, metadata, *items, **options)


def _columns(names: Sequence[str], type_: Any, **options: Any) -> Columns:
    return [sa.Column(name, type_, **options) for name in names]


def text(
    *names: str, default: str = "", primary_key: bool = False, unique: bool | None = None
) -> Columns:
    """Texts that are never null."""
    options = {"nullable": False, "primary_key": primary_key, "unique": unique}
    return _columns(names, sa.Text, server_default=default, **options)


def keys(*names: str) -> Columns:
    """Texts of the primary key."""
    return text(*names, primary_key=True)


def time(*names: str, nullable: bool = True, primary_key: bool = False) -> Columns:
    """UTC times."""
    return _columns(names, UtcDateTime, nullable=nullable, primary_key=primary_key)


def number(*names: str, default: str | None = None, primary_key: bool = False) -> Columns:
    """Small numbers, such as those that stand for rows of tables."""
    options = {"nullable": False, "primary_key": primary_key}
    return _columns(names, sa.Integer, server_default=default, **options)


def count(*names: str) -> Columns:
    """Whole numbers that start at 0."""
    return _columns(names, sa.BigInteger, nullable=False, server_default="0")


def real(*names: str) -> Columns:
    """Numbers, null where there are none."""
    return _columns(names, sa.Float)


def flag(*names: str) -> Columns:
    """Whether something is so; at first it is not."""
    return _columns(names, sa.Boolean, nullable=False, server_default=sa.false())


def counter() -> Columns:
    """The number of a row, counted up."""
    return _columns(["id"], Id, primary_key=True, autoincrement=True)


# One row per distinct content of a landing file and stream; `path` is where it was seen first.
ingest_file = table(
    "ingest_file",
    keys("model", "stream", "sha256"),
    text("path"),
    count("size_bytes", "mtime_ns"),
    text("status", default="discovered"),  # discovered | loading | done | quarantined
    text("reason"),
    text("error"),  # why it was quarantined: code and full message
    count("rows_in", "n_new", "n_duplicate", "n_conflict", "n_bad"),
    text("schema_report", default="{}"),  # JSON: which rules and expectations rows broke
    number("attempts", default="0"),
    time("first_seen", nullable=False),
    time("finished_at"),
    text("kept"),  # name of the file with its refused rows, see kept_rows; empty without
    text("read_with"),  # digest of the declarations it was read with last
    time("again_at"),  # when it, or its refused rows, began to be read again; null once settled
)

# What every path ever listed looked like, so that a file already known is not hashed again.
ingest_path = table(
    "ingest_path",
    keys("model", "stream", "path"),
    count("size_bytes", "mtime_ns"),
    text("sha256"),
    text("mark"),  # inode and change time, or ETag and version: what a writer does not set
)

# One row per refused row and reason; its values are kept only as keyed hashes.
dead_letter = table(
    "dead_letter",
    keys("model", "stream", "sha256"),
    sa.Column("row_number", sa.BigInteger, primary_key=True),
    keys("reason", "column_name"),
    text("message", "row_hash"),
    text("id_hash"),  # keyed hash of the prediction's id, by which an erasure finds the row
    time("window_start"),
    time("created_at", nullable=False),
)

# Level-triggered bookkeeping: which inputs a window has, and which of them were computed.
window_state = table(
    "window_state",
    keys("model"),
    time("window_start", nullable=False, primary_key=True),
    time("window_end", nullable=False),
    count("input_revision"),
    count("events_revision"),  # that events raised last; what came since is ground truth alone
    time("input_at"),  # raised whenever an event or actual touches it
    count("computed_revision"),
    time("computed_at"),  # the input revision the metrics come from
    text("data_version"),
    count("n", "n_actual"),
    number("attempts", default="0"),
    count("n_exempt"),  # predictions without ground truth that never get one
    count("n_late_after_close"),  # arrivals after the window closed; not in its numbers
    time("late_at"),  # when the last of them came
    time("first_input_at"),  # null in windows that never had rows
    # Whether its verdicts could not be told when it ended; null until it is first computed.
    sa.Column("is_history", sa.Boolean),
    time("reopened_at"),
    text(
        "lags", default="{}"
    ),  # JSON: quantiles in hours of how late ground truth is known and arrives
    time("first_event_time"),  # of production's records; null without any
    time("last_event_time"),
    text("arrivals", default="{}"),  # JSON: actuals by age and class, see store.reading
)

# How late ground truth comes, as learnt from the windows' arrivals: one row a model.
arrival_curve = table(
    "arrival_curve",
    keys("model"),
    sa.Column("due_seconds", sa.BigInteger),  # null until it is learnt
    sa.Column("least_share", sa.Float, nullable=False, server_default="0"),
    sa.Column("closes_seconds", sa.BigInteger),
    text("early_ages", default="[]"),  # JSON, see `spec.windows.EarlyAge`
    text("curves", default="{}"),  # JSON, see `metrics.late_truth.arrivals`
    time("learnt_at", nullable=False),
)

# How far each step of a window has come: the revision and version of the inputs it was made from.
window_step = table(
    "window_step",
    keys("model"),
    keys("step"),  # the asset's name
    time("window_start", nullable=False, primary_key=True),
    count("revision"),
    text("data_version", "maturity"),
    time("computed_at"),
)

# A held lock: one writer per model; a dead holder on the same host is displaced.
writer_lock = table(
    "writer_lock",
    keys("name"),
    text("owner", "host"),
    sa.Column("pid", sa.BigInteger),
    time("expires_at", nullable=False),
)

SERIES = ("model", "metric", "column_name", "slice_key", "slice_value", "dataset",
          "model_version", "method_version", "ends")  # fmt: skip
WINDOW = ("model", "window_start", "window_end", "granularity")

# What a metric is: one row however many windows it has.
series = table(
    "series",
    number("id", primary_key=True),
    text("model", "metric"),
    text("column_name", default=TABLE),
    text("slice_key", "slice_value", default=ALL),
    text("dataset"),
    text("model_version", default=ALL),
    text("method_version"),
    # chance: `upper` of samples is what a distance is without a change, and its interval reaches
    # as far above the value as `lower` is below it. Empty: both are the ends of the interval.
    text("ends"),
    sa.UniqueConstraint(*SERIES, name="series_once"),
    sqlite_autoincrement=True,  # the number of a series that is gone never names another one
)

# A window that metrics are of.
metric_window = table(
    "metric_window",
    number("id", primary_key=True),
    text("model"),
    time("window_start", "window_end", nullable=False),
    text("granularity"),
    sa.UniqueConstraint(*WINDOW, name="metric_window_once"),
    sqlite_autoincrement=True,
)

# Texts that many computations share: runs and baselines.
shared_text = table(
    "shared_text",
    number("id", primary_key=True),
    text("text", unique=True),
    sqlite_autoincrement=True,
)

FULL = {"fillfactor": 100}  # numbers that only grow leave no gaps to fill


# What samples of one window that were computed together have in common.
provenance = table(
    "provenance",
    number("id", primary_key=True),
    number("window_id"),
    number("run"),  # a shared text
    number("baseline"),  # a shared text
    text("baseline_kind", default="none"),
    text("data_version", "maturity"),
    text("reason"),  # why they have no value
    real("actual_coverage"),
    time("computed_at", nullable=False),
    count("n"),  # where a sample says nothing else
    count("n_baseline"),
    sa.Index("provenance_window", "window_id", postgresql_with=FULL),
    sqlite_autoincrement=True,
)
for _table in (metric_window, provenance):  # their own numbers, too; a key takes no such option
    _full = sa.DDL(  # type: ignore[no-untyped-call]
        f"ALTER INDEX {_table.name}_pkey SET (fillfactor = 100)"
    )
    sa.event.listen(_table, "after_create", _full.execute_if(dialect="postgresql"))


def _sample_table(name: str, *more: Columns | sa.schema.SchemaItem) -> sa.Table:
    # Rows lie by provenance on SQLite. On PostgreSQL, where an index that is not unique takes a
    # third of one that is, whoever writes holds the model's lock.
    key = sa.PrimaryKeyConstraint("provenance_id", "series_id").ddl_if(dialect="sqlite")
    by_provenance = sa.Index(f"{name}_provenance", "provenance_id", postgresql_with=FULL)
    return table(
        name,
        number("series_id", "provenance_id"),
        _columns(["n", "n_baseline"], sa.BigInteger),  # null: as the provenance says
        # An end of the interval that is null is the value itself, an infinite one is open; both
        # null: there is no interval.
        real("value", "lower", "upper", "p_value"),
        *more,
        key,
        by_provenance.ddl_if(dialect="postgresql"),
        sqlite_with_rowid=False,
    )


# The newest version of every metric of every window. At most eight columns: PostgreSQL's rows
# grow by 8 bytes with the ninth.
sample = _sample_table("sample", sa.Index("sample_series", "series_id", postgresql_with=FULL))

# Samples that a later computation replaced or did not find any more, for looking back.
sample_history = _sample_table("sample_history", time("replaced_at", nullable=False))

IDENTITY = ("model", "monitor", "dataset", "slice_key", "slice_value", "window_start")

# The verdict of one monitor on one window; a new data_version is a new row.
monitor_result = table(
    "monitor_result",
    counter(),
    text("model"),
    text("monitor"),  # monitor: <family>/<metric>[/<column>]
    text("family", "metric"),
    text("column_name", default=TABLE),
    text("dataset", default=PRODUCTION),
    text("slice_key", "slice_value", default=ALL),
    time("window_start", "window_end", nullable=False),
    text("granularity"),
    text("status"),  # OK | WARN | ERROR | NO_DATA
    real("value", "lower", "upper", "baseline_value"),
    count("n"),
    text("threshold"),
    # How far past the limit, in units of it (0: at it, 1: twice as far, -1: nothing), and half the
    # 95 % interval of that; null where nothing is measured, or what is measured is chance.
    real("excess", "excess_error", "p_value", "p_adjusted"),
    number("family_size", default="1"),
    text("maturity", "reason"),
    text("message"),  # message: one plain sentence
    text("details", default="{}"),  # JSON: explaining slices, unseen values, files
    number("k", "of_n", default="1"),
    text("owner", "runbook", "method_version", "data_version", "run_id"),
    flag("is_backfill"),
    time("created_at", nullable=False),
    time("folded_at"),  # folded_at: when the alert state took it in
    sa.UniqueConstraint(*IDENTITY, "data_version", "method_version", name="monitor_result_once"),
    sa.Index("monitor_result_pending", "folded_at", "model"),
    sa.Index("monitor_result_window", "model", "window_start", "family"),
)
# Verdicts on everything, which status goes by. It is spelled out, not bound, so that both databases
# see that the index holds what is asked for.
IS_WHOLE = sa.text(f"dataset = '{PRODUCTION}' AND slice_key = '{ALL}'")
sa.Index(
    "monitor_result_standing",
    *(monitor_result.c[name] for name in ("model", "family", "window_start")),
    sqlite_where=IS_WHOLE,
    postgresql_where=IS_WHOLE,
)

# A fitted baseline; the newest one is what windows are compared with.
baseline = table(
    "baseline",
    keys("model", "baseline_id"),
    text("kind", "dataset"),
    text(
        "payload", default="{}"
    ),  # JSON: the SHA-256 of the file with its bins, see baseline_files
    count("n"),
    text("data_version"),
    time("created_at", nullable=False),
)


# A key per model, which makes the hashes of its erased ids useless without this database.
erasure_key = table(
    "erasure_key",
    keys("model"),
    text("salt"),
)

# Ids whose rows must never be seen again, late arrivals included; only their keyed hashes.
erasure = table(
    "erasure",
    keys("model"),
    text("dataset", default=ALL, primary_key=True),
    keys("id_hash"),
    time("requested_at", nullable=False),
    text("receipt"),
    sa.Index("erasure_receipt", "receipt"),
)

# Who asked for what to be erased, when, and how far it has come; never an id.
erasure_request = table(
    "erasure_request",
    keys("receipt"),
    text("model"),
    text("dataset", default=ALL),
    text("author"),
    text("chosen_by"),  # prediction_id | where
    count("n_ids"),
    flag("recompute"),
    text("found", default="{}"),  # JSON: rows and files per place when it was asked for
    text("steps", default="[]"),  # JSON: what was done, in order
    time("requested_at", nullable=False),
    time("finished_at"),
)

# Rows of windows that started before this were deleted by age; their numbers stay as they are.
retention_mark = table(
    "retention_mark",
    keys("model", "dataset"),
    time("rows_from", "deleted_at", nullable=False),
)


# Alerts, and what was told to whom.

alert = table(
    "alert",
    keys("fingerprint"),
    text("environment", "model", "monitor", "family", "metric", "column_name"),
    text("dataset", default=PRODUCTION),
    text("slice_key", "slice_value", default=ALL),
    text("state", default="OK"),  # OK | PENDING | FIRING | RECOVERING
    text("severity"),
    number("episode", default="0"),  # the newest one
    # How many there were, those of past windows included that were learnt late.
    number("n_episodes", default="0"),
    text("recent", default="[]"),  # JSON: the verdicts of the last windows, oldest first
    time("last_window_start"),
    text("last_data_version"),
    time("opened_window"),  # the first failing window of the newest episode
    time("failed_window"),  # the last one
    time("opened_at", "resolved_at"),
    text("resolved_reason"),
    text("muted_reason"),  # '' | backfill | silence:<id> | suppressed:<monitor>
    real("value"),
    text("message"),
    text("details", default="{}"),
    text("owner", "runbook"),
    text("acked_by"),  # who has taken it on; no reminders until it escalates or ends
    time("acked_at"),
    time("updated_at", nullable=False),
)

# Written out, for a database uses a partial index only where it can read the condition.
UNTOLD = sa.text("message_key = '' AND muted_reason = '' AND kind <> 'acknowledged'")

# Every transition of every alert: the history that `mlmon alerts list` shows.
alert_event = table(
    "alert_event",
    counter(),
    text("fingerprint"),
    number("episode"),
    # opened | escalated | changed | revised | resolved | withdrawn | acknowledged
    text("kind"),
    # Whether it is about an episode of past windows, told in a message of its own.
    flag("is_late"),
    time("window_start", nullable=False),  # in which it happened
    time("first_window"),  # the first and the last failing window of the episode, as known then
    time("last_window"),
    text("data_version", "severity"),
    real("value"),
    text("message", "muted_reason"),
    text("message_key"),  # the outbox row that first told it; '' while nobody has been told
    time("created_at", nullable=False),
    sa.Index("alert_event_untold", "fingerprint", sqlite_where=UNTOLD, postgresql_where=UNTOLD),
    sa.UniqueConstraint(
        "fingerprint", "episode", "kind", "window_start", "data_version", name="alert_event_once"
    ),
)

# The notification log: what a receiver was last told in a thread: a group of alerts of one cause.
alert_group = table(
    "alert_group",
    keys("group_key"),
    text("receiver", "channel", "model", "family"),
    text("head_key"),  # idempotency key of the outbox row that opened the thread
    number("version", default="0"),
    text("firing", "resolved", default="[]"),
    text(
        "owed", default="[]"
    ),  # episodes that this place must still hear of, also when they are over
    number("n_reminders", default="0"),  # of the thread
    time("last_sent_at", "first_dirty_at", "next_flush_at"),
)

WAITING = sa.text("status IN ('queued', 'sending', 'unknown')")
UNCLEAR = sa.text("status IN ('sending', 'unknown')")

outbox = table(
    "outbox",
    counter(),
    text("idempotency_key", unique=True),
    text("group_key"),
    # What goes in order: the threads of a model at a place may tell of one alert in turn.
    text("queue", "receiver", "channel"),
    text("head_key"),  # the row that opened the thread; '' for a row that opens one itself
    # opened | updated | repeated | resolved | late | summary | outage | digest | head | test | plot
    text("kind"),
    text("payload", default="{}"),  # JSON: rendered and frozen
    text("status", default="queued"),  # queued | sending | unknown | sent | dead | superseded
    number("attempts", default="0"),
    time("next_at", nullable=False),
    text("lease_owner"),
    time("lease_until", "attempt_at"),
    text("after_ts"),  # the newest message of the channel before the attempt, by Slack's own clock
    text("error", "slack_ts"),
    text("slack_channel"),  # the channel's id, which updates and history ask for
    time("created_at", nullable=False),
    time("sent_at"),
    sa.Index("outbox_group", "group_key", "id"),
    sa.Index("outbox_queue", "queue", "id"),
    sa.Index("outbox_head", "head_key"),
    # What waits, in the order in which it goes: a claim walks it and stops at the first that may.
    sa.Index("outbox_waiting", "id", sqlite_where=WAITING, postgresql_where=WAITING),
    sa.Index("outbox_unclear", "channel", sqlite_where=UNCLEAR, postgresql_where=UNCLEAR),
)

channel_gate = table(
    "channel_gate",
    keys("channel"),
    time("not_before", nullable=False),
    number("n_failures", default="0"),  # in a row
)

silence = table(
    "silence",
    counter(),
    text("matcher", default="{}"),
    text("author", "comment"),
    time("starts_at", "ends_at", nullable=False),
    text("ended_by"),  # who ended it before its time
)

# When each part of the machinery last did its work, in real time.
heartbeat = table(
    "heartbeat",
    keys("name"),
    time("beat_at", nullable=False),
    text("note"),
)


# The life of a model: promoted baselines, changes of its files, what people did to it.

# A period whose events are the new normal for the windows after it; undone ones are kept.
baseline_promotion = table(
    "baseline_promotion",
    counter(),
    text("model"),
    time("period_start", nullable=False),
    time("period_end", nullable=False),  # windows that start here or later are compared with it
    text("baseline_id", "author", "note"),
    time("promoted_at", nullable=False),
    time("undone_at"),
    text("undone_by"),
    sa.Index("baseline_promotion_model", "model", "period_end"),
)

# The first file in which a stream's columns were seen to differ from the files before it.
schema_change = table(
    "schema_change",
    counter(),
    text("model", "stream"),
    text("kind"),  # layout, or what `model_history.Change` lists
    text("column_name", "before", "after", "sha256", "path"),
    time("window_start"),  # the first window of that file
    time("seen_at", nullable=False),
    sa.UniqueConstraint(
        "model", "stream", "sha256", "kind", "column_name", name="schema_change_once"
    ),
)

# Keys of the spec that the model's stored events rest on, as they were when events came first.
declared_key = table(
    "declared_key",
    keys("model", "key"),
    text("value"),
    time("since", nullable=False),
)

# What people did to a model's windows, and what the registry says of its versions.
model_event = table(
    "model_event",
    counter(),
    text("model"),
    text("kind"),  # reopened | closed | alias <name>
    text("author", "note"),
    time("happened_at", nullable=False),
    sa.Index("model_event_model", "model", "happened_at"),
)


# Events that people added, such as a promotion; those of a spec stand in its file.
known_event = table(
    "known_event",
    counter(),
    text("model"),
    text("declared"),  # JSON, as under `events` in a spec
    text("author"),
    time("added_at", nullable=False),
    sa.Index("known_event_model", "model"),
)


# What the last look at a model's registry found; see `registry_state`.
registry_state = table(
    "registry_state",
    keys("model"),
    text("server"),  # the variable that holds its address
    time("looked_at", nullable=False),
    text("problem"),
    flag("is_away"),
    text("known", default="{}"),  # JSON
)


# The token itself is never stored, only the SHA-256 of its random part.
collect_token = table(
    "collect_token",
    keys("id"),
    text("model"),  # the one model it is for, or *
    text("sha256", "note"),
    time("created_at", nullable=False),
    time("expires_at", "revoked_at"),
)


# `pending` is where `position` will be once the batches read up to there are settled.
source_cursor = table(
    "source_cursor",
    keys("model", "stream"),
    text("position", default="{}"),  # JSON
    text("pending"),  # JSON: the next position, and the batches in between
    time("updated_at", nullable=False),
)

# What the last look at a stream's landing files left unread; see `manifest.Backlog`.
ingest_backlog = table(
    "ingest_backlog",
    keys("model", "stream"),
    count("n_waiting", "n_left"),
    time("oldest_at", "newest_at", "left_since"),
)

# What the database knows of a model's tables: the moment that both are of (at the place ""), and a
# commit of each table; see `moments`.
store_mark = table(
    "store_mark",
    keys("model", "place"),
    text("mark"),
)


_VIEWS = sa.MetaData()  # apart, since tables are created from the other one


def _copy_columns(source: sa.Table, *left_out: str) -> Columns:
    return [sa.Column(c.name, c.type) for c in source.c if c.name not in left_out]


# The views that others read: stable names and columns, newest rows only. The migration creates
# them, docs/dashboards.md describes them; here are their columns and types.
METRIC_COLUMNS = (
    "model", "model_version", "dataset", "window_start", "window_end", "granularity",
    "slice_key", "slice_value", "column_name", "metric", "value", "lower", "upper", "n",
    "n_baseline", "baseline_kind", "baseline_id", "p_value", "by_chance", "actual_coverage",
    "maturity", "reason", "method_version", "data_version", "run_id", "computed_at",
)  # fmt: skip
_OF_METRICS: dict[str, sa.types.TypeEngine[object]] = {
    **{c.name: c.type for c in (*series.c, *metric_window.c, *provenance.c)},
    **{c.name: c.type for c in sample.c},
    "by_chance": sample.c.upper.type,
}
mlmon_metric = table(
    "mlmon_metric",
    [sa.Column(name, _OF_METRICS.get(name, sa.Text())) for name in METRIC_COLUMNS],
    metadata=_VIEWS,
)

mlmon_monitor = table(
    "mlmon_monitor",
    _copy_columns(monitor_result, "id", "details", "k", "of_n", "folded_at"),
    metadata=_VIEWS,
)

mlmon_standing = table(
    "mlmon_standing", _copy_columns(mlmon_monitor), text("family_status"), metadata=_VIEWS
)

mlmon_alert = table(
    "mlmon_alert",
    text("fingerprint"),
    number("episode"),
    text("environment", "model", "monitor", "family", "metric", "column_name", "dataset"),
    text("slice_key", "slice_value", "state", "severity"),
    time("opened_window", "opened_at", "resolved_window", "resolved_at"),
    text("muted_reason", "acked_by", "message", "owner", "runbook"),
    metadata=_VIEWS,
)

mlmon_window = table(
    "mlmon_window",
    text("model"),
    time("window_start", "window_end"),
    count("n", "n_actual", "n_exempt", "n_bad", "n_late_after_close"),
    real("actual_coverage"),
    text("maturity", "data_version"),
    time("input_at", "computed_at"),
    number("is_current"),  # 1 once the numbers are made from all that came
    metadata=_VIEWS,
)

VIEWS = (mlmon_metric, mlmon_monitor, mlmon_standing, mlmon_alert, mlmon_window)
