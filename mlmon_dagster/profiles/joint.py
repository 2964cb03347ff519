"""Reading rows for what no single column shows: the sums of `metrics.joint`, per window.

Only where `monitors.drift.multivariate` is declared. Rows are read as values or codes, at most
about 5,000 of a window (by the hash of their ids): a correlation is then known to .02, and the cost
of a large window is that of a small one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.metrics import Ints
from mlmon_dagster.metrics.drift.joint import (
    JOINT,
    folded_scores,
    joint_sums,
    normal_scores,
    size_of,
    standard_scores,
)
from mlmon_dagster.metrics.statistics import (
    CELL_KEYS,
    Binning,
    ColumnStatistics,
    count_whole,
    empty,
)
from mlmon_dagster.profiles.bin_codes import NULL_CODE, Column, Dialect
from mlmon_dagster.profiles.bin_shapes import joint_binning
from mlmon_dagster.profiles.compiler import NO_VERSION, Engine, codes_of, value_to_code
from mlmon_dagster.profiles.loss_columns import Values, resolve
from mlmon_dagster.profiles.sampled_rows import sample_conditions
from mlmon_dagster.spec.declaration import is_sampled
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.store.state.sql import literal, quote_identifier

Codes = dict[str, Ints]
Scores = NDArray[np.int8]
MOST_ROWS = 5_000  # of a window; what is above it is halved until it is not
MOST_COLUMNS = 40  # the sums grow with their square
_AT_ONCE = 400_000  # rows held
_FOLDED = 5  # bins with rows from which a number has a middle and ends
_FEW = 20.0  # rows of a category at which its score is half that of its rows
_TOLD = 0.01  # share of a column's variance between categories that orders them


def joint_columns(spec: ModelSpec, binnings: Mapping[str, Binning]) -> list[str]:
    """Return the features whose joint distribution is profiled; none if that is not declared.

    Those that drift is judged of; of more than 40 the most important, else the first declared.
    """
    monitor = spec.monitors.drift
    if monitor.multivariate is None:
        return []
    known = [
        name
        for name, feature in spec.features.items()
        if name in binnings
        and not is_sampled(feature)
        and (monitor.columns == "all" or name in monitor.columns)
    ]
    most = sorted(known, key=lambda name: -(spec.features[name].importance or 0.0))
    kept = set(most[:MOST_COLUMNS])
    return [name for name in known if name in kept]


def fit_joint(
    engine: Engine,
    spec: ModelSpec,
    from_sql: str,
    binnings: Mapping[str, Binning],
    values: Values,
    dialect: Dialect,
) -> dict[str, Binning]:
    """Choose the scores of every column's codes from the rows of the baseline.

    Numbers by their ranks; categories by the mean score of the other column that they tell most
    about, few rows drawn towards 0, or by how common they are if they tell about none.

    Args:
        engine: Runs SQL.
        spec: The model.
        from_sql: The rows of the baseline.
        binnings: Their bins.
        values: How columns are read, as `value_expressions` says.
        dialect: How the engine wants its SQL.

    Returns:
        The binning of `:joint`, or nothing where that is not declared or has no two columns.
    """
    names = joint_columns(spec, binnings)
    parts = [codes for _, codes in _read(engine, from_sql, names, binnings, values, dialect)]
    if len(names) < 2 or not parts:
        return {}
    codes = {name: np.concatenate([part[name] for part in parts]) for name in names}
    counts = {name: _counts(codes[name], _size(binnings[name])) for name in names}
    scores = {name: normal_scores(counts[name]) for name in names}
    ranked = dict(scores)
    for name in names:
        if binnings[name].kind == "categorical":
            ranked[name] = _category_scores(name, codes, counts[name], scores)
    found = [(name, name, ranked[name].tolist()) for name in names]
    found += [
        (f"|{name}|", name, folded_scores(counts[name]).tolist())
        for name in names
        if binnings[name].kind == "numeric" and (counts[name] > 0).sum() >= _FOLDED
    ]
    return {JOINT: joint_binning(JOINT, size_of(len(found)), found)}


def _counts(codes: Ints, size: int) -> Ints:
    return np.bincount(codes[codes != NULL_CODE], minlength=size).astype(np.int64)


def _size(binning: Binning) -> int:
    """Count a column's coarse codes."""
    return binning.size // binning.fine


def _category_scores(name: str, codes: Codes, counts: Ints, scores: Mapping[str, Scores]) -> Scores:
    mine = codes[name]
    filled, levels = mine != NULL_CODE, (counts > 0).sum()
    best, share = scores[name], _TOLD
    for other, by_code in scores.items():
        if other == name or not filled.any():
            continue
        theirs = _scored(codes[other], by_code)[filled].astype(np.float64)
        variance = theirs.var()
        sums = np.bincount(mine[filled], theirs, minlength=len(counts))
        means = sums / np.maximum(counts, 1)
        between = counts @ (means - theirs.mean()) ** 2 / max(counts.sum(), 1)
        told = between / variance - levels / filled.sum() if variance > 0 else 0.0
        if told > share:
            shrunk = (means - theirs.mean()) * counts / (counts + _FEW)
            best, share = standard_scores(shrunk, counts), told
    return best


def _scored(codes: Ints, scores: Scores) -> Scores:
    """Return the score of every code; 0, the mean, for null."""
    return np.append(scores, np.int8(0))[codes]


def profile_joint(
    engine: Engine,
    from_sql: str,
    binnings: Mapping[str, Binning],
    values: Values,
    dialect: Dialect,
) -> dict[str, ColumnStatistics]:
    """Return the statistics of `:joint`, of the whole and not of slices; nothing without scores.

    Its cells' ``n`` are the rows that were read, at most about 5,000 of a window and dataset.
    """
    if JOINT not in binnings:
        return {}
    binning = binnings[JOINT]
    names = list(dict.fromkeys(binning.tail))
    if any(name not in binnings or name not in values for name in names):
        return {JOINT: empty(binning)}
    lookup = _lookup(binning, binnings)
    frames, sums = [], []
    for keys, codes in _read(engine, from_sql, names, binnings, values, dialect):
        scores = np.column_stack([_scored(codes[name], by_code) for name, by_code in lookup])
        for cell, rows in keys.groupby(list(CELL_KEYS[:3]), observed=True).indices.items():
            frames.append(cell)
            sums.append(joint_sums(scores[rows]))
    return {JOINT: _statistics(binning, frames, sums)}


def _lookup(binning: Binning, binnings: Mapping[str, Binning]) -> list[tuple[str, Scores]]:
    """Return the column and the scores of its codes, of every score."""
    sizes = [_size(binnings[name]) for name in binning.tail]
    parts = np.split(np.array(binning.values, np.int8), np.cumsum(sizes)[:-1])
    return list(zip(binning.tail, parts, strict=True))


def _statistics(
    binning: Binning, cells: Sequence[object], sums: Sequence[Ints]
) -> ColumnStatistics:
    if not cells:
        return empty(binning)
    frame, counts = pd.DataFrame(cells, columns=list(CELL_KEYS[:3])), np.stack(sums)
    return count_whole(binning, frame, counts, counts[:, 0].copy())


def _read(
    engine: Engine,
    from_sql: str,
    names: Sequence[str],
    binnings: Mapping[str, Binning],
    values: Values,
    dialect: Dialect,
) -> Iterator[tuple[pd.DataFrame, Codes]]:
    """Yield cells and coarse codes of the rows, some windows at a time; -1 is null."""
    if not names:
        return
    columns = {n: Column(binnings[n], resolve(values[n][1], binnings)) for n in names}
    read = ", ".join(
        f"{value_to_code(column, dialect)} AS {quote_identifier(f'v{i}')}"
        for i, column in enumerate(columns.values())
    )
    for condition in sample_conditions(engine, from_sql, MOST_ROWS, _AT_ONCE):
        table = engine.query(
            f"SELECT window_start, COALESCE(dataset, {literal(ALL)}) AS dataset, "
            f"COALESCE(model_version, {literal(NO_VERSION)}) AS model_version, {read} "
            f"FROM {from_sql} AS records WHERE {condition}"
        )
        keys = table.select(list(CELL_KEYS[:3])).to_pandas(strings_to_categorical=True)
        yield (
            keys,
            {
                name: codes_of(table.column(f"v{i}"), column.binning, coarse=True)
                // column.binning.fine
                for i, (name, column) in enumerate(columns.items())
            },
        )
