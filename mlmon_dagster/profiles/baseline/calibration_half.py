"""A random half of the baseline, so that what is learnt from one half is measured on the other."""

from __future__ import annotations

from collections.abc import Mapping

from mlmon_dagster.metrics.estimated.multiclass import CONFIDENCE
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics, empty
from mlmon_dagster.profiles.build import build_profiles
from mlmon_dagster.profiles.sql.bin_codes import DUCKDB, Dialect
from mlmon_dagster.profiles.sql.compiler import Engine
from mlmon_dagster.profiles.sql.loss_columns import DECIDED
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.tasks import class_scores

SEED = 20130401
_PREFIX = ":half/"


def scored_columns(spec: ModelSpec) -> list[str]:
    """Return the profiled columns that performance is estimated from, without ground truth."""
    if spec.columns.actual is None:
        return []
    if spec.task == "binary_classification" and spec.columns.score is not None:
        decided = [DECIDED] if spec.columns.prediction is not None else []
        return ["score", *decided]
    if spec.task == "multiclass_classification" and spec.columns.scores is not None:
        return [*class_scores(spec).values(), CONFIDENCE]
    return []


def in_half(seed: int = SEED) -> str:
    """Return the SQL condition of one half of the rows, by hash of their id.

    The same ids are in it on every engine and every day; another seed draws another half.
    """
    return f"SUBSTR(MD5(prediction_id || ':{seed}'), 1, 1) < '8'"


def profile_half(
    engine: Engine,
    spec: ModelSpec,
    from_sql: str,
    binnings: Mapping[str, Binning],
    dialect: Dialect = DUCKDB,
    key: str = "",
) -> dict[str, ColumnStatistics]:
    """Profile one half of the baseline, of the whole alone and not of its slices.

    Args:
        engine: Runs SQL, such as a ``Store``.
        spec: The model.
        from_sql: The rows of the baseline, to stand after FROM.
        binnings: Their bins.
        dialect: How the engine wants its SQL.
        key: Of personal values, see `binning.value_expressions`.

    Returns:
        Statistics by the name that they are stored under beside those of the whole baseline.
    """
    mine = {name: binnings[name] for name in scored_columns(spec) if name in binnings}
    if not mine:
        return {}
    half = f"(SELECT records.* FROM {from_sql} AS records WHERE {in_half()})"
    whole = spec.model_copy(update={"slices": ()})
    found = build_profiles(engine, whole, half, mine, dialect, key)
    return {f"{_PREFIX}{name}": stats for name, stats in found.items()}


def half_binnings(spec: ModelSpec, binnings: Mapping[str, Binning]) -> dict[str, Binning]:
    """Return the bins of what `profile_half` stores, by its names."""
    names = [name for name in scored_columns(spec) if name in binnings]
    return {f"{_PREFIX}{name}": binnings[name] for name in names}


def split_halves(
    spec: ModelSpec,
    found: Mapping[str, ColumnStatistics],
    binnings: Mapping[str, Binning],
) -> dict[str, ColumnStatistics]:
    """Return column -> statistics of the half, from what was stored."""
    return {
        name.removeprefix(_PREFIX): found.get(name, empty(binning))
        for name, binning in half_binnings(spec, binnings).items()
    }
