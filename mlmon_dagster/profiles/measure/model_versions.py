"""Profiles of all model versions together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from mlmon_dagster.metrics.statistics import CELL_KEYS, ColumnStatistics, merge_columns
from mlmon_dagster.spec.names import ALL

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

WITHOUT_VERSION = tuple(key for key in CELL_KEYS if key != "model_version")


def all_over_versions(profiles: Mapping[str, ColumnStatistics]) -> dict[str, ColumnStatistics]:
    """Add up each window's versions; columns that share their cells' frame are looked at once."""
    single: dict[int, pd.DataFrame | None] = {}
    several = {}
    found = dict(profiles)
    for column, stats in profiles.items():
        key = id(stats.cells)
        if key not in single:
            is_several = stats.cells.duplicated(list(WITHOUT_VERSION)).any()
            single[key] = None if is_several else stats.cells.assign(model_version=ALL)
        cells = single[key]
        if cells is None:
            several[column] = stats
        else:
            found[column] = replace(stats, cells=cells)
    return found | merge_columns(several, WITHOUT_VERSION)


def over_versions(stats: ColumnStatistics) -> ColumnStatistics:
    """Return the statistics of one column over all versions, adding up only where there are two."""
    return all_over_versions({"": stats})[""]


def side_by_side(cells: pd.DataFrame) -> NDArray[np.bool_]:
    """Say which cells are of windows that hold several versions of the same slice."""
    several: NDArray[np.bool_] = cells.duplicated(list(WITHOUT_VERSION), keep=False).to_numpy()
    return several
