"""Profiles as rows of a table: one per cell and column, counts kept as sparse lists."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlmon_dagster.errors import BaselineMissingError
from mlmon_dagster.metrics.statistics import ALL, CELL_KEYS, Binning, ColumnStatistics
from mlmon_dagster.profiles.payload import stored_binnings
from mlmon_dagster.spec.model import ModelSpec, SliceKey
from mlmon_dagster.spec.windows import Window
from mlmon_dagster.store import Store
from mlmon_dagster.store.sql import literal, literals

KIND = "profiles"
_COUNTS = ("n", "n_null", "n_nan", "n_inf", "n_out_of_range")
_FLOATS = ("minimum", "maximum", "total", "total_sq")
SCHEMA = pa.schema(
    [
        ("window_start", pa.timestamp("us", "UTC")),
        *((key, pa.string()) for key in CELL_KEYS[1:]),
        ("column_name", pa.string()),
        ("binning_id", pa.string()),
        *((name, pa.int64()) for name in _COUNTS),
        *((name, pa.float64()) for name in _FLOATS),
        ("codes", pa.list_(pa.int32())),
        ("counts", pa.list_(pa.int64())),
        ("unseen", pa.list_(pa.string())),
        ("unseen_counts", pa.list_(pa.int64())),
    ]
)


def save_profiles(
    store: Store,
    spec: ModelSpec,
    profiles: Mapping[str, ColumnStatistics],
    windows: Sequence[Window],
    dataset: str | None = None,
) -> None:
    """Replace the profiles of some windows in one commit.

    Args:
        store: The store.
        spec: The model.
        profiles: What `build_profiles` returned for those windows' records.
        windows: What to replace; one without records loses its old profiles.
        dataset: Replace the profiles of this dataset only; all by default.
    """
    rows = to_rows(profiles)
    dates = _window_dates(rows.column("window_start"), spec.time.zone)
    predicate = "" if dataset is None else f"dataset = {literal(dataset)}"
    table = store.table(KIND, spec.model)
    table.replace(rows.append_column("window_date", dates), windows, predicate)


def load_profiles(
    store: Store,
    spec: ModelSpec,
    *,
    start: dt.datetime | None = None,
    end: dt.datetime | None = None,
    dataset: str | None = None,
    columns: Sequence[str] | None = None,
    slices: Sequence[SliceKey] | None = None,
    at: dt.datetime | None = None,
) -> dict[str, ColumnStatistics]:
    """Read profiles that were made with the bins of the present baseline.

    Args:
        store: The store.
        spec: The model.
        start: Windows that start at or after this moment.
        end: Windows that start before this moment.
        dataset: Of this dataset only.
        columns: Of these columns only.
        slices: Of these slice keys only, such as ``("origin",)``; ``()`` is the whole.
        at: Made with the bins of the baseline in force for a window that starts then; by default
            of windows to come.

    Returns:
        Column -> statistics, cells sorted by `CELL_KEYS`. A column without any profile is
        absent, and so is everything as long as there is no baseline. Windows profiled with an
        earlier baseline are left out until they are profiled again.
    """
    try:
        binnings = stored_binnings(store, spec, at)
    except BaselineMissingError:
        return {}
    wanted = {name: b for name, b in binnings.items() if columns is None or name in columns}
    conditions = [f"column_name IN ({literals(wanted)})"]
    if start is not None:
        conditions.append(f"window_start >= {literal(start)}")
    if end is not None:
        conditions.append(f"window_start < {literal(end)}")
    if dataset is not None:
        conditions.append(f"dataset = {literal(dataset)}")
    if slices is not None:
        conditions.append(f"slice_key IN ({literals(','.join(key) or ALL for key in slices)})")
    rows = store.table(KIND, spec.model).read(where=" AND ".join(conditions))
    return from_rows(rows, wanted)


def to_rows(profiles: Mapping[str, ColumnStatistics]) -> pa.Table:
    """Return one row per cell and column; bins without rows take no room."""
    parts = [_column_rows(name, stats) for name, stats in profiles.items()]
    return pa.concat_tables(parts) if parts else SCHEMA.empty_table()


def _column_rows(name: str, stats: ColumnStatistics) -> pa.Table:
    size = len(stats)
    cells, codes = np.nonzero(stats.counts)
    offsets = np.searchsorted(cells, np.arange(size + 1)).astype(np.int32)
    unseen = stats.unseen or [{}] * size
    columns: dict[str, Any] = {key: pa.array(stats.cells[key]) for key in CELL_KEYS}
    columns |= {"column_name": [name] * size, "binning_id": [stats.binning.binning_id] * size}
    columns |= {key: getattr(stats, key) for key in _COUNTS}
    columns |= {key: pa.array(getattr(stats, key), from_pandas=True) for key in _FLOATS}
    columns["codes"] = _lists(offsets, pa.array(codes.astype(np.int32)))
    columns["counts"] = _lists(offsets, pa.array(stats.counts[cells, codes]))
    columns["unseen"] = [list(names) for names in unseen]
    columns["unseen_counts"] = [list(names.values()) for names in unseen]
    return pa.table(columns, schema=SCHEMA)


def _lists(offsets: NDArray[np.int32], values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def from_rows(rows: pa.Table, binnings: Mapping[str, Binning]) -> dict[str, ColumnStatistics]:
    """Return the statistics that `to_rows` wrote, of the columns and bins given.

    Rows of other columns, or made with other bins, are left out; cells are sorted.
    """
    if rows.num_rows == 0:
        return {}
    rows = rows.sort_by([("column_name", "ascending"), *((k, "ascending") for k in CELL_KEYS)])
    found: dict[str, ColumnStatistics] = {}
    shared: tuple[pa.Table, pd.DataFrame] | None = None
    for name, binning in binnings.items():
        mine = pc.and_(
            pc.equal(rows.column("column_name"), name),
            pc.equal(rows.column("binning_id"), binning.binning_id),
        )
        part = rows.filter(mine).combine_chunks()
        if part.num_rows == 0:
            continue
        keys = part.select(CELL_KEYS)
        if shared is None or not shared[0].equals(keys):
            shared = keys, _cells(keys)  # one frame for all columns, which nearly always agree
        found[name] = _from_column_rows(part, binning, shared[1])
    return found


def _cells(keys: pa.Table) -> pd.DataFrame:
    cells: pd.DataFrame = keys.to_pandas()
    cells["window_start"] = cells["window_start"].astype("datetime64[us, UTC]")
    return cells


def _from_column_rows(rows: pa.Table, binning: Binning, cells: pd.DataFrame) -> ColumnStatistics:
    size = rows.num_rows
    counts = np.zeros((size, binning.size), np.int64)
    lengths = pc.list_value_length(rows.column("codes")).to_numpy()
    codes = pc.list_flatten(rows.column("codes")).to_numpy()
    counts[np.repeat(np.arange(size), lengths), codes] = pc.list_flatten(
        rows.column("counts")
    ).to_numpy()
    arrays: dict[str, Any] = {key: rows.column(key).to_numpy() for key in _COUNTS}
    arrays |= {key: pc.fill_null(rows.column(key), float("nan")).to_numpy() for key in _FLOATS}
    unseen: list[dict[str, int]] = []
    if binning.kind == "categorical":
        names, numbers = rows.column("unseen").to_pylist(), rows.column("unseen_counts").to_pylist()
        unseen = [dict(zip(a, b, strict=True)) for a, b in zip(names, numbers, strict=True)]
    return ColumnStatistics(binning, cells, counts, unseen=unseen, **arrays)


def _window_dates(starts: pa.ChunkedArray, zone: str) -> pa.Array:
    local = pd.DatetimeIndex(starts.to_pandas()).tz_convert(zone)
    return pa.array(local.strftime("%Y-%m-%d"), pa.string())
