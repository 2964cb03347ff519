"""Erasing predictions: every row of some ids, everywhere, for good.

First the ids are noted, as hashes, in one transaction; from then on they are refused when they
arrive again. Then each place is cleared in turn. Every step finds what it has to remove by the
hashes, so that after a crash the erasure is finished by whoever erases next, or by
`resume_erasures`. The log of predictions comes last, since the steps before it learn from there
what to look for.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TypedDict, cast

import sqlalchemy as sa

from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.store import baselines
from mlmon_dagster.store.erasure import ledger
from mlmon_dagster.store.erasure.places import (
    Places,
    Search,
    find_copies,
    find_places,
    search_tables,
    select_letters,
)
from mlmon_dagster.store.erasure.purge import (
    SHORTEST,
    drop_older,
    find_telling_windows,
    forget_numbers,
    purge_profiles,
    purge_rows,
    redact_texts,
    split_in_parts,
)
from mlmon_dagster.store.moments import begin_moment
from mlmon_dagster.store.state import erased_ids, model_history, schema, window_state
from mlmon_dagster.store.state.database import overwrite_deleted
from mlmon_dagster.store.state.schema import erasure_request
from mlmon_dagster.store.state.sql import fetch, fetch_value
from mlmon_dagster.store.state.writing import reached, writer_lock
from mlmon_dagster.store.tables import kept_rows
from mlmon_dagster.store.tables.id_index import forget_index

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store


@dataclass(frozen=True)
class Request:
    """One erasure: whose rows, and what else was asked for."""

    receipt: str
    recompute: bool
    ids: tuple[str, ...] | None  # None where only the hashes are known any more


def find_ids(store: Store, spec: ModelSpec, condition: str, dataset: str = ALL) -> list[str]:
    """Return the ids of the records that meet a SQL condition, made by the predicate language."""
    datasets = None if dataset == ALL else [dataset]
    source = store.inference_records(spec).from_sql(None, datasets)
    found = store.query(f"SELECT DISTINCT prediction_id FROM {source} WHERE {condition} ORDER BY 1")
    return [str(id_) for id_ in found.column(0).to_pylist()]


def erase(
    store: Store,
    spec: ModelSpec,
    ids: Sequence[str],
    *,
    now: datetime,
    dataset: str = ALL,
    author: str = "",
    chosen_by: str = "prediction_id",
    recompute: bool = False,
    places: Places | None = None,
) -> str:
    """Erase predictions, in one dataset or in all; safe to repeat.

    Args:
        store: The store.
        spec: The model.
        ids: Their prediction_ids; unknown ones are noted too, and refused if they ever come.
        now: When.
        dataset: ``all`` or one dataset.
        author: Who asks.
        chosen_by: How the ids were chosen, ``prediction_id`` or ``where``.
        recompute: Compute all numbers of their windows again, not only those about few rows.
        places: What `look` found of these ids just now; tables that are still the same are not
            searched again.

    Returns:
        The receipt, under which it is listed by `load_receipts`.

    Raises:
        StoreError: If an ingest of the model goes on for too long, or the store fails.
    """
    receipt = f"{now:%Y%m%d}-{secrets.token_hex(4)}"
    with writer_lock(store.state, f"ingest/{spec.model}"):
        if places is None or not places.search.is_current():
            places = find_places(store, spec, ids, dataset)
        with store.state.begin() as conn:
            salt = erased_ids.ensure_salt(conn, spec.model)
            hashes = erased_ids.make_hash_table(
                [(dataset, erased_ids.hash_id(salt, id_)) for id_ in dict.fromkeys(ids)]
            )
            erased_ids.note_hashes(conn, spec.model, hashes, now=now, receipt=receipt)
            erased_ids.adopt_hashes(conn, spec.model, hashes, receipt)
            conn.execute(
                sa.insert(erasure_request).values(
                    receipt=receipt, model=spec.model, dataset=dataset, author=author,
                    chosen_by=chosen_by, n_ids=len(set(ids)), recompute=recompute,
                    found=json.dumps(places.counts), requested_at=now,
                )
            )  # fmt: skip
        reached("erase.noted")
        _resume_others(store, spec, receipt, now)
        request = Request(receipt, recompute, tuple(ids))
        _finish_erasure(store, spec, request, now, places.search)
    return receipt


def resume_erasures(store: Store, spec: ModelSpec, now: datetime) -> list[str]:
    """Finish erasures that a crash interrupted or a backup undid; return their receipts."""
    with writer_lock(store.state, f"ingest/{spec.model}"):
        ledger.find_undone(store, spec.model)
        return _resume_others(store, spec, "", now)


def repeat_undone(store: Store, spec: ModelSpec, now: datetime) -> list[str]:
    """Do erasures again that a restored database or a restored store does not know.

    The lock of the model's ingest must be held.

    Returns:
        Their receipts.

    Raises:
        StoreError: If the list beside the tables and the state database do not belong together.
    """
    # Before any row: a backup of the database is to have the key of later erasures.
    erased_ids.ensure_salt(store.state, spec.model)
    return _resume_others(store, spec, "", now) if ledger.find_undone(store, spec.model) else []


class Receipt(TypedDict):
    """An erasure that was asked for: counts, who, when; no ids."""

    receipt: str
    model: str
    dataset: str
    author: str
    chosen_by: str
    n_ids: int
    recompute: bool
    found: dict[str, int]
    steps: list[str]
    requested_at: datetime
    finished_at: datetime | None


def load_receipts(engine: sa.Engine, model: str | None = None) -> list[Receipt]:
    """Return the erasures of a model or of all, newest first."""
    query = sa.select(erasure_request).order_by(erasure_request.c.requested_at.desc())
    if model is not None:
        query = query.where(erasure_request.c.model == model)
    return [
        cast("Receipt", {**r, "found": json.loads(r["found"]), "steps": json.loads(r["steps"])})
        for r in fetch(engine, query)
    ]


def _resume_others(store: Store, spec: ModelSpec, receipt: str, now: datetime) -> list[str]:
    done = []
    for row in reversed(load_receipts(store.state, spec.model)):
        if row["finished_at"] is None and row["receipt"] != receipt:
            known = None if "copies" not in row["steps"] else ()
            request = Request(row["receipt"], row["recompute"], known)
            _finish_erasure(store, spec, request, now)
            done.append(row["receipt"])
    return done


def _finish_erasure(
    store: Store, spec: ModelSpec, request: Request, now: datetime, found: Search | None = None
) -> None:
    ids = erased_ids.load_erased(store.state, spec.model, request.receipt)
    begin_moment(store, spec.model, now)
    ledger.write_list(store, spec.model, request.receipt, is_finished=False)
    reached("erase.listed")
    hashes = ids.hashes.column("id_hash").to_pylist()
    for copy in find_copies(store, spec, request.ids):
        copy.delete()
    reached("erase.whole_copies")
    kept_rows.erase_ids(store, spec.model, set(hashes), request.ids)
    _note_step(store, request, "copies")
    reached("erase.copies")
    if found is None or not found.is_current():
        found = search_tables(store, spec, ids)
    if traces := found.purges.get("traces"):
        with store.state.begin() as conn:  # spans that come later are refused
            erased_ids.note_hashes(
                conn, spec.model, traces.ids.hashes, now=now, receipt=request.receipt
            )
    windows = find_telling_windows(
        store, spec, found.trace, found.rare, recompute=request.recompute
    )
    mark = model_history.load_rows_from(store.state, spec.model).get(PRODUCTION)
    key = erased_ids.personal_key(store.state, spec.model)
    telling = {text for text in found.rare if len(text) >= SHORTEST}
    digests = {erased_ids.digest_personal(key, text) for text in found.rare}
    names = telling | digests | found.trace.rows
    baselines.redact_names(store, spec.model, found.trace.datasets, names)
    reached("erase.baselines")
    with store.state.begin() as conn:
        overwrite_deleted(conn)
        for some in split_in_parts(hashes):
            conn.execute(sa.delete(schema.dead_letter).where(*select_letters(spec, some)))
        forget_numbers(conn, spec, windows)
        redact_texts(conn, spec, telling)
        window_state.mark_inputs(conn, spec, drop_older(windows, mark), now)
    _note_step(store, request, "state")
    reached("erase.state")
    purge_profiles(store, spec, windows)
    _note_step(store, request, "profiles")
    reached("erase.profiles")
    purge_rows(store, found.purges["records"], found.hits["records"])
    _note_step(store, request, "records")
    reached("erase.records")
    for name in ("traces", "actuals", "moved_ids", "predictions"):
        if name in found.purges:
            purge_rows(store, found.purges[name], found.hits[name])
    forget_index(store.queries, spec.model)
    _note_step(store, request, "log")
    reached("erase.log")
    _clean_database(store)
    reached("erase.cleaned")
    _note_step(store, request, "cleaned", finished_at=now)
    ledger.write_list(store, spec.model, request.receipt, is_finished=True)


def _note_step(store: Store, request: Request, step: str, **values: object) -> None:
    with store.state.begin() as conn:
        mine = erasure_request.c.receipt == request.receipt
        steps = json.loads(
            fetch_value(conn, sa.select(erasure_request.c.steps).where(mine)) or "[]"
        )
        steps = json.dumps([*(s for s in steps if s != step), step])
        conn.execute(sa.update(erasure_request).where(mine).values(steps=steps, **values))


def _clean_database(store: Store) -> None:
    """Let the database forget deleted rows, which it otherwise only marks as free."""
    if store.state.dialect.name == "sqlite":
        raw = store.state.raw_connection()
        try:
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            raw.close()
        return
    cleared = (
        schema.sample, schema.sample_history, schema.series, schema.monitor_result,
        schema.dead_letter, schema.baseline,
    )  # fmt: skip
    tables = ", ".join(t.name for t in cleared)
    with store.state.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.exec_driver_sql(f"VACUUM {tables}")
