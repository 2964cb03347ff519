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
# is a new version of the ground truth.
_KEYS: Final[dict[Stream, tuple[str, ...]]] = {
    "predictions": ("dataset", "prediction_id"),
    "actuals": ("dataset", "prediction_id", "actual_time"),
}


def classify(
    rows: pa.Table, known: pa.Table, stream: Stream, may_repeat: NDArray[np.bool_]
) -> NDArray[np.int8]:
    """Classify each row by what came before it.

    Args:
        rows: Canonical rows of a batch, in a fixed order.
        known: Rows of the log with the same ids: key columns and row_hash.
        stream: Which key to use.
        may_repeat: The rows whose id is in the batch or in ``known`` once more, and perhaps
            others; all other rows are new without looking.

    Returns:
        One `Kind` per row. The counts add up to the same totals in any order of delivery.
    """
    kinds = np.full(rows.num_rows, Kind.NEW, dtype=np.int8)
    if not may_repeat.any():
        return kinds
    keys = list(_KEYS[stream])
    columns = [*keys, "row_hash"]
    asked = rows.select(columns).filter(pa.array(may_repeat))
    frame = pa.concat_tables([known.select(columns).cast(asked.schema), asked]).to_pandas()
    found = np.full(len(frame), Kind.NEW, dtype=np.int8)
    found[_repeated(frame, keys)] = Kind.CONFLICT
    found[_repeated(frame, columns)] = Kind.DUPLICATE
    kinds[may_repeat] = found[known.num_rows :]
    return kinds


def _repeated(frame: pd.DataFrame, columns: list[str]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = frame.duplicated(columns).to_numpy()
    return found
