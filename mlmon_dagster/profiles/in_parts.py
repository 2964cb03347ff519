"""Profiles of more rows than fit into memory: part by part, each added to those before it.

Every statistic is a sum, a smallest or a largest value, so however rows are divided, in whatever
order, the counts are the same and the sums differ by rounding alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from mlmon_dagster.metrics.drift.joint import JOINT
from mlmon_dagster.metrics.statistics import CELL_KEYS, Binning, ColumnStatistics, merge_columns
from mlmon_dagster.profiles.bins.fit import Explained, value_expressions
from mlmon_dagster.profiles.bins.joint import profile_joint
from mlmon_dagster.profiles.build import build_profiles
from mlmon_dagster.profiles.sql.bin_codes import DUCKDB
from mlmon_dagster.profiles.sql.compiler import Engine
from mlmon_dagster.profiles.sql.loss_columns import row_source
from mlmon_dagster.profiles.storage import from_rows, to_rows
from mlmon_dagster.spec.model import ModelSpec


def profile_in_parts(
    engine: Engine,
    spec: ModelSpec,
    sources: Sequence[str],
    whole: str,
    binnings: Mapping[str, Binning],
    key: str = "",
    explain: Callable[[str], Explained | None] = lambda _: None,
) -> dict[str, ColumnStatistics]:
    """Do what `build_profiles` does, holding one part's rows at a time.

    Args:
        engine: Runs SQL, such as a ``Store``.
        spec: The model.
        sources: Parts of the inference records, to stand after FROM; every row is in one of them,
            and of a ranking whole groups are.
        whole: All of them, of which samples are read for what has to see one sample.
        binnings: Column -> bins.
        key: Of personal values.
        explain: Computes the SHAP values of a part, see `explained_by`.
    """
    if len(sources) == 1:
        [source] = sources
        return build_profiles(engine, spec, source, binnings, key=key, explained=explain(source))
    apart = {name: binning for name, binning in binnings.items() if name != JOINT}
    found: dict[str, ColumnStatistics] = {}
    for source in sources:
        part = build_profiles(engine, spec, source, apart, key=key, explained=explain(source))
        found = added_up([found, part], apart) if found else part
    values = value_expressions(spec, key)
    return found | profile_joint(engine, row_source(spec, whole), binnings, values, DUCKDB)


def added_up(
    parts: Sequence[Mapping[str, ColumnStatistics]], binnings: Mapping[str, Binning]
) -> dict[str, ColumnStatistics]:
    """Add profiles up, cell by cell; a part may lack cells that others have."""
    rows = pa.concat_tables([to_rows(part) for part in parts])
    return {**parts[0], **merge_columns(from_rows(rows, binnings), CELL_KEYS)}
