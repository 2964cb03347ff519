"""What fails outside of this program is one sentence, whatever library says so."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
import sqlalchemy as sa
from deltalake import write_deltalake

from mlmon_dagster.commands.outside import sentence
from mlmon_dagster.errors import StoreError
from mlmon_dagster.store.state.database import engine_of, normalise_url


def _met(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing failed")


def _full(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'full.db'}")
    with engine.begin() as conn:
        conn.exec_driver_sql("CREATE TABLE t (x)")
        conn.exec_driver_sql("PRAGMA max_page_count = 2")
        conn.exec_driver_sql("INSERT INTO t VALUES (zeroblob(100000))")


def _no_database(tmp_path: Path) -> None:
    (tmp_path / "bad.db").write_bytes(b"nothing like it" * 100)
    with sa.create_engine(f"sqlite:///{tmp_path / 'bad.db'}").connect() as conn:
        conn.exec_driver_sql("SELECT * FROM sqlite_master")


def _no_file(tmp_path: Path) -> None:
    duckdb.sql(f"SELECT * FROM read_parquet('{tmp_path}/gone.parquet')")


def _no_table(_tmp_path: Path) -> None:
    import pyarrow as pa

    write_deltalake("/proc/nowhere", pa.table({"x": [1]}))


def _raised(error: BaseException) -> Callable[[Path], None]:
    def call(_tmp_path: Path) -> None:
        raise error

    return call


@pytest.mark.parametrize(
    ("failing", "expected"),
    [
        (_raised(OSError(errno.ENOSPC, "No space left on device")), "The disk is full. Make room"),
        (_raised(OSError(errno.EROFS, "Read-only file system")), "The file system is read-only"),
        (
            _raised(OSError(errno.EIO, "Input/output error")),
            "The disk failed or is full. Make room",
        ),
        # mlmon store maintain, which was named, cannot write either.
        (_full, "The disk is full. Make room outside of the store, some MB; with them"),
        (_no_database, "The state database is damaged"),
        (_no_file, "mlmon doctor --deep"),
        (_no_table, "mlmon doctor --deep"),
    ],
)
def test_a_failure_outside_is_a_sentence_with_the_next_step(
    failing: Callable[[Path], None], expected: str, tmp_path: Path
) -> None:
    text = sentence(_met(lambda: failing(tmp_path)))

    assert text is not None
    assert expected in text
    assert "\n" not in text


def test_an_error_of_this_program_is_no_sentence_and_a_store_error_keeps_its_own() -> None:
    assert sentence(ValueError("a mistake in the program")) is None
    assert sentence(StoreError("The lock is held.")) == "The lock is held."


def test_a_database_that_goes_away_in_the_middle_is_a_sentence(pg_url: str) -> None:
    engine = engine_of(normalise_url(pg_url))

    def lose() -> None:
        with engine.connect() as conn, engine.connect() as other:
            pid = conn.scalar(sa.text("SELECT pg_backend_pid()"))
            other.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            conn.execute(sa.text("SELECT 1"))

    text = sentence(_met(lose))
    engine.dispose()

    assert text is not None
    assert "The state database failed or went away" in text
    assert "mlmon doctor" in text
