"""Tell new rows from duplicates and conflicts, within a batch and against the whole log."""

from __future__ import annotations

import enum
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from mlmon_dagster.ingest.layout import Stream


class Kind(enum.IntEnum):
    """What a row adds to the log."""

    NEW = 0
    DUPLICATE = 1  # the same key and content are there
    CONFLICT = 2  # the same key is there with other content; kept, the records choose


# A second content under one of these is a conflict. A later actual of a prediction is none: it
# is a new version of the ground truth. Without a time of its own an actual is later by its
# arrival, so that no two are ever at the same moment.
_KEYS: Final[dict[Stream, tuple[str, ...]]] = {
    "predictions": ("dataset", "prediction_id"),
    "actuals": ("dataset", "prediction_id", "actual_time"),
}
ARRIVAL: Final = ("ingested_at", "row_number")


def classify(
    rows: pa.Table, known: pa.Table, stream: Stream, may_repeat: NDArray[np.bool_]
) -> NDArray[np.int8]:
    """Classify each row by what came before it.

    Args:
        rows: Canonical rows of a batch, in a fixed order; in that of arrival, if they are actuals
            without a time.
        known: Rows of the log with the same ids: key columns and row_hash; of actuals without a
            time also where they stand in the order of arrival.
        stream: Which key to use.
        may_repeat: The rows whose id is in the batch or in ``known`` once more, and perhaps
            others; all other rows are new without looking.

    Returns:
        One `Kind` per row. The counts add up to the same totals in any order of delivery, unless
        the order is all that tells which ground truth is the newest.
    """
    kinds = np.full(rows.num_rows, Kind.NEW, dtype=np.int8)
    if not may_repeat.any():
        return kinds
    if is_by_arrival(rows, stream):
        known = known.sort_by([(name, "ascending") for name in ARRIVAL])
    keys = [name for name in _KEYS[stream] if name in rows.column_names]
    columns = [*keys, "row_hash"]
    asked = rows.select(columns).filter(pa.array(may_repeat))
    frame = pa.concat_tables([known.select(columns).cast(asked.schema), asked]).to_pandas()
    found = np.full(len(frame), Kind.NEW, dtype=np.int8)
    if is_by_arrival(rows, stream):
        found[_says_what_is_known(frame, keys)] = Kind.DUPLICATE
    else:
        found[_repeated(frame, keys)] = Kind.CONFLICT
        found[_repeated(frame, columns)] = Kind.DUPLICATE
    kinds[may_repeat] = found[known.num_rows :]
    return kinds


def is_by_arrival(rows: pa.Table, stream: Stream) -> bool:
    """Say whether rows are ground truth of which the order of arrival tells the newest."""
    return stream == "actuals" and "actual_time" not in rows.column_names


def _says_what_is_known(frame: pd.DataFrame, keys: list[str]) -> NDArray[np.bool_]:
    """Return the rows whose content is that of the row of their key just before them.

    An earlier content that comes back after a correction is a correction itself.
    """
    groups = frame.groupby(keys, sort=False).ngroup().to_numpy()
    order = np.argsort(groups, kind="stable")
    groups, hashes = groups[order], frame["row_hash"].to_numpy()[order]
    same = np.zeros(len(frame), dtype=bool)
    same[order[1:]] = (groups[1:] == groups[:-1]) & (hashes[1:] == hashes[:-1])
    return same


def _repeated(frame: pd.DataFrame, columns: list[str]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = frame.duplicated(columns).to_numpy()
    return found
