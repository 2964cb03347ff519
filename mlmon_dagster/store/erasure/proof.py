"""Looking for traces of an id or a value in every file of the store and every table of the state.

Files are read as bytes, unpacked where they are packed, and Parquet files are decoded as well,
since their pages are compressed. It is slow and thorough: it reads everything.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa

from mlmon_dagster.store.state.schema import METADATA
from mlmon_dagster.store.tables.kept_rows import needles_of

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store


@dataclass(frozen=True)
class Proof:
    """What was searched, and where something was found.

    Attributes:
        n_files: Files of the store's folder that were read; 0 for a store in object storage.
        n_tables: Tables of the state database.
        traces: Files and ``table.column`` that hold one of the texts.
    """

    n_files: int
    n_tables: int
    traces: tuple[str, ...]


def find_traces(store: Store, texts: Sequence[str]) -> Proof:
    """Search the whole store for texts, such as the ids that were erased.

    Args:
        store: The store.
        texts: What to look for, each as a part of any longer text.
    """
    traces: list[str] = []
    n_files = 0
    if store.root.is_local:
        root = store.root.path
        for file in sorted(p for p in root.rglob("*") if p.is_file()):
            n_files += 1
            if file_holds(file, texts):
                traces.append(str(file.relative_to(root)))
    tables = list(METADATA.sorted_tables)
    with store.state.connect() as conn:
        for table in tables:
            traces += [f"{table.name}.{c}" for c in _columns_with(conn, table, texts)]
    return Proof(n_files, len(tables), tuple(traces))


def _columns_with(conn: sa.Connection, table: sa.Table, texts: Sequence[str]) -> Iterator[str]:
    for column in table.c:
        if isinstance(column.type, sa.String):
            hit = sa.or_(*(column.contains(text, autoescape=True) for text in texts))
            if conn.scalar(sa.select(sa.func.count()).select_from(table).where(hit)):
                yield column.name


def file_holds(file: Path, texts: Sequence[str]) -> bool:
    """Tell whether a file holds one of some texts, as bytes, packed or in Parquet's pages."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return False  # a writer's temporary file
    needles = [needle for text in texts for needle in needles_of(text)]
    if any(needle in content for needle in needles):
        return True
    if content[:2] == b"\x1f\x8b":
        try:
            return any(needle in gzip.decompress(content) for needle in needles)
        except (OSError, EOFError, zlib.error):
            return False
    return content[:4] == b"PAR1" and _parquet_holds(file, texts)


def _parquet_holds(file: Path, texts: Sequence[str]) -> bool:
    try:
        with pq.ParquetFile(file) as source:
            for batch in source.iter_batches():
                for column in batch.columns:
                    for values in _texts_in(column):
                        for text in (n for t in texts for n in needles_of(t)):
                            if pc.any(pc.match_substring(values, text)).as_py():
                                return True
    except (pa.ArrowInvalid, OSError):
        return False  # a broken file; its bytes were searched
    return False


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
