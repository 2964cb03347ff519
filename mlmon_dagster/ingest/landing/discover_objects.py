"""Find the landing files of a stream in object storage.

An object is there as a whole or not at all, so that nothing has to settle. It is known again by
its name, size, time, ETag and version together; as everywhere, the content decides.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.ingest.landing.candidate import (
    Candidate,
    Listing,
    Look,
    is_unfinished,
    oldest_first,
)
from mlmon_dagster.spec import FileSource
from mlmon_dagster.spec.names import path_problem
from mlmon_dagster.spec.scalars import printable
from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.store.places.objects import ObjectPlace, listed

_WILD = re.compile(r"[*?[]")


def list_objects(
    source: FileSource,
    stream: Stream,
    known: Mapping[str, Look],
    storage_options: Mapping[str, str],
) -> Listing:
    """List the objects of a stream's glob that are not known.

    Everything below the last folder without a wildcard is listed, a thousand objects a request.

    Args:
        source: The stream's source; its ``settle`` counts only if it is declared.
        stream: The stream's name.
        known: (size, mtime_ns, mark) by name of the objects that need no second look.
        storage_options: How to reach the storage.

    Raises:
        ConfigError: If the glob names no bucket.
        StoreError: If the bucket cannot be listed.
    """
    if problem := path_problem(source.path):
        raise ConfigError(f"source path: {problem}.")
    folder, pattern = _split(source.path)
    place = ObjectPlace(folder, storage_options)
    settle = source.settle.total_seconds() if "settle" in source.model_fields_set else 0.0
    ready: list[Candidate] = []
    waiting: list[Candidate] = []
    for found in listed(place):
        name = printable(f"{folder}/{found.key}")
        mark = f"{found.etag}.{found.version}"
        if known.get(name) == (found.size, found.mtime_ns, mark) or _is_hidden(found.key):
            continue
        if not name_matches(found.key, pattern):
            continue
        candidate = Candidate(
            stream, place / found.key, name, found.size, found.mtime_ns,
            age=time.time() - found.mtime_ns / 1e9, has_marker=not settle, mark=mark,
            etag=found.etag,
        )  # fmt: skip
        (ready if candidate.age >= settle or not settle else waiting).append(candidate)
    return Listing(oldest_first(ready), oldest_first(waiting))


def listed_folder(url: str) -> str:
    """Return the URL below which a glob's objects are listed."""
    return _split(url)[0]


def _split(url: str) -> tuple[str, str]:
    """Divide a glob into the folder that is listed and the pattern of the names below it."""
    scheme, _, rest = url.partition("://")
    bucket, *parts = rest.split("/")
    n_fixed = next((i for i, part in enumerate(parts) if _WILD.search(part)), len(parts) - 1)
    return f"{scheme}://{'/'.join([bucket, *parts[:n_fixed]])}", "/".join(parts[n_fixed:])


def name_matches(key: str, pattern: str) -> bool:
    """Say whether a glob fits a key; wildcards stay within a folder, ``**`` is any folders."""
    return _matches(key.split("/"), pattern.split("/"))


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Compare folder by folder; ``**`` stands for any number of them."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[n:], pattern[1:]) for n in range(len(parts) + 1))
    is_same = bool(parts) and fnmatchcase(parts[0], pattern[0])
    return is_same and _matches(parts[1:], pattern[1:])


def _is_hidden(key: str) -> bool:
    *folders, name = key.split("/")
    return not name or is_unfinished(name) or any(f.startswith((".", "_")) for f in folders)
