"""Choosing the bins of every column from the rows of the baseline.

Edges that depended on the window would hide a shift: one outlier would stretch them. The outer
bins are open, so whatever comes later has a bin. `metrics.binnings` says what the codes mean.

Those of a numeric column are made from its range, median, few values or quantiles. An engine in
this process hands over a few columns at a time, and numpy sorts them: that takes a third of
asking for values, moments and quantiles with a statement each. Any other engine is asked, so that
no column has to travel, and so is DuckDB where a column is large to hold.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlmon_dagster.metrics import Floats
from mlmon_dagster.metrics.binnings import just_below
from mlmon_dagster.metrics.estimated.multiclass import CONFIDENCE, DECIDED_FOR
from mlmon_dagster.metrics.evaluations import VERDICTS
from mlmon_dagster.metrics.late_truth.means_by_output import BY_OUTPUT, OUTCOME
from mlmon_dagster.metrics.performance.multiclass import RIGHT
from mlmon_dagster.metrics.performance.multilabel import DECIDED_AS, LABEL
from mlmon_dagster.metrics.performance.weighted_back import DECIDED, EXEMPT
from mlmon_dagster.metrics.quality import RAW, REST
from mlmon_dagster.metrics.statistics import Binning, Kind
from mlmon_dagster.metrics.windows.repeats import CELLS
from mlmon_dagster.profiles import bin_shapes as shapes
from mlmon_dagster.profiles import loss_columns as losses
from mlmon_dagster.profiles.bin_codes import DUCKDB, Dialect, number
from mlmon_dagster.profiles.compiler import Engine
from mlmon_dagster.spec.declaration import FeatureType, sampled_features
from mlmon_dagster.spec.derived import VECTOR, name_derived
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.names import ROWS
from mlmon_dagster.spec.tasks import MAX_CLASSES, class_scores, declared_classes, task_of
from mlmon_dagster.store.state.erased_ids import digest_personal_sql
from mlmon_dagster.store.state.sql import literal, literals, quote_identifier

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
    "embedding": "{0}",
}
QUANTILE_BINS = 20
MAX_VALUES = 32
MAX_HELD = 20_000_000  # rows: 160 MB a column
_VALUES_AT_ONCE = 2_000_000  # that are read while as many are sorted
_FEWEST_TOGETHER = 20  # categorical columns, or each is counted by a statement of its own
_MOST_CATEGORIES = shapes.MAX_CATEGORIES + shapes.MAX_TAIL + 1
_NEAR_END = (0.002, 0.005, 0.01, 0.02, 0.035)
_HASHED = 8  # features, of which rows are told apart
_FINER = 2.0**8  # SHAP values have long tails, and their means must add up


def value_expressions(spec: ModelSpec, key: str = "") -> dict[str, tuple[Kind, str]]:
    """Say how every profiled column of a model is read.

    Args:
        spec: The model.
        key: Of its personal values, see `personal_key`; needed if it has personal categories.

    Returns:
        Column name -> kind and SQL expression: the features, then the roles that the spec
        declares, then the losses of its task and its outcome. Of a time the seconds from then to
        the event (negative for what is to come), of a text its length, or whether there is one if
        it is described; booleans ``false`` and ``true``, personal categories a keyed digest. The
        output of a regression is profiled like a feature.

    Raises:
        ValueError: If the key is needed and missing.
    """
    found: dict[str, tuple[Kind, str]] = {}
    for name, feature in spec.features.items():
        found[name] = _read(name, feature.type)
        if feature.type == "embedding":
            found[name] = ("categorical", quote_identifier(name_derived(name, VECTOR)))
        if feature.describe:
            # Whether there is a text at all; what it is like, its derived columns say.
            is_there = f"CASE WHEN {quote_identifier(name)} IS NOT NULL THEN 'text' END"
            found[name] = ("categorical", is_there)
        if feature.type == "categorical" and feature.pii:
            if not key:
                raise ValueError(f"{name} of {spec.model} is personal; expected the model's key")
            found[name] = ("categorical", digest_personal_sql(key, quote_identifier(name)))
    roles = spec.columns
    if roles.score is not None:
        is_probability = task_of(spec).answer == "label"
        found["score"] = ("score", "score") if is_probability else _read("score", "numeric")
    if roles.prediction is not None:
        found["prediction"] = (losses.ANSWERS[task_of(spec).answer], "prediction")
    if roles.latency_ms is not None:
        found["latency_ms"] = ("latency", "latency_ms")
    if roles.status is not None:
        found["status"] = ("status", "status")
    found |= (
        losses.loss_columns(spec) | losses.outcome_columns(spec) | losses.evaluation_columns(spec)
    )
    return found | losses.span_columns(spec)


def _read(name: str, kind: FeatureType) -> tuple[Kind, str]:
    counted: Literal["categorical", "numeric"] = (
        "categorical" if kind in ("categorical", "boolean") else "numeric"
    )
    return counted, _VALUES[kind].format(quote_identifier(name))


def fit_binnings(
    engine: Engine,
    spec: ModelSpec,
    from_sql: str,
    dialect: Dialect = DUCKDB,
    key: str = "",
) -> dict[str, Binning]:
    """Choose the bins of every profiled column of a model.

    Args:
        engine: Runs SQL, such as a ``Store``.
        spec: The model.
        from_sql: The rows of the baseline, to stand after FROM.
        dialect: How the engine wants its SQL.
        key: Of personal values, see `value_expressions`.

    Returns:
        Column name -> binning, in the order of `value_expressions`, then of SHAP values. The same
        rows in any order give the same binnings. Without rows, or with nulls only, a numeric
        column has one bin for every value and a categorical one has only ``other`` and ``unseen``;
        classes that nobody declared have no bins.
    """
    records = from_sql
    fitted: dict[str, Binning] = {}
    known: dict[str, list[str]] = {}
    if spec.embeddings:
        from mlmon_dagster.profiles.embedded import fit_to_rows, list_values, with_fits

        fitted = fit_to_rows(engine, spec, from_sql)
        known = list_values(fitted)
        from_sql = with_fits(spec, from_sql, fitted)
    from_sql = losses.row_source(spec, from_sql)
    binnings: dict[str, Binning] = {}
    expressions = value_expressions(spec, key)
    numeric = {
        name: value
        for name, (kind, value) in expressions.items()
        if kind == "numeric" and not name.startswith(EXEMPT)
    }
    sampled = sampled_features(spec)
    every_row = {name: value for name, value in numeric.items() if name not in sampled}
    ordered = order_statistics(engine, from_sql, every_row, dialect)
    sources = {most: sampled_source(engine, from_sql, most) for most in {*sampled.values()}}
    for name in numeric.keys() & sampled.keys():
        source = sources[sampled[name]]
        ordered |= order_statistics(engine, source, {name: numeric[name]}, dialect)
    counted = _count_categories(engine, spec, from_sql, expressions, dialect)
    edges: tuple[float, ...] = ()
    for name, (kind, raw) in expressions.items():
        value = losses.resolve(raw, binnings)
        if name.startswith(EXEMPT):
            # The same bins, so that exempt rows can be taken from all.
            if (whole := binnings.get(name.removeprefix(EXEMPT))) is not None:
                binnings[name] = shapes.renamed(whole, name)
        elif kind == "by_output":
            edges = edges or _output_edges(engine, spec, from_sql, dialect)
            values = _values(spec, name) or shapes.signed_values(_typical(engine, from_sql, value))
            binnings[name] = shapes.by_output_binning(name, edges, values)
        elif kind == "loss":
            bound = losses.bound_of(name)
            width = _typical(engine, from_sql, value) if bound is None else bound
            binnings[name] = shapes.loss_binning(name, width)
        elif kind == "latency" and not losses.is_of_serving(name):
            binnings[name] = shapes.size_binning(name, _typical(engine, from_sql, value))
        elif kind == "classes":
            if classes := _classes(engine, spec, from_sql):
                binnings[name] = shapes.class_binning(name, classes)
        elif name.startswith(DECIDED_FOR):
            binnings[name] = shapes.decided_binning(name)
        elif kind == "score" and name not in ("score", DECIDED, CONFIDENCE):
            scores = class_scores(spec)
            label = next(label for label, column in scores.items() if column == name)
            binnings[name] = shapes.class_score_binning(name, label, len(scores))
        elif kind == "numeric":
            binnings[name] = _numeric_binning(name, ordered[name], is_personal(spec, name))
        elif name.startswith(losses.JUDGED):
            binnings[name] = shapes.categorical_binning(name, VERDICTS)
        elif name.startswith(LABEL):
            binnings[name] = shapes.categorical_binning(name, DECIDED_AS)
        elif kind == "categorical":
            feature = spec.features.get(name)
            if feature is not None and feature.type == "boolean":
                binnings[name] = shapes.categorical_binning(name, _BOOLEANS)
            elif name in known:
                binnings[name] = shapes.categorical_binning(name, known[name])
            elif name in counted:
                binnings[name] = shapes.categorical_binning(name, counted[name])
            else:
                source = sources[sampled[name]] if name in sampled else from_sql
                binnings[name] = _fit_categorical(engine, source, name, value)
        else:
            binnings[name] = shapes.role_binning(name, kind)
    binnings |= fit_rows(spec, binnings, dialect)
    binnings |= _fit_attributions(engine, spec, records, dialect)
    return (
        binnings
        | fitted
        | {name: shapes.loss_binning(name, 1.0) for name in losses.group_columns(spec)}
    )


def _output_edges(
    engine: Engine, spec: ModelSpec, from_sql: str, dialect: Dialect
) -> tuple[float, ...]:
    """Return where groups of the output end: at quantiles, closer to each other near the ends.

    There losses are largest, and chosen labels the most or the fewest.
    """
    output = losses.output_expression(spec)
    present = f"FROM (SELECT {output} AS x FROM {from_sql} AS records) AS v WHERE x IS NOT NULL"
    n_classes = len(class_scores(spec))
    apart = [2 * i + 1.5 for i in range(n_classes - 1)] if n_classes <= losses.CLASSES_APART else []
    if engine.query(f"SELECT x {present} LIMIT 1").num_rows == 0:
        return tuple(apart)
    inner = [i / QUANTILE_BINS for i in range(1, QUANTILE_BINS)]
    shares = [*_NEAR_END, *inner, *(1 - share for share in reversed(_NEAR_END))]
    return (*apart, *quantiles_of(engine, present, shares, dialect))


def _values(spec: ModelSpec, name: str) -> Sequence[float]:
    """Return typical values of the bins of a loss or a rate; none where the data has to say."""
    loss = name.removeprefix(BY_OUTPUT)
    outcome = spec.columns.outcomes.get(loss.removeprefix(OUTCOME))
    if loss in (":top_k", RIGHT) or (outcome is not None and outcome.kind == "rate"):
        return (0.0, 1.0)
    if loss == ":brier":
        return [i / 20 for i in range(41)]
    if loss == ":log_loss":
        return [0.0, *(2.0 ** (step / 2) for step in range(-12, 12))]
    return ()


def _fit_attributions(
    engine: Engine, spec: ModelSpec, from_sql: str, dialect: Dialect
) -> dict[str, Binning]:
    columns = losses.attribution_columns(spec)
    found: dict[str, Binning] = {}
    source = losses.attribution_source(spec, from_sql) if columns else ""
    for name, (kind, raw) in columns.items():
        value = losses.with_offsets(raw, found)
        if kind == "categorical":
            found[name] = _fit_categorical(engine, source, name, value)
        elif (bound := losses.bound_of(name)) is not None:
            found[name] = shapes.loss_binning(name, bound)
        elif name.startswith(REST):
            # Next to nothing in a good baseline, and as much as the output where something broke.
            of_output = found[name.replace(REST, RAW)].high / 2
            centre = (
                _middle(engine, source, value, dialect) if losses.has_offset(spec, name) else 0.0
            )
            found[name] = shapes.loss_binning(name, of_output, centre)
        else:
            found[name] = shapes.loss_binning(name, _FINER * _typical(engine, source, value))
    return found


def _middle(engine: Engine, from_sql: str, value: str, dialect: Dialect) -> float:
    """Return the lower median of a value; 0 without any."""
    present = f"FROM (SELECT {value} AS x FROM {from_sql} AS records) AS v WHERE x IS NOT NULL"
    if engine.query(f"SELECT x {present} LIMIT 1").num_rows == 0:
        return 0.0
    return quantiles_of(engine, present, [0.5], dialect)[0]


def _typical(engine: Engine, from_sql: str, value: str) -> float:
    """Return the geometric mean of the magnitudes that are not 0; 0 without any.

    One row that is far off, such as an error of 1e35, moves it by little.
    """
    sql = f"SELECT AVG(LN(ABS(NULLIF({value}, 0e0)))) AS x FROM {from_sql} AS records"
    found = engine.query(sql).to_pylist()[0]["x"]
    # Four digits: the last ones of a mean depend on the order in which rows were added.
    return 0.0 if found is None else float(f"{math.exp(found):.4g}")


def sampled_source(engine: Engine, from_sql: str, most_rows: int) -> str:
    """Return at most about so many rows of each window and dataset, to stand after FROM.

    The rows of a large window are halved until they are few enough, by the hash of their ids: they
    are the same whenever it is read again. So that this does not depend on how rows are divided
    among files, a whole window has to be seen.

    Args:
        engine: Runs SQL.
        from_sql: The rows.
        most_rows: Of a window; small windows keep all of theirs.
    """
    large = engine.query(
        f"SELECT window_start, dataset, COUNT(*) AS n FROM {from_sql} AS records GROUP BY "
        f"window_start, dataset HAVING COUNT(*) > {most_rows} ORDER BY window_start, dataset"
    ).to_pylist()
    groups: dict[tuple[str | None, int], list[dt.datetime]] = {}
    for row in large:
        halvings = math.ceil(math.log2(row["n"] / most_rows))
        groups.setdefault((row["dataset"], halvings), []).append(row["window_start"])
    if not groups:
        return from_sql
    parts = []
    for (dataset, halvings), starts in groups.items():
        mine = "dataset IS NULL" if dataset is None else f"dataset = {literal(dataset)}"
        are_windows = f"({mine} AND window_start IN ({literals(starts)}))"
        is_in_part = f"MD5(prediction_id) < '{2 ** (32 - halvings):08x}'"
        parts.append(f"(NOT {are_windows} OR {is_in_part})")
    return f"(SELECT records.* FROM {from_sql} AS records WHERE {' AND '.join(parts)})"


def fit_rows(
    spec: ModelSpec, binnings: Mapping[str, Binning], dialect: Dialect
) -> dict[str, Binning]:
    """Return the cells that a window's rows are counted in by a hash of their features.

    Of the features with the most different values, which tell rows apart best. A time is left out,
    as it is counted by its age, and a text, by its length. Of a row 11 bits are kept.

    Returns:
        None without features, or on another engine than DuckDB.
    """
    types = ("numeric", "categorical", "boolean")
    features = spec.logged_features
    known = [name for name, f in features.items() if f.type in types and name in binnings]
    if not known or not dialect.is_duckdb:
        return {}
    richest = sorted(known, key=lambda name: -_count_values(binnings[name]))
    return {ROWS: shapes.row_binning(ROWS, CELLS, richest[:_HASHED])}


def _count_values(binning: Binning) -> float:
    if binning.kind == "numeric":
        return len(binning.values) or (math.inf if binning.edges else 1.0)
    return math.inf if binning.is_open else len(binning.categories) + len(binning.tail)


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
        return shapes.personal_binning(name, found.quantiles)
    centre = float(f"{found.median:.6g}")
    if found.values is not None:
        return shapes.discrete_binning(name, found.values, centre=centre)
    heaps = _heaps(found.quantiles)
    own = [edge for heap in heaps for edge in (just_below(heap), heap)]
    edges = [*found.quantiles, *found.off_heap, *(own if found.off_heap else ())]
    return shapes.numeric_binning(name, edges, low=found.low, high=found.high, centre=centre)


def _heaps(quantiles: Sequence[float]) -> list[float]:
    """Return the values that are several quantiles, if together they are most of them."""
    counts = Counter(quantiles)
    found = [value for value, times in counts.items() if times > 1]
    return found if 2 * sum(counts[value] for value in found) > len(quantiles) else []


def _count_categories(
    engine: Engine,
    spec: ModelSpec,
    from_sql: str,
    values: Mapping[str, tuple[Kind, str]],
    dialect: Dialect,
) -> dict[str, list[str]]:
    """Return the commonest values of categorical features, as `_fit_categorical` orders them.

    Many columns are read together: of a wide model, a statement for each costs more than its rows.
    Large columns are not among them, nor those of another engine: what is counted there is less
    than what would be read.
    """
    features = {name for name, one in spec.features.items() if one.type == "categorical"}
    features -= sampled_features(spec).keys()
    names = [name for name in values if name in features]
    found: dict[str, list[str]] = {}
    if not dialect.is_duckdb or len(names) < 2:
        return found
    step = _VALUES_AT_ONCE // max(_rows(engine, from_sql), 1)
    for begin in range(0, len(names), step) if step >= _FEWEST_TOGETHER else ():
        some = names[begin : begin + step]
        columns = ", ".join(f"{values[name][1]} AS x{i}" for i, name in enumerate(some))
        table = engine.query(f"SELECT {columns} FROM {from_sql} AS records")
        for name, column in zip(some, table.columns, strict=True):
            counts = pc.value_counts(column.drop_null())
            rows = pa.Table.from_arrays(counts.flatten(), ["x", "n"])
            order = [("n", "descending"), ("x", "ascending")]
            found[name] = _column(rows.sort_by(order).slice(0, _MOST_CATEGORIES), "x")
    return found


def _fit_categorical(engine: Engine, from_sql: str, name: str, value: str) -> Binning:
    found = engine.query(
        f"SELECT x, COUNT(*) AS n FROM (SELECT {value} AS x FROM {from_sql} AS records) AS v "
        f"WHERE x IS NOT NULL GROUP BY x ORDER BY n DESC, x LIMIT {_MOST_CATEGORIES}"
    )
    return shapes.categorical_binning(name, _column(found, "x"))


def _column(table: pa.Table, name: str) -> list[str]:
    values: list[str] = table.column(name).to_pylist()
    return values


@dataclass(frozen=True)
class OrderStatistics:
    """Of a column's values, nulls left out.

    Attributes:
        values: All distinct values, ascending, if there are at most 32; else None.
        quantiles: The values (not between two of them) at 1/20, 2/20, ... 19/20; () without any.
        low, high: Smallest and largest; 0 without values.
        median: The lower one of an even number of values; 0 without values.
        off_heap: The same quantiles of the rows beside heaps, if most rows are on such; else ().
    """

    values: tuple[float, ...] | None
    quantiles: tuple[float, ...]
    low: float
    high: float
    median: float
    off_heap: tuple[float, ...] = ()


def order_statistics(
    engine: Engine, from_sql: str, values: Mapping[str, str], dialect: Dialect
) -> dict[str, OrderStatistics]:
    """Return the order statistics of some columns.

    Args:
        engine: Runs SQL, such as a ``Store``.
        from_sql: The rows, to stand after FROM.
        values: Column -> SQL expression of its value.
        dialect: Of the engine.
    """
    n_rows = _rows(engine, from_sql) if dialect.is_duckdb and values else MAX_HELD + 1
    if n_rows > MAX_HELD:
        return {name: _asked(engine, from_sql, value, dialect) for name, value in values.items()}
    found: dict[str, OrderStatistics] = {}
    names = list(values)
    step = max(_VALUES_AT_ONCE // max(n_rows, 1), 1)
    ordered: Iterable[tuple[str, OrderStatistics]] = ()
    with ThreadPoolExecutor(engine.threads) as threads:
        for begin in range(0, len(names), step):
            some = names[begin : begin + step]
            columns = ", ".join(
                f"CAST({values[name]} AS DOUBLE) AS x{i}" for i, name in enumerate(some)
            )
            table = engine.query(f"SELECT {columns} FROM {from_sql} AS records")
            found |= dict(ordered)  # of those before, sorted while these were read
            ordered = zip(some, threads.map(_sorted, table.columns), strict=True)
            del table  # before the next is read
        found |= dict(ordered)
    pa.default_memory_pool().release_unused()
    return found


def _rows(engine: Engine, from_sql: str) -> int:
    return int(engine.query(f"SELECT COUNT(*) AS n FROM {from_sql} AS records").to_pylist()[0]["n"])


def quantiles_of(
    engine: Engine, present: str, shares: Sequence[float], dialect: Dialect
) -> list[float]:
    """Values of ``x`` (not between two of them) at the given shares, asked of the engine."""
    if dialect.is_duckdb:
        # One aggregate for all shares, so that the column is held once.
        sql = f"SELECT UNNEST(quantile_disc(x, {list(shares)!r})) AS x {present}"
        return [float(edge) for edge in engine.query(sql).column("x").to_pylist()]
    inside = ", ".join(
        f"PERCENTILE_DISC({share!r}) WITHIN GROUP (ORDER BY x) AS q{i}"
        for i, share in enumerate(shares)
    )
    return [
        float(edge) for edge in engine.query(f"SELECT {inside} {present}").to_pylist()[0].values()
    ]


def _sorted(column: pa.ChunkedArray) -> OrderStatistics:
    n = len(column) - column.null_count
    values: Floats = np.require(column.to_numpy(), requirements="W")
    values.sort()
    values = values[:n]  # nulls, NaN here, are last
    values += 0.0  # -0 is 0, whichever of them comes first
    if n == 0:
        return OrderStatistics((), (), 0.0, 0.0, 0.0)
    quantiles = _quantiles(values)
    distinct = _distinct(values)
    if distinct is not None:
        return _of_values(distinct, quantiles)
    heaps = _heaps(quantiles)
    off_heap = _quantiles(values[~np.isin(values, heaps)]) if heaps else ()
    ends = float(values[0]), float(values[-1])
    return OrderStatistics(None, quantiles, *ends, _median(quantiles), off_heap)


def _quantiles(ordered: Floats) -> tuple[float, ...]:
    """Return the smallest values with at least i / 20 of the rows at or below them."""
    n = len(ordered)  # in whole numbers
    places = [(i * n + QUANTILE_BINS - 1) // QUANTILE_BINS - 1 for i in range(1, QUANTILE_BINS)]
    return tuple(ordered[places].tolist())


def _distinct(ordered: Floats) -> list[float] | None:
    """Return the distinct values, None if they are more than `MAX_VALUES`."""
    found: list[float] = []
    place = 0
    while place < len(ordered):
        if len(found) == MAX_VALUES:
            return None
        found.append(float(ordered[place]))
        place = int(np.searchsorted(ordered, ordered[place], side="right"))
    return found


def _of_values(values: Sequence[float], quantiles: tuple[float, ...]) -> OrderStatistics:
    low, high = (values[0], values[-1]) if values else (0.0, 0.0)
    median = _median(quantiles) if quantiles else 0.0
    return OrderStatistics(tuple(map(float, values)), quantiles, float(low), float(high), median)


def _median(quantiles: Sequence[float]) -> float:
    return quantiles[QUANTILE_BINS // 2 - 1]


def _asked(engine: Engine, from_sql: str, value: str, dialect: Dialect) -> OrderStatistics:
    present = f"FROM (SELECT {value} AS x FROM {from_sql} AS records) AS v WHERE x IS NOT NULL"
    shares = [i / QUANTILE_BINS for i in range(1, QUANTILE_BINS)]
    # One more than allowed is enough to know, and cheaper than counting them all.
    distinct = engine.query(f"SELECT DISTINCT x {present} LIMIT {MAX_VALUES + 1}").column("x")
    if len(distinct) <= MAX_VALUES:
        values = sorted(distinct.to_pylist())
        quantiles = tuple(quantiles_of(engine, present, shares, dialect)) if values else ()
        return _of_values(values, quantiles)
    row = engine.query(f"SELECT MIN(x) AS low, MAX(x) AS high {present}").to_pylist()[0]
    quantiles = tuple(quantiles_of(engine, present, shares, dialect))
    off_heap: Sequence[float] = ()
    if heaps := _heaps(quantiles):
        rest = f"{present} AND x NOT IN ({', '.join(map(number, heaps))})"
        off_heap = quantiles_of(engine, rest, shares, dialect)
    ends = float(row["low"]), float(row["high"])
    return OrderStatistics(None, quantiles, *ends, _median(quantiles), tuple(off_heap))
