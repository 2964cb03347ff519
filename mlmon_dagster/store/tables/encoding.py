"""How columns are laid out in the Parquet files of the store's tables."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import ColumnProperties, WriterProperties

# Every partition being written keeps a row group in memory.
ROW_GROUP = 32_768
_SAMPLE = 2_000


def writer_properties(sample: pa.Table | pa.RecordBatch) -> WriterProperties:
    """Choose the encoding of each column by its first rows.

    A dictionary of values that seldom repeat, such as ids and most numbers, takes three quarters
    of the time of writing a file and is thrown away again.

    Args:
        sample: Rows to be written, or the first of them; without rows every column that can
            have a dictionary gets one.
    """
    plain = ColumnProperties(dictionary_enabled=False)
    rows = sample.slice(0, _SAMPLE)
    return WriterProperties(
        max_row_group_size=ROW_GROUP,
        compression="SNAPPY",
        column_properties={
            name: plain
            for name, values in zip(rows.schema.names, rows.columns, strict=True)
            if not pa.types.is_nested(values.type) and _seldom_repeats(values)
        }
        or None,
    )


def _seldom_repeats(values: pa.Array | pa.ChunkedArray) -> bool:
    n_valid = len(values) - values.null_count
    return bool(n_valid > 100 and 2 * pc.count_distinct(values).as_py() > n_valid)
