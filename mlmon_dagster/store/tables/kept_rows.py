"""Refused rows as they were written, so that they can be read again.

One file for each landing file with refused rows, beside the quarantined files. It holds the rows'
own lines, or their cells where the landing file is Parquet, and for each row where it was and the
keyed hash of its id. They are people's data: an erasure takes rows out of here, and so does
retention. What the state database says of refused rows holds no values.

To find ids in files as somebody else wrote them, in any packing and any encoding of text, a file is
unpacked to its innermost layers. One that cannot be read to its end, or is of a kind that is not
known, may hold anything: whoever searches it is told so.
"""

from __future__ import annotations

import bz2
import datetime as dt
import io
import json
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from numpy.typing import NDArray

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.state.erased_ids import hash_id
from mlmon_dagster.store.state.schema import ingest_file
from mlmon_dagster.store.state.sql import fetch_rows

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store


_WORD: Final = re.compile(rb"[0-9A-Za-z_\x80-\xff]+")
_DEEPEST = 5  # layers
_LARGEST = 2 << 30  # bytes of a file's layers; more may be a bomb
_CHUNK = 1 << 20
_ENCODINGS: Final = ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "latin-1")
# What no text has: other control characters than tab, line ends, page end and escape.
_NOT_TEXT: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_MARKS: Final = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")  # of UTF-16 and UTF-32
_STREAMS: Final[dict[bytes, Callable[[], Any]]] = {
    b"\x1f\x8b": lambda: zlib.decompressobj(wbits=31),
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\x00": lzma.LZMADecompressor,
    b"]\x00\x00": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE),
}
_CODECS: Final = {b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}

Find = Callable[[bytes], bool]


class Unreadable(Exception):
    """A layer that cannot be read to its end."""


@dataclass(frozen=True)
class Layers:
    """What a file holds.

    Attributes:
        parts: Its innermost layers, as far as they could be read: text, or the cells of a table.
        is_whole: Whether everything in it could be read.
    """

    parts: tuple[bytes, ...]
    is_whole: bool


def unpack(content: bytes) -> Layers:
    """Return the innermost layers of a file: of archives in archives, of packed and Parquet files.

    What is no text and no known packing is given as it is, and is not whole.
    """
    parts: list[bytes] = []
    is_whole = _unpack(content, parts, _DEEPEST)
    return Layers(tuple(parts), is_whole)


def _unpack(content: bytes, parts: list[bytes], depth: int) -> bool:
    inner: list[bytes] = []
    try:
        for layer in _open_layers(content):
            inner.append(layer)
            if sum(map(len, inner)) + sum(map(len, parts)) > _LARGEST:
                raise Unreadable
    except Unreadable:
        parts += [content, *inner]
        return False
    if not inner:
        parts.append(content)
        return not _NOT_TEXT.search(content) or content.startswith(_MARKS)
    if content[:4] == b"PAR1":
        parts += inner  # its cells
        return True
    if depth == 0:
        parts += inner
        return False
    return all([_unpack(layer, parts, depth - 1) for layer in inner])


def _open_layers(content: bytes) -> Iterator[bytes]:
    """Yield what a layer packs; nothing if it packs nothing.

    Raises:
        Unreadable: After what could be read.
    """
    if content[:2] == b"PK":
        yield from _read_archive(content)
    elif content[257:262] == b"ustar":
        yield from _read_entries(content)
    elif content[:4] == b"PAR1":
        yield from _read_cells(content)
    elif codec := next((c for mark, c in _CODECS.items() if content.startswith(mark)), ""):
        yield from _decode(content, codec)
    elif opener := next((o for mark, o in _STREAMS.items() if content.startswith(mark)), None):
        yield from _inflate(content, opener)


def _read_archive(content: bytes) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.infolist():
                yield entry.filename.encode("utf-8", "surrogatepass")
                if entry.file_size > _LARGEST:
                    raise Unreadable
                yield archive.read(entry)
                yield entry.comment or b" "
            yield archive.comment or b" "
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, OSError) as error:
        raise Unreadable from error  # cut off, locked by a password, packed by an unknown method


def _read_entries(content: bytes) -> Iterator[bytes]:
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for entry in archive:
                yield entry.name.encode("utf-8", "surrogatepass")
                if entry.isfile() and (file := archive.extractfile(entry)):
                    yield file.read()
    except (tarfile.TarError, OSError) as error:
        raise Unreadable from error


def _inflate(content: bytes, opener: Callable[[], Any]) -> Iterator[bytes]:
    """Yield the members of a stream, joined; bytes after the last one are a layer of their own."""
    whole: list[bytes] = []
    rest, read = content, 0
    while rest and (not whole or any(rest.startswith(mark) for mark in _STREAMS)):
        stream = opener()
        try:
            for start in range(0, len(rest), _CHUNK):
                whole.append(stream.decompress(rest[start : start + _CHUNK]))
                read += len(whole[-1])
                if stream.eof or read > _LARGEST:
                    break
        except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
            yield b"".join(whole)
            raise Unreadable from error
        if not stream.eof:
            yield b"".join(whole)
            raise Unreadable
        unused = stream.unused_data
        rest = unused + rest[start + _CHUNK :]
    yield b"".join(whole)
    if rest.strip(b"\0"):  # padding is no content
        yield rest


def _decode(content: bytes, codec: str) -> Iterator[bytes]:
    read: list[bytes] = []
    size = 0
    try:
        with pa.CompressedInputStream(pa.BufferReader(content), codec) as stream:
            while chunk := stream.read(_CHUNK):
                read.append(chunk)
                size += len(chunk)
                if size > _LARGEST:
                    break
    except (pa.ArrowException, OSError) as error:
        yield b"".join(read)
        raise Unreadable from error
    yield b"".join(read)


def _read_cells(content: bytes) -> Iterator[bytes]:
    """Yield the cells of a Parquet file, and its names and notes."""
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as source:
            schema = source.schema_arrow
            notes = {**(source.metadata.metadata or {}), **(schema.metadata or {})}
            yield b"\n".join([*map(str.encode, schema.names), *notes, *notes.values()])
            for batch in source.iter_batches():
                yield b"\n".join(
                    text
                    for column in batch.columns
                    for cell in column.to_pylist()
                    for text in texts_in(cell)
                )
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Unreadable from error


def texts_in(cell: object) -> Iterator[bytes]:
    """Yield every value inside of a cell, however nested, as text."""
    if isinstance(cell, dict):
        cell = list(cell.values())
    if isinstance(cell, list | tuple):
        for inner in cell:
            yield from texts_in(inner)
    elif isinstance(cell, bytes):
        yield cell
    elif cell is not None:
        yield str(cell).encode("utf-8", "surrogatepass")


def needles_of(text: str) -> list[bytes]:
    """Return how a text may stand in a file: as it is, as JSON and CSV write it, in any encoding.

    A character that an encoding lacks makes no needle there.
    """
    written = (
        text,
        json.dumps(text)[1:-1],
        json.dumps(text, ensure_ascii=False)[1:-1],
        text.replace('"', '""'),
    )
    found = []
    for form in dict.fromkeys(written):
        for encoding in _ENCODINGS:
            try:
                found.append(form.encode(encoding, "surrogatepass"))
            except UnicodeEncodeError:
                continue
    return list(dict.fromkeys(found))


def word_finder(ids: Sequence[str]) -> Find:
    """Return what says whether bytes hold one of some ids, as whole words."""
    by_word: dict[bytes, list[bytes]] = {}
    for needle in (needle for id_ in ids for needle in needles_of(id_)):
        word = _WORD.search(needle)
        by_word.setdefault(word[0] if word else b"", []).append(needle)

    def find(text: bytes) -> bool:
        words = {*_WORD.findall(text), b""} & by_word.keys()
        return any(_is_word_in(needle, text) for word in words for needle in by_word[word])

    return find


def _is_word_in(needle: bytes, text: bytes) -> bool:
    start = text.find(needle)
    while start >= 0:
        around = text[max(start - 1, 0) : start], text[start + len(needle) :][:1]
        edges = needle[:1], needle[-1:]
        if not any(_WORD.match(a) and _WORD.match(e) for a, e in zip(around, edges, strict=True)):
            return True
        start = text.find(needle, start + 1)
    return False


Mask = NDArray[np.bool_]
CELL: Final = "cell:"
ENDING: Final = ".rows.parquet"
_HEAD: Final = b"mlmon.head"
# Of each row; then come ``lines`` and ``records``, or a column for each cell.
ABOUT: Final = pa.schema(
    [
        ("row", pa.int64()),  # its number in the landing file, the first is 0
        ("place", pa.string()),  # ``line 7``
        ("id_hash", pa.string()),  # keyed; empty where no id was read
        ("is_refused", pa.bool_()),  # else it is only here because it shares a line
        ("window_start", pa.timestamp("us", "UTC")),  # null where its time was not read
    ]
)


@dataclass(frozen=True)
class KeptRows:
    """The refused rows of one landing file.

    Attributes:
        rows: `ABOUT`, then ``lines`` (numbers, the first is 1) and ``records`` (their bytes), or
            one column ``cell:NAME`` for each column of a Parquet file.
        head: The bytes before the first row, such as the header of a CSV file.
    """

    rows: pa.Table
    head: bytes = b""

    @staticmethod
    def joined(parts: Sequence[KeptRows]) -> KeptRows | None:
        """Return those of all parts of a file; None if there are none."""
        if not parts:
            return None
        return KeptRows(pa.concat_tables([part.rows for part in parts]), parts[0].head)

    @property
    def is_refused(self) -> Mask:
        """Return which rows are refused ones."""
        found: Mask = self.rows["is_refused"].to_numpy(zero_copy_only=False).astype(bool)
        return found

    @property
    def n_refused(self) -> int:
        """Return how many rows are refused ones."""
        return int(self.is_refused.sum())

    def content(self) -> bytes:
        """Return the file's bytes."""
        sink = io.BytesIO()
        metadata = {**(self.rows.schema.metadata or {}), _HEAD: self.head}
        pq.write_table(
            self.rows.replace_schema_metadata(metadata), sink, compression="zstd",
            write_statistics=False, write_page_checksum=True,
        )  # fmt: skip
        return sink.getvalue()

    @staticmethod
    def of(content: bytes) -> KeptRows:
        """Read what `content` returned."""
        rows = pq.read_table(pa.BufferReader(content))
        return KeptRows(rows, (rows.schema.metadata or {}).get(_HEAD, b""))

    def write_as_landed(self, target: Path) -> None:
        """Write a file like the landing file, with these rows only."""
        if "records" not in self.rows.column_names:
            cells = [n for n in self.rows.column_names if n.startswith(CELL)]
            table = self.rows.select(cells).rename_columns([n.removeprefix(CELL) for n in cells])
            pq.write_table(table, target)
            return
        by_line = {
            line: record
            for lines, records in zip(self._lines(), self.rows["records"].to_pylist(), strict=True)
            for line, record in zip(lines, records, strict=True)
        }
        with target.open("wb") as file:
            file.write(self.head)
            for _, record in sorted(by_line.items()):
                file.write(record if record.endswith(b"\n") else record + b"\n")

    def without(self, gone: Mask) -> KeptRows:
        """Return the rows that are not in the mask and share no line with one that is."""
        if "lines" in self.rows.column_names and gone.any():
            lines = self._lines()
            cut: set[int] = set()
            while True:
                cut.update(n for row in np.flatnonzero(gone) for n in lines[row])
                more = np.array([not cut.isdisjoint(mine) for mine in lines], dtype=bool)
                if (more == gone).all():
                    break
                gone = more
        return KeptRows(self.rows.filter(pa.array(~gone)), self.head)

    def with_hashed_ids(self, salt: str) -> KeptRows:
        """Return the rows with the keyed hash of what stands under ``id_hash``."""
        ids = self.rows["id_hash"].to_pylist()
        hashes = pa.array([hash_id(salt, id_) if id_ else "" for id_ in ids], pa.string())
        place = self.rows.column_names.index("id_hash")
        return KeptRows(self.rows.set_column(place, "id_hash", hashes), self.head)

    def before(self, moment: dt.datetime) -> Mask:
        """Return the rows of windows that start before a moment; not those without a window."""
        starts = self.rows["window_start"].to_pylist()
        return np.array([s is not None and s < moment for s in starts], dtype=bool)

    def of_ids(self, hashes: Collection[str], ids: Sequence[str]) -> Mask:
        """Return the rows of some ids: by hash, or because one stands in them as a word."""
        find = word_finder(ids)
        has_word = [any(map(find, texts)) for texts in self._texts()]
        of_id = [known in hashes for known in self.rows["id_hash"].to_pylist()]
        found: Mask = np.array([a or b for a, b in zip(has_word, of_id, strict=True)], dtype=bool)
        return found

    def _lines(self) -> list[list[int]]:
        found: list[list[int]] = self.rows["lines"].to_pylist()
        return found

    def _texts(self) -> Iterator[list[bytes]]:
        if "records" in self.rows.column_names:
            yield from self.rows["records"].to_pylist()
            return
        cells = [n for n in self.rows.column_names if n.startswith(CELL)]
        for row in self.rows.select(cells).to_pylist():
            yield [text for cell in row.values() for text in texts_in(cell)]


def locate_folder(store: Store, model: str) -> Location:
    """Return the folder of a model's refused files and rows, each named by the file's content."""
    return store.root / "quarantine" / model


def make_name(log_id: str, stream: str) -> str:
    """Return the name of the file with the refused rows of a reading."""
    return f"{log_id}.{stream}{ENDING}"


def list_places(store: Store, model: str) -> list[Location]:
    """Return the files with refused rows of a model."""
    folder = locate_folder(store, model)
    return [folder / name for name in folder.below() if _is_rows(name)]


def read_rows(place: Location) -> KeptRows | None:
    """Read one such file; None if there is none.

    Raises:
        StoreError: If it is damaged.
    """
    content = place.read()
    try:
        return None if content is None else KeptRows.of(content)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"The refused rows at {place} cannot be read: {error}") from error


def sweep_settled(store: Store, model: str) -> int:
    """Delete copies and rows that were taken in meanwhile; return how many files that were.

    What a crash left behind goes too. Files that the manifest does not know stay, since it may have
    been restored to an earlier day. The lock of the model's ingest must be held.
    """
    folder = locate_folder(store, model)
    names = folder.below()
    if not names:
        return 0
    c = ingest_file.c
    mine = sa.select(c.sha256, c.status, c.kept).where(c.model == model)
    rows = fetch_rows(store.state, mine)
    known = {row.sha256 for row in rows}
    needed = {row.kept for row in rows}
    is_open = {row.sha256 for row in rows if row.status != "done"}
    settled = [
        name
        for name, sha in ((name, name.split(".")[0]) for name in names)
        if name.startswith(".")  # half written
        or (sha in known and name not in needed and (_is_rows(name) or sha not in is_open))
    ]
    for name in settled:
        (folder / name).delete()
    return len(settled)


def _is_rows(name: str) -> bool:
    return name.endswith(ENDING)


def count_ids(store: Store, model: str, hashes: Collection[str], ids: Sequence[str]) -> int:
    """Count the refused rows that `erase_ids` would take out."""
    found = [kept for _, kept in _read_all(store, model) if kept]
    return sum(k.n_refused - k.without(k.of_ids(hashes, ids)).n_refused for k in found)


def erase_ids(store: Store, model: str, hashes: Collection[str], ids: Sequence[str] | None) -> None:
    """Take the rows of some ids out of all files.

    A file goes whole if the ids are not known, or it is damaged and may hold them.
    """
    for place, kept in _read_all(store, model):
        if ids is None or kept is None:
            place.delete()
        else:
            replace_rows(place, kept, kept.without(kept.of_ids(hashes, ids)))


def _read_all(store: Store, model: str) -> Iterator[tuple[Location, KeptRows | None]]:
    """Yield each file with what it holds; None if it is damaged."""
    for place in list_places(store, model):
        try:
            if kept := read_rows(place):
                yield place, kept
        except StoreError:
            yield place, None


def replace_rows(place: Location, before: KeptRows, after: KeptRows) -> None:
    """Write what is left of a file's rows; nothing if it is the same, no file without rows."""
    if not after.n_refused:
        place.delete()
    elif after.rows.num_rows < before.rows.num_rows:
        place.write(after.content())
