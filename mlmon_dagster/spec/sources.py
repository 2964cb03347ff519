"""Where the events of a model come from."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import Field

from mlmon_dagster.spec.scalars import Declared, Duration


class FileSource(Declared):
    """Landing files of one stream: a glob under the project folder."""

    path: str
    format: Literal["auto", "parquet", "csv", "jsonl"] = "auto"
    settle: Duration = dt.timedelta(seconds=60)
    max_bad_rate: float = Field(default=0.01, ge=0, le=1)
    max_bytes: int = Field(default=4 * 1024**3, gt=0)
    max_rows: int = Field(default=20_000_000, gt=0)


class Sources(Declared):
    """Where prediction events and ground truth land."""

    predictions: FileSource
    actuals: FileSource | None = None
