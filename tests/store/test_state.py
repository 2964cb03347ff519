import datetime as dt
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.state import database, schema


def described(engine: sa.Engine) -> dict[str, object]:
    """Return all that the database knows of its tables."""
    inspector = sa.inspect(engine)

    def by_name(items: list[dict[str, object]]) -> list[str]:
        # What a partial index holds comes as an object that does not compare.
        read = [{k: str(v) if k == "dialect_options" else v for k, v in i.items()} for i in items]
        texts = (str(sorted(item.items(), key=str)) for item in read)
        return sorted(re.sub(r"<[^>]* at 0x\w+>", "", text) for text in texts)

    return {
        table: (
            by_name(inspector.get_columns(table)),
            inspector.get_pk_constraint(table)["constrained_columns"],
            by_name(inspector.get_indexes(table)),
            by_name(inspector.get_unique_constraints(table)),
        )
        for table in inspector.get_table_names()
        if table != database.VERSION_TABLE
    }


def test_opening_a_store_makes_exactly_the_declared_tables(any_store: Store) -> None:
    migrated = described(any_store.state)
    with any_store.state.begin() as conn:
        for view in schema.VIEWS:
            conn.exec_driver_sql(f"DROP VIEW {view.name}")
        schema.METADATA.drop_all(conn)
        schema.METADATA.create_all(conn)
    assert migrated == described(any_store.state)
    assert set(migrated) == set(schema.METADATA.tables)


def test_migrations_keep_samples_clustered_by_their_key_on_sqlite(store: Store) -> None:
    with store.state.connect() as conn:
        text = conn.scalar(sa.text("SELECT sql FROM sqlite_master WHERE name = 'sample'"))
    assert "WITHOUT ROWID" in text


def test_head_is_the_newest_migration_file() -> None:
    folder = Path(database.__file__).parent / "migrations"
    assert ScriptDirectory(str(folder)).get_current_head() == database.HEAD


def test_a_current_store_opens_without_loading_alembic_or_duckdb(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    code = (
        "import sys; from mlmon_dagster.store import open_store; open_store(sys.argv[1]); "
        "print([m for m in ('alembic', 'duckdb', 'deltalake', 'pandas') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgres", marks=pytest.mark.proof)])
def test_processes_may_open_a_new_store_at_once(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("pg_url") if database == "postgres" else None
    code = (
        "import sys; from mlmon_dagster.store import open_store; "
        "open_store(sys.argv[1], *sys.argv[2:]); print('opened')"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path), *([url] if url else [])]
    processes = [
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    answers = [process.communicate() for process in processes]
    assert [out.strip() for out, _ in answers] == ["opened"] * 3, answers


def test_a_database_from_a_newer_program_is_refused(any_store: Store) -> None:
    url = any_store.state.url.render_as_string(hide_password=False)
    with any_store.state.begin() as conn:
        conn.execute(sa.text(f"UPDATE {database.VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(StoreError, match="has version 9999, which this program does not know"):
        open_store(any_store.folder, url)


def test_dagsters_own_migrations_may_live_in_the_same_database(pg_url: str, tmp_path: Path) -> None:
    engine = sa.create_engine(pg_url, poolclass=sa.NullPool)
    with engine.begin() as conn:
        conn.execute(sa.text("CREATE TABLE alembic_version (version_num text)"))
        conn.execute(sa.text("INSERT INTO alembic_version VALUES ('dagster')"))
    open_store(tmp_path, pg_url).close()
    with engine.connect() as conn:
        assert conn.scalar(sa.text("SELECT version_num FROM alembic_version")) == "dagster"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres://u:p@h/db", "postgresql+psycopg2://u:p@h/db"),
        (
            "postgresql://u:p@h:5/db?sslmode=require",
            "postgresql+psycopg2://u:p@h:5/db?sslmode=require",
        ),
        ("postgresql+asyncpg://u@h/db", "postgresql+psycopg2://u@h/db"),
        ("sqlite:////tmp/x.db", "sqlite:////tmp/x.db"),
    ],
)
def test_urls_get_the_driver_that_is_installed(url: str, expected: str) -> None:
    assert database.normalise_url(url).render_as_string(hide_password=False) == expected


@pytest.mark.parametrize("url", ["mysql://root:secret@h/db", "not a url, but secret"])
def test_other_urls_are_refused_without_repeating_the_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        database.normalise_url(url)
    assert "secret" not in str(caught.value)


def test_an_unreachable_database_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        open_store(tmp_path, "postgresql://u:secret@127.0.0.1:1/db")
    assert "127.0.0.1" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["ftp://bucket/x", "s3://", "a[b]", "a|b", "a^b"])
def test_folders_that_tables_cannot_live_in_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be used"):
        open_store(name if "://" in name else tmp_path / name)


def test_write_transactions_that_read_first_lose_no_update(any_store: Store) -> None:
    with any_store.state.begin() as conn:
        conn.exec_driver_sql("CREATE TABLE counter (n integer)")
        conn.exec_driver_sql("INSERT INTO counter VALUES (0)")

    def count() -> None:
        for _ in range(20):
            with any_store.state.begin() as conn:
                if conn.dialect.name == "postgresql":
                    conn.exec_driver_sql("LOCK TABLE counter")
                n = conn.exec_driver_sql("SELECT n FROM counter").scalar_one()
                conn.exec_driver_sql(f"UPDATE counter SET n = {n + 1}")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with any_store.state.connect() as conn:
        assert conn.exec_driver_sql("SELECT n FROM counter").scalar_one() == 80


def test_sqlite_does_not_lose_acknowledged_rows(store: Store) -> None:
    with store.state.connect() as conn:
        assert conn.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert conn.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


def test_naive_times_are_refused(store: Store) -> None:
    with pytest.raises(sa.exc.StatementError, match="naive time"), store.state.begin() as conn:
        conn.execute(
            sa.insert(schema.channel_gate).values(channel="c", not_before=dt.datetime(2024, 1, 1))  # noqa: DTZ001
        )
