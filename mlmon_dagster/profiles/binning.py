"""Choosing the bins of every column from the rows of the baseline, and from nothing else.

Edges that depended on the window would hide a shift: one outlier would stretch them. The outer
bins are open, so whatever comes later has a bin. `metrics.binnings` says what the codes mean.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import pyarrow as pa

from mlmon_dagster.metrics.statistics import Binning, Kind
from mlmon_dagster.profiles.codes import DUCKDB, Dialect
from mlmon_dagster.profiles.compiler import Engine
from mlmon_dagster.spec.model import FeatureType, ModelSpec
from mlmon_dagster.store.sql import quote_identifier

QUANTILE_BINS = 20
SUB_BINS = 12
MAX_VALUES = 32
MAX_CATEGORIES = 1_000
MAX_TAIL = 9_000
SCORE_BINS = 1_024
LOGIT_SPAN = 14.0
LATENCY_RANGE = (1e-3, 1e7)  # ms: a microsecond to nearly three hours
LATENCY_BINS = 1_163  # 2 % wide, so that the middle is within 1 % of every value
_BOOLEANS = ("false", "true")

_VALUES: dict[FeatureType, str] = {
    "numeric": "{0}",
    "categorical": "{0}",
    "boolean": "LOWER(CAST({0} AS VARCHAR))",
    "datetime": "CAST(EXTRACT(EPOCH FROM {0}) AS DOUBLE PRECISION)",
    "text": "CAST(LENGTH({0}) AS DOUBLE PRECISION)",
}
_TARGETS: dict[str, FeatureType] = {
    "multiclass_classification": "categorical",
    "regression": "numeric",
    "ranking": "numeric",
}


def value_expressions(spec: ModelSpec) -> dict[str, tuple[Kind, str]]:
    """Say how every profiled column of a model is read.

    Returns:
        Column name -> kind and SQL expression: the features, then the roles that the spec
        declares. Times are epoch seconds, texts their length, booleans ``false`` and ``true``.
        Score and prediction of a task that is not binary are profiled like features.
    """
    found: dict[str, tuple[Kind, str]] = {}
    for name, feature in spec.features.items():
        found[name] = _read(name, feature.type)
    binary = spec.task == "binary_classification"
    roles = spec.columns
    if roles.score is not None:
        found["score"] = ("score", "score") if binary else _read("score", "numeric")
    if roles.prediction is not None:
        found["prediction"] = (
            ("confusion", "prediction") if binary else _read("prediction", _TARGETS[spec.task])
        )
    if roles.latency_ms is not None:
        found["latency_ms"] = ("latency", "latency_ms")
    if roles.status is not None:
        found["status"] = ("status", "status")
    return found


def _read(name: str, kind: FeatureType) -> tuple[Kind, str]:
    counted: Literal["categorical", "numeric"] = (
        "categorical" if kind in ("categorical", "boolean") else "numeric"
    )
    return counted, _VALUES[kind].format(quote_identifier(name))


def fit_binnings(
    engine: Engine, spec: ModelSpec, from_sql: str, dialect: Dialect = DUCKDB
) -> dict[str, Binning]:
    """Choose the bins of every profiled column of a model.

    Args:
        engine: Runs SQL, such as a ``Store``.
        spec: The model.
        from_sql: The rows of the baseline, to stand after FROM.
        dialect: How the engine wants its SQL.

    Returns:
        Column name -> binning, in the order of `value_expressions`. The same rows in any order
        give the same binnings. Without rows, or with nulls only, a numeric column has one bin
        for every value and a categorical one has only ``other`` and ``unseen``.
    """
    binnings = {}
    for name, (kind, value) in value_expressions(spec).items():
        if kind == "numeric":
            binnings[name] = _fit_numeric(engine, from_sql, name, value, dialect)
        elif kind == "categorical":
            feature = spec.features.get(name)
            if feature is not None and feature.type == "boolean":
                binnings[name] = categorical_binning(name, _BOOLEANS)
            else:
                binnings[name] = _fit_categorical(engine, from_sql, name, value)
        else:
            binnings[name] = role_binning(name, kind)
    return binnings


def _fit_numeric(engine: Engine, from_sql: str, name: str, value: str, dialect: Dialect) -> Binning:
    present = f"FROM (SELECT {value} AS x FROM {from_sql} AS records) AS v WHERE x IS NOT NULL"
    # One more than allowed is enough to know, and cheaper than counting them all.
    distinct = _column(engine.query(f"SELECT DISTINCT x {present} LIMIT {MAX_VALUES + 1}"), "x")
    row = engine.query(
        f"SELECT AVG(x) AS mean, MIN(x) AS low, MAX(x) AS high {present}"
    ).to_pylist()[0]
    centre = _rounded(row["mean"])
    if len(distinct) <= MAX_VALUES:
        return discrete_binning(name, distinct, centre=centre)
    shares = [i / QUANTILE_BINS for i in range(1, QUANTILE_BINS)]
    edges = _quantiles(engine, present, shares, dialect)
    return numeric_binning(name, edges, low=row["low"], high=row["high"], centre=centre)


def _quantiles(
    engine: Engine, present: str, shares: Sequence[float], dialect: Dialect
) -> list[float]:
    """Values of the column (not between two of them) at the given shares, per column at a time.

    One column after the other, so that only one has to be held and sorted.
    """
    if dialect.is_duckdb:
        sql = f"SELECT UNNEST(quantile_disc(x, {list(shares)!r})) AS x {present}"
        return _column(engine.query(sql), "x")
    inside = ", ".join(
        f"PERCENTILE_DISC({share!r}) WITHIN GROUP (ORDER BY x) AS q{i}"
        for i, share in enumerate(shares)
    )
    return [
        float(edge) for edge in engine.query(f"SELECT {inside} {present}").to_pylist()[0].values()
    ]


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


def _rounded(mean: float | None) -> float:
    """Six digits of the mean: its last ones depend on the order in which rows were added."""
    return 0.0 if mean is None or not math.isfinite(mean) else float(f"{mean:.6g}")


def numeric_binning(
    column: str,
    edges: Sequence[float],
    *,
    low: float,
    high: float,
    centre: float = 0.0,
    fine: int = SUB_BINS,
) -> Binning:
    """Bins between given edges, each cut into equal-width sub-bins.

    Codes: ``coarse * fine + sub``, ``(len(edges) + 1) * fine`` of them. Sub-bins of the outer
    bins divide the way to ``low`` and ``high``; the outermost are open.

    Args:
        column: Column name.
        edges: Inner edges in any order, repeated ones dropped, as are those at or above
            ``high``: nothing of the baseline would be beyond them.
        low: Smallest baseline value.
        high: Largest baseline value.
        centre: Value to subtract before squaring.
        fine: Sub-bins per bin.
    """
    kept = tuple(sorted({float(edge) for edge in edges if edge < high}))
    return _binning(
        column, "numeric", (len(kept) + 1) * fine, edges=kept, fine=fine, low=float(low),
        high=float(high), centre=centre,
    )  # fmt: skip


def discrete_binning(column: str, values: Sequence[float], *, centre: float = 0.0) -> Binning:
    """One bin per value, from midpoint to midpoint, and one at either end for what is beyond.

    Codes: 0 below all values, ``i + 1`` for value i, the last one above. A constant's own bin
    holds nothing else. Without values there is one bin for everything.
    """
    known = sorted({float(value) for value in values})
    if not known:
        return _binning(column, "numeric", 1)
    inner = [_between(a, b) for a, b in pairwise(known)]
    if inner:
        before = known[0] - (inner[0] - known[0])
        after = known[-1] + (known[-1] - inner[-1])
    else:
        before, after = known[0], known[0]
    # A gap may be so small that half of it vanishes in rounding.
    first = min(before, math.nextafter(known[0], -math.inf))
    edges = (first, *inner, max(after, known[-1]))
    return _binning(
        column, "numeric", len(known) + 2, edges=edges, low=known[0], high=known[-1],
        centre=centre, values=(first, *known, edges[-1]),
    )  # fmt: skip


def _between(a: float, b: float) -> float:
    middle = a / 2 + b / 2
    return middle if a <= middle < b else a


def categorical_binning(column: str, names: Sequence[str]) -> Binning:
    """Codes for the first 1,000 names, then ``other`` (the next 9,000) and ``unseen``.

    Args:
        column: Column name.
        names: Baseline categories, commonest first. With more than 10,000 of them the column is
            open: everything beyond the first 1,000 is ``other`` and nothing is ``unseen``.
    """
    is_open = len(names) > MAX_CATEGORIES + MAX_TAIL
    own = tuple(names[:MAX_CATEGORIES])
    tail = () if is_open else tuple(names[MAX_CATEGORIES:])
    return _binning(column, "categorical", len(own) + 2, categories=own, tail=tail, is_open=is_open)


def role_binning(column: str, kind: Kind) -> Binning:
    """Fixed bins of score, prediction, latency and status; the same for every model.

    Codes of a score: ``logit_bin * 3 + state``, 1,024 bins between logits -14 and 14; of a
    prediction: ``predicted * 3 + state`` (0 unlabelled, 1 negative, 2 positive); of a latency:
    1,163 equal steps of ln(ms) from 1e-3 to 1e7; of a status: 0 ok, 1 error.
    """
    if kind == "score":
        return _binning(column, kind, SCORE_BINS * 3, low=-LOGIT_SPAN, high=LOGIT_SPAN)
    if kind == "confusion":
        return _binning(column, kind, 6)
    if kind == "latency":
        low, high = LATENCY_RANGE
        return _binning(column, kind, LATENCY_BINS, low=low, high=high)
    if kind == "status":
        return _binning(column, kind, 2)
    raise ValueError(f"bins of kind {kind!r} are fitted, not fixed")


def _binning(column: str, kind: Kind, size: int, **fields: Any) -> Binning:
    draft = Binning(column, kind, size, "", **fields)
    return dataclasses.replace(draft, binning_id=_digest(binning_to_json(draft)))


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def binning_to_json(binning: Binning) -> dict[str, Any]:
    """Return a binning as JSON values; floats survive exactly."""
    return json.loads(json.dumps(dataclasses.asdict(binning)))  # type: ignore[no-any-return]


def binning_from_json(content: Mapping[str, Any]) -> Binning:
    """Read what `binning_to_json` returned."""
    lists = ("edges", "categories", "tail", "values")
    fields: dict[str, Any] = {k: tuple(v) if k in lists else v for k, v in content.items()}
    return Binning(**fields)
