"""``mlmon serve``: the pages of every model on the web, read-only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlmon_dagster.commands.options import examples, models_of
from mlmon_dagster.errors import ConfigError

if TYPE_CHECKING:
    from mlmon_dagster.project import Project


@click.command(epilog=examples("mlmon serve --port 8322"))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8322, show_default=True, type=click.IntRange(0, 65535))
@click.option("--tls-cert", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.option("--tls-key", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.pass_obj
def serve(
    project: Project, host: str, port: int, tls_cert: Path | None, tls_key: Path | None
) -> None:
    """Show every model, one model and one alert as web pages; nothing can be changed there.

    On another address than this machine's own, every page needs a token of `mlmon collect token`:
    browsers ask for a password, which it is. /metrics answers Prometheus.
    """
    import logging

    from mlmon_dagster.collect.admission import Access
    from mlmon_dagster.collect.app import Listening, make_server
    from mlmon_dagster.serve.app import Pages
    from mlmon_dagster.serve.overview import Overview
    from mlmon_dagster.tables.openmetrics import Exporter

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    store = project.store
    access = Access(store.state, host, project.now)
    overview = Overview(store, lambda: models_of(project), project.now)
    n = len(overview.lines())  # before anybody waits for it
    exporter = Exporter(store, lambda: models_of(project), project.now)
    pages = Pages(store, overview, access, exporter, project.now)
    listening = Listening(host, port, certificate=tls_cert, key=tls_key)
    scheme = "https" if tls_cert else "http"
    click.echo(f"{n} model{'' if n == 1 else 's'} at {scheme}://{host}:{port}/")
    server = make_server(pages, listening)
    try:
        server.run()
    except SystemExit:
        if server.started:
            raise
        raise ConfigError(
            f"Cannot listen on {host}:{port}, as said above. Is another server there? "
            "Then choose another --port."
        ) from None
