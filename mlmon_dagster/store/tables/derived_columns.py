"""What records hold beside what is stored: columns that are computed from texts and embeddings.

They are expressions over the stored columns, and the engine computes those that a statement asks
for. One that DuckDB has no expression for is a function in Python, which the engine knows by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from functools import cache
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.declaration import DerivedFeature
from mlmon_dagster.spec.derived import (
    FIT,
    LANGUAGE_FUNCTION,
    NOVELTY_FUNCTION,
    TOPIC_FUNCTION,
    VECTOR_FUNCTION,
    derive_sql,
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
        names: Only these derived columns; all by default.
    """
    found = ", ".join(
        f"{_derive(spec, feature)} AS {quote_identifier(name)}"
        for name, feature in spec.derived_features.items()
        if names is None or name in names
    )
    return f"(SELECT records.*, {found} FROM {from_sql} AS records)" if found else from_sql


def _derive(spec: ModelSpec, feature: DerivedFeature) -> str:
    sql = derive_sql(feature.described, quote_identifier(feature.of))
    return sql.replace(FIT, literal(name_fit(spec.model, feature.of)))


def name_row(dataset: str, prediction_id: str) -> str:
    """Return what `spec.derived.ROW_NAME` says of a row."""
    return hashlib.md5(f"{dataset}:{prediction_id}".encode(), usedforsecurity=False).hexdigest()


class Embedding(NamedTuple):
    """What was fitted to an embedding: from vectors, and the rows' names, to what is derived."""

    topics: Callable[[pa.Array], pa.Array]
    novelty: Callable[[pa.Array, pa.Array], pa.Array]


def know_embedding(name: str, embedding: Embedding) -> None:
    """Make something that was fitted known to the functions, by its name in statements."""
    while len(_EMBEDDINGS) >= _MOST_KNOWN:
        _EMBEDDINGS.pop(next(iter(_EMBEDDINGS)), None)
    _EMBEDDINGS[name] = embedding


_EMBEDDINGS: dict[str, Embedding] = {}
_MOST_KNOWN = 256


def _describe_vectors(vectors: pa.Array) -> pa.Array:
    """Say how many numbers each vector has, or why it has no direction; NULL for NULL."""
    lists = _one_chunk(vectors)
    lengths = np.diff(lists.offsets.to_numpy())
    numbers = lists.values.to_numpy(zero_copy_only=False).astype(np.float64)
    ends = np.concatenate([[0.0], np.cumsum(np.abs(np.nan_to_num(numbers, posinf=1.0)))])
    odd = np.concatenate([[0], np.cumsum(~np.isfinite(numbers))])
    offsets = lists.offsets.to_numpy()
    is_zero = np.diff(ends[offsets]) == 0
    is_odd = np.diff(odd[offsets]) > 0
    found = [
        "not finite" if is_odd[row] else "all zeros" if is_zero[row] else f"{length:,} numbers"
        for row, length in enumerate(lengths.tolist())
    ]
    return pa.array(found, pa.string(), mask=lists.is_null().to_numpy(zero_copy_only=False))


def _tell_topics(vectors: pa.Array, fits: pa.Array) -> pa.Array:
    known = _find_embedding(fits)
    lists = _one_chunk(vectors)
    return known.topics(lists) if known else pa.nulls(len(lists), pa.string())


def _tell_novelty(vectors: pa.Array, fits: pa.Array, rows: pa.Array) -> pa.Array:
    known = _find_embedding(fits)
    lists = _one_chunk(vectors)
    if known is None:
        return pa.nulls(len(lists), pa.float64())
    return known.novelty(lists, _one_chunk(rows))


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
    VECTOR_FUNCTION: Function(_describe_vectors, ("FLOAT[]",), "VARCHAR"),
    TOPIC_FUNCTION: Function(_tell_topics, ("FLOAT[]", "VARCHAR"), "VARCHAR"),
    NOVELTY_FUNCTION: Function(_tell_novelty, ("FLOAT[]", "VARCHAR", "VARCHAR"), "DOUBLE"),
}
