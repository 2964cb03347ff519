"""The list of erasures beside the tables, so that a restored backup brings nobody back.

An older state database does not know the newest erasures, and older tables still have their rows.
So every erasure is noted in both, and what one of them lacks is done again before rows are read.
A store on this machine has a second copy of the lists in a folder beside its own: it stays where
it is when both are replaced by older ones. Here, too, ids are hashes with the model's key, which
only the state database has.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store.places.location import LocalPlace, Location
from mlmon_dagster.store.state import erased_ids
from mlmon_dagster.store.state.schema import erasure_request
from mlmon_dagster.store.state.sql import fetch, fetch_rows

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store

FOLDER: Final = "erasures"
_FINISHED: Final = ".parquet"
_UNFINISHED: Final = ".unfinished"
_NOTE: Final = b"mlmon.erasure"
_KEPT: Final = ("dataset", "author", "chosen_by", "n_ids", "recompute")


def write_list(store: Store, model: str, receipt: str, *, is_finished: bool) -> None:
    """List an erasure of the state database beside the tables, or mark it as finished there."""
    ids = erased_ids.load_erased(store.state, model, receipt)
    asked = sa.select(erasure_request).where(erasure_request.c.receipt == receipt)
    row = fetch(store.state, asked)[0]
    about = {name: row[name] for name in _KEPT}
    about |= {"requested_at": row["requested_at"].isoformat(), "key": _fingerprint(ids.salt)}
    sink = io.BytesIO()
    pq.write_table(ids.hashes.replace_schema_metadata({_NOTE: json.dumps(about)}), sink)
    ending = _FINISHED if is_finished else _UNFINISHED
    for folder in _folders(store, model):
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
    found = [(folder, list(filter(_is_list, folder.below()))) for folder in _folders(store, model)]
    listed = {name: folder for folder, names in reversed(found) for name in names}
    # What is finished by the list inside, the first, was done to these very tables.
    finished = {n.removesuffix(_FINISHED) for n in found[0][1] if n.endswith(_FINISHED)}
    known = erasure_request.c
    asked = sa.select(known.receipt, known.finished_at).where(known.model == model)
    finished_at = {row.receipt: row.finished_at for row in fetch_rows(store.state, asked)}
    undone = []
    by_receipt = {name.rpartition(".")[0]: (name, folder) for name, folder in listed.items()}
    for receipt, (name, folder) in sorted(by_receipt.items()):
        if receipt not in finished_at:
            _adopt(store, model, receipt, folder / name)
            undone.append(receipt)
    for receipt, moment in finished_at.items():
        if moment is None:
            undone.append(receipt)  # its process died
        elif receipt not in finished:
            with store.state.begin() as conn:
                again = sa.update(erasure_request).where(known.receipt == receipt)
                conn.execute(again.values(finished_at=None, steps="[]"))
            undone.append(receipt)
    return sorted(undone)


def _adopt(store: Store, model: str, receipt: str, place: Location) -> None:
    """Note an erasure that the state database does not know."""
    hashes, about = _read_list(place)
    requested_at = dt.datetime.fromisoformat(about["requested_at"])
    with store.state.begin() as conn:
        if _fingerprint(erased_ids.load_salt(conn, model)) != about["key"]:
            raise StoreError(
                f"The store lists the erasure {receipt} of {model!r} and this state database does "
                "not know it, nor the key of its ids: the database is younger than the store, or "
                "another one. Nothing is read until they belong together, since erased people "
                "could come back. Restore a backup of the database that has the model's key; "
                f"or, if there is none, repeat the erasures (mlmon erase {model} --ids-file FILE) "
                f"and delete {place}."
            )
        erased_ids.note_hashes(conn, model, hashes, now=requested_at, receipt=receipt)
        erased_ids.adopt_hashes(conn, model, hashes, receipt)
        conn.execute(
            sa.insert(erasure_request).values(
                receipt=receipt,
                model=model,
                requested_at=requested_at,
                **{name: about[name] for name in _KEPT},
            )
        )


def _read_list(place: Location) -> tuple[pa.Table, dict[str, Any]]:
    """Return the hashes and their datasets; and the request, its time and the key's fingerprint."""
    content = place.read()
    try:
        table = pq.read_table(pa.BufferReader(content or b""))
        return table, json.loads((table.schema.metadata or {})[_NOTE])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise StoreError(
            f"The list of erased ids at {place} cannot be read: {error}. Restore it from a backup "
            "of the store; until then nothing of the model is read, since erased people could "
            "come back."
        ) from error


def _is_list(name: str) -> bool:
    return name.endswith((_FINISHED, _UNFINISHED))


def _folders(store: Store, model: str) -> list[Location]:
    """Return where the lists are: inside the store, and beside a store on this machine."""
    inside: Location = store.root / FOLDER / model
    beside = [LocalPlace(str(folder_beside(store) / model))] if store.root.is_local else []
    return [inside, *beside]


def folder_beside(store: Store) -> Path:
    """Return the folder with the second copies of the lists."""
    return Path(f"{store.root}.{FOLDER}")


def take_lists(store: Store, folder: Path) -> int:
    """Copy the lists of another store, those of each model in a folder; return how many are new."""
    n_new = 0
    for path in sorted(folder.glob("*/*")):
        place = LocalPlace(str(folder_beside(store) / path.parent.name / path.name))
        if _is_list(path.name) and not place.path.exists():
            place.write(path.read_bytes())
            n_new += 1
    return n_new


def _fingerprint(key: str) -> str:
    return hashlib.sha256(f"fingerprint of {key}".encode()).hexdigest()[:16]
