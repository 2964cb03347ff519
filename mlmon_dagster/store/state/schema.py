"""Tables and views of the state database; only Alembic migrations create and change them.

Times are UTC and timezone-aware in Python; `UtcDateTime` keeps them so on SQLite too.
"""

from __future__ import annotations

import datetime as dt
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


def text(name: str, default: str = "", **kw: Any) -> sa.Column[str]:
    """A text column that is never null."""
    return sa.Column(name, sa.Text, nullable=False, server_default=default, **kw)


def time(name: str, nullable: bool = True, **kw: Any) -> sa.Column[Any]:
    """A UTC time."""
    return sa.Column(name, UtcDateTime, nullable=nullable, **kw)


def number(name: str, **kw: Any) -> sa.Column[int]:
    """A number that stands for a row of another table, or for this one."""
    return sa.Column(name, sa.Integer, nullable=False, **kw)


def count(name: str) -> sa.Column[int]:
    """A whole number that starts at 0."""
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")


# One row per distinct content of a landing file and stream; `path` is where it was seen first.
ingest_file = sa.Table(
    "ingest_file",
    METADATA,
    text("model", primary_key=True),
    text("stream", primary_key=True),
    text("sha256", primary_key=True),
    text("path"),
    count("size_bytes"),
    sa.Column("mtime_ns", sa.BigInteger, nullable=False, server_default="0"),
    text("status", "discovered"),  # discovered | loading | done | quarantined
    text("reason"),
    text("error"),  # why it was quarantined: code and full message
    count("rows_in"),
    count("n_new"),
    count("n_duplicate"),
    count("n_conflict"),
    count("n_bad"),
    text("schema_report", "{}"),  # JSON: which rules and expectations rows broke
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    time("first_seen", nullable=False),
    time("finished_at"),
    text("kept"),  # name of the file with its refused rows, see kept_rows; empty without
    text("read_with"),  # digest of the declarations it was read with last
    time("again_at"),  # when it, or its refused rows, began to be read again; null once settled
)

# What every path ever listed looked like, so that a file already known is not hashed again.
ingest_path = sa.Table(
    "ingest_path",
    METADATA,
    text("model", primary_key=True),
    text("stream", primary_key=True),
    text("path", primary_key=True),
    count("size_bytes"),
    sa.Column("mtime_ns", sa.BigInteger, nullable=False, server_default="0"),
    text("sha256"),
    text("mark"),  # inode and change time, or ETag and version: what a writer does not set
)

# One row per refused row and reason; its values are kept only as keyed hashes.
dead_letter = sa.Table(
    "dead_letter",
    METADATA,
    text("model", primary_key=True),
    text("stream", primary_key=True),
    text("sha256", primary_key=True),
    sa.Column("row_number", sa.BigInteger, primary_key=True),
    text("reason", primary_key=True),
    text("column_name", primary_key=True),
    text("message"),
    text("row_hash"),
    text("id_hash"),  # keyed hash of the prediction's id, by which an erasure finds the row
    time("window_start"),
    time("created_at", nullable=False),
)

# Level-triggered bookkeeping: which inputs a window has, and which of them were computed.
window_state = sa.Table(
    "window_state",
    METADATA,
    text("model", primary_key=True),
    time("window_start", nullable=False, primary_key=True),
    time("window_end", nullable=False),
    count("input_revision"),
    count("events_revision"),  # that events raised last; what came since is ground truth alone
    time("input_at"),  # raised whenever an event or actual touches it
    count("computed_revision"),
    time("computed_at"),  # the input revision the metrics come from
    text("data_version"),
    count("n"),
    count("n_actual"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    count("n_exempt"),  # predictions without ground truth that never get one
    count("n_late_after_close"),  # arrivals after the window closed; not in its numbers
    time("late_at"),  # when the last of them came
    time("first_input_at"),  # null in windows that never had rows
    # Whether its verdicts could not be told when it ended; null until it is first computed.
    sa.Column("is_history", sa.Boolean),
    time("reopened_at"),
    text("lags", "{}"),  # JSON: quantiles in hours of how late ground truth is known and arrives
    time("first_event_time"),  # of production's records; null without any
    time("last_event_time"),
    text("arrivals", "{}"),  # JSON: actuals by age and class, see store.reading
)

# How late ground truth comes, as learnt from the windows' arrivals: one row a model.
arrival_curve = sa.Table(
    "arrival_curve",
    METADATA,
    text("model", primary_key=True),
    sa.Column("due_seconds", sa.BigInteger),  # null until it is learnt
    sa.Column("least_share", sa.Float, nullable=False, server_default="0"),
    sa.Column("closes_seconds", sa.BigInteger),
    text("early_ages", "[]"),  # JSON, see `spec.windows.EarlyAge`
    text("curves", "{}"),  # JSON, see `metrics.late_truth.arrivals`
    time("learnt_at", nullable=False),
)

# How far each step of a window has come: the revision and version of the inputs it was made from.
window_step = sa.Table(
    "window_step",
    METADATA,
    text("model", primary_key=True),
    text("step", primary_key=True),  # the asset's name
    time("window_start", nullable=False, primary_key=True),
    count("revision"),
    text("data_version"),
    text("maturity"),
    time("computed_at"),
)

# A held lock: one writer per model; a dead holder on the same host is displaced.
writer_lock = sa.Table(
    "writer_lock",
    METADATA,
    text("name", primary_key=True),
    text("owner"),
    text("host"),
    sa.Column("pid", sa.BigInteger),
    time("expires_at", nullable=False),
)

# What a metric is: one row however many windows it has.
series = sa.Table(
    "series",
    METADATA,
    number("id", primary_key=True, autoincrement=True),
    text("model"),
    text("metric"),
    text("column_name", TABLE),
    text("slice_key", ALL),
    text("slice_value", ALL),
    text("dataset"),
    text("model_version", ALL),
    text("method_version"),
    # chance: `upper` of samples is what a distance is without a change, and its interval reaches
    # as far above the value as `lower` is below it. Empty: both are the ends of the interval.
    text("ends"),
    sa.UniqueConstraint(
        "model",
        "metric",
        "column_name",
        "slice_key",
        "slice_value",
        "dataset",
        "model_version",
        "method_version",
        "ends",
        name="series_once",
    ),
    sqlite_autoincrement=True,  # the number of a series that is gone never names another one
)

# A window that metrics are of.
metric_window = sa.Table(
    "metric_window",
    METADATA,
    number("id", primary_key=True, autoincrement=True),
    text("model"),
    time("window_start", nullable=False),
    time("window_end", nullable=False),
    text("granularity"),
    sa.UniqueConstraint(
        "model", "window_start", "window_end", "granularity", name="metric_window_once"
    ),
    sqlite_autoincrement=True,
)

# Texts that many computations share: runs and baselines.
shared_text = sa.Table(
    "shared_text",
    METADATA,
    number("id", primary_key=True, autoincrement=True),
    text("text", unique=True),
    sqlite_autoincrement=True,
)

FULL = {"fillfactor": 100}  # numbers that only grow leave no gaps to fill


# What samples of one window that were computed together have in common.
provenance = sa.Table(
    "provenance",
    METADATA,
    number("id", primary_key=True, autoincrement=True),
    number("window_id"),
    number("run"),  # a shared text
    number("baseline"),  # a shared text
    text("baseline_kind", "none"),
    text("data_version"),
    text("maturity"),
    text("reason"),  # why they have no value
    sa.Column("actual_coverage", sa.Float),
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


def _sample_columns() -> list[sa.Column[Any]]:
    return [
        number("series_id"),
        number("provenance_id"),
        sa.Column("n", sa.BigInteger),  # null: as the provenance says
        sa.Column("n_baseline", sa.BigInteger),
        sa.Column("value", sa.Float),
        # An end of the interval that is null is the value itself, an infinite one is open; both
        # null: there is no interval.
        sa.Column("lower", sa.Float),
        sa.Column("upper", sa.Float),
        sa.Column("p_value", sa.Float),
    ]


def _sample_keys(table: str) -> list[sa.schema.SchemaItem]:
    # Rows lie by provenance on SQLite. On PostgreSQL, where an index that is not unique takes a
    # third of one that is, whoever writes holds the model's lock.
    key = sa.PrimaryKeyConstraint("provenance_id", "series_id").ddl_if(dialect="sqlite")
    by_provenance = sa.Index(f"{table}_provenance", "provenance_id", postgresql_with=FULL)
    return [key, by_provenance.ddl_if(dialect="postgresql")]


# The newest version of every metric of every window. At most eight columns: PostgreSQL's rows
# grow by 8 bytes with the ninth.
sample = sa.Table(
    "sample",
    METADATA,
    *_sample_columns(),
    *_sample_keys("sample"),
    sa.Index("sample_series", "series_id", postgresql_with=FULL),
    sqlite_with_rowid=False,
)

# Samples that a later computation replaced or did not find any more, for looking back.
sample_history = sa.Table(
    "sample_history",
    METADATA,
    *_sample_columns(),
    time("replaced_at", nullable=False),
    *_sample_keys("sample_history"),
    sqlite_with_rowid=False,
)

# The verdict of one monitor on one window; a new data_version is a new row.
monitor_result = sa.Table(
    "monitor_result",
    METADATA,
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    text("model"),
    text("monitor"),  # monitor: <family>/<metric>[/<column>]
    text("family"),
    text("metric"),
    text("column_name", TABLE),
    text("dataset", PRODUCTION),
    text("slice_key", ALL),
    text("slice_value", ALL),
    time("window_start", nullable=False),
    time("window_end", nullable=False),
    text("granularity"),
    text("status"),  # OK | WARN | ERROR | NO_DATA
    sa.Column("value", sa.Float),
    sa.Column("lower", sa.Float),
    sa.Column("upper", sa.Float),
    sa.Column("baseline_value", sa.Float),
    count("n"),
    text("threshold"),
    # How far past the limit, in units of it (0: at it, 1: twice as far, -1: nothing), and half the
    # 95 % interval of that; null where nothing is measured, or what is measured is chance.
    sa.Column("excess", sa.Float),
    sa.Column("excess_error", sa.Float),
    sa.Column("p_value", sa.Float),
    sa.Column("p_adjusted", sa.Float),
    sa.Column("family_size", sa.Integer, nullable=False, server_default="1"),
    text("maturity"),
    text("reason"),
    text("message"),  # message: one plain sentence
    text("details", "{}"),  # JSON: explaining slices, unseen values, files
    sa.Column("k", sa.Integer, nullable=False, server_default="1"),
    sa.Column("of_n", sa.Integer, nullable=False, server_default="1"),
    text("owner"),
    text("runbook"),
    text("method_version"),
    text("data_version"),
    text("run_id"),
    sa.Column("is_backfill", sa.Boolean, nullable=False, server_default=sa.false()),
    time("created_at", nullable=False),
    time("folded_at"),  # folded_at: when the alert state took it in
    sa.UniqueConstraint(
        "model",
        "monitor",
        "dataset",
        "slice_key",
        "slice_value",
        "window_start",
        "data_version",
        "method_version",
        name="monitor_result_once",
    ),
    sa.Index("monitor_result_pending", "folded_at", "model"),
    sa.Index("monitor_result_window", "model", "window_start", "family"),
)
# Verdicts on everything, which status goes by. It is spelled out, not bound, so that both databases
# see that the index holds what is asked for.
IS_WHOLE = sa.text(
    f"monitor_result.dataset = '{PRODUCTION}' AND monitor_result.slice_key = '{ALL}'"
)
sa.Index(
    "monitor_result_standing",
    monitor_result.c.model,
    monitor_result.c.family,
    monitor_result.c.window_start,
    sqlite_where=sa.text(f"dataset = '{PRODUCTION}' AND slice_key = '{ALL}'"),
    postgresql_where=sa.text(f"dataset = '{PRODUCTION}' AND slice_key = '{ALL}'"),
)

# A fitted baseline; the newest one is what windows are compared with.
baseline = sa.Table(
    "baseline",
    METADATA,
    text("model", primary_key=True),
    text("baseline_id", primary_key=True),
    text("kind"),
    text("dataset"),
    text("payload", "{}"),  # JSON: the SHA-256 of the file with its bins, see baseline_files
    count("n"),
    text("data_version"),
    time("created_at", nullable=False),
)


# A key per model, which makes the hashes of its erased ids useless without this database.
erasure_key = sa.Table(
    "erasure_key",
    METADATA,
    text("model", primary_key=True),
    text("salt"),
)

# Ids whose rows must never be seen again, late arrivals included; only their keyed hashes.
erasure = sa.Table(
    "erasure",
    METADATA,
    text("model", primary_key=True),
    text("dataset", ALL, primary_key=True),
    text("id_hash", primary_key=True),
    time("requested_at", nullable=False),
    text("receipt"),
    sa.Index("erasure_receipt", "receipt"),
)

# Who asked for what to be erased, when, and how far it has come; never an id.
erasure_request = sa.Table(
    "erasure_request",
    METADATA,
    text("receipt", primary_key=True),
    text("model"),
    text("dataset", ALL),
    text("author"),
    text("chosen_by"),  # prediction_id | where
    count("n_ids"),
    sa.Column("recompute", sa.Boolean, nullable=False, server_default=sa.false()),
    text("found", "{}"),  # JSON: rows and files per place when it was asked for
    text("steps", "[]"),  # JSON: what was done, in order
    time("requested_at", nullable=False),
    time("finished_at"),
)

# Rows of windows that started before this were deleted by age; their numbers stay as they are.
retention_mark = sa.Table(
    "retention_mark",
    METADATA,
    text("model", primary_key=True),
    text("dataset", primary_key=True),
    time("rows_from", nullable=False),
    time("deleted_at", nullable=False),
)


# Alerts, and what was told to whom.

alert = sa.Table(
    "alert",
    METADATA,
    text("fingerprint", primary_key=True),
    text("environment"),
    text("model"),
    text("monitor"),
    text("family"),
    text("metric"),
    text("column_name"),
    text("dataset", PRODUCTION),
    text("slice_key", ALL),
    text("slice_value", ALL),
    text("state", "OK"),  # OK | PENDING | FIRING | RECOVERING
    text("severity"),
    sa.Column("episode", sa.Integer, nullable=False, server_default="0"),  # the newest one
    # How many there were, those of past windows included that were learnt late.
    sa.Column("n_episodes", sa.Integer, nullable=False, server_default="0"),
    text("recent", "[]"),  # JSON: the verdicts of the last windows, oldest first
    time("last_window_start"),
    text("last_data_version"),
    time("opened_window"),  # the first failing window of the newest episode
    time("failed_window"),  # the last one
    time("opened_at"),
    time("resolved_at"),
    text("resolved_reason"),
    text("muted_reason"),  # '' | backfill | silence:<id> | suppressed:<monitor>
    sa.Column("value", sa.Float),
    text("message"),
    text("details", "{}"),
    text("owner"),
    text("runbook"),
    text("acked_by"),  # who has taken it on; no reminders until it escalates or ends
    time("acked_at"),
    time("updated_at", nullable=False),
)

# Written out, for a database uses a partial index only where it can read the condition.
UNTOLD = sa.text("message_key = '' AND muted_reason = '' AND kind <> 'acknowledged'")

# Every transition of every alert: the history that `mlmon alerts list` shows.
alert_event = sa.Table(
    "alert_event",
    METADATA,
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    text("fingerprint"),
    sa.Column("episode", sa.Integer, nullable=False),
    # opened | escalated | changed | revised | resolved | withdrawn | acknowledged
    text("kind"),
    # Whether it is about an episode of past windows, told in a message of its own.
    sa.Column("is_late", sa.Boolean, nullable=False, server_default=sa.false()),
    time("window_start", nullable=False),  # in which it happened
    time("first_window"),  # the first and the last failing window of the episode, as known then
    time("last_window"),
    text("data_version"),
    text("severity"),
    sa.Column("value", sa.Float),
    text("message"),
    text("muted_reason"),
    text("message_key"),  # the outbox row that first told it; '' while nobody has been told
    time("created_at", nullable=False),
    sa.Index("alert_event_untold", "fingerprint", sqlite_where=UNTOLD, postgresql_where=UNTOLD),
    sa.UniqueConstraint(
        "fingerprint", "episode", "kind", "window_start", "data_version", name="alert_event_once"
    ),
)

# The notification log: what a receiver was last told in a thread: a group of alerts of one cause.
alert_group = sa.Table(
    "alert_group",
    METADATA,
    text("group_key", primary_key=True),
    text("receiver"),
    text("channel"),
    text("model"),
    text("family"),
    text("head_key"),  # idempotency key of the outbox row that opened the thread
    sa.Column("version", sa.Integer, nullable=False, server_default="0"),
    text("firing", "[]"),
    text("resolved", "[]"),
    text("owed", "[]"),  # episodes that this place must still hear of, also when they are over
    sa.Column("n_reminders", sa.Integer, nullable=False, server_default="0"),  # of the thread
    time("last_sent_at"),
    time("first_dirty_at"),
    time("next_flush_at"),
)

WAITING = sa.text("status IN ('queued', 'sending', 'unknown')")
UNCLEAR = sa.text("status IN ('sending', 'unknown')")

outbox = sa.Table(
    "outbox",
    METADATA,
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    text("idempotency_key", unique=True),
    text("group_key"),
    # What goes in order: the threads of a model at a place may tell of one alert in turn.
    text("queue"),
    text("receiver"),
    text("channel"),
    text("head_key"),  # the row that opened the thread; '' for a row that opens one itself
    # opened | updated | repeated | resolved | late | summary | outage | digest | head | test | plot
    text("kind"),
    text("payload", "{}"),  # JSON: rendered and frozen
    text("status", "queued"),  # queued | sending | unknown | sent | dead | superseded
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    time("next_at", nullable=False),
    text("lease_owner"),
    time("lease_until"),
    time("attempt_at"),
    text("after_ts"),  # the newest message of the channel before the attempt, by Slack's own clock
    text("error"),
    text("slack_ts"),
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

channel_gate = sa.Table(
    "channel_gate",
    METADATA,
    text("channel", primary_key=True),
    time("not_before", nullable=False),
    sa.Column("n_failures", sa.Integer, nullable=False, server_default="0"),  # in a row
)

silence = sa.Table(
    "silence",
    METADATA,
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    text("matcher", "{}"),
    text("author"),
    text("comment"),
    time("starts_at", nullable=False),
    time("ends_at", nullable=False),
    text("ended_by"),  # who ended it before its time
)

# When each part of the machinery last did its work, in real time.
heartbeat = sa.Table(
    "heartbeat",
    METADATA,
    text("name", primary_key=True),
    time("beat_at", nullable=False),
    text("note"),
)


# The life of a model: promoted baselines, changes of its files, what people did to it.

# A period whose events are the new normal for the windows after it; undone ones are kept.
baseline_promotion = sa.Table(
    "baseline_promotion",
    METADATA,
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    text("model"),
    time("period_start", nullable=False),
    time("period_end", nullable=False),  # windows that start here or later are compared with it
    text("baseline_id"),
    text("author"),
    text("note"),
    time("promoted_at", nullable=False),
    time("undone_at"),
    text("undone_by"),
    sa.Index("baseline_promotion_model", "model", "period_end"),
)

# The first file in which a stream's columns were seen to differ from the files before it.
schema_change = sa.Table(
    "schema_change",
    METADATA,
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    text("model"),
    text("stream"),
    text("kind"),  # layout, or what `model_history.Change` lists
    text("column_name"),
    text("before"),
    text("after"),
    text("sha256"),
    text("path"),
    time("window_start"),  # the first window of that file
    time("seen_at", nullable=False),
    sa.UniqueConstraint(
        "model", "stream", "sha256", "kind", "column_name", name="schema_change_once"
    ),
)

# Keys of the spec that the model's stored events rest on, as they were when events came first.
declared_key = sa.Table(
    "declared_key",
    METADATA,
    text("model", primary_key=True),
    text("key", primary_key=True),
    text("value"),
    time("since", nullable=False),
)

# What people did to a model's windows, and what the registry says of its versions.
model_event = sa.Table(
    "model_event",
    METADATA,
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    text("model"),
    text("kind"),  # reopened | closed | alias <name>
    text("author"),
    text("note"),
    time("happened_at", nullable=False),
    sa.Index("model_event_model", "model", "happened_at"),
)


# Events that people added, such as a promotion; those of a spec stand in its file.
known_event = sa.Table(
    "known_event",
    METADATA,
    sa.Column("id", Id, primary_key=True, autoincrement=True),
    text("model"),
    text("declared"),  # JSON, as under `events` in a spec
    text("author"),
    time("added_at", nullable=False),
    sa.Index("known_event_model", "model"),
)


# What the last look at a model's registry found; see `registry_state`.
registry_state = sa.Table(
    "registry_state",
    METADATA,
    text("model", primary_key=True),
    text("server"),  # the variable that holds its address
    time("looked_at", nullable=False),
    text("problem"),
    sa.Column("is_away", sa.Boolean, nullable=False, server_default=sa.false()),
    text("known", "{}"),  # JSON
)


# The token itself is never stored, only the SHA-256 of its random part.
collect_token = sa.Table(
    "collect_token",
    METADATA,
    text("id", primary_key=True),
    text("model"),  # the one model it is for, or *
    text("sha256"),
    text("note"),
    time("created_at", nullable=False),
    time("expires_at"),
    time("revoked_at"),
)


# `pending` is where `position` will be once the batches read up to there are settled.
source_cursor = sa.Table(
    "source_cursor",
    METADATA,
    text("model", primary_key=True),
    text("stream", primary_key=True),
    text("position", "{}"),  # JSON
    text("pending"),  # JSON: the next position, and the batches in between
    time("updated_at", nullable=False),
)

# What the last look at a stream's landing files left unread; see `manifest.Backlog`.
ingest_backlog = sa.Table(
    "ingest_backlog",
    METADATA,
    text("model", primary_key=True),
    text("stream", primary_key=True),
    count("n_waiting"),
    count("n_left"),
    time("oldest_at"),
    time("newest_at"),
    time("left_since"),
)

# What the database knows of a model's tables: the moment that both are of (at the place ""), and a
# commit of each table; see `moments`.
store_mark = sa.Table(
    "store_mark",
    METADATA,
    text("model", primary_key=True),
    text("place", primary_key=True),
    text("mark"),
)


_VIEWS = sa.MetaData()  # apart, since tables are created from the other one


def _of(table: sa.Table, *left_out: str) -> list[sa.Column[object]]:
    return [sa.Column(c.name, c.type) for c in table.c if c.name not in left_out]


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
mlmon_metric = sa.Table(
    "mlmon_metric",
    _VIEWS,
    *(sa.Column(name, _OF_METRICS.get(name, sa.Text())) for name in METRIC_COLUMNS),
)

mlmon_monitor = sa.Table(
    "mlmon_monitor",
    _VIEWS,
    *_of(monitor_result, "id", "details", "k", "of_n", "folded_at"),
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
