"""Profiles as rows of a table: one per cell and column, counts kept as sparse lists."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, TypedDict, Unpack
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlmon_dagster.metrics import Ints
from mlmon_dagster.metrics.performance.roc import ScoreOrder
from mlmon_dagster.metrics.statistics import CELL_KEYS, Binning, ColumnStatistics
from mlmon_dagster.profiles.compiler import as_numpy
from mlmon_dagster.spec.declaration import SliceKey
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.windows import Window
from mlmon_dagster.store import Store
from mlmon_dagster.store.state.sql import literal, literals

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
_KEYS = pa.schema([SCHEMA.field(key) for key in CELL_KEYS])


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


class Wanted(TypedDict, total=False):
    """Which profiles are read; all by default.

    Attributes:
        start: Windows that start at or after this moment.
        end: Windows that start before this moment.
        dataset: Of this dataset only.
        slices: Of these slice keys only, such as ``("origin",)``; ``()`` is the whole.
    """

    start: dt.datetime | None
    end: dt.datetime | None
    dataset: str | None
    slices: Sequence[SliceKey] | None


def load_profiles(
    store: Store,
    spec: ModelSpec,
    binnings: Mapping[str, Binning],
    columns: Sequence[str] | None = None,
    **wanted: Unpack[Wanted],
) -> dict[str, ColumnStatistics]:
    """Read profiles that were made with some bins, usually those in force.

    Args:
        store: The store.
        spec: The model.
        binnings: Column -> bins.
        columns: Of these columns only.
        **wanted: See `Wanted`.

    Returns:
        Column -> statistics, cells sorted by `CELL_KEYS`. A column without any profile is
        absent. Windows profiled with an earlier baseline are left out until they are profiled
        again.
    """
    known = {name: b for name, b in binnings.items() if columns is None or name in columns}
    return from_rows(read_rows(store, spec, known, **wanted), known)


def read_rows(
    store: Store, spec: ModelSpec, columns: Iterable[str], **wanted: Unpack[Wanted]
) -> pa.Table:
    """Read profiles as they are stored, whatever bins they were made with; see `load_profiles`."""
    start, end = wanted.get("start"), wanted.get("end")
    dataset, slices = wanted.get("dataset"), wanted.get("slices")
    conditions = [f"column_name IN ({literals(columns)})"]
    if start is not None:
        conditions.append(f"window_start >= {literal(start)}")
    if end is not None:
        conditions.append(f"window_start < {literal(end)}")
    if dataset is not None:
        conditions.append(f"dataset = {literal(dataset)}")
    if slices is not None:
        conditions.append(f"slice_key IN ({literals(map(name_key, slices))})")
    keep = partial(_has_dates, _date(start, spec.time.zone), _date(end, spec.time.zone))
    return store.table(KIND, spec.model).read(where=" AND ".join(conditions), keep=keep)


def name_key(key: SliceKey) -> str:
    """Write a slice key as it is stored; ``all`` for the whole."""
    return ",".join(key) or ALL


def _date(moment: dt.datetime | None, zone: str) -> str | None:
    return None if moment is None else moment.astimezone(ZoneInfo(zone)).date().isoformat()


def _has_dates(first: str | None, last: str | None, partition: Mapping[str, str]) -> bool:
    """Say whether a partition may hold windows that start on these dates or between them."""
    date = partition["window_date"]
    return (first is None or first <= date) and (last is None or date <= last)


def to_rows(profiles: Mapping[str, ColumnStatistics]) -> pa.Table:
    """Return one row per cell and column; bins without rows take no room."""
    # Columns nearly always share the frame of their cells.
    frames = {id(stats.cells): stats.cells for stats in profiles.values()}
    keys = {
        place: {key: pa.array(frame[key]) for key in CELL_KEYS} for place, frame in frames.items()
    }
    parts = [_column_rows(name, one, keys[id(one.cells)]) for name, one in profiles.items()]
    return pa.concat_tables(parts) if parts else SCHEMA.empty_table()


def _column_rows(name: str, stats: ColumnStatistics, keys: Mapping[str, pa.Array]) -> pa.Table:
    size = len(stats)
    cells, codes, counts = _filled(stats)
    offsets = np.searchsorted(cells, np.arange(size + 1)).astype(np.int32)
    unseen = stats.unseen or [{}] * size
    columns: dict[str, object] = {
        **keys,
        "column_name": [name] * size,
        "binning_id": [stats.binning.binning_id] * size,
    }
    columns |= {key: getattr(stats, key) for key in _COUNTS}
    columns |= {key: pa.array(getattr(stats, key), from_pandas=True) for key in _FLOATS}
    columns["codes"] = _lists(offsets, pa.array(codes.astype(np.int32)))
    columns["counts"] = _lists(offsets, pa.array(counts))
    columns["unseen"] = [list(names) for names in unseen]
    columns["unseen_counts"] = [list(names.values()) for names in unseen]
    return pa.table(columns, schema=SCHEMA)


def _filled(stats: ColumnStatistics) -> tuple[Ints, ...]:
    """Return cell, code and rows of what is not empty."""
    if stats.order:
        sizes = [len(scores.codes) for scores in stats.order]
        # Steps from code to code: small numbers, which compress to a third.
        steps = np.concatenate([np.diff(scores.codes, prepend=0) for scores in stats.order])
        rows = np.concatenate([scores.rows for scores in stats.order])
        return np.repeat(np.arange(len(stats)), sizes), steps, rows
    cells, codes = np.nonzero(stats.counts)
    return cells, codes, stats.counts[cells, codes]


def _lists(offsets: NDArray[np.int32], values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def from_rows(rows: pa.Table, binnings: Mapping[str, Binning]) -> dict[str, ColumnStatistics]:
    """Return the statistics that `to_rows` wrote, of the columns and bins given.

    Rows of other columns, or made with other bins, are left out; cells are sorted.
    """
    if rows.num_rows == 0:
        return {}
    place = {name: i for i, name in enumerate(binnings)}
    ids = pa.array([binning.binning_id for binning in binnings.values()], pa.string())
    column = pc.index_in(rows.column("column_name"), pa.array(list(place), pa.string()))
    mine = pc.fill_null(pc.equal(pc.take(ids, column), rows.column("binning_id")), False)
    kept = rows.filter(mine)
    places = as_numpy(column.filter(mine))
    ranks = [_ranks(kept.column(key)) for key in CELL_KEYS]
    order = np.lexsort([*reversed(ranks), places])
    cells = np.column_stack(ranks)[order]
    return _Rows(kept.take(pa.array(order)).combine_chunks(), places[order], cells).statistics(
        binnings
    )


class _Rows:
    """Rows of several columns, in the order of the columns and of the cells, as arrays.

    Everything is taken out of Arrow once for all columns: a call a column costs more than the rows.

    Args:
        rows: R rows.
        places: Position of each row's column among the binnings, ascending, (R,).
        cells: Integers that are equal for rows of equal cells, (R, keys).
    """

    def __init__(self, rows: pa.Table, places: np.ndarray, cells: np.ndarray) -> None:
        self._rows, self._places, self._cells = rows, places, cells
        self._keys = rows.select(CELL_KEYS).cast(_KEYS)
        self._arrays: dict[str, np.ndarray] = {n: as_numpy(rows.column(n)) for n in _COUNTS}
        self._arrays |= {n: as_numpy(rows.column(n), float("nan")) for n in _FLOATS}
        lengths = as_numpy(pc.list_value_length(rows.column("codes")))
        self._ends = np.concatenate([[0], np.cumsum(lengths)])
        self._codes, self._counts = (
            as_numpy(pc.list_flatten(rows.column(name))) for name in ("codes", "counts")
        )
        self._has_unseen = as_numpy(pc.list_value_length(rows.column("unseen"))) > 0

    def statistics(self, binnings: Mapping[str, Binning]) -> dict[str, ColumnStatistics]:
        """Return those of every column that has rows."""
        bounds = np.searchsorted(self._places, np.arange(len(binnings) + 1)).tolist()
        found: dict[str, ColumnStatistics] = {}
        shared: tuple[np.ndarray, pd.DataFrame] | None = None
        for (name, binning), (begin, end) in zip(binnings.items(), pairwise(bounds), strict=True):
            if begin == end:
                continue
            keys = self._cells[begin:end]
            if shared is None or not np.array_equal(shared[0], keys):
                # one frame for all columns, which nearly always agree
                shared = keys, self._keys.slice(begin, end - begin).to_pandas()
            found[name] = self._column(binning, slice(begin, end), shared[1])
        return found

    def _column(self, binning: Binning, rows: slice, cells: pd.DataFrame) -> ColumnStatistics:
        size = rows.stop - rows.start
        counts = np.zeros((size, binning.size), np.int64)
        ends = self._ends[rows.start : rows.stop + 1]
        mine = slice(ends[0], ends[-1])
        cell, codes, filled = np.repeat(np.arange(size), np.diff(ends)), self._codes, self._counts
        ordered: list[ScoreOrder] = []
        if binning.kind == "order":
            ordered = [
                ScoreOrder(np.cumsum(codes[a:b], dtype=np.int64), filled[a:b])
                for a, b in pairwise(ends.tolist())
            ]
            for place, (of_cell, rows_of) in enumerate(ordered):
                np.add.at(counts[place], of_cell & 1, rows_of)
        else:
            counts[cell, codes[mine]] = filled[mine]
        unseen = self._unseen(rows) if binning.kind == "categorical" else []
        arrays: dict[str, Any] = {name: values[rows] for name, values in self._arrays.items()}
        return ColumnStatistics(binning, cells, counts, unseen=unseen, order=ordered, **arrays)

    def _unseen(self, rows: slice) -> list[dict[str, int]]:
        found: list[dict[str, int]] = [{} for _ in range(rows.start, rows.stop)]
        for row in np.flatnonzero(self._has_unseen[rows]).tolist():
            names, numbers = (
                self._rows.column(name)[rows.start + row].as_py()
                for name in ("unseen", "unseen_counts")
            )
            found[row] = dict(zip(names, numbers, strict=True))
        return found


def _ranks(column: pa.ChunkedArray) -> np.ndarray:
    """Return integers in the order of the values."""
    values = pc.unique(column)
    return as_numpy(pc.index_in(column, values.take(pc.sort_indices(values))))


def _window_dates(starts: pa.ChunkedArray, zone: str) -> pa.Array:
    local = pd.DatetimeIndex(starts.to_pandas()).tz_convert(zone)
    return pa.array(local.strftime("%Y-%m-%d"), pa.string())
