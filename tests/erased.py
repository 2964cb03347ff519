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
) -> int:
    """Note ids as erased; return how many were not yet noted."""
    with engine.begin() as conn:
        return erased_ids.note(conn, model, ids, now=now, dataset=dataset, receipt=receipt)
