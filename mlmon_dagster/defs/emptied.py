"""Metrics of windows that have lost all their rows: to an erasure, or to an earlier prediction."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlmon_dagster.spec import ALL
from mlmon_dagster.store.state import metric_log
from mlmon_dagster.store.state.window_steps import StepMark

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.defs.compute import Work
    from mlmon_dagster.metrics.statistics import ColumnStatistics

PRODUCTION = "production"
NO_RECORDS = "no_records"


def void_emptied(
    work: Work,
    profiles: Mapping[str, ColumnStatistics],
    marks: Mapping[dt.datetime, StepMark],
) -> None:
    """Say of each metric that a window without any rows still has that it has none.

    Nothing is measured in such a window, so its older numbers would stay the newest for ever.

    Args:
        work: The windows.
        profiles: Their profiles, of some columns at least.
        marks: What the metrics of each window are made from.
    """
    import pandas as pd

    cells: set[tuple[dt.datetime, str]] = set()
    for stats in profiles.values():
        named = stats.cells[["window_start", "dataset"]].drop_duplicates()
        cells |= set(zip(named["window_start"], named["dataset"], strict=True))
    datasets = {PRODUCTION, *(dataset for _, dataset in cells)}
    wanted = {(window.start, dataset) for window in work.windows for dataset in datasets}
    if not profiles or not wanted - cells:
        return
    state = work.project.store.state
    stored = metric_log.newest(
        state, work.spec.model, slice_key=ALL, start=work.start, end=work.end
    )
    empty = [
        start.to_pydatetime() in marks and (start, dataset) not in cells
        for start, dataset in zip(stored["window_start"], stored["dataset"], strict=True)
    ]
    stale = stored[(stored["reason"] != NO_RECORDS) & pd.Series(empty, stored.index, dtype=bool)]
    if len(stale):
        metric_log.append(state, _voided(work, stale, marks))


def _voided(work: Work, stale: pd.DataFrame, marks: Mapping[dt.datetime, StepMark]) -> pd.DataFrame:
    nothing = dict.fromkeys(("value", "lower", "upper", "p_value", "actual_coverage"))
    mine = [marks[start.to_pydatetime()] for start in stale["window_start"]]
    return stale.assign(
        **nothing,
        n=0,
        reason=NO_RECORDS,
        data_version=[mark.data_version for mark in mine],
        maturity=[mark.maturity for mark in mine],
        run_id=work.run_id,
        computed_at=work.now,
    )
