"""The state database: connecting and migrating."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.spec.names import shown_url, url_problem, without_secrets
from mlmon_dagster.store.clocks import CLOCK, Clock, read_machine_clock
from mlmon_dagster.store.places import location

HEAD = "0002"  # the newest migration; a test compares it with the migration files
VERSION_TABLE = "mlmon_alembic_version"  # Dagster's own alembic_version may be in the same database
_BUSY_MS = 60_000
_MIGRATION_LOCK = 0x6D6C6D6F6E  # any fixed number: PostgreSQL's advisory locks are numbers


def parsed_url(text: str) -> tuple[URL, str]:
    """Return a database URL and what is wrong with it; nothing if it is a clear one."""
    problem = url_problem(text) or ""
    try:
        return make_url(text), problem
    except (SQLAlchemyError, ValueError):
        return URL.create("unknown"), problem or "it cannot be parsed"


def normalise_url(db_url: str) -> URL:
    """Parse a database URL and name the driver of PostgreSQL, whatever the URL's spelling.

    Raises:
        ConfigError: If it is no URL, not a clear one, or neither SQLite nor PostgreSQL; the URL,
            which may hold a password, is not repeated.
    """
    url, problem = parsed_url(db_url)
    if problem:
        raise ConfigError(
            f"The state database's URL (MLMON_DB_URL) cannot be used: {problem}. "
            "Write postgresql://user:password@host:5432/database or sqlite:////path/state.db"
        )
    backend = url.drivername.split("+")[0]
    if backend in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg2")
    if backend == "sqlite":
        return url.set(drivername="sqlite")
    raise ConfigError(
        f"The state database's URL starts with {url.drivername!r}; use postgresql:// or sqlite:///"
    )


def connect(url: URL, clock: Clock = read_machine_clock) -> sa.Engine:
    """Make the engine of the state database and create its tables if there are none.

    Safe in several processes at once. ``engine.begin()`` is a write transaction (on SQLite it
    takes the write lock at once and waits for it), ``engine.connect()`` is for reading.

    Args:
        url: The database.
        clock: The machine's, which leases and waits go by on SQLite, see `clocks`.

    Raises:
        StoreError: If the database cannot be reached, or its version is not known here.
    """
    engine = engine_of(url)
    engine.update_execution_options(**{CLOCK: clock})
    try:
        _migrate(engine)
    except SQLAlchemyError as error:
        whole = url.render_as_string(hide_password=False)
        found = without_secrets(str(error.__cause__ or error), whole)
        # Not from the error: what it holds would be printed and stored with this one.
        raise StoreError(
            f"The state database at {shown_url(whole)} cannot be opened: "
            f"{' '.join(found.split())}.{_explain_failure(url)}"
        ) from None
    return engine


def _explain_failure(url: URL) -> str:
    """Return what SQLite does not say: that the disk is full, or that nobody may write there."""
    if url.drivername != "sqlite" or not url.database:
        return ""
    folder = Path(url.database).parent
    if why := location.why_not_writable(folder):
        return f" {why}."
    free = location.free_bytes(folder)
    return f" The disk has {free / 1e6:.1f} MB left." if free < location.LEAST_FREE else ""


def engine_of(url: URL) -> sa.Engine:
    """Make the engine of a database without touching its tables."""
    return _sqlite_engine(url) if url.drivername == "sqlite" else _postgres_engine(url)


def overwrite_deleted(conn: sa.Connection) -> None:
    """Have SQLite overwrite what this connection deletes, which it otherwise marks as free."""
    if conn.dialect.name == "sqlite":
        conn.exec_driver_sql("PRAGMA secure_delete=ON")


def _postgres_engine(url: URL) -> sa.Engine:
    return sa.create_engine(
        url, pool_pre_ping=True, connect_args={"options": "-c timezone=UTC", "connect_timeout": 10}
    )


def _sqlite_engine(url: URL) -> sa.Engine:
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_MS / 1000})
    sa.event.listen(engine, "connect", _set_up_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)

    @contextmanager
    def begin() -> Iterator[sa.Connection]:
        with engine.connect().execution_options(mlmon_write=True) as conn, conn.begin():
            yield conn

    # A transaction that reads first and writes later fails when another process wrote in
    # between, without waiting; so a transaction meant for writing says so when it begins.
    engine.begin = begin  # type: ignore[method-assign]
    return engine


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not start transactions by itself
    connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
    connection.execute("PRAGMA synchronous=FULL")  # an acknowledged row survives a power cut
    if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
        return
    for _ in range(100):  # switching does not honour the busy timeout
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except connection.OperationalError:
            time.sleep(0.05)
        else:
            return


def _begin_sqlite(conn: sa.Connection) -> None:
    if conn.get_execution_options().get("mlmon_write", False):
        conn.exec_driver_sql("BEGIN IMMEDIATE")
    elif driver := conn.connection.driver_connection:
        driver.execute("BEGIN")  # waits for nobody, and costs less than a statement of SQLAlchemy's


def _load_version(conn: sa.Connection) -> str | None:
    if not sa.inspect(conn).has_table(VERSION_TABLE):
        return None
    version: str | None = conn.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}"))
    return version


def _migrate(engine: sa.Engine) -> None:
    with engine.connect() as conn:
        version = _load_version(conn)
    if version == HEAD:
        return
    with engine.begin() as conn:
        if conn.dialect.name == "postgresql":
            conn.execute(sa.text("SELECT pg_advisory_xact_lock(:n)"), {"n": _MIGRATION_LOCK})
        version = _load_version(conn)
        if version != HEAD:  # another process may have been first
            _upgrade(conn, version)


def _upgrade(conn: sa.Connection, version: str | None) -> None:
    from alembic import command  # a quarter of a second, and seldom needed
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = conn
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise StoreError(
            f"The state database has version {version}, which this program does not know "
            f"(it knows {HEAD}). Install the mlmon-dagster that wrote it, or a newer one."
        )
    command.upgrade(config, HEAD)
