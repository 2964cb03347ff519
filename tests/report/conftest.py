"""One world for all tests that only read it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.report.worlds import World, build


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = build(tmp_path_factory.mktemp("world"))
    yield made
    made.store.close()
