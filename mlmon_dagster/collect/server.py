"""The server: slow clients are dropped, and an end is announced before it comes."""

from __future__ import annotations

import asyncio
import resource
import ssl
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mlmon_dagster.collect.app import App

_MOST_HEAD = 1 << 16  # bytes
_OTHER_FILES = 128  # of the store, of landing files, of libraries


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
    max_connections: int = 1_000
    drain_seconds: float = 2.0
    end_seconds: float = 30.0
    certificate: Path | None = None
    key: Path | None = None


def make_server(app: App, listening: Listening) -> uvicorn.Server:
    """Return the server; its ``run`` serves until a signal comes."""
    config = uvicorn.Config(
        app.asgi,
        host=listening.host,
        port=listening.port,
        http=_protocol(
            listening.head_seconds, _Connections(_affordable(listening.max_connections))
        ),
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(listening.end_seconds),
        ssl_certfile=listening.certificate,
        ssl_keyfile=listening.key,
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
    )
    return _Server(config, app, listening.drain_seconds)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, app: App, drain_seconds: float) -> None:
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
    """Return how many connections the process may open, with files besides."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return n if soft == resource.RLIM_INFINITY else max(min(n, soft - _OTHER_FILES), 1)


class _Connections:
    """Bounds the connections that are open, so that idle ones never shut out new clients.

    Args:
        most: Open at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[HttpToolsProtocol, str] = {}
        # Address -> its connections without a request at work, the longest waiting first.
        self._idle: dict[str, dict[HttpToolsProtocol, None]] = {}

    def opened(self, connection: HttpToolsProtocol, address: str) -> None:
        self._open[connection] = address
        self.idle(connection)
        if len(self._open) > self._most:
            crowd = max(self._idle.values(), key=len)
            oldest = next(iter(crowd))
            self.closed(oldest)
            oldest.transport.abort()

    def busy(self, connection: HttpToolsProtocol) -> None:
        waiting = self._idle.get(self._open.get(connection, ""), {})
        waiting.pop(connection, None)

    def idle(self, connection: HttpToolsProtocol) -> None:
        if connection in self._open:
            self._idle.setdefault(self._open[connection], {})[connection] = None

    def closed(self, connection: HttpToolsProtocol) -> None:
        self.busy(connection)
        address = self._open.pop(connection, None)
        if address is not None and not self._idle.get(address):
            self._idle.pop(address, None)


def _protocol(head_seconds: float, connections: _Connections) -> type[HttpToolsProtocol]:
    """Return the protocol that gives a client so long for the head of each request."""

    class Impatient(HttpToolsProtocol):
        _deadline: asyncio.TimerHandle | None = None
        _n_head = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            connections.opened(self, self.client[0] if self.client else "")
            self._expect_head()

        def data_received(self, data: bytes) -> None:
            # The first bytes of the next request on a connection that was kept.
            if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
                self._expect_head()
            super().data_received(data)
            self._n_head += len(data)
            if self._deadline is not None and self._n_head > _MOST_HEAD:
                self.transport.abort()

        def on_headers_complete(self) -> None:
            self._expect_nothing()
            connections.busy(self)
            super().on_headers_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            connections.idle(self)

        def connection_lost(self, exc: Exception | None) -> None:
            self._expect_nothing()
            connections.closed(self)
            super().connection_lost(exc)

        def _expect_head(self) -> None:
            self._n_head = 0
            self._deadline = self.loop.call_later(head_seconds, self.transport.abort)

        def _expect_nothing(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return Impatient
