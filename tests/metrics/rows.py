"""From rows as they land to metrics: the real cast, the real SQL of bins and profiles, storage."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mlmon_dagster.ingest.declared_columns import columns_of
from mlmon_dagster.ingest.formats.parse import cast_column
from mlmon_dagster.metrics.frames import concat_frames
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.profiles import build_profiles
from mlmon_dagster.profiles.fit import fit_binnings
from mlmon_dagster.profiles.measures import MEASURES, measure
from mlmon_dagster.profiles.storage import from_rows, to_rows
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store.tables.columns import record_schema
from tests.profiles.records import DuckEngine

START = pd.Timestamp("2026-03-01", tz="UTC")
Profiles = dict[str, ColumnStatistics]


def make_spec(task: str, columns: dict[str, Any], **sections: Any) -> ModelSpec:
    """Return a model of a task; roles in addition to ids, times and the actual."""
    roles = {"prediction_id": "id", "event_time": "at", "actual": "y", "actual_time": "known"}
    return ModelSpec.model_validate(
        {
            "model": "m",
            "task": task,
            "owners": ["team:ml"],
            "time": {"start": dt.date(2026, 3, 1)},
            "source": {"predictions": {"path": "x/*.parquet"}, "actuals": {"path": "y/*.parquet"}},
            "columns": roles | columns,
            "features": {"site": {"type": "categorical", "nullable": True}},
            **sections,
        }
    )


def records(spec: ModelSpec, rows: pd.DataFrame, dataset: str = "production") -> pa.Table:
    """Return inference records of rows: the store's names, ``day``, ``lag`` in hours.

    Cells are cast as ingest does it: what is not finite becomes null and is noted.
    """
    declared = {c.name: c for s in ("predictions", "actuals") for c in columns_of(spec, s)}
    n = len(rows)
    starts = [START + pd.Timedelta(days=int(day)) for day in rows["day"]]
    lags = [pd.Timedelta(hours=float(lag)) for lag in rows.get("lag", pd.Series(np.ones(n)))]
    columns: dict[str, Any] = {
        "prediction_id": [f"{i:06}" for i in range(n)],
        "dataset": [dataset] * n,
        "event_time": starts,
        "window_start": starts,
        "window_date": [f"{start:%Y-%m-%d}" for start in starts],
        "actual_time": [start + lag for start, lag in zip(starts, lags, strict=True)],
    }
    odd: list[list[str]] = [[] for _ in range(n)]
    for name in rows.columns.intersection(list(declared)):
        is_text = rows[name].map(lambda value: isinstance(value, str)).any()
        # A number that is none stays one; pandas also writes a missing text so.
        values = pa.array(rows[name].tolist(), from_pandas=bool(is_text))
        cast = cast_column(values, declared[name], spec.time, "rows")
        assert not cast.faults, (name, cast.faults)
        columns[name] = cast.values
        for kind, mask in cast.not_finite.items():
            for i in np.flatnonzero(mask):
                odd[i].append(f"{name}:{kind}")
    columns["nonfinite"] = odd
    schema = record_schema(spec)
    arrays = [
        pa.array(columns[field.name], field.type)
        if isinstance(columns.get(field.name), list)
        else columns.get(field.name, pa.nulls(n)).cast(field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def profiled(
    spec: ModelSpec, current: pd.DataFrame, baseline: pd.DataFrame
) -> tuple[Profiles, Profiles]:
    """Profile windows and a baseline with the baseline's bins, through the stored form."""
    engine = DuckEngine(
        current=records(spec, current), baseline=records(spec, baseline, "validation")
    )
    binnings = fit_binnings(engine, spec, "baseline")
    sides = []
    for name in ("current", "baseline"):
        built = build_profiles(engine, spec, name, binnings)
        sides.append(built | from_rows(to_rows(built), binnings))
    return sides[0], sides[1]


def measured(
    spec: ModelSpec,
    current: pd.DataFrame,
    baseline: pd.DataFrame,
    families: Collection[str] = tuple(MEASURES),
) -> pd.DataFrame:
    """Return the metrics of some families, with ``day`` and ``family``."""
    mine, then = profiled(spec, current, baseline)
    frames = [measure(spec, name, mine, then).assign(family=name) for name in families]
    frame = concat_frames([frame for frame in frames if len(frame)])
    return frame.assign(day=(frame["window_start"] - START).dt.days) if len(frame) else frame
