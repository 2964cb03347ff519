"""What is fitted to the embeddings of a baseline: kept among its bins, and known to the engine.

Of a column ``x`` the bins of ``:embedding/x`` hold it as text, each exemplar on its own behind the
hash of its id, so that an erasure finds it. In the rows to be read a mark stands for it
(`spec.derived.FIT`), as the same rows are read with one baseline or another.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import pyarrow as pa

from mlmon_dagster.metrics.embeddings import (
    MOST_FITTED,
    EmbeddingFit,
    Vectors,
    compare_rows,
    find_topics,
    find_usable,
    fit_embeddings,
    measure_novelty,
    name_likeness,
    name_topics,
    project,
)
from mlmon_dagster.metrics.statistics import Binning
from mlmon_dagster.profiles.bin_shapes import vectors_binning
from mlmon_dagster.profiles.compiler import Engine
from mlmon_dagster.spec.derived import NOVELTY, ROW_NAME, name_derived, name_fit
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.store.state.sql import literal, quote_identifier
from mlmon_dagster.store.tables.derived_columns import EXEMPLAR, Embedding, know_embedding

_HALF = "<f2"  # of an exemplar, as they are the most
_VECTOR, _ID = ":vector", ":id"
FITTED = ":embedding/"  # begins the names of what is fitted to a column


def fit_to_rows(engine: Engine, spec: ModelSpec, from_sql: str) -> dict[str, Binning]:
    """Fit topics and exemplars of every embedding to at most 20,000 rows, by the hash of their ids.

    Args:
        engine: Runs SQL.
        spec: The model.
        from_sql: The rows of the baseline.

    Returns:
        Name -> what was fitted; a column with fewer than two vectors has nothing. Of vectors of
        several lengths those of the commonest count.
    """
    found: dict[str, Binning] = {}
    for name in spec.embeddings:
        rows = draw_vectors(engine, from_sql, name)
        kept, vectors = gather_vectors(rows)
        ids = rows.column(_ID).combine_chunks().take(pa.array(kept)).to_pylist()
        fit = fit_embeddings(vectors, ids) if len(kept) else None
        if fit is not None:
            found[f"{FITTED}{name}"] = _to_binning(f"{FITTED}{name}", fit)
    return found


def list_values(fitted: Mapping[str, Binning]) -> dict[str, list[str]]:
    """Return column -> all values of the topics and novelties of what was fitted.

    Not those that the baseline's rows have: of a small topic no row may be unlike it.
    """
    found = {}
    for name, binning in fitted.items():
        fit, column = _from_binning(binning), name.removeprefix(FITTED)
        found[name_derived(column, "topic")] = name_topics(fit)
        found[name_derived(column, NOVELTY)] = name_likeness(fit)
    return found


def draw_vectors(
    engine: Engine,
    from_sql: str,
    column: str,
    others: Mapping[str, str] = MappingProxyType({}),
    where: str = "TRUE",
) -> pa.Table:
    """Return at most 20,000 rows that have a vector, by the hash of their ids.

    Args:
        engine: Runs SQL.
        from_sql: The rows.
        column: The embedding; it is the column `:vector`, and the hash the column `:id`.
        others: Name -> SQL of other columns that are wanted.
        where: SQL of a condition.
    """
    vector, key = quote_identifier(column), quote_identifier(_ID)
    parts = {_VECTOR: vector, _ID: ROW_NAME, **others}
    listed = ", ".join(f"{sql} AS {quote_identifier(name)}" for name, sql in parts.items())
    return engine.query(
        f"SELECT {listed} FROM {from_sql} AS records WHERE {vector} IS NOT NULL AND {where} "
        f"ORDER BY {key} LIMIT {MOST_FITTED}"
    )


def assign_topics(
    binnings: Mapping[str, Binning], column: str, rows: pa.Table
) -> pa.ChunkedArray | None:
    """Return the topic of each row that `draw_vectors` returned; None without a fit of it."""
    fitted = binnings.get(f"{FITTED}{column}")
    if fitted is None:
        return None
    vectors, ids = (rows.column(name).combine_chunks() for name in (_VECTOR, _ID))
    return pa.chunked_array([_embedding(fitted)(vectors, ids)[0]])


def gather_vectors(rows: pa.Table) -> tuple[np.ndarray, Vectors]:
    """Return which rows have a vector of the commonest length, and these vectors; maybe none.

    Args:
        rows: As `draw_vectors` returns them.
    """
    lists = rows.column(_VECTOR).combine_chunks()
    lengths = np.diff(lists.offsets.to_numpy()) if len(lists) else np.zeros(0, np.int64)
    usual = int(np.bincount(lengths).argmax()) if len(lengths) else 0
    kept = np.flatnonzero(lengths == usual) if usual else np.zeros(0, np.int64)
    return kept, _stack(lists, kept, usual) if usual else np.zeros((0, 0), np.float32)


def with_fits(spec: ModelSpec, from_sql: str, binnings: Mapping[str, Binning]) -> str:
    """Return rows whose topics and novelty are by what was fitted to a baseline.

    Args:
        spec: The model; without embeddings the rows stay as they are.
        from_sql: The rows, as the store names them.
        binnings: Of the baseline. Of what it has no fit of, topics and novelty are NULL.
    """
    for name in spec.embeddings:
        fitted = binnings.get(f"{FITTED}{name}")
        known = _know(fitted) if fitted is not None else ""
        from_sql = from_sql.replace(literal(name_fit(spec.model, name)), literal(known))
    return from_sql


def know_fits(spec: ModelSpec, binnings: Mapping[str, Binning]) -> None:
    """Let the engine know what was fitted to a baseline as that of the model's rows in general."""
    for name in spec.embeddings:
        fitted = binnings.get(f"{FITTED}{name}")
        if fitted is not None:
            know_embedding(name_fit(spec.model, name), _embedding(fitted))


def _know(binning: Binning) -> str:
    key = f"fit:{hashlib.sha256(repr(binning).encode()).hexdigest()[:24]}"
    know_embedding(key, _embedding(binning))
    return key


@lru_cache(maxsize=16)
def _embedding(binning: Binning) -> Embedding:
    fit = _from_binning(binning)
    topics, likeness = (
        pa.array(names, pa.string()) for names in (name_topics(fit), name_likeness(fit))
    )

    def describe(lists: pa.Array, ids: pa.Array) -> tuple[pa.Array, pa.Array]:
        rows, projected = _project(fit, lists)
        nearest, unlike = np.zeros(len(lists), np.int64), np.zeros(len(lists), np.int64)
        has_topic, is_known = np.zeros(len(lists), bool), np.zeros(len(lists), bool)
        if len(rows):
            mine = find_topics(fit, projected)
            novelty = measure_novelty(fit, projected, ids.take(pa.array(rows)).to_pylist())
            nearest[rows], has_topic[rows] = mine, True
            unlike[rows] = compare_rows(fit, mine, novelty)
            is_known[rows] = ~np.isnan(novelty)
        found = topics.take(pa.array(nearest, mask=~has_topic))
        return found, likeness.take(pa.array(unlike, mask=~is_known))

    return describe


def _project(fit: EmbeddingFit, lists: pa.Array) -> tuple[np.ndarray, Vectors]:
    """Return the rows whose vectors can be compared, and their projections."""
    lengths = np.diff(lists.offsets.to_numpy())
    rows = np.flatnonzero((lengths == fit.dimension) & lists.is_valid().to_numpy(False))
    vectors = _stack(lists, rows, fit.dimension)
    usable = find_usable(vectors)
    return rows[usable], project(fit, vectors if usable.all() else vectors[usable])


def _stack(lists: pa.Array, rows: np.ndarray, dimension: int) -> Vectors:
    """Return some rows' vectors, all of a dimension, as a matrix."""
    numbers = lists.values.to_numpy(zero_copy_only=False)
    begins = lists.offsets.to_numpy()[:-1][rows]
    if len(rows) and (np.diff(begins) == dimension).all():  # they lie one behind the other
        found = numbers[begins[0] : begins[0] + len(rows) * dimension].reshape(-1, dimension)
    else:
        found = numbers[begins[:, None] + np.arange(dimension)]
    matrix: Vectors = np.asarray(found, np.float32)
    return matrix


def _to_binning(name: str, fit: EmbeddingFit) -> Binning:
    arrays = (fit.mean, fit.directions, fit.centres, fit.far)
    exemplars = zip(fit.names, fit.exemplars, strict=True)
    return vectors_binning(
        name,
        [_write(array) for array in arrays],
        [f"{row}{EXEMPLAR}{_write(vector, _HALF)}" for row, vector in exemplars],
        fit.directions.shape,
    )


def _from_binning(binning: Binning) -> EmbeddingFit:
    dimension, k = map(int, binning.values)
    mean, directions, centres, far = map(_read, binning.categories)
    kept = [entry.partition(EXEMPLAR) for entry in binning.tail if EXEMPLAR in entry]
    # An erasure may have taken some of them.
    exemplars = np.concatenate([_read("", _HALF), *(_read(text, _HALF) for _, _, text in kept)])
    return EmbeddingFit(
        mean,
        directions.reshape(dimension, k),
        centres.reshape(-1, k),
        exemplars.reshape(-1, k),
        tuple(row for row, _, _ in kept),
        far,
    )


def _write(array: Vectors, numbers: str = "<f4") -> str:
    return base64.b64encode(np.ascontiguousarray(array, numbers).tobytes()).decode()


def _read(text: str, numbers: str = "<f4") -> Vectors:
    array: Vectors = np.frombuffer(base64.b64decode(text), numbers).astype(np.float32)
    return array
