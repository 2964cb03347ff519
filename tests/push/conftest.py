"""A collector that most tests share the making of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlmon_dagster.store import Store
from tests.push.collecting import Running, running


@pytest.fixture
def collector(store: Store, tmp_path: Path) -> Iterator[Running]:
    """A running collector of the loan model, open on this machine."""
    with running(store, tmp_path) as found:
        yield found
