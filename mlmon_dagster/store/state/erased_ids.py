"""Ids whose rows must never be seen again: only keyed hashes of them are kept.

The hash of an id is SHA-256 of the model's key and the id, which Python and the query engine
compute alike. Whoever has the key and a list of all ids can still try them; whoever finds a hash
alone can not.

What stands for personal values where only numbers are kept: digests with the model's key. The key
lies in the state database and nowhere else. Who finds profiles or baselines, which may be in
object storage, cannot try names out; two profiles of one model still name a value alike.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from mlmon_dagster.spec.names import ALL
from mlmon_dagster.store.state.schema import erasure, erasure_key
from mlmon_dagster.store.state.sql import Bind, fetch_rows, fetch_value, insert_or_ignore, literal

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

Query = Callable[[str, "Mapping[str, pa.Table] | None"], "pa.Table"]
_PURPOSE = b"personal values"
TRACE = ":trace"  # stands for the dataset of an id that is a trace's
_LENGTH = 32  # hexadecimal digits that are kept


@dataclass(frozen=True)
class Erased:
    """The erased ids of a model.

    Attributes:
        salt: The model's key.
        hashes: Columns dataset (or ``all``, or `TRACE`) and id_hash.
        column: What holds ids of the kind that is looked for.
    """

    salt: str
    hashes: pa.Table
    column: str = "prediction_id"

    def __bool__(self) -> bool:
        """Tell whether there are any; nothing is hashed otherwise."""
        return bool(self.hashes.num_rows)

    def matches_sql(self, row: str) -> str:
        """Return the condition that an alias's prediction_id was erased in its dataset.

        It reads the table ``load_erased``, which is to be ``hashes``.
        """
        return (
            f"EXISTS (SELECT 1 FROM erased AS e WHERE e.id_hash = {self.hash_sql(row)} "
            f"AND e.dataset IN ({literal(ALL)}, {row}.dataset))"
        )

    def hash_sql(self, row: str, column: str = "") -> str:
        """Return the hash of an alias's id as an expression."""
        return f"sha256({literal(self.salt)} || {row}.{column or self.column})"

    def mask(
        self,
        query: Query,
        ids: pa.Array | pa.ChunkedArray,
        datasets: pa.Array | pa.ChunkedArray,
    ) -> np.ndarray:
        """Return which rows were erased.

        Args:
            query: Runs SQL over Arrow tables, such as `Store.query`.
            ids: Text; a null was not erased.
            datasets: Text; a null, as of an actual without one, was erased only with ``all``.
        """
        import numpy as np
        import pyarrow as pa

        found: NDArray[np.bool_] = np.zeros(len(ids), dtype=bool)
        if not self:
            return found
        rows = pa.table({"prediction_id": ids, "dataset": datasets, "i": np.arange(len(ids))})
        sql = f"SELECT r.i FROM given AS r WHERE {self.matches_sql('r')}"
        gone = query(sql, {"given": rows, "erased": self.hashes})
        found[gone.column("i").to_numpy()] = True
        return found


def hash_id(salt: str, prediction_id: str) -> str:
    """Return the keyed hash of an id."""
    return hashlib.sha256((salt + prediction_id).encode()).hexdigest()


def load_salt(bind: Bind, model: str) -> str:
    """Return a model's key; empty if there is none yet."""
    return (
        fetch_value(bind, sa.select(erasure_key.c.salt).where(erasure_key.c.model == model)) or ""
    )


def ensure_salt(bind: Bind, model: str) -> str:
    """Return a model's key, making it the first time; needs a write transaction then."""
    if salt := load_salt(bind, model):
        return salt
    if isinstance(bind, sa.Engine):
        with bind.begin() as conn:
            return ensure_salt(conn, model)
    insert_or_ignore(bind, erasure_key, [{"model": model, "salt": secrets.token_hex(16)}])
    return load_salt(bind, model)


def note_hashes(
    conn: sa.Connection, model: str, hashes: pa.Table, *, now: datetime, receipt: str
) -> None:
    """Note ids as erased, each in one dataset or in all.

    From then on they are refused when they arrive, and records forget them when their windows
    are rebuilt. `store.erasure` removes what is there.

    Args:
        conn: A write transaction.
        model: The model.
        hashes: Columns dataset and id_hash, as `make_hash_table` makes them.
        now: When it was asked for.
        receipt: Of the erasure.
    """
    rows = [{"model": model, "requested_at": now, "receipt": receipt, **row}
            for row in hashes.to_pylist()]  # fmt: skip
    insert_or_ignore(conn, erasure, rows)


def adopt_hashes(conn: sa.Connection, model: str, hashes: pa.Table, receipt: str) -> None:
    """Make hashes that were noted before a part of an erasure: their rows are looked for again."""
    rows = [
        {"the_dataset": row["dataset"], "the_hash": row["id_hash"]} for row in hashes.to_pylist()
    ]
    if rows:
        mine = (
            erasure.c.model == model,
            erasure.c.dataset == sa.bindparam("the_dataset", type_=sa.String),
            erasure.c.id_hash == sa.bindparam("the_hash", type_=sa.String),
        )
        conn.execute(sa.update(erasure).where(*mine).values(receipt=receipt), rows)


def load_erased(engine: sa.Engine, model: str, receipt: str | None = None) -> Erased:
    """Return the erased ids of a model, of all erasures or of one."""
    query = sa.select(erasure.c.dataset, erasure.c.id_hash).where(erasure.c.model == model)
    if receipt is not None:
        query = query.where(erasure.c.receipt == receipt)
    with engine.connect() as conn:
        return Erased(load_salt(conn, model), make_hash_table(fetch_rows(conn, query)))


def make_hash_table(rows: Sequence[Sequence[str]]) -> pa.Table:
    """Return pairs of dataset and hash as the table that `Erased` holds."""
    import pyarrow as pa

    return pa.table(
        {"dataset": [row[0] for row in rows], "id_hash": [row[1] for row in rows]},
        schema=pa.schema([("dataset", pa.string()), ("id_hash", pa.string())]),
    )


def personal_key(engine: sa.Engine, model: str) -> str:
    """Return the key of a model's personal values, made with the model's own the first time."""
    return hmac.new(ensure_salt(engine, model).encode(), _PURPOSE, hashlib.sha256).hexdigest()


def digest_personal(key: str, value: str) -> str:
    """Return what stands for a value; nested, so that a longer value's cannot be made from it."""
    inner = hashlib.sha256((key + value).encode()).hexdigest()
    return hashlib.sha256((key + inner).encode()).hexdigest()[:_LENGTH]


def digest_personal_sql(key: str, text: str) -> str:
    """Return `digest` of an SQL expression as another one, in DuckDB's words."""
    inner = f"sha256({literal(key)} || {text})"
    return f"SUBSTR(sha256({literal(key)} || {inner}), 1, {_LENGTH})"
