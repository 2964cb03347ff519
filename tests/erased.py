"""Ids that are noted as erased, without the erasure of what is there."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import sqlalchemy as sa

from mlmon_dagster.spec.names import ALL
from mlmon_dagster.store.state import erased_ids


def note_erased(
    engine: sa.Engine,
    model: str,
    ids: Sequence[str],
    *,
    now: dt.datetime,
    dataset: str = ALL,
    receipt: str = "",
) -> None:
    """Note ids as erased."""
    with engine.begin() as conn:
        salt = erased_ids.ensure_salt(conn, model)
        hashes = erased_ids.make_hash_table(
            [(dataset, erased_ids.hash_id(salt, id_)) for id_ in ids]
        )
        erased_ids.note_hashes(conn, model, hashes, now=now, receipt=receipt)
