"""Connections to the databases that events are read from; they only ever read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.spec.urls import shown_url, url_problem, without_secrets

_CONNECT_SECONDS = 10


def parse_source_url(text: str, variable: str) -> URL:
    """Parse the URL of a source database.

    Args:
        text: Any URL that SQLAlchemy accepts; that of PostgreSQL needs no driver.
        variable: The environment variable it came from, for messages.

    Raises:
        ConfigError: If it is no URL; the URL itself, which may hold a password, is not repeated.
    """
    problem = url_problem(text)
    try:
        url = make_url(text)
    except (SQLAlchemyError, ValueError):
        url, problem = URL.create("unknown"), problem or "it cannot be parsed"
    if problem:
        raise ConfigError(
            f"{variable} is not a database URL: {problem}. Write it like "
            "postgresql://user:password@host:5432/database."
        )
    if url.drivername in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg2")
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        # SQLite would make an empty database of that name.
        raise ConfigError(f"{variable} names the SQLite file {url.database}, which does not exist.")
    return url


@contextmanager
def source_connection(text: str, variable: str) -> Iterator[sa.Connection]:
    """Connect to a source database in one read-only transaction with one view of its data.

    Args:
        text: The URL.
        variable: The environment variable it came from, for messages.

    Raises:
        ConfigError: If the URL is wrong or its driver is not installed.
        StoreError: If the database cannot be reached or a statement fails; the message holds no
            password.
    """
    url = parse_source_url(text, variable)
    engine = _engine(url, variable)
    try:
        with engine.connect() as conn:
            if conn.dialect.name == "postgresql":
                conn.exec_driver_sql("SET LOCAL TIME ZONE 'UTC'")
                conn.exec_driver_sql("SET LOCAL datestyle = 'ISO'")
            yield conn
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        found = " ".join(without_secrets(str(cause), text).split())[:500]
        raise StoreError(
            f"The database of {variable} ({shown_url(text)}): {found}. "
            "Check that it runs, that the variable is right and that its user may read the table."
        ) from None
    finally:
        engine.dispose()


def _engine(url: URL, variable: str) -> sa.Engine:
    is_postgres = url.get_backend_name() == "postgresql"
    try:
        engine = sa.create_engine(
            url,
            poolclass=sa.NullPool,
            connect_args={"connect_timeout": _CONNECT_SECONDS} if is_postgres else {},
        )
    except NoSuchModuleError:
        raise ConfigError(
            f"{variable} starts with {url.drivername}://, which SQLAlchemy does not know; "
            "correct it, or install the dialect's package."
        ) from None
    except ImportError as error:
        raise ConfigError(
            f"{variable} needs the driver {error.name!r}, which is not installed: "
            f"pip install {error.name}."
        ) from None
    if is_postgres:
        engine = engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
    return engine
