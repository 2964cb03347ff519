"""The tables of what people changed or know: a model's history, baselines and events."""

from __future__ import annotations

from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.store import Store, baselines
from mlmon_dagster.store.baselines import Promotion
from mlmon_dagster.store.known_events import StoredEvent, load_stored
from mlmon_dagster.store.state.sql import Row
from mlmon_dagster.tables.table import Answer, Column, Table, utc_minute

MODEL_HISTORY: Table[Row] = Table(
    "model history",
    (
        Column("WHEN (UTC)", "at", utc_minute),
        Column("WHAT", "kind"),
        Column("BY", "author"),
        Column("NOTE", "note"),
    ),
)

PROMOTIONS: Table[Promotion] = Table(
    "promotions",
    (
        Column("ID", "id"),
        Column("BASELINE", "baseline_id"),
        Column("FROM (UTC)", "period_start", utc_minute),
        Column("TO (UTC)", "period_end", utc_minute),
        Column("BY", "author"),
        Column("STATE", lambda row: f"undone by {row.undone_by}" if row.undone_at else "in force"),
        Column("NOTE", "note"),
    ),
)


def ask_baselines(store: Store, spec: ModelSpec) -> Answer[Promotion]:
    """Return the promotions of a model, below what it declares to be compared with."""
    from mlmon_dagster.profiles.baseline import no_baseline

    declared = baselines.load_newest_declared(store.state, spec)
    stored = baselines.load_newest(store.state, spec.model, declared) if declared else None
    if stored is None:
        said = str(no_baseline(spec))
    else:
        said = (
            f"{stored.baseline_id}  {spec.baseline.described()}; bins of dataset "
            f"{stored.dataset}, {stored.n:,} rows, fitted {stored.created_at:%Y-%m-%d %H:%M} UTC"
        )
    rows = baselines.list_promotions(store.state, spec.model)
    above = f"declared   {said}"
    return Answer(PROMOTIONS, rows, above=above, text=None if rows else above)


EVENTS: Table[StoredEvent] = Table(
    "events",
    (
        Column("NAME", lambda row: row.event.name),
        Column("FROM", lambda row: row.event.from_),
        Column("TO", lambda row: row.event.to),
        Column("EVERY", lambda row: row.event.every or ""),
        Column("EXPLAINS", lambda row: ", ".join(FAMILIES[f].label for f in row.event.explains)),
        Column("BY", "author"),
    ),
    if_empty="No event is known: mlmon event add MODEL NAME --from DAY --to DAY",
)


def ask_events(store: Store, spec: ModelSpec) -> Answer[StoredEvent]:
    """Return the events of a model: those of its file, then those that people added."""
    with store.state.connect() as conn:
        stored = load_stored(conn, spec.model)
    declared = [StoredEvent(event, "declared", None) for event in spec.events]
    return Answer(EVENTS, [*declared, *stored])
