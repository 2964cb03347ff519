"""Finding ids in files as somebody else wrote them, in any packing and any encoding of text.

A file is unpacked to its innermost layers. One that cannot be read to its end, or is of a kind that
is not known, may hold anything: whoever searches it is told so.
"""

from __future__ import annotations

import bz2
import io
import json
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

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
        for layer in _opened(content):
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


def _opened(content: bytes) -> Iterator[bytes]:
    """Yield what a layer packs; nothing if it packs nothing.

    Raises:
        Unreadable: After what could be read.
    """
    if content[:2] == b"PK":
        yield from _archived(content)
    elif content[257:262] == b"ustar":
        yield from _entries_in(content)
    elif content[:4] == b"PAR1":
        yield from _cells_in(content)
    elif codec := next((c for mark, c in _CODECS.items() if content.startswith(mark)), ""):
        yield from _decoded(content, codec)
    elif opener := next((o for mark, o in _STREAMS.items() if content.startswith(mark)), None):
        yield from _inflated(content, opener)


def _archived(content: bytes) -> Iterator[bytes]:
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


def _entries_in(content: bytes) -> Iterator[bytes]:
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for entry in archive:
                yield entry.name.encode("utf-8", "surrogatepass")
                if entry.isfile() and (file := archive.extractfile(entry)):
                    yield file.read()
    except (tarfile.TarError, OSError) as error:
        raise Unreadable from error


def _inflated(content: bytes, opener: Callable[[], Any]) -> Iterator[bytes]:
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


def _decoded(content: bytes, codec: str) -> Iterator[bytes]:
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


def _cells_in(content: bytes) -> Iterator[bytes]:
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
        return any(_stands_in(needle, text) for word in words for needle in by_word[word])

    return find


def _stands_in(needle: bytes, text: bytes) -> bool:
    start = text.find(needle)
    while start >= 0:
        around = text[max(start - 1, 0) : start], text[start + len(needle) :][:1]
        edges = needle[:1], needle[-1:]
        if not any(_WORD.match(a) and _WORD.match(e) for a, e in zip(around, edges, strict=True)):
            return True
        start = text.find(needle, start + 1)
    return False
