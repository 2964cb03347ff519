"""Looking for traces of an id or a value in every file of the store and every table of the state.

Files are read as bytes, unpacked where they are packed, and Parquet files are decoded as well,
since their pages are compressed. It is slow and thorough: it reads everything, once, on this
machine and in object storage alike.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa

from mlmon_dagster.store.places.location import LocalPlace, Location
from mlmon_dagster.store.state.schema import METADATA
from mlmon_dagster.store.tables.kept_rows import needles_of

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store

T = TypeVar("T")

_AT_ONCE = 100
_ROWS = 10_000


@dataclass(frozen=True)
class Proof:
    """What was searched, and where something was found.

    Attributes:
        n_files: Files that were read.
        n_tables: Tables of the state database.
        traces: Files and ``table.column`` that hold one of the texts.
    """

    n_files: int
    n_tables: int
    traces: tuple[str, ...]


def find_traces(store: Store, texts: Sequence[str]) -> Proof:
    """Search the whole store for texts, such as the ids that were erased.

    Args:
        store: The store; if it is in object storage, its folder on this machine is searched too.
        texts: What to look for, each as a part of any longer text.
    """
    traces: list[str] = []
    n_files = 0
    places: list[Location] = [store.root]
    if not store.root.is_local:
        places.append(LocalPlace(str(store.folder)))
    for place in places:
        for name in place.below():
            n_files += 1
            if holds((place / name).read(), texts):
                traces.append(name)
    tables = list(METADATA.sorted_tables)
    with store.state.connect() as conn:
        for table in tables:
            traces += [f"{table.name}.{c}" for c in _columns_with(conn, table, texts)]
    return Proof(n_files, len(tables), tuple(traces))


def _columns_with(conn: sa.Connection, table: sa.Table, texts: Sequence[str]) -> Iterator[str]:
    for column in table.c:
        if isinstance(column.type, sa.String):
            # Most columns repeat a few values, so this is less than a search of every row.
            with conn.execute(sa.select(column).distinct()) as values:
                joined = ("\0".join(v for (v,) in some if v) for some in values.partitions(_ROWS))
                if any(text in many for many in joined for text in texts):
                    yield column.name


def holds(content: bytes | None, texts: Sequence[str]) -> bool:
    """Tell whether a file's content holds one of some texts, packed or in Parquet's pages too.

    Args:
        content: None of a writer's temporary file, which is gone, holds nothing.
        texts: What to look for.
    """
    if content is None:
        return False
    needles = [needle for text in texts for needle in needles_of(text)]
    if any(needle in content for needle in needles):
        return True
    if content[:2] == b"\x1f\x8b":
        try:
            unpacked = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            return False
        return any(needle in unpacked for needle in needles)
    return content[:4] == b"PAR1" and _parquet_holds(content, needles)


def _parquet_holds(content: bytes, needles: Sequence[bytes]) -> bool:
    patterns = [b"|".join(map(re.escape, some)) for some in in_parts(needles)]
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as source:
            return any(
                pc.any(pc.match_substring_regex(values, pattern)).as_py()
                for batch in source.iter_batches()
                for column in batch.columns
                for values in _texts_in(column)
                for pattern in patterns
            )
    except (pa.ArrowInvalid, OSError):
        return False  # a broken file; its bytes were searched


def in_parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield values in parts that make no pattern and no statement too long."""
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]


def _texts_in(array: pa.Array) -> Iterator[pa.Array]:
    """Yield every text inside of an array, however nested; numbers as texts too."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        yield from _texts_in(array.dictionary_decode())
    elif pa.types.is_struct(kind):
        for child in array.flatten():
            yield from _texts_in(child)
    elif pa.types.is_map(kind):
        yield from _texts_in(array.keys)
        yield from _texts_in(array.items)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _texts_in(array.values)
    elif (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    ):
        yield array
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        yield array.cast(pa.string())
