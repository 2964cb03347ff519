"""The files that hold what baselines are made of; the rows of the state database name them.

Bins hold values of rows: names of categories, values of numbers, edges between them. Values of
rows belong into the store's own files, so a row of the table ``baseline`` has only the SHA-256 of
a file beside the tables, named by it.

A file never changes. It is there before the row that names it, and goes after it; whatever does
either holds one lock, so that nobody deletes a file that is about to be named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import sqlalchemy as sa

from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.state.database import overwrite_deleted
from mlmon_dagster.store.state.schema import baseline
from mlmon_dagster.store.state.writer_lock import writer_lock

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store

REDACTED = "[erased]"
_FOLDER = "baselines"
Json = dict[str, "Json"] | list["Json"] | str | float | bool | None


@contextmanager
def changing(store: Store, model: str) -> Iterator[None]:
    """Hold the lock under which files and the rows that name them are written and deleted."""
    with writer_lock(store.state, f"baseline/{model}"):
        yield


def write(store: Store, model: str, text: str) -> str:
    """Write a file, to be named by a row while the lock is still held; return the row's payload."""
    content = text.encode()
    payload = json.dumps({"sha256": hashlib.sha256(content).hexdigest()})
    place_of(store, model, payload).write(content)
    return payload


def place_of(store: Store, model: str, payload: str) -> Location:
    """Return where the file is that a payload names."""
    return _folder(store, model) / f"{json.loads(payload)['sha256']}.json"


def read(store: Store, model: str, payload: str) -> str | None:
    """Return what a row's payload stands for; None if its file is gone or has other content."""
    content = place_of(store, model, payload).read()
    if content is None or hashlib.sha256(content).hexdigest() != json.loads(payload)["sha256"]:
        return None
    return content.decode()


def tidy(store: Store, model: str, *, dry_run: bool = False) -> list[str]:
    """Delete files that no row names.

    Returns:
        The deleted files' names; with ``dry_run`` those that would be, and nothing is changed.
    """
    if dry_run:
        return _unnamed(store, model)
    with changing(store, model):
        return _delete_unnamed(store, model)


def redact(store: Store, model: str, datasets: Collection[str], names: Collection[str]) -> int:
    """Replace names in all baselines that were fitted on some datasets; return how many baselines.

    Whole list entries only: keys and columns may be called like somebody's value. What the old
    files held is deleted with them. Safe to repeat.
    """
    if not names:
        return 0
    changed = 0
    with changing(store, model):
        for baseline_id, payload in _rows(store, model, datasets):
            text = read(store, model, payload)
            before = None if text is None else json.loads(text)
            after = _without(before, frozenset(names))
            if after != before:
                new = json.dumps(after, ensure_ascii=False)
                _replace(store, model, baseline_id, write(store, model, new))
                changed += 1
        _delete_unnamed(store, model)
    return changed


def _folder(store: Store, model: str) -> Location:
    return store.root / _FOLDER / model


def _rows(
    store: Store, model: str, datasets: Collection[str] | None = None
) -> list[tuple[str, str]]:
    c = baseline.c
    query = sa.select(c.baseline_id, c.payload).where(c.model == model)
    if datasets is not None:
        query = query.where(c.dataset.in_(datasets))
    with store.state.connect() as conn:
        return [(row.baseline_id, row.payload) for row in conn.execute(query)]


def _replace(store: Store, model: str, baseline_id: str, payload: str) -> None:
    c = baseline.c
    with store.state.begin() as conn:
        overwrite_deleted(conn)
        mine = (c.model == model, c.baseline_id == baseline_id)
        conn.execute(sa.update(baseline).where(*mine).values(payload=payload))


def _unnamed(store: Store, model: str) -> list[str]:
    there = _folder(store, model).below()
    named = {place_of(store, model, payload).name for _, payload in _rows(store, model)}
    return [name for name in there if name not in named]


def _delete_unnamed(store: Store, model: str) -> list[str]:
    names = _unnamed(store, model)
    for name in names:
        (_folder(store, model) / name).delete()
    return names


def _without(content: Json, names: frozenset[str]) -> Json:
    if isinstance(content, dict):
        return {key: _without(value, names) for key, value in content.items()}
    if not isinstance(content, list):
        return content
    n = sum(isinstance(entry, str) and entry.startswith(REDACTED[:-1]) for entry in content)
    kept: list[Json] = []
    for entry in content:
        if isinstance(entry, str) and entry in names:
            n += 1  # names of a list differ, since they become the values of a type
            kept.append(REDACTED if n == 1 else f"{REDACTED[:-1]} {n}]")
        else:
            kept.append(_without(entry, names))
    return kept
