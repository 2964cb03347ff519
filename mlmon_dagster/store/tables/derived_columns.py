"""What records hold beside what is stored: columns computed from texts, embeddings and amounts.

They are expressions over the stored columns, and the engine computes those that a statement asks
for. One that DuckDB has no expression for is a function in Python, which the engine knows by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from functools import cache
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.declaration import DerivedFeature
from mlmon_dagster.spec.derived import (
    EMBEDDED_FUNCTION,
    FIT,
    LANGUAGE_FUNCTION,
    VECTOR,
    Prices,
    derive_sql,
    describe_vector,
    name_derived,
    name_fit,
)
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.store.state.sql import literal, quote_identifier

EXEMPLAR: Final = "\x1f"  # between the name of a row and what is kept of it in a baseline
_MOST_CHARACTERS = 1_000  # of a text, from which its language is told
_FEWEST_CHARACTERS = 3


def with_derived(spec: ModelSpec, from_sql: str, names: Collection[str] | None = None) -> str:
    """Return records with their derived columns, to stand after FROM.

    Args:
        spec: The model; without derived columns the records stay as they are.
        from_sql: The records.
        names: Only what is computed of these features; all by default.
    """
    found: dict[str, str] = {}
    for name, feature in spec.features.items():
        if names is not None and name not in names:
            continue
        if isinstance(feature, DerivedFeature) and feature.prices is not None:
            found[name] = price_sql(feature.prices)
        elif isinstance(feature, DerivedFeature):
            sql = derive_sql(feature.described, quote_identifier(feature.of))
            found[name] = _with_fit(sql, spec, feature.of)
        elif feature.type == "embedding":
            sql = describe_vector(quote_identifier(name))
            found[name_derived(name, VECTOR)] = _with_fit(sql, spec, name)
    if not found:
        return from_sql
    columns = ", ".join(f"{sql} AS {quote_identifier(name)}" for name, sql in found.items())
    return f"(SELECT records.*, {columns} FROM {from_sql} AS records)"


def price_sql(prices: Prices) -> str:
    """Return the expression of what a row costs, over the columns of its amounts."""
    by = quote_identifier(prices.by)
    cases = []
    for value, own in prices.of.items():
        is_begin = value.endswith("*")
        fits = (
            f"starts_with({by}, {literal(value[:-1])})" if is_begin else f"{by} = {literal(value)}"
        )
        amounts = [quote_identifier(name) for name in own]
        terms = (
            f"COALESCE({amount}, 0) * CAST({price / prices.per!r} AS DOUBLE)"
            for amount, price in zip(amounts, own.values(), strict=True)
        )
        known = f"COALESCE({', '.join(amounts)}) IS NOT NULL"
        cases.append(f"WHEN {fits} THEN CASE WHEN {known} THEN {' + '.join(terms)} END")
    return f"(CASE {' '.join(cases)} END)"


def _with_fit(sql: str, spec: ModelSpec, column: str) -> str:
    return sql.replace(FIT, literal(name_fit(spec.model, column)))


def name_row(dataset: str, prediction_id: str) -> str:
    """Return what `spec.derived.ROW_NAME` says of a row."""
    return hashlib.md5(f"{dataset}:{prediction_id}".encode(), usedforsecurity=False).hexdigest()


# What was fitted to an embedding: from vectors and the rows' names to topics and novelty.
Embedding = Callable[[pa.Array, pa.Array], tuple[pa.Array, pa.Array]]


def know_embedding(name: str, embedding: Embedding) -> None:
    """Make something that was fitted known to the functions, by its name in statements."""
    while len(_EMBEDDINGS) >= _MOST_KNOWN:
        _EMBEDDINGS.pop(next(iter(_EMBEDDINGS)), None)
    _EMBEDDINGS[name] = embedding


_EMBEDDINGS: dict[str, Embedding] = {}
_MOST_KNOWN = 256


def _describe_vectors(lists: pa.Array) -> pa.Array:
    """Say how many numbers each vector has, or why it has no direction; NULL for NULL.

    A vector whose length is beyond all numbers has no direction either.
    """
    numbers = lists.values.to_numpy(zero_copy_only=False)
    offsets = lists.offsets.to_numpy()
    lengths = np.diff(offsets)
    found = [f"{length:,} numbers" for length in lengths.tolist()]
    with np.errstate(over="ignore", invalid="ignore"):
        if len(lists) and (lengths == lengths[0]).all():  # nearly always: all rows in one go
            matrix = numbers[offsets[0] : offsets[-1]].reshape(len(lists), -1)
            sizes = np.einsum("ij,ij->i", matrix, matrix)
        else:
            rows = (numbers[begin:end] for begin, end in pairwise(offsets.tolist()))
            sizes = np.fromiter((row @ row for row in rows), np.float32, len(lists))
    for row in np.flatnonzero(~np.isfinite(sizes) | (sizes == 0)).tolist():
        found[row] = "all zeros" if sizes[row] == 0 else "not finite"
    return pa.array(found, pa.string(), mask=lists.is_null().to_numpy(zero_copy_only=False))


def _describe_embedded(vectors: pa.Array, fits: pa.Array, rows: pa.Array) -> pa.Array:
    """Return what is derived of vectors; NULL without a direction, or where nothing is fitted."""
    lists = _one_chunk(vectors)
    known = _find_embedding(fits)
    topics, novelty = pa.nulls(len(lists), pa.string()), pa.nulls(len(lists), pa.string())
    if known is not None:
        topics, novelty = known(lists, _one_chunk(rows))
    names = (VECTOR, "topic", "novelty")
    return pa.StructArray.from_arrays([_describe_vectors(lists), topics, novelty], names)


def _find_embedding(fits: pa.Array) -> Embedding | None:
    return _EMBEDDINGS.get(fits[0].as_py()) if len(fits) else None


def _one_chunk(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _tell_languages(texts: pa.ChunkedArray) -> pa.Array:
    """Return the language of each text by ISO 639-1, such as ``en``.

    NULL for NULL and for texts of fewer than three letters, which say nothing.
    """
    classify = _classifier()
    found = [
        classify(text[:_MOST_CHARACTERS])
        if text is not None and sum(map(str.isalpha, text)) >= _FEWEST_CHARACTERS
        else None
        for text in texts.to_pylist()
    ]
    return pa.array(found, pa.string())


@cache
def _classifier() -> Callable[[str], str]:
    try:
        import py3langid
    except ModuleNotFoundError:
        raise ConfigError(
            "The description language needs the package py3langid: "
            "pip install 'mlmon-dagster[language]'."
        ) from None
    return lambda text: str(py3langid.classify(text)[0])


class Function(NamedTuple):
    """A function in Python that the engine knows by name."""

    compute: Callable[..., pa.Array]
    takes: tuple[str, ...]
    gives: str


FUNCTIONS: Final = {
    LANGUAGE_FUNCTION: Function(_tell_languages, ("VARCHAR",), "VARCHAR"),
    EMBEDDED_FUNCTION: Function(
        _describe_embedded,
        ("FLOAT[]", "VARCHAR", "VARCHAR"),
        "STRUCT(vector VARCHAR, topic VARCHAR, novelty VARCHAR)",
    ),
}
