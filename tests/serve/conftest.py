"""One world, and its pages as a browser asks for them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator

import httpx
import pytest

from mlmon_dagster.collect.admission import Access
from mlmon_dagster.serve.app import Pages
from mlmon_dagster.serve.overview import Overview
from mlmon_dagster.spec import Models
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
    declared = models or Models((world.spec,), ())
    store = world.store
    overview = Overview(store, lambda: declared, lambda: NOW)
    exporter = Exporter(store, lambda: declared, lambda: NOW)
    access = Access(store.state, host, lambda: NOW)
    return Pages(store, overview, access, exporter, lambda: NOW)


def client_of(world: World, models: Models | None = None, host: str = "127.0.0.1") -> Get:
    """Return what asks for pages; ``token`` is given as a browser gives a password."""
    pages = pages_of(world, models, host)

    def get(path: str, token: str = "", **headers: str) -> httpx.Response:
        if token:
            headers["authorization"] = "Basic " + base64.b64encode(f"me:{token}".encode()).decode()
        return asked(pages, "GET", path, headers)

    return get


def asked(
    pages: Pages, method: str, path: str, headers: dict[str, str] | None = None
) -> httpx.Response:
    """Ask for a page."""
    transport = httpx.ASGITransport(app=pages.asgi, raise_app_exceptions=False)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(ask())


@pytest.fixture
def get(world: World) -> Get:
    return client_of(world)
