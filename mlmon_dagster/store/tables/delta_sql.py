"""Parquet files of a table as a SQL subquery with typed columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import pyarrow as pa

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store.state.sql import literal, quote_identifier

Aliases = Mapping[str, tuple[str, ...]]
NO_ALIASES: Final[Aliases] = MappingProxyType({})


def select_sql(
    files: Sequence[str],
    schema: pa.Schema,
    columns: Sequence[str] | None,
    where: str | None,
    aliases: Aliases = NO_ALIASES,
    *,
    has_paths: bool = False,
) -> str:
    """Return a subquery that selects typed columns from Parquet files, an empty one for none.

    A renamed column reads from its earlier names where older rows have it under those. With
    ``has_paths``, the column ``filename`` says which file a row is from.
    """
    old = {name for names in aliases.values() for name in names}
    schema, known = pa.schema([field for field in schema if field.name not in old]), schema
    fields = [schema.field(name) for name in columns] if columns is not None else list(schema)
    names = ", ".join(quote_identifier(field.name) for field in fields)
    names += ", filename" if has_paths else ""
    condition = f" WHERE {where}" if where else ""
    # The empty branch gives the columns their types, and those that no file has their nulls.
    typed = ", ".join(f"NULL::{duckdb_type(f.type)} AS {quote_identifier(f.name)}" for f in known)
    typed += ", NULL::VARCHAR AS filename" if has_paths else ""
    source = f"SELECT {typed} WHERE FALSE"
    if files:
        listed = ", ".join(literal(escape_glob(file)) for file in files)
        source += (
            f" UNION ALL BY NAME SELECT * FROM read_parquet([{listed}], union_by_name=true, "
            f"filename={has_paths}, hive_partitioning=true, hive_types_autocast=false)"
        )
    if renamed := _renamed(known, aliases):
        source = f"SELECT * REPLACE ({renamed}) FROM ({source})"
    return f"(SELECT {names} FROM ({source}){condition})"


def _renamed(schema: pa.Schema, aliases: Aliases) -> str:
    """Return what columns with earlier names read as, for those names that the table has."""
    parts = []
    for name, earlier in aliases.items():
        found = [old for old in reversed(earlier) if old in schema.names]
        if name in schema.names and found:
            type_ = duckdb_type(schema.field(name).type)
            values = ", ".join(f"TRY_CAST({quote_identifier(n)} AS {type_})" for n in found)
            column = quote_identifier(name)
            parts.append(f"COALESCE({column}, {values}) AS {column}")
    return ", ".join(parts)


def duckdb_type(type_: pa.DataType) -> str:
    """Name DuckDB's type for an Arrow type of the store's tables.

    Raises:
        StoreError: If the store has no tables with such columns.
    """
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return f"{duckdb_type(type_.value_type)}[]"
    if pa.types.is_timestamp(type_):
        return "TIMESTAMPTZ" if type_.tz else "TIMESTAMP"
    names = {
        "string": "VARCHAR", "large_string": "VARCHAR", "string_view": "VARCHAR", "bool": "BOOLEAN",
        "int8": "TINYINT", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT",
        "float": "REAL", "double": "DOUBLE", "date32[day]": "DATE", "binary": "BLOB",
    }  # fmt: skip
    if str(type_) not in names:
        raise StoreError(f"The store's tables have no columns of type {type_}.")
    return names[str(type_)]


def escape_glob(path: str) -> str:
    """Write a path so that the engine takes it as it is."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in path)
