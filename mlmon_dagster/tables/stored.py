"""The tables of what is stored: windows with their ground truth, and sizes of tables and files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, complete_windows, maturity_of
from mlmon_dagster.store import Store
from mlmon_dagster.store.reading import TableSize, describe_state, describe_tables
from mlmon_dagster.store.state import window_state
from mlmon_dagster.tables.rendering import frame_text
from mlmon_dagster.tables.table import Answer, Column, Table


@dataclass(frozen=True)
class WindowRow:
    """A window that is over.

    Attributes:
        window: Its name.
        n: Predictions; None, as all else, where nothing ever came.
        exempt: Those that never get ground truth.
        coverage: Share of the others whose ground truth has come.
        maturity: Whether it is judged by its ground truth yet.
        after_close: Ground truth that came after the window had closed.
        known_p50_hours: How long ground truth took, median.
        known_p99_hours: How long all but a hundredth of it took.
    """

    window: str
    n: int | None = None
    exempt: int | None = None
    coverage: float | None = None
    maturity: str | None = None
    after_close: int | None = None
    known_p50_hours: float | None = None
    known_p99_hours: float | None = None


def _say_known(row: WindowRow) -> str:
    if row.known_p50_hours is None:
        return "-"
    return f"{row.known_p50_hours:g} / {row.known_p99_hours:g}"


WINDOWS: Table[WindowRow] = Table(
    "windows",
    (
        Column("WINDOW", "window"),
        Column("ROWS", "n", "{:,}", is_number=True),
        Column("EXEMPT", "exempt", "{:,}", is_number=True),
        Column("COVERAGE", "coverage", "{:.1%}", is_number=True),
        Column("MATURITY", lambda row: row.maturity or "-"),
        Column("AFTER CLOSE", "after_close", "{:,}", is_number=True),
        Column("KNOWN P50/P99 H", _say_known, is_number=True),
    ),
)


def list_windows(project: Project, spec: ModelSpec, last: int) -> list[WindowRow]:
    """Return the newest windows that are over, oldest first, at most so many."""
    now, state = project.now(), project.store.state
    states = window_state.load(state, spec.model)
    timing = window_state.timing_of(state, spec.model)
    found = []
    for window in complete_windows(spec.time, now)[-last:]:
        known = states.get(window.start)
        if known is None:
            found.append(WindowRow(window.key))
            continue
        hours = json.loads(known.lags).get("known_hours") or {}
        found.append(
            WindowRow(
                window.key,
                known.n,
                known.n_exempt,
                known.coverage,
                maturity_of(spec, window, known.n_expected, known.n_actual, now, timing),
                known.n_late_after_close,
                hours.get("p50"),
                hours.get("p99"),
            )
        )
    return found


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
    import pandas as pd

    return [
        *([frame_text(pd.DataFrame(tables))] if tables else []),
        f"  landing files: {files or 'none'}; rows refused {state['n_refused']:,}, "
        f"duplicate {state['n_duplicate']:,}, conflicting {state['n_conflict']:,}",
        f"  metrics: {state['n_metrics']:,}{moment}",
    ]
