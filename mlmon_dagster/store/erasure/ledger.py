"""The list of erasures beside the tables, so that a restored backup brings nobody back.

An older state database does not know the newest erasures, and older tables still have their rows.
So every erasure is noted in both, and what one of them lacks is done again before rows are read.
Here, too, ids are hashes with the model's key, which only the state database has.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.state import erased_ids
from mlmon_dagster.store.state.schema import erasure_key, erasure_request

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store

FOLDER: Final = "erasures"
_FINISHED: Final = ".parquet"
_UNFINISHED: Final = ".unfinished"
_NOTE: Final = b"mlmon.erasure"
_KEPT: Final = ("dataset", "author", "chosen_by", "n_ids", "recompute")


@dataclass(frozen=True)
class Listed:
    """One erasure as it is listed beside the tables.

    Attributes:
        hashes: Columns dataset and id_hash.
        about: The request, when it was, and the key's fingerprint.
    """

    hashes: pa.Table
    about: dict[str, Any]


def write(store: Store, model: str, receipt: str, *, is_finished: bool) -> None:
    """List an erasure of the state database beside the tables, or mark it as finished there."""
    ids = erased_ids.erased(store.state, model, receipt)
    with store.state.connect() as conn:
        row = conn.execute(
            sa.select(erasure_request).where(erasure_request.c.receipt == receipt)
        ).one()
    about = {name: row._mapping[name] for name in _KEPT} | {
        "requested_at": row.requested_at.isoformat(),
        "key": _fingerprint(ids.salt),
    }
    sink = io.BytesIO()
    pq.write_table(ids.hashes.replace_schema_metadata({_NOTE: json.dumps(about)}), sink)
    folder = _folder(store, model)
    ending = _FINISHED if is_finished else _UNFINISHED
    (folder / f"{receipt}{ending}").write(sink.getvalue())
    if is_finished:
        (folder / f"{receipt}{_UNFINISHED}").delete()


def find_undone(store: Store, model: str) -> list[str]:
    """Return the receipts of erasures that have to be done again, oldest first.

    Those that are listed beside the tables and unknown to the state database are noted in it, so
    that their ids are refused from now on; those that the database calls finished and the list
    does not, or lacks, are opened again. The lock of the model's ingest must be held.

    Raises:
        StoreError: If a list was made with another key than this database has.
    """
    # Every look at new files comes by here, so that names must do: lists may be long.
    names = _folder(store, model).below()
    finished, unfinished = (
        {name.removesuffix(end) for name in names if name.endswith(end)}
        for end in (_FINISHED, _UNFINISHED)
    )
    known = erasure_request.c
    asked = sa.select(known.receipt, known.finished_at).where(known.model == model)
    with store.state.connect() as conn:
        finished_at = {row.receipt: row.finished_at for row in conn.execute(asked)}
    undone = []
    for receipt in sorted((finished | unfinished) - finished_at.keys()):
        ending = _FINISHED if receipt in finished else _UNFINISHED
        _adopt(store, model, receipt, _folder(store, model) / f"{receipt}{ending}")
        undone.append(receipt)
    for receipt, moment in finished_at.items():
        if moment is not None and receipt not in finished:
            with store.state.begin() as conn:
                again = sa.update(erasure_request).where(known.receipt == receipt)
                conn.execute(again.values(finished_at=None, steps="[]"))
            undone.append(receipt)
    return sorted(undone)


def _adopt(store: Store, model: str, receipt: str, place: Location) -> None:
    """Note an erasure that the state database does not know."""
    listed = _read(place)
    about = listed.about
    requested_at = dt.datetime.fromisoformat(about["requested_at"])
    with store.state.begin() as conn:
        key = conn.scalar(sa.select(erasure_key.c.salt).where(erasure_key.c.model == model))
        if _fingerprint(key or "") != about["key"]:
            raise StoreError(
                f"The store lists the erasure {receipt} of {model!r} and this state database does "
                "not know it, nor the key of its ids: the database is younger than the store, or "
                "another one. Nothing is read until they belong together, since erased people "
                "could come back. Restore a backup of the database that has the model's key; "
                f"or, if there is none, repeat the erasures (mlmon erase {model} --ids-file FILE) "
                f"and delete {place}."
            )
        erased_ids.note_hashes(conn, model, listed.hashes, now=requested_at, receipt=receipt)
        erased_ids.adopt(conn, model, listed.hashes, receipt)
        conn.execute(
            sa.insert(erasure_request).values(
                receipt=receipt,
                model=model,
                requested_at=requested_at,
                **{name: about[name] for name in _KEPT},
            )
        )


def _read(place: Location) -> Listed:
    content = place.read()
    try:
        table = pq.read_table(pa.BufferReader(content or b""))
        return Listed(table, json.loads((table.schema.metadata or {})[_NOTE]))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise StoreError(
            f"The list of erased ids at {place} cannot be read: {error}. Restore it from a backup "
            "of the store; until then nothing of the model is read, since erased people could "
            "come back."
        ) from error


def _folder(store: Store, model: str) -> Location:
    return store.root / FOLDER / model


def _fingerprint(key: str) -> str:
    return hashlib.sha256(f"fingerprint of {key}".encode()).hexdigest()[:16]
