"""The HTTP face of the collector: routes, headers, answers, and the server that runs them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import ssl
import traceback
from asyncio.sslproto import SSLProtocol
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Protocol

import sqlalchemy as sa
import uvicorn
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from mlmon_dagster.collect.admission import Access, Pressure
from mlmon_dagster.collect.body import encoding_of, form_of
from mlmon_dagster.collect.collector import Ask, Collector, Judge
from mlmon_dagster.collect.landing import Target
from mlmon_dagster.collect.openapi import CONTENT_POLICY, describe, page
from mlmon_dagster.collect.otlp import JSON, Signal, Spans, form_of_otlp, status_of
from mlmon_dagster.collect.problem import NOT_KEPT, Problem, json_body, json_response
from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.ingest.report import shown

# Accepted media types, whether a model may be seen, families of the server, whether to zip
# -> body and headers of the answer.
Numbers = Callable[
    [str, Callable[[str], bool], Sequence[Metric], bool], tuple[bytes, Mapping[str, str]]
]
_LOG = logging.getLogger("mlmon_dagster.collect")
_DISCARDED = 8  # times the limit: so much of a body that is too large is read to its end
_MOST_KEY = 255
_MOST_HEAD = 1 << 16  # bytes
_MOST_WAITING = 8  # requests that came on one connection before those ahead were answered
_MOST_DESCRIPTIONS = 64
_OTHER_FILES = 128  # of the store, of landing files, of libraries


class App:
    """The application; `asgi` is what a server runs.

    Attributes:
        is_draining: Set before the end: new requests are answered 503.
    """

    def __init__(
        self,
        collector: Collector,
        access: Access,
        pressure: Pressure,
        numbers: Numbers | None = None,
        spans: Spans | None = None,
    ) -> None:
        self._collector, self._access, self._pressure = collector, access, pressure
        self._numbers, self._spans = numbers, spans
        self._n_answers: Counter[int] = Counter()
        self._n_rows: Counter[Target] = Counter()
        self._descriptions: dict[tuple[object, ...], tuple[bytes, bytes]] = {}
        self.is_draining = False
        self.asgi = Starlette(
            routes=[
                Route("/v1/models/{model}/{stream}", self._post, methods=["POST"]),
                *(
                    [
                        Route("/v1/traces", self._post_spans, methods=["POST"]),
                        Route("/v1/logs", self._post_spans, methods=["POST"]),
                    ]
                    if spans is not None
                    else []
                ),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._metrics),
                Route("/openapi.json", self._openapi),
                Route("/docs", self._docs),
            ],
            exception_handlers={Problem: _answer_problem, HTTPException: _answer_http},
            lifespan=self._life,
        )

    @contextlib.asynccontextmanager
    async def _life(self, _app: Starlette) -> AsyncIterator[None]:
        counting = asyncio.create_task(self._pressure.count_for_ever())
        yield
        counting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await counting
        await asyncio.to_thread(self._collector.close)

    async def _post(self, request: Request) -> Response:
        try:
            answer = await self._told(request, self._take)
        except Problem as problem:
            self._n_answers[problem.status] += 1
            raise
        self._n_answers[answer.status_code] += 1
        return answer

    async def _told(
        self, request: Request, take: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        try:
            return await take(request)
        except Problem as problem:
            codes = sorted({problem.code, *(str(error["reason"]) for error in problem.errors)})
            _LOG.info("%s refused: %s", shown(request.url.path), ", ".join(codes))
            raise
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception as error:
            # The message of an unforeseen error may hold a value.
            frames = "".join(traceback.format_tb(error.__traceback__))
            _LOG.error("%s failed: %s\n%s", shown(request.url.path), type(error).__name__, frames)
            raise Problem("failed", "An unforeseen error; see the server's log.") from None

    async def _take(self, request: Request) -> Response:
        self._refuse_while_draining()
        headers = request.headers
        model = request.path_params["model"]
        caller = await self._allowed(request, model)
        target = self._target(model, request.path_params["stream"])
        form = form_of(headers.get("content-type", ""), headers.get("content-encoding", ""))
        takes_part = _takes_part(request)
        key = headers.get("idempotency-key", "")
        if len(key) > _MOST_KEY:
            raise Problem("malformed", f"Idempotency-Key is longer than {_MOST_KEY} characters.")
        self._pressure.check(target)  # before the body comes
        async with self._received(request, target, caller) as body:
            ask = Ask(target, form, body, caller, key, takes_part)
            answer, is_repeat = await self._collector.take(ask)
        if not is_repeat:
            self._n_rows[target] += int(str(answer["accepted"]))
        return json_response(answer, 202, {"idempotent-replayed": "true"} if is_repeat else None)

    async def _post_spans(self, request: Request) -> Response:
        """Answer a request in OTLP, whose clients send again after 429, 502, 503 and 504 alone."""
        form = JSON
        try:
            form = form_of_otlp(request.headers.get("content-type", ""))
            answer = await self._told(request, partial(self._take_spans, form))
        except Problem as problem:
            status = 503 if problem.code == "too_slow" else problem.status
            headers = {"retry-after": "5"} if status == 503 else {}
            body = status_of(form, problem.detail)
            answer = Response(body, status, headers | dict(problem.headers), form)
        self._n_answers[answer.status_code] += 1
        return answer

    async def _take_spans(self, form: str, request: Request) -> Response:
        assert self._spans is not None
        self._refuse_while_draining()
        headers = request.headers
        caller = await self._allowed(request, None)
        sees = await self._sees(request)
        encoding = encoding_of(headers.get("content-encoding", ""))
        mine = [target for model, target in self._spans.targets.items() if sees(model)]
        if not mine:
            raise Problem("forbidden", "The token is for no model that declares spans.")
        for target in mine:
            self._pressure.check(target)
        signal: Signal = "logs" if request.url.path.endswith("logs") else "traces"
        async with self._received(request, mine[0], caller) as body:
            answer, taken = await self._spans.take(signal, form, encoding, body, sees)
        for target, lines in taken.lines.items():
            self._n_rows[target] += len(lines)
        return Response(answer, media_type=form)

    def _refuse_while_draining(self) -> None:
        if self.is_draining:
            leave = {"retry-after": "5", "connection": "close"}
            raise Problem("shutting_down", "Send it to another server, or again.", headers=leave)

    def _target(self, model: str, stream: str) -> Target:
        targets = self._collector.targets
        for (name, own), target in targets.items():
            if (name, own) == (model, stream):
                return target
        if any(name == model for name, _ in targets) and stream in ("predictions", "actuals"):
            raise Problem("not_found", f"The model has no landing files of {stream}.")
        raise Problem("not_found", "There is no such model or stream.")

    @contextlib.asynccontextmanager
    async def _received(
        self, request: Request, target: Target, caller: str
    ) -> AsyncIterator[bytes]:
        """Yield a body once it has come; the request counts as at work until the end."""
        who = caller or (request.client.host if request.client else "")
        with self._pressure.receiving(who) as count:
            body = await self._body(request, count)
            with self._pressure.room_for(target, who):
                yield body

    async def _body(self, request: Request, count: Callable[[int], None]) -> bytes:
        limits = self._collector.limits
        length = request.headers.get("content-length", "")
        n_bytes = int(length) if length.isdigit() else 0
        if n_bytes > limits.max_body and request.headers.get("expect"):
            raise _too_large(limits.max_body)  # the client waits for the word to send
        is_too_large = n_bytes > limits.max_body
        body = bytearray()
        n_come = 0
        try:
            async with asyncio.timeout(limits.body_seconds):
                async for chunk in request.stream():
                    n_come += len(chunk)
                    is_too_large = is_too_large or n_come > limits.max_body
                    if not is_too_large:
                        count(len(chunk))
                        body += chunk
                    elif n_come > _DISCARDED * limits.max_body:
                        break
            # Only now: a client that is answered while it still sends sees a broken connection
            # and not the answer. What is too large is thrown away as it comes.
            if is_too_large:
                raise _too_large(limits.max_body)
        except TimeoutError:
            if is_too_large:
                raise _too_large(limits.max_body) from None
            found = f"The body took longer than {limits.body_seconds:g} seconds."
            raise Problem("too_slow", found, headers={"connection": "close"}) from None
        return bytes(body)

    async def _allowed(self, request: Request, model: str | None) -> str:
        headers = request.headers
        authorization, host = headers.get("authorization", ""), headers.get("host", "")
        return await self._access.check(authorization, host, model)

    async def _sees(self, request: Request) -> Callable[[str], bool]:
        headers = request.headers
        return await self._access.sees(headers.get("authorization", ""), headers.get("host", ""))

    async def _healthz(self, _request: Request) -> Response:
        return json_response({"status": "ok"})

    async def _readyz(self, _request: Request) -> Response:
        problems = ["shutting down"] if self.is_draining else self._pressure.problems()
        if problems:
            return json_response({"status": "not ready", "reasons": problems}, 503)
        return json_response({"status": "ok"})

    async def _metrics(self, request: Request) -> Response:
        headers = request.headers
        sees = await self._sees(request)
        if self._numbers is None:
            raise Problem("not_found", "This server was started without numbers.")
        zipped = "gzip" in headers.get("accept-encoding", "")
        accept, own = headers.get("accept", ""), self._own_numbers()
        try:
            body, about = await asyncio.to_thread(self._numbers, accept, sees, own, zipped)
        except (sa.exc.SQLAlchemyError, StoreError) as error:
            _LOG.warning("numbers cannot be read: %s", type(error).__name__)
            later = {"retry-after": "30"}
            raise Problem("not_read", "The database does not answer.", headers=later) from None
        return Response(body, headers=about)

    def _own_numbers(self) -> list[Metric]:
        """Return what this process has counted since it began, and what waits in its folders."""
        requests = CounterMetricFamily(
            "mlmon_collect_requests", "Requests answered, by status.", labels=["status"]
        )
        for status, n in sorted(self._n_answers.items()):
            requests.add_metric([str(status)], n)
        rows = CounterMetricFamily(
            "mlmon_collect_rows", "Rows accepted.", labels=["model", "stream"]
        )
        files = GaugeMetricFamily(
            "mlmon_collect_files_waiting", "Collected files not ingested yet.",
            labels=["model", "stream"],
        )  # fmt: skip
        spans = self._spans.targets if self._spans is not None else {}
        for target in (*self._collector.targets.values(), *spans.values()):
            rows.add_metric([target.model, target.stream], self._n_rows[target])
        for target, n in self._pressure.waiting().items():
            files.add_metric([target.model, target.stream], n)
        return [requests, rows, files]

    async def _description(self, request: Request) -> tuple[bytes, bytes]:
        """Describe the models that the caller may push to; without a token none is named.

        Returns:
            The document, and its page. Both are made once for those who may push to the same.
        """
        mine, takes_spans = list[Judge](), False
        with contextlib.suppress(Problem):
            sees = await self._sees(request)
            mine = [judge for judge in self._collector.judges.values() if sees(judge.spec.model)]
            takes_spans = self._spans is not None and any(map(sees, self._spans.targets))
        names = tuple((judge.spec.model, judge.stream) for judge in mine)
        key = (names, self._access.needs_token, takes_spans)
        if key not in self._descriptions:
            if len(self._descriptions) >= _MOST_DESCRIPTIONS:
                self._descriptions.clear()
            document = describe(
                mine, self._collector.limits, needs_token=self._access.needs_token,
                takes_spans=takes_spans,
            )  # fmt: skip
            self._descriptions[key] = json_body(document), page(document).encode()
        return self._descriptions[key]

    async def _openapi(self, request: Request) -> Response:
        document, _ = await self._description(request)
        return Response(document, headers=NOT_KEPT, media_type="application/json")

    async def _docs(self, request: Request) -> Response:
        _, text = await self._description(request)
        return HTMLResponse(text, headers={"content-security-policy": CONTENT_POLICY})


def _takes_part(request: Request) -> bool:
    accept = request.query_params.get("accept", "all")
    if accept not in ("all", "partial"):
        raise Problem("malformed", "The parameter 'accept' is 'all' or 'partial'.")
    return accept == "partial"


def _too_large(limit: int) -> Problem:
    # Closed, since the rest of the body would be read as the next request.
    found = f"More than {limit:,} bytes; send fewer rows at once, or compress them."
    return Problem("too_large", found, headers={"connection": "close"})


def _answer_problem(_request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return problem.response()


def _answer_http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "malformed")
    return Problem(code, "See /docs.", headers=dict(error.headers or {})).response()


@dataclass(frozen=True)
class Listening:
    """Where to listen, and how to end.

    Attributes:
        max_connections: Open at once; above, the one that has waited longest without a request
            is closed, of the address that has most of them.
        drain_seconds: Between the signal and the end: new requests are answered 503, so that a
            load balancer sends them elsewhere.
        end_seconds: The longest that requests at work may take after that.
        certificate, key: Files for TLS.
    """

    host: str = "127.0.0.1"
    port: int = 8321
    head_seconds: float = 10.0
    max_connections: int = 4_000
    drain_seconds: float = 2.0
    end_seconds: float = 30.0
    certificate: Path | None = None
    key: Path | None = None


class Served(Protocol):
    """What a server runs, such as an `App`.

    Attributes:
        asgi: The application.
        is_draining: Set before the end.
    """

    asgi: Starlette
    is_draining: bool


def make_server(app: Served, listening: Listening) -> uvicorn.Server:
    """Return the server; its ``run`` serves until a signal comes.

    Raises:
        ConfigError: If the certificate or its key cannot be read.
    """
    connections = _Connections(_affordable(listening.max_connections))
    context = _context(listening)
    config = uvicorn.Config(
        app.asgi,
        # TLS begins within a connection here, which uvloop's transports do not allow.
        loop="auto" if context is None else "asyncio",
        host=listening.host,
        port=listening.port,
        http=_protocol(listening.head_seconds, connections, context),
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(listening.end_seconds),
    )
    return _Server(config, app, listening.drain_seconds)


def _context(listening: Listening) -> ssl.SSLContext | None:
    if listening.certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(listening.certificate, listening.key)
    except OSError as error:  # an SSLError is one
        files = " and ".join(str(f) for f in (listening.certificate, listening.key) if f)
        raise ConfigError(f"TLS: {files} cannot be used ({error.strerror or error}).") from None
    return context


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, app: Served, drain_seconds: float) -> None:
        super().__init__(config)
        self._app, self._drain_seconds = app, drain_seconds
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, *args: object, **options: object) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(*args, **options)  # type: ignore[arg-type]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Announce the end at the first signal; a second one does not wait."""
        if self._app.is_draining or self._loop is None:
            super().handle_exit(sig, frame)
            return
        self._app.is_draining = True
        end = super().handle_exit
        self._loop.call_soon_threadsafe(self._loop.call_later, self._drain_seconds, end, sig, frame)


def _affordable(n: int) -> int:
    """Return how many connections the process may open, with files besides; let it open so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY not in (soft, hard):
        soft = max(soft, min(n + _OTHER_FILES, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return n if soft == resource.RLIM_INFINITY else max(min(n, soft - _OTHER_FILES), 1)


class _Connections:
    """Bounds the connections that are open, so that idle ones never shut out new clients.

    Idle is also who has not sent all of a request yet, and who does not read an answer.

    Args:
        most: Open at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[_Impatient, str] = {}
        # Address -> its connections without a request at work, the longest waiting first.
        self._idle: dict[str, dict[_Impatient, None]] = {}

    def opened(self, connection: _Impatient, address: str) -> None:
        if connection in self._open:
            return
        self._open[connection] = address
        self.idle(connection)
        if len(self._open) > self._most:
            crowd = max(self._idle.values(), key=len)
            oldest = next(iter(crowd))
            self.closed(oldest)
            oldest.end()

    def busy(self, connection: _Impatient) -> None:
        waiting = self._idle.get(self._open.get(connection, ""), {})
        waiting.pop(connection, None)

    def idle(self, connection: _Impatient) -> None:
        if connection in self._open:
            self._idle.setdefault(self._open[connection], {})[connection] = None

    def closed(self, connection: _Impatient) -> None:
        self.busy(connection)
        address = self._open.pop(connection, None)
        if address is not None and not self._idle.get(address):
            self._idle.pop(address, None)


class _Tls(SSLProtocol):
    max_size = 1 << 14  # of its buffer; the usual 256 KB are made for each who shakes hands


class _Door(asyncio.Protocol):
    """Counts a connection when it is accepted, and begins TLS once the other side does.

    Asyncio's own servers show a connection only once it has shaken hands, and hold a quarter of a
    megabyte for each that never does.
    """

    def __init__(self, inner: _Impatient, context: ssl.SSLContext, seconds: float) -> None:
        self._inner, self._context, self._seconds = inner, context, seconds
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._inner.accept(transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        secured = _Tls(
            asyncio.get_running_loop(),
            self._inner,
            self._context,
            waiter=None,  # type: ignore[arg-type]
            server_side=True,
            ssl_handshake_timeout=self._seconds,  # type: ignore[arg-type]
            ssl_shutdown_timeout=self._seconds,
        )
        self._transport.set_protocol(secured)
        secured.connection_made(self._transport)
        while data and not self._transport.is_closing():
            space = secured.get_buffer(len(data))
            n_bytes = min(len(space), len(data))
            space[:n_bytes] = data[:n_bytes]
            secured.buffer_updated(n_bytes)
            data = data[n_bytes:]

    def connection_lost(self, _exc: Exception | None) -> None:
        self._inner.leave()


class _TooManyWaitingError(Exception):
    """More requests came on one connection than anybody sends before an answer."""


class _Impatient(HttpToolsProtocol):
    """Gives a client so long for the head of a request, and for reading what was written.

    Attributes:
        seconds: How long.
        open: All that are open.
    """

    seconds = 10.0
    open: _Connections

    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _at_work: RequestResponseCycle | None = None
    _is_refused = False
    _n_head = 0
    _n_unread = 0

    def accept(self, transport: asyncio.Transport) -> None:
        """Count a connection, and expect its first request."""
        if self._deadline is None:
            self.transport = transport
            peer = transport.get_extra_info("peername")
            self.open.opened(self, str(peer[0]) if isinstance(peer, tuple) else "")
            self._expect_head()

    def leave(self) -> None:
        """Forget a connection."""
        self._expect_nothing()
        self._stop_waiting()
        self.open.closed(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.accept(transport)
        super().connection_made(transport)
        # Whatever the kernel does not take at once is watched.
        transport.set_write_buffer_limits(high=1, low=0)

    def data_received(self, data: bytes) -> None:
        # The first bytes of the next request on a connection that was kept.
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()
        super().data_received(data)
        self._n_head += len(data)
        if self._deadline is not None and self._n_head > _MOST_HEAD:
            self.end()

    def on_headers_complete(self) -> None:
        self._expect_nothing()
        if len(self.pipeline) >= _MOST_WAITING:
            self._is_refused = True
            self.end()
            raise _TooManyWaitingError  # else thousands more that came with it are parsed
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        if not self._is_refused:
            super().send_400_response(msg)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._at_work = cycle
        super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if not self.cycle.response_complete:
            self.open.busy(self)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.pipeline:
            self.open.idle(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.open.idle(self)
        if self._unread is None:
            self._n_unread = self.transport.get_write_buffer_size()
            self._unread = self.loop.call_later(self.seconds, self._look_whether_read)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_waiting()
        if self.cycle is not None and not self.cycle.response_complete:
            self.open.busy(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.leave()
        super().connection_lost(exc)

    def end(self) -> None:
        """End the connection at once."""
        if self._at_work is not None:  # what it writes now would fail
            self._at_work.disconnected = True
        self.transport.abort()

    def _look_whether_read(self) -> None:
        n_before, self._n_unread = self._n_unread, self.transport.get_write_buffer_size()
        if self._n_unread >= n_before:
            self.end()
        else:  # slowly
            self._unread = self.loop.call_later(self.seconds, self._look_whether_read)

    def _stop_waiting(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _expect_head(self) -> None:
        self._n_head = 0
        self._deadline = self.loop.call_later(self.seconds, self.end)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _protocol(
    head_seconds: float, connections: _Connections, context: ssl.SSLContext | None
) -> type[asyncio.Protocol]:
    """Return what makes the protocol of each connection, behind TLS if there is a certificate."""
    mine = type("Mine", (_Impatient,), {"seconds": head_seconds, "open": connections})
    if context is None:
        return mine

    def make(*arguments: object, **options: object) -> asyncio.Protocol:
        return _Door(mine(*arguments, **options), context, head_seconds)

    return make  # type: ignore[return-value]  # uvicorn calls it, and looks no closer
