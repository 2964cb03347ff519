"""Choosing the bins of every column from the rows of the baseline, and from nothing else.

Edges that depended on the window would hide a shift: one outlier would stretch them. The outer
bins are open, so whatever comes later has a bin. `metrics.binnings` says what the codes mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import pyarrow as pa

from mlmon_dagster.metrics.estimated.multiclass import CONFIDENCE
from mlmon_dagster.metrics.statistics import Binning, Kind
from mlmon_dagster.profiles.bins.joint import fit_joint
from mlmon_dagster.profiles.bins.order_statistics import (
    OrderStatistics,
    order_statistics,
    quantiles_of,
)
from mlmon_dagster.profiles.bins.shapes import (
    MAX_CATEGORIES,
    MAX_TAIL,
    categorical_binning,
    class_binning,
    class_score_binning,
    discrete_binning,
    loss_binning,
    numeric_binning,
    personal_binning,
    renamed,
    role_binning,
    size_binning,
)
from mlmon_dagster.profiles.sql.bin_codes import DUCKDB, Dialect
from mlmon_dagster.profiles.sql.compiler import Engine
from mlmon_dagster.profiles.sql.loss_columns import (
    DECIDED,
    LAG,
    attribution_columns,
    bound_of,
    group_columns,
    loss_columns,
    resolve,
    row_source,
)
from mlmon_dagster.spec.model import FeatureType, ModelSpec
from mlmon_dagster.spec.tasks import MAX_CLASSES, class_scores, declared_classes
from mlmon_dagster.store.reading.personal import digest_sql
from mlmon_dagster.store.state.sql import quote_identifier

_BOOLEANS = ("false", "true")

_VALUES: dict[FeatureType, str] = {
    "numeric": "{0}",
    "categorical": "{0}",
    "boolean": "LOWER(CAST({0} AS VARCHAR))",
    # Its age: the time itself is later in every window.
    "datetime": (
        "CAST(EXTRACT(EPOCH FROM event_time) AS DOUBLE PRECISION)"
        " - CAST(EXTRACT(EPOCH FROM {0}) AS DOUBLE PRECISION)"
    ),
    "text": "CAST(LENGTH({0}) AS DOUBLE PRECISION)",
}
_OUTPUTS: dict[str, Kind] = {
    "binary_classification": "confusion",
    "multiclass_classification": "classes",
    "regression": "numeric",
    "ranking": "numeric",
}


def value_expressions(spec: ModelSpec, key: str = "") -> dict[str, tuple[Kind, str]]:
    """Say how every profiled column of a model is read.

    Args:
        spec: The model.
        key: Of its personal values, see `store.personal`; needed if it has personal categories.

    Returns:
        Column name -> kind and SQL expression: the features, then the roles that the spec
        declares, then the losses of its task. Of a time the seconds from then to the event
        (negative for what is to come), of a text its length; booleans ``false`` and ``true``,
        personal categories a keyed digest. The output of a regression is profiled like a feature.

    Raises:
        ValueError: If the key is needed and missing.
    """
    found: dict[str, tuple[Kind, str]] = {}
    for name, feature in spec.features.items():
        found[name] = _read(name, feature.type)
        if feature.type == "categorical" and feature.pii:
            if not key:
                raise ValueError(f"{name} of {spec.model} is personal; expected the model's key")
            found[name] = ("categorical", digest_sql(key, quote_identifier(name)))
    roles = spec.columns
    if roles.score is not None:
        binary = spec.task == "binary_classification"
        found["score"] = ("score", "score") if binary else _read("score", "numeric")
    if roles.prediction is not None:
        found["prediction"] = (_OUTPUTS[spec.task], "prediction")
    if roles.latency_ms is not None:
        found["latency_ms"] = ("latency", "latency_ms")
    if roles.status is not None:
        found["status"] = ("status", "status")
    return found | loss_columns(spec) | attribution_columns(spec)


def _read(name: str, kind: FeatureType) -> tuple[Kind, str]:
    counted: Literal["categorical", "numeric"] = (
        "categorical" if kind in ("categorical", "boolean") else "numeric"
    )
    return counted, _VALUES[kind].format(quote_identifier(name))


def fit_binnings(
    engine: Engine, spec: ModelSpec, from_sql: str, dialect: Dialect = DUCKDB, key: str = ""
) -> dict[str, Binning]:
    """Choose the bins of every profiled column of a model.

    Args:
        engine: Runs SQL, such as a ``Store``.
        spec: The model.
        from_sql: The rows of the baseline, to stand after FROM.
        dialect: How the engine wants its SQL.
        key: Of personal values, see `value_expressions`.

    Returns:
        Column name -> binning, in the order of `value_expressions`. The same rows in any order
        give the same binnings. Without rows, or with nulls only, a numeric column has one bin
        for every value and a categorical one has only ``other`` and ``unseen``; classes that
        nobody declared have no bins.
    """
    from_sql = row_source(spec, from_sql)
    binnings: dict[str, Binning] = {}
    expressions = value_expressions(spec, key)
    numeric = {name: value for name, (kind, value) in expressions.items() if kind == "numeric"}
    ordered = order_statistics(engine, from_sql, numeric, dialect)
    for name, (kind, raw) in expressions.items():
        value = resolve(raw, binnings)
        if name == ":labelled_prediction":
            # The same bins, so that one taken from the other leaves the unlabelled rows.
            binnings[name] = renamed(binnings["prediction"], name)
        elif kind == "loss":
            binnings[name] = _fit_loss(engine, from_sql, name, value, dialect)
        elif kind == "latency" and name != "latency_ms":
            binnings[name] = size_binning(name, _typical(engine, from_sql, value))
        elif kind == "classes":
            if classes := _classes(engine, spec, from_sql):
                binnings[name] = class_binning(name, classes)
        elif kind == "score" and name not in ("score", DECIDED, CONFIDENCE):
            scores = class_scores(spec)
            label = next(label for label, column in scores.items() if column == name)
            binnings[name] = class_score_binning(name, label, len(scores))
        elif kind == "numeric":
            binnings[name] = _numeric_binning(name, ordered[name], is_personal(spec, name))
        elif kind == "categorical":
            feature = spec.features.get(name)
            if feature is not None and feature.type == "boolean":
                binnings[name] = categorical_binning(name, _BOOLEANS)
            else:
                binnings[name] = _fit_categorical(engine, from_sql, name, value)
        else:
            binnings[name] = role_binning(name, kind)
    binnings |= fit_joint(engine, spec, from_sql, binnings, expressions, dialect)
    return binnings | {name: loss_binning(name, 1.0) for name in group_columns(spec)}


def _fit_loss(engine: Engine, from_sql: str, name: str, value: str, dialect: Dialect) -> Binning:
    if (bound := bound_of(name)) is not None:
        return loss_binning(name, bound)
    present = f"FROM (SELECT {value} AS x FROM {from_sql} AS records) AS v WHERE x IS NOT NULL"
    typical = _typical(engine, from_sql, value)
    lags = quantiles_of(engine, present, [0.5], dialect) if name == LAG and typical else []
    return loss_binning(name, typical, lags[0] if lags else 0.0)


def _typical(engine: Engine, from_sql: str, value: str) -> float:
    """Return the geometric mean of the magnitudes that are not 0; 0 without any.

    One row that is far off, such as an error of 1e35, moves it by little.
    """
    sql = f"SELECT AVG(LN(ABS(NULLIF({value}, 0e0)))) AS x FROM {from_sql} AS records"
    found = engine.query(sql).to_pylist()[0]["x"]
    # Four digits: the last ones of a mean depend on the order in which rows were added.
    return 0.0 if found is None else float(f"{math.exp(found):.4g}")


def _classes(engine: Engine, spec: ModelSpec, from_sql: str) -> Sequence[str]:
    """Return the declared classes, else the commonest that the baseline has; () if it has none."""
    if names := declared_classes(spec):
        return names
    both = " UNION ALL ".join(
        f"SELECT {column} AS x FROM {from_sql} AS records" for column in ("prediction", "actual")
    )
    found = engine.query(
        f"SELECT x, COUNT(*) AS n FROM ({both}) AS v WHERE x IS NOT NULL "
        f"GROUP BY x ORDER BY n DESC, x LIMIT {MAX_CLASSES}"
    )
    return sorted(_column(found, "x"))


def is_personal(spec: ModelSpec, name: str) -> bool:
    """Say whether a column is a feature whose values are somebody's."""
    feature = spec.features.get(name)
    return feature is not None and bool(feature.pii)


def _numeric_binning(name: str, found: OrderStatistics, personal: bool) -> Binning:
    if personal:
        return personal_binning(name, found.quantiles)
    centre = float(f"{found.median:.6g}")
    if found.values is not None:
        return discrete_binning(name, found.values, centre=centre)
    return numeric_binning(name, found.quantiles, low=found.low, high=found.high, centre=centre)


def _fit_categorical(engine: Engine, from_sql: str, name: str, value: str) -> Binning:
    most = MAX_CATEGORIES + MAX_TAIL
    found = engine.query(
        f"SELECT x, COUNT(*) AS n FROM (SELECT {value} AS x FROM {from_sql} AS records) AS v "
        f"WHERE x IS NOT NULL GROUP BY x ORDER BY n DESC, x LIMIT {most + 1}"
    )
    return categorical_binning(name, _column(found, "x"))


def _column(table: pa.Table, name: str) -> list[Any]:
    values: list[Any] = table.column(name).to_pylist()
    return values
