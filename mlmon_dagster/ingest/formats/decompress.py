"""Unpack compressed files, counting the bytes as they come so that no bomb fills the disk."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa

from mlmon_dagster.ingest.raw import refused

_BLOCK: Final = 1 << 20
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"


def decompressed(path: Path, place: str, max_bytes: int) -> Path:
    """Return the plain bytes of a file, written beside it if it is gzip or Zstandard.

    The first bytes decide, not the name.

    Raises:
        SchemaError: If the file is cut off, damaged or larger than ``max_bytes`` once unpacked.
    """
    with path.open("rb") as file:
        head = file.read(4)
    if head[:2] == _GZIP:
        return _unpacked(path, place, max_bytes, "gzip")
    return _unpacked(path, place, max_bytes, "zstd") if head == _ZSTD else path


def _unpacked(path: Path, place: str, max_bytes: int, kind: str) -> Path:
    plain = path.with_name(f"incoming-{path.name}.plain")
    n_bytes = 0
    try:
        with _opened(path, kind) as packed, plain.open("wb") as target:
            while block := packed.read(_BLOCK):
                n_bytes += len(block)
                if n_bytes > max_bytes:
                    found = f"more than max_bytes = {max_bytes:,} bytes once decompressed."
                    raise refused(place, "too_large", found)
                target.write(block)
    except EOFError as error:
        found = f"the {kind} stream ends early; expected a complete {kind} file."
        raise refused(place, "truncated", found) from error
    except (gzip.BadGzipFile, zlib.error, pa.ArrowException) as error:
        raise _damaged(place, kind, error) from error
    except OSError as error:
        # Arrow reports damage as one; those of the operating system have a number.
        if error.errno is not None:
            raise
        raise _damaged(place, kind, error) from error
    return plain


def _damaged(place: str, kind: str, error: Exception) -> Exception:
    text = str(error)
    if "Truncated" in text:
        found = f"the {kind} stream ends early; expected a complete {kind} file."
        return refused(place, "truncated", found)
    found = f"damaged {kind} ({text[:160]}); expected a complete {kind} file."
    return refused(place, "unreadable", found)


def _opened(path: Path, kind: str) -> BinaryIO | Any:
    return gzip.open(path, "rb") if kind == "gzip" else pa.CompressedInputStream(str(path), "zstd")
