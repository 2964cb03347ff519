"""Looking for traces of ids or values in every file of the store and every table of the state.

Files are read whole: unpacked where they are packed, decoded where they are Parquet. It is slow and
thorough, on this machine and in object storage alike.

A text such as `17` stands in any store: as a size, a count, a day. Such a text is looked for as a
whole value of columns that hold ids, and as a word of what others wrote: copies of landing files
and refused rows. Any other text is looked for everywhere, as a part of any longer one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa

from mlmon_dagster.store.places.location import LocalPlace, Location
from mlmon_dagster.store.state.schema import METADATA
from mlmon_dagster.store.tables.raw_search import Find, needles_of, unpack, word_finder

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store

T = TypeVar("T")

_AT_ONCE = 100
_ROWS = 10_000
_WRITTEN_BY_OTHERS: Final = ("quarantine", "staging")  # folders
_ID_COLUMNS: Final = frozenset({"prediction_id", "trace_id", "span_id", "parent_id"})
_SHORTEST = 6  # characters of a text that is found only where it is meant


@dataclass(frozen=True)
class Proof:
    """What was searched, and where something was found.

    Attributes:
        n_files: Files that were read.
        n_tables: Tables of the state database.
        traces: Files and ``table.column`` that hold one of the texts.
        unread: Copies of landing files that cannot be read to their end, so that they may.
        n_common: How many of the texts were looked for only where ids stand.
    """

    n_files: int
    n_tables: int
    traces: tuple[str, ...]
    unread: tuple[str, ...] = ()
    n_common: int = 0


def is_common(text: str) -> bool:
    """Say whether a text may stand anywhere without being meant: a number, or a short one."""
    return len(text) < _SHORTEST or not any(c.isalpha() for c in text)


def find_traces(store: Store, texts: Sequence[str]) -> Proof:
    """Search the whole store for texts, such as the ids that were erased.

    Args:
        store: The store; if it is in object storage, its folder on this machine is searched too.
        texts: What to look for.
    """
    traces: list[str] = []
    unread: list[str] = []
    n_files = 0
    rare = [text for text in texts if not is_common(text)]
    find = word_finder(texts)
    needles = [needle for text in rare for needle in needles_of(text)]
    places: list[Location] = [store.root]
    if not store.root.is_local:
        places.append(LocalPlace(str(store.folder)))
    for place in places:
        for name in place.below():
            n_files += 1
            content = (place / name).read()
            if content is None:  # a writer's temporary file, which is gone
                continue
            if name.split("/")[0] in _WRITTEN_BY_OTHERS:
                layers = unpack(content)
                if any(map(find, layers.parts)):
                    traces.append(name)
                elif not layers.is_whole:
                    unread.append(name)
            elif any(needle in content for needle in needles) or (
                content[:4] == b"PAR1" and _parquet_holds(content, texts, needles)
            ):
                traces.append(name)
    tables = list(METADATA.sorted_tables)
    with store.state.connect() as conn:
        for table in tables:
            traces += [f"{table.name}.{c}" for c in _columns_with(conn, table, texts, rare)]
    return Proof(
        n_files, len(tables), tuple(traces), tuple(unread), len(set(texts)) - len(set(rare))
    )


def _columns_with(
    conn: sa.Connection, table: sa.Table, texts: Sequence[str], rare: Sequence[str]
) -> Iterator[str]:
    for column in table.c:
        if not isinstance(column.type, sa.String):
            continue
        wanted = set(texts) if column.name in _ID_COLUMNS else set[str]()
        # Most columns repeat a few values, so this is less than a search of every row.
        with conn.execute(sa.select(column).distinct()) as values:
            for some in values.partitions(_ROWS):
                found = [value for (value,) in some if value]
                joined = "\0".join(found)
                if not wanted.isdisjoint(found) or any(text in joined for text in rare):
                    yield column.name
                    break


def may_hold(content: bytes | None, find: Find) -> bool:
    """Tell whether a copy of a landing file holds an id as a word, or cannot be read to its end.

    Args:
        content: None of a writer's temporary file, which is gone, holds nothing.
        find: Of the ids, see `word_finder`.
    """
    if content is None:
        return False
    layers = unpack(content)
    return not layers.is_whole or any(map(find, layers.parts))


def _parquet_holds(content: bytes, texts: Sequence[str], needles: Sequence[bytes]) -> bool:
    patterns = [b"|".join(map(re.escape, some)) for some in in_parts(needles)]
    wanted = pa.array(texts, pa.string())
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as source:
            return any(
                (name in _ID_COLUMNS and pc.any(pc.is_in(values, wanted)).as_py())
                or any(
                    pc.any(pc.match_substring_regex(values, pattern)).as_py()
                    for pattern in patterns
                )
                for batch in source.iter_batches()
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
                for values in _texts_in(column)
            )
    except (pa.ArrowInvalid, OSError):
        return False  # a broken file; its bytes were searched


def in_parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield values in parts that make no pattern and no statement too long."""
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]


def _texts_in(array: pa.Array) -> Iterator[pa.Array]:
    """Yield every text inside of an array, however nested."""
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
