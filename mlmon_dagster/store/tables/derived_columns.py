"""What records hold beside what is stored: the columns that are computed from features of text.

They are expressions over the stored columns, and the engine computes those that a statement asks
for. One that DuckDB has no expression for is a function in Python, which the engine knows by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cache
from typing import Final

import pyarrow as pa

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.derived import LANGUAGE_FUNCTION, derive_sql
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.store.state.sql import quote_identifier

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
        f"{derive_sql(feature.described, quote_identifier(feature.of))} AS {quote_identifier(name)}"
        for name, feature in spec.derived_features.items()
        if names is None or name in names
    )
    return f"(SELECT records.*, {found} FROM {from_sql} AS records)" if found else from_sql


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


# Functions in Python that the engine knows by name: of texts, and they give a text.
FUNCTIONS: Final = {LANGUAGE_FUNCTION: _tell_languages}
