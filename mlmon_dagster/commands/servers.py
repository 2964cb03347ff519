"""``mlmon collect`` takes events in over HTTP, and ``mlmon serve`` shows pages; tokens for both."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlmon_dagster.collect import admission
from mlmon_dagster.collect.admission import Access, Pressure
from mlmon_dagster.commands.options import chosen_specs, examples, models_of, prints_table, spec_of
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.tables.table import Answer, AnyAnswer, Column, Table, utc_minute

if TYPE_CHECKING:
    from mlmon_dagster.collect.app import Listening, Served
    from mlmon_dagster.project import Project

_TOKENS = Table[dict[str, Any]](
    "tokens",
    (
        Column("ID", "id"),
        Column("STATE", "state"),
        Column("MODEL", "model"),
        Column("UNTIL (UTC)", "expires_at", lambda at, zone: utc_minute(at, zone) or "for ever"),
        Column("NOTE", "note"),
    ),
)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class _Size(click.ParamType[int]):
    name = "SIZE"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """Read a number of bytes such as 8M or 1GiB."""
        if isinstance(value, int):
            return value
        text = value.upper().removesuffix("IB").removesuffix("B").strip()
        number, unit = (text[:-1], text[-1:]) if text[-1:].isalpha() else (text, "")
        if not number.isdigit() or unit not in _UNITS:
            self.fail(f"{value!r} is not a size such as 8M or 1G", param, ctx)
        return int(number) * _UNITS[unit]


def _address(port: int) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Add where a server listens, by default on some port of this machine."""
    option = click.option("--port", default=port, show_default=True, type=click.IntRange(0, 65535))
    host = click.option(
        "--host", default="127.0.0.1", show_default=True, help="Address to listen on."
    )
    return lambda command: host(option(command))


def _tls(command: Callable[..., object]) -> Callable[..., object]:
    """Add the certificate of a server and its key."""
    file = click.Path(dir_okay=False, exists=True, path_type=Path)
    return click.option("--tls-cert", type=file)(click.option("--tls-key", type=file)(command))


def _run(app: Served, listening: Listening) -> None:
    """Serve until a signal comes.

    Raises:
        ConfigError: If nobody can listen there.
    """
    from mlmon_dagster.collect.app import make_server

    server = make_server(app, listening)
    try:
        server.run()
    except SystemExit:
        if server.started:
            raise
        raise ConfigError(
            f"Cannot listen on {listening.host}:{listening.port}, as said above. Is another server "
            "there? Then choose another --port."
        ) from None


@click.group(
    invoke_without_command=True,
    epilog=examples("mlmon collect --port 8321"),
)
@_address(8321)
@click.option("--model", "models", multiple=True,
              help="Only this model; may be repeated. [default: all whose path fits]")  # fmt: skip
@_tls
@click.option("--max-body", type=_Size(), default="8M", show_default=True,
              help="Largest body, as it comes.")  # fmt: skip
@click.option("--max-unpacked", type=_Size(), default="32M", show_default=True,
              help="Largest body once unpacked.")  # fmt: skip
@click.option("--max-rows", type=click.IntRange(1), default=100_000, show_default=True,
              help="Most rows of a request.")  # fmt: skip
@click.option("--max-requests", type=click.IntRange(1), default=64, show_default=True,
              help="Requests at work at once; above, 429.")  # fmt: skip
@click.option("--max-files", type=click.IntRange(1), default=20_000, show_default=True,
              help="Files of a stream that may wait for ingest; above, 429.")  # fmt: skip
@click.option("--min-free", type=_Size(), default="1G", show_default=True,
              help="Space that stays free on the disk; below, 429.")  # fmt: skip
@click.option("--linger", type=click.FloatRange(0, 10_000), default=20.0, show_default=True,
              help="Milliseconds a request waits for others to share its file.")  # fmt: skip
@click.option("--body-timeout", type=click.FloatRange(0.1), default=30.0, show_default=True,
              help="Seconds for a body to arrive.")  # fmt: skip
@click.option("--head-timeout", type=click.FloatRange(0.1), default=10.0, show_default=True,
              help="Seconds for the head of a request to arrive.")  # fmt: skip
@click.option("--drain", type=click.FloatRange(0), default=2.0, show_default=True,
              help="Seconds from SIGTERM to the end; new requests get 503.")  # fmt: skip
@click.pass_context
def collect(context: click.Context, /, **options: object) -> None:
    """Receive predictions and ground truth over HTTP, for every model with landing files.

    An answer of 202 means that the events are on the disk, in the folder that ingest reads. On
    another address than this machine's own, every request needs a token.
    """
    if context.invoked_subcommand is None:
        _serve(context.obj, options)


def _serve(project: Project, options: dict[str, Any]) -> None:
    import logging

    from mlmon_dagster.collect.app import App, Listening
    from mlmon_dagster.collect.collector import Collector, Limits
    from mlmon_dagster.collect.landing import Committer, prepare, span_targets, targets_of
    from mlmon_dagster.collect.otlp import Spans
    from mlmon_dagster.tables.openmetrics import Exporter

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("mlmon_dagster.collect").setLevel(logging.INFO)
    chosen = options["models"]
    specs = chosen_specs(project, chosen)
    targets, problems = targets_of(specs, project.folder)
    of_spans = span_targets(specs, project.folder)
    everywhere = [*targets.values(), *of_spans.values()]
    if problems and (chosen or not everywhere):
        raise ConfigError("\n".join(problems))
    engine = project.store.state
    access = Access(engine, options["host"], project.now)
    prepare(everywhere)
    limits = Limits(
        options["max_body"], options["max_unpacked"], options["max_rows"],
        options["body_timeout"], options["head_timeout"],
    )  # fmt: skip
    collector = Collector(specs, targets, Committer(options["linger"] / 1000), limits, project.now)
    pressure = Pressure(
        everywhere, engine, max_in_flight=options["max_requests"],
        min_free=options["min_free"], max_files=options["max_files"],
    )  # fmt: skip
    listening = Listening(
        options["host"], options["port"], options["head_timeout"],
        drain_seconds=options["drain"], certificate=options["tls_cert"], key=options["tls_key"],
    )  # fmt: skip
    scheme = "https" if options["tls_cert"] else "http"
    for target in everywhere:
        click.echo(f"{target.model} {target.stream}: into {target.below}")
    for problem in problems:
        click.echo(f"not collected: {problem}", err=True)
    click.echo(f"Listening on {scheme}://{options['host']}:{options['port']}, see /docs")
    exporter = Exporter(project.store, lambda: models_of(project), project.now)
    spans = Spans(specs, of_spans, collector) if of_spans else None
    _run(App(collector, access, pressure, exporter.answer, spans), listening)


@collect.group()
def token() -> None:
    """Make, list and revoke the tokens of those who may push."""


@token.command(epilog=examples("mlmon collect token create --model flight_delay --expires 90d"))
@click.option("--model", required=True, help="The model it is for; '*' for all.")
@click.option("--expires", metavar="WHEN", help="After 90d or 12h, or at a day. [default: never]")
@click.option("--note", default="", help="Who uses it, for the list.")
@click.pass_obj
def create(project: Project, model: str, expires: str | None, note: str) -> None:
    """Make a token and print it; it is shown this once."""
    if model != admission.ANY_MODEL:
        spec_of(project, model)
    now = project.now()
    until = None if expires is None else _moment(expires, now)
    if until is not None and until <= now:
        raise ConfigError(f"{expires!r} is over already.")
    click.echo(
        admission.create_token(project.store.state, model, now=now, expires_at=until, note=note)
    )


@token.command("list", epilog=examples("mlmon collect token list"))
@prints_table
@click.pass_obj
def list_(project: Project) -> AnyAnswer:
    """List the tokens ever made, without their secrets."""
    now = project.now()
    rows = [
        {
            "id": item.id, "state": item.state(now), "model": item.model, "note": item.note,
            "created_at": item.created_at, "expires_at": item.expires_at,
            "revoked_at": item.revoked_at,
        }
        for item in admission.load_tokens(project.store.state)
    ]  # fmt: skip
    note = "" if rows else "mlmon: no tokens; 'mlmon collect token create' makes one."
    return Answer(_TOKENS, rows, text=None if rows else "", note=note)


@token.command(epilog=examples("mlmon collect token revoke 3f9a0c12be47"))
@click.argument("token_id", metavar="ID")
@click.pass_obj
def revoke(project: Project, token_id: str) -> None:
    """Refuse a token from now on; running servers notice within 5 seconds."""
    # People paste what they have, which may be the whole token.
    name = token_id.split("_")[1] if token_id.startswith("mlmon_") else token_id
    if not admission.revoke_token(project.store.state, name, project.now()):
        click.echo(f"mlmon: no token {name} that is not revoked; see the list.", err=True)
        sys.exit(1)
    click.echo(f"{name}: revoked")


def _moment(text: str, now: dt.datetime) -> dt.datetime:
    from mlmon_dagster.project import parse_now
    from mlmon_dagster.spec.scalars import parse_duration

    try:
        return now + parse_duration(text)
    except ValueError:
        return parse_now(text)


@click.command(epilog=examples("mlmon serve --port 8322"))
@_address(8322)
@_tls
@click.pass_obj
def serve(
    project: Project, host: str, port: int, tls_cert: Path | None, tls_key: Path | None
) -> None:
    """Show every model, one model and one alert as web pages.

    Alerts can be acknowledged and silenced there; nothing else can be changed.

    On another address than this machine's own, every page needs a token of `mlmon collect token`:
    browsers ask for a password, which it is. /metrics answers Prometheus.
    """
    import logging

    from mlmon_dagster.collect.app import Listening
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
    _run(pages, listening)
