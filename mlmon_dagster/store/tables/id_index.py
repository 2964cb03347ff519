"""Which files of the event log hold given prediction ids, without reading the whole log.

The index is a cache: sorted 64-bit words, 48 bits of an id's hash and 16 bits that number the
file. It is derived from the live files themselves whenever it is asked, so it can be deleted at
any time, and nothing has to be written together with the log. It only names candidates; the rows
are then read from those files, so a collision of hashes costs time and never a wrong answer.

Its segments lie in the store. Where that is a bucket they are copied to this machine before they
are searched, so a machine whose disk is empty fetches eight bytes an id and reads no rows.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store.places.location import Location, whole_file
from mlmon_dagster.store.state.sql import literal
from mlmon_dagster.store.tables.delta import LiveFile, Snapshot, escape_glob
from mlmon_dagster.store.tables.engine import QueryEngine

Words = NDArray[np.uint64]

# Of fewer rows in few files, reading all ids is as fast as asking the index. Opening a file takes
# as long as reading some ten thousand ids.
SMALL_LOG = 200_000
FEW_FILES = 64
_FILE_BITS = np.uint64(0xFFFF)
_MOST_FILES = 0x10000
_FAN_IN = 4  # so many segments of about one size become one
_MOST_WORDS = 16_000_000  # of a segment that others are merged into; all are in memory once then
_WORDS_AT_ONCE = 1_000_000
_ROWS_AT_ONCE = 4_000_000
_FOLDER = "id_index"  # of the store, and of its folder on this machine
_ENDING = ".words"


@dataclass(frozen=True)
class Candidates:
    """Where rows of some ids may be.

    Attributes:
        files: Paths of the live files to read.
        ids: The ids, in a column ``prediction_id``, that may be in them.
    """

    files: tuple[str, ...]
    ids: pa.Table


@dataclass(frozen=True)
class _Segment:
    """Sorted words of the ids of some files; the low bits are positions in ``files``.

    The words stay on the disk, and are read where they are looked at.
    """

    path: Path
    files: tuple[str, ...]
    words: Words


def forget_index(engine: QueryEngine, model: str) -> None:
    """Delete the index of a model, so that no hash of an erased id stays; it is made anew.

    Copies on other machines are deleted there when the index is asked next.
    """
    shutil.rmtree(engine.folder / _FOLDER / model, ignore_errors=True)
    home = engine.root / _FOLDER / model
    for name in home.below():
        (home / name).delete()


class IdIndex:
    """The index of one table of the log.

    Args:
        model: Whose log.
        stream: Which of its tables.
        engine: The engine that hashes; another version of it makes the index anew.
    """

    def __init__(self, model: str, stream: str, engine: QueryEngine) -> None:
        self._home: Location = engine.root / _FOLDER / model / stream
        self._folder = engine.folder / _FOLDER / model / stream  # the same if that is a folder
        self._engine = engine

    def candidates(self, snapshot: Snapshot, ids: pa.Table) -> Candidates:
        """Find the live files that may hold rows of some ids.

        Args:
            snapshot: The pinned version of the table.
            ids: A table with a column ``prediction_id``.
        """
        ids = ids.select(["prediction_id"])
        live = {_name_file(file): file for file in snapshot.files}
        if not live:
            return Candidates((), ids.slice(0, 0))
        n_rows = sum(file.n_rows for file in live.values())
        if n_rows < SMALL_LOG and len(live) < FEW_FILES:
            return Candidates(tuple(file.path for file in live.values()), ids)
        hashes = _hash_ids(self._engine, ids) & ~_FILE_BITS
        asked = _sort_distinct(hashes)
        found, names = [], set()
        segments = self._segments(live)
        while segments:
            segment = segments.pop()  # let go once it is searched, with the pages that were read
            hits, held_by = _search_segment(segment, asked)
            found.append(hits)
            names |= held_by
        known = _sort_distinct(np.concatenate(found)) if found else asked[:0]
        chosen = np.isin(hashes, known) if known.size else np.zeros(len(hashes), dtype=bool)
        return Candidates(
            tuple(sorted(live[name].path for name in names if name in live)),
            ids.filter(pa.array(chosen)),
        )

    def _segments(self, live: dict[str, LiveFile]) -> list[_Segment]:
        """Return segments that cover exactly the live files, making what is missing."""
        segments = [self._pruned(segment, live) for segment in self._stored()]
        kept = [segment for segment in segments if segment is not None]
        # Two machines that find no index make the same words, which are then there twice.
        covered = {name for segment in kept for name in segment.files}
        missing = [file for name, file in live.items() if name not in covered]
        kept += [self._indexed(group) for group in _split_files(missing)]
        return self._merged(kept)

    def _stored(self) -> Iterator[_Segment]:
        names = sorted(name for name in self._home.below() if name.endswith(_ENDING))
        if not self._home.is_local:
            for copy in self._folder.glob(f"*{_ENDING}"):
                if copy.name not in names:  # merged or forgotten, maybe by another machine
                    copy.unlink(missing_ok=True)
        for name in names:
            path = self._folder / name
            try:
                if not path.exists():
                    with whole_file(path) as draft:
                        (self._home / name).fetch(draft)
                segment = _open_segment(path)
            except (FileNotFoundError, StoreError):
                continue  # another process merged it
            except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
                segment = None  # cut off or damaged; it is made anew
            if segment is None:
                self._delete(path)
            else:
                yield segment

    def _delete(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        (self._home / path.name).delete()

    def _pruned(self, segment: _Segment, live: dict[str, LiveFile]) -> _Segment | None:
        """Drop the words of files that are no longer live, as after an erasure."""
        if all(name in live for name in segment.files):
            return segment
        is_live = np.array([name in live for name in segment.files])
        pruned = self._store([(segment, is_live)])
        self._delete(segment.path)
        return pruned

    def _indexed(self, files: Sequence[LiveFile]) -> _Segment:
        numbers = pa.table({"path": [f.path for f in files], "number": range(len(files))})
        listed = ", ".join(literal(escape_glob(f.path)) for f in files)
        words = self._engine.query(
            f"""SELECT (hash(prediction_id) & {int(~_FILE_BITS)}::UBIGINT)
                | number::UBIGINT AS word
            FROM read_parquet([{listed}], filename=true, hive_partitioning=false) AS rows
            LEFT JOIN numbers ON numbers.path = rows.filename""",
            {"numbers": numbers},
        )
        if words.column("word").null_count:
            raise StoreError(f"The files of {files[0].path} and others read under other names.")
        return self._write(tuple(map(_name_file, files)), np.sort(words.column("word").to_numpy()))

    def _merged(self, segments: list[_Segment]) -> list[_Segment]:
        by_size: dict[int, list[_Segment]] = {}
        for segment in segments:
            size = int(np.log(max(segment.words.size, 1)) / np.log(_FAN_IN))
            by_size.setdefault(size, []).append(segment)
        full = next((group for group in by_size.values() if _is_full(group)), None)
        if full is None:
            return segments
        merged = self._store([(s, np.ones(len(s.files), dtype=bool)) for s in full])
        for segment in full:
            self._delete(segment.path)
        rest = [segment for segment in segments if segment not in full]
        return self._merged(rest if merged is None else [*rest, merged])

    def _store(self, parts: Sequence[tuple[_Segment, NDArray[np.bool_]]]) -> _Segment | None:
        """Write the words of the chosen files of some segments as one segment."""
        names: dict[str, int] = {}
        words, end = np.empty(sum(segment.words.size for segment, _ in parts), np.uint64), 0
        for segment, chosen in parts:
            renumbered = np.array(
                [names.setdefault(n, len(names)) if c else 0
                 for n, c in zip(segment.files, chosen, strict=True)],
                dtype=np.uint64,
            )  # fmt: skip
            for first in range(0, segment.words.size, _WORDS_AT_ONCE):
                some = segment.words[first : first + _WORDS_AT_ONCE]
                numbers = (some & _FILE_BITS).astype(np.int64)
                kept = chosen[numbers]
                start, end = end, end + int(np.count_nonzero(kept))
                words[start:end] = (some[kept] & ~_FILE_BITS) | renumbered[numbers[kept]]
        if not names:
            return None
        words = words[:end]
        words.sort()
        return self._write(tuple(names), words)

    def _write(self, files: tuple[str, ...], words: Words) -> _Segment:
        about = {"hash": _name_hash(), "files": files}
        schema = pa.schema([("word", pa.uint64())], metadata={"mlmon": json.dumps(about)})
        path = self._folder / f"{uuid.uuid4().hex}{_ENDING}"
        with whole_file(path) as draft:
            with pa.OSFile(str(draft), "wb") as file, pa.ipc.new_file(file, schema) as writer:
                writer.write_table(pa.table({"word": words}, schema=schema))
            segment = _open_segment(draft)  # before another process can find, merge and delete it
        assert segment is not None
        if not self._home.is_local:
            (self._home / path.name).keep(path)
        return replace(segment, path=path)


def _open_segment(path: Path) -> _Segment | None:
    """Map a segment's file; None if another version hashed its ids."""
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    about = json.loads(table.schema.metadata[b"mlmon"])
    if about["hash"] != _name_hash():
        return None
    column = table.column("word")  # in one piece; combining pieces copies even one
    words = column.chunk(0).to_numpy() if column.num_chunks else np.empty(0, np.uint64)
    return _Segment(path, tuple(about["files"]), words)


def _hash_ids(engine: QueryEngine, ids: pa.Table) -> Words:
    """Hash each id of a column ``prediction_id`` to 64 bits; equal ids have equal hashes."""
    if not ids.num_rows:  # as what is known of new ids, and a query takes milliseconds to plan
        return np.empty(0, np.uint64)
    found: Words = (
        engine.query("SELECT hash(prediction_id) AS word FROM ids", {"ids": ids})
        .column("word")
        .to_numpy()
    )
    return found


def find_repeated(ids: pa.Table, known: pa.Table) -> NDArray[np.bool_]:
    """Return which ids occur more than once, among themselves or in ``known``.

    Args:
        ids: A table with a column ``prediction_id``, one row per id that is asked about.
        known: A table with such a column.
    """
    encoded = ids["prediction_id"].combine_chunks().dictionary_encode("encode")
    codes, names = encoded.indices.to_numpy(), encoded.dictionary
    is_repeated = np.bincount(codes, minlength=len(names)) > 1
    if known.num_rows:
        others = known["prediction_id"].combine_chunks()
        is_repeated |= pc.is_in(names, others).to_numpy(zero_copy_only=False)
    found: NDArray[np.bool_] = is_repeated[codes]
    return found


def _sort_distinct(words: Words) -> Words:
    """Return the distinct words, ascending; numpy's own way takes ten times as long."""
    ordered = np.sort(words)
    is_first = np.ones(ordered.size, dtype=bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return ordered if is_first.all() else ordered[is_first]


def _search_segment(segment: _Segment, asked: Words) -> tuple[Words, set[str]]:
    """Return which of the sorted hashes are in a segment, and the files that hold them."""
    words = segment.words
    first = np.searchsorted(words, asked)
    inside = first < words.size
    is_hit = np.zeros(asked.size, dtype=bool)
    is_hit[inside] = (words[first[inside]] & ~_FILE_BITS) == asked[inside]
    hits = asked[is_hit]
    last = np.searchsorted(words, hits | _FILE_BITS, side="right")
    lengths = last - first[is_hit]
    starts = np.repeat(first[is_hit] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    held = words[starts + np.arange(lengths.sum())] if hits.size else words[:0]
    return hits, {segment.files[int(n)] for n in _sort_distinct(held & _FILE_BITS)}


def _split_files(files: Sequence[LiveFile]) -> Iterator[list[LiveFile]]:
    group: list[LiveFile] = []
    n_rows = 0
    for file in files:
        if group and (n_rows + file.n_rows > _ROWS_AT_ONCE or len(group) >= _MOST_FILES // 4):
            yield group
            group, n_rows = [], 0
        group.append(file)
        n_rows += file.n_rows
    if group:
        yield group


def _is_full(group: Iterable[_Segment]) -> bool:
    segments = list(group)
    n_files = sum(len(segment.files) for segment in segments)
    n_words = sum(segment.words.size for segment in segments)
    return len(segments) >= _FAN_IN and n_files <= _MOST_FILES and n_words <= _MOST_WORDS


def _name_file(file: LiveFile) -> str:
    return file.path.rpartition("/")[2]


def _name_hash() -> str:
    import duckdb

    return f"duckdb {duckdb.__version__}"
