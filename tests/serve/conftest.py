"""One world, and its pages as a browser asks for them."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
import uvicorn

from mlmon_dagster.collect.admission import Access
from mlmon_dagster.serve.app import Pages
from mlmon_dagster.serve.overview import Overview
from mlmon_dagster.spec import Models
from mlmon_dagster.store import Store
from mlmon_dagster.tables.openmetrics import Exporter
from tests.report.worlds import NOW, World, build

Get = Callable[..., httpx.Response]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = build(tmp_path_factory.mktemp("served"))
    yield made
    made.store.close()


def pages_of(world: World, models: Models | None = None, host: str = "127.0.0.1") -> Pages:
    """Return the application."""
    return pages_over(world.store, models or Models((world.spec,), ()), NOW, host)


def pages_over(store: Store, declared: Models, now: dt.datetime, host: str = "127.0.0.1") -> Pages:
    """Return the application over a store as of a moment."""
    overview = Overview(store, lambda: declared, lambda: now)
    exporter = Exporter(store, lambda: declared, lambda: now)
    access = Access(store.state, host, lambda: now)
    return Pages(store, overview, access, exporter, lambda: now)


@contextmanager
def served(pages: Pages) -> Iterator[str]:
    """Serve pages on a free port; gives the address, without a slash at its end."""
    config = uvicorn.Config(pages.asgi, port=0, log_level="critical", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


def client_of(world: World, models: Models | None = None, host: str = "127.0.0.1") -> Get:
    """Return what asks for pages; ``token`` is given as a browser gives a password."""
    pages = pages_of(world, models, host)

    def get(path: str, token: str = "", **headers: str) -> httpx.Response:
        if token:
            headers["authorization"] = "Basic " + base64.b64encode(f"me:{token}".encode()).decode()
        return asked(pages, "GET", path, headers)

    return get


def asked(
    pages: Pages,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    form: dict[str, str] | None = None,
) -> httpx.Response:
    """Ask for a page, or send it a form."""
    transport = httpx.ASGITransport(app=pages.asgi, raise_app_exceptions=False)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, headers=headers, data=form)

    return asyncio.run(ask())


@pytest.fixture
def get(world: World) -> Get:
    return client_of(world)
