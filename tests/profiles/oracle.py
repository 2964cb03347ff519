"""The statistics of profiles once more, in plain pandas and numpy, row by row and slowly."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mlmon_dagster.metrics.statistics import Binning
from mlmon_dagster.spec import ModelSpec


def rows_of(records: pa.Table) -> pd.DataFrame:
    """Turn records into a frame of Python objects, None for null."""
    frame = pd.DataFrame(records.to_pydict(), dtype=object)
    frame["window_start"] = pd.DatetimeIndex(frame["window_start"]).as_unit("us")
    frame["model_version"] = [version or "none" for version in frame["model_version"]]
    return frame


def slice_value(row: Any, columns: tuple[str, ...]) -> str:
    """Spell one row's value of a slice."""
    values = ["<null>" if row[c] is None else str(row[c]) for c in columns]
    return ",".join(
        v if v == "<null>" else v.replace("\\", "\\\\").replace(",", "\\,") for v in values
    )


def cells_of(frame: pd.DataFrame, spec: ModelSpec) -> dict[tuple[Any, ...], pd.DataFrame]:
    """Split the rows into the cells that a profile must have."""
    found = {}
    keys = ["window_start", "dataset", "model_version"]
    for key, part in frame.groupby(keys):
        found[(*key, "all", "all")] = part
        for columns in spec.slices:
            values = part.apply(slice_value, axis=1, args=(columns,))
            for value, some in part.groupby(values):
                found[(*key, ",".join(columns), value)] = some
    return dict(sorted(found.items()))


def numeric_code(binning: Binning, x: float, *, coarse_only: bool) -> int:
    """Find the bin of a number by walking over the edges."""
    coarse = sum(x > edge for edge in binning.edges)
    if coarse_only or binning.fine == 1:
        return coarse * binning.fine
    ends = [binning.low, *binning.edges, binning.high]
    left, right = ends[coarse], ends[coarse + 1]
    shares = [i / binning.fine for i in range(1, binning.fine)]
    return coarse * binning.fine + sum(x > left * (1 - s) + right * s for s in shares)


def category_code(binning: Binning, name: str) -> int:
    """Find the code of a category, other or unseen."""
    if name in binning.categories:
        return binning.categories.index(name)
    known = name in binning.tail or binning.is_open
    return len(binning.categories) + (0 if known else 1)


def label_state(actual: int | None) -> int:
    """Unlabelled 0, negative 1, positive 2."""
    return 0 if actual is None else 1 + actual


def score_code(score: float, actual: int | None) -> int:
    """Find the logit bin of a score, times three, plus the label's state."""
    if score in (0.0, 1.0):
        place = 0 if score == 0 else 1023
    else:
        logit = math.log(score / (1 - score))
        place = min(max(math.floor((logit + 14) / 28 * 1024), 0), 1023)
    return place * 3 + label_state(actual)


def log_loss(score: float, actual: int) -> float:
    """Negative log likelihood of one label."""
    right = score if actual else 1 - score
    return -math.log(max(right, 1e-15))


def count(codes: list[int], size: int) -> np.ndarray:
    """Count codes."""
    return np.bincount(np.array(codes, dtype=int), minlength=size)
