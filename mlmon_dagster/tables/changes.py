"""The tables of what people changed: a model's history, and its baselines."""

from __future__ import annotations

from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store, baselines
from mlmon_dagster.store.baselines import Promotion
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
