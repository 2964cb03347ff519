"""The table of what is stored: sizes of tables, and what became of landing files."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store
from mlmon_dagster.store.reading import TableSize, describe_state, describe_tables
from mlmon_dagster.tables.rendering import frame_text
from mlmon_dagster.tables.table import Answer, Table

STORED: Table[dict[str, object]] = Table("stored", ())


def ask_stored(store: Store, specs: Sequence[ModelSpec]) -> Answer[dict[str, object]]:
    """Return the tables of some models, in text with their files and metrics below."""
    rows, texts = list[dict[str, object]](), list[str]()
    for spec in specs:
        tables = describe_tables(store, spec.model)
        rows += [{"model": spec.model, **table} for table in tables]
        texts += [spec.model, *_describe(store, spec, tables)]
    return Answer(STORED, rows, text="\n".join(texts))


def _describe(store: Store, spec: ModelSpec, tables: Sequence[TableSize]) -> list[str]:
    state = describe_state(store, spec.model)
    files = ", ".join(f"{n:,} {status}" for status, n in sorted(state["files"].items()))
    newest = state["computed_at"]
    moment = f", newest of {newest:%Y-%m-%d %H:%M} UTC" if newest else ""
    return [
        *([frame_text(pd.DataFrame(tables))] if tables else []),
        f"  landing files: {files or 'none'}; rows refused {state['n_refused']:,}, "
        f"duplicate {state['n_duplicate']:,}, conflicting {state['n_conflict']:,}",
        f"  metrics: {state['n_metrics']:,}{moment}",
    ]
