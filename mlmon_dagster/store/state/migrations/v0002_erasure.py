"""The part of schema version 2 that erasure, retention and looking back need."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

import sqlalchemy as sa
from alembic import op

from mlmon_dagster.store.state.column_types import UtcDateTime

_METRIC_KEYS = (
    "model", "model_version", "dataset", "window_start", "granularity", "slice_key", "slice_value",
    "column_name", "metric", "baseline_id", "method_version", "data_version",
)  # fmt: skip


def upgrade() -> None:
    """Hash the ids of erasures, and add the tables."""
    op.create_table("erasure_key", _text("model"), _text("salt"), sa.PrimaryKeyConstraint("model"))
    op.create_table(
        "erasure_request",
        _text("receipt"),
        _text("model"),
        _text("dataset", "all"),
        _text("author"),
        _text("chosen_by"),
        _count("n_ids"),
        sa.Column("recompute", sa.Boolean(), server_default=sa.false(), nullable=False),
        _text("found", "{}"),
        _text("steps", "[]"),
        sa.Column("requested_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("receipt"),
    )
    op.create_table(
        "retention_mark",
        _text("model"),
        _text("dataset"),
        sa.Column("rows_from", UtcDateTime(), nullable=False),
        sa.Column("deleted_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("model", "dataset"),
    )
    _create_metric_history()
    with op.batch_alter_table("dead_letter") as batch:
        batch.add_column(_text("id_hash"))
    _hash_erasures()


def downgrade() -> None:
    """Take it away; ids erased so far cannot be told from their hashes and are forgotten."""
    op.drop_table("erasure")
    op.create_table(
        "erasure",
        _text("model"),
        _text("dataset", "all"),
        _text("prediction_id"),
        sa.Column("requested_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("model", "dataset", "prediction_id"),
    )
    with op.batch_alter_table("dead_letter") as batch:
        batch.drop_column("id_hash")
    for table in ("metric_history", "retention_mark", "erasure_request", "erasure_key"):
        op.drop_table(table)


def _hash_erasures() -> None:
    conn = op.get_bind()
    old = sa.text("SELECT model, dataset, prediction_id, requested_at FROM erasure")
    rows = [row._mapping for row in conn.execute(old)]
    salts = {row["model"]: secrets.token_hex(16) for row in rows}
    op.drop_table("erasure")
    op.create_table(
        "erasure",
        _text("model"),
        _text("dataset", "all"),
        _text("id_hash"),
        sa.Column("requested_at", UtcDateTime(), nullable=False),
        _text("receipt"),
        sa.PrimaryKeyConstraint("model", "dataset", "id_hash"),
    )
    op.create_index("erasure_receipt", "erasure", ["receipt"])
    if not rows:
        return
    keys = sa.table("erasure_key", sa.column("model"), sa.column("salt"))
    conn.execute(sa.insert(keys), [{"model": m, "salt": salt} for m, salt in salts.items()])
    plain = sa.table(
        "erasure", *(sa.column(n) for n in ("model", "dataset", "id_hash", "requested_at"))
    )
    conn.execute(
        sa.insert(plain),  # times as the database gave them, which it takes back as they are
        [
            {
                "model": row["model"],
                "dataset": row["dataset"],
                "id_hash": hashlib.sha256(
                    (salts[row["model"]] + row["prediction_id"]).encode()
                ).hexdigest(),
                "requested_at": row["requested_at"],
            }
            for row in rows
        ],
    )


def _create_metric_history() -> None:
    texts = {"model_version": "all", "slice_key": "all", "slice_value": "all",
             "column_name": ":table", "baseline_id": "none"}  # fmt: skip
    keys: list[sa.Column[Any]] = [
        sa.Column(name, UtcDateTime(), nullable=False)
        if name == "window_start"
        else _text(name, texts.get(name, ""))
        for name in _METRIC_KEYS
    ]
    op.create_table(
        "metric_history",
        *keys,
        sa.Column("window_end", UtcDateTime(), nullable=False),
        *(sa.Column(name, sa.Float(), nullable=True) for name in ("value", "lower", "upper")),
        _count("n"),
        _count("n_baseline"),
        _text("baseline_kind", "none"),
        *(sa.Column(name, sa.Float(), nullable=True) for name in ("p_value", "actual_coverage")),
        *(_text(name) for name in ("maturity", "reason", "run_id")),
        sa.Column("computed_at", UtcDateTime(), nullable=False),
        _count("sequence"),
        sa.PrimaryKeyConstraint(*_METRIC_KEYS, "computed_at"),
        sqlite_with_rowid=False,
    )


def _text(name: str, default: str = "") -> sa.Column[str]:
    return sa.Column(name, sa.Text(), server_default=default, nullable=False)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)
