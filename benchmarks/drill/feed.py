"""The landing folder of the drill: what arrives, when, and in which state."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.drill.traffic import DAY, MODEL


@dataclass
class Feed:
    """Files on their way to the landing folder.

    Attributes:
        folder: The project folder.
        waiting: Files that arrive on a later day: (day of arrival, stream, name, content).
    """

    folder: Path
    waiting: list[tuple[dt.date, str, str, bytes]] = field(default_factory=list)

    def send(
        self, stream: str, date: dt.date, frame: pd.DataFrame, delay: int = 0, part: str = ""
    ) -> None:
        """Send a day's rows; they arrive in the night after it, or ``delay`` days later."""
        self.send_bytes(stream, date, to_parquet(frame), delay, part)

    def send_bytes(
        self, stream: str, date: dt.date, content: bytes, delay: int = 0, part: str = ""
    ) -> None:
        """Send the content of a file as it is."""
        self.waiting.append((date + (1 + delay) * DAY, stream, f"{date}{part}.parquet", content))

    def arrive(self, today: dt.date) -> None:
        """Put what is due until today into the landing folder."""
        due = [item for item in self.waiting if item[0] <= today]
        self.waiting = [item for item in self.waiting if item[0] > today]
        for _, stream, name, content in due:
            folder = self.folder / "landing" / MODEL / stream
            folder.mkdir(parents=True, exist_ok=True)
            partial = folder / f"{name}.partial"
            partial.write_bytes(content)
            partial.rename(folder / name)


def to_parquet(frame: pd.DataFrame) -> bytes:
    """Write rows as Parquet; not-a-number values of the columns in ``attrs["nan"]`` stay such."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    for name in frame.attrs.get("nan", ()):
        values = pa.array(frame[name].to_numpy(dtype=np.float64), from_pandas=False)
        table = table.set_column(table.schema.get_field_index(name), name, values)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content
