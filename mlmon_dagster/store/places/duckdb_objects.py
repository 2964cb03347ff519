"""The file system through which DuckDB reads the store's data files from object storage.

DuckDB's own extension would have to be downloaded; this needs nothing, and asks the server less,
since a data file of a Delta table never changes once it is written. It needs the extra
``object-storage``, so it is imported where a store is in a bucket and nowhere else.
"""

from __future__ import annotations

import datetime as dt
import threading
from functools import lru_cache

import obstore
from fsspec import AbstractFileSystem

from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.places.objects import connect, explained

_WHOLE = 2 << 20  # a file of at most so many bytes is fetched at once, and kept for a while
_N_KEPT = 32
_N_SIZES = 100_000
_AHEAD = 1 << 20  # of a larger file, at least so much is fetched at once


class ObjectFiles(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Files below the store's root, read only."""

    cachable = False

    def __init__(self, root: Location) -> None:
        super().__init__()
        self.protocol = root.url.partition("://")[0]
        self._root = root
        self._store = connect(root)
        self._sized = lru_cache(maxsize=_N_SIZES)(self._head)
        self._kept = lru_cache(maxsize=_N_KEPT)(self._get)

    def open(self, path: str, mode: str = "rb", **_options: object) -> ObjectFile:
        """Open a file to read it."""
        if mode not in ("r", "rb"):
            raise PermissionError(f"{path}: the files of a table are written by commits only")
        return ObjectFile(self, path)

    def glob(self, path: str, **_options: object) -> list[str]:
        """Return the one file that an escaped pattern stands for; it is not looked for."""
        return [path.replace("[*]", "*").replace("[?]", "?").replace("[[]", "[")]

    def exists(self, path: str, **_options: object) -> bool:
        """Say yes: the log of the table names the files."""
        return bool(path)

    def size(self, path: str) -> int:
        """Return the bytes of a file."""
        return self._sized(self._below(path))

    def modified(self, _path: str) -> dt.datetime:
        """Return always the same moment, since a data file never changes."""
        return dt.datetime(2000, 1, 1, tzinfo=dt.UTC)

    def block(self, path: str, start: int, length: int) -> tuple[int, bytes]:
        """Return bytes of a file that contain those asked for, and where they begin."""
        key = self._below(path)
        size = self._sized(key)
        if size <= _WHOLE:
            return 0, self._kept(key, 0, size)
        # The footer is at the end, and is read in several small pieces.
        asked, start = start, max(0, min(start, size - _AHEAD))
        end = min(size, max(asked + length, start + _AHEAD))
        return start, self._get(key, start, end)

    def _below(self, path: str) -> str:
        full = path if "://" in path else f"{self.protocol}://{path}"
        return full.removeprefix(f"{self._root}/")

    def _head(self, key: str) -> int:
        with explained(f"{self._root}/{key}"):
            return obstore.head(self._store, key)["size"]

    def _get(self, key: str, start: int, end: int) -> bytes:
        with explained(f"{self._root}/{key}"):
            return bytes(obstore.get_range(self._store, key, start=start, end=end))


class ObjectFile(threading.local):
    """One open file; several threads of a query share it, each at a position of its own."""

    def __init__(self, files: ObjectFiles, path: str) -> None:
        self._files = files
        self._path = path
        self._position = 0
        self._start, self._block = 0, b""

    def seek(self, position: int, _whence: int = 0) -> int:
        """Go to a position from the start."""
        self._position = position
        return position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def read(self, length: int = -1) -> bytes:
        """Read up to so many bytes, all that are left by default."""
        size = self._files.size(self._path)
        end = size if length < 0 else min(size, self._position + length)
        if end <= self._position:
            return b""
        held = self._start <= self._position and end <= self._start + len(self._block)
        if not held:
            self._start, self._block = self._files.block(
                self._path, self._position, end - self._position
            )
        first = self._position - self._start
        self._position = end
        return self._block[first : end - self._start]

    def close(self) -> None:
        """Forget what was fetched."""
        self._block = b""
