"""A server for all tests of object storage, and a fresh bucket for each."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlmon_dagster.store import Store, open_store
from tests.objects.server import S3Server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A running server."""
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """The name of a new, empty bucket."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    s3.make(name)
    return name


@pytest.fixture
def remote(s3: S3Server, bucket: str, tmp_path: Path) -> Iterator[Store]:
    """A fresh store in the bucket."""
    opened = open_store(
        f"s3://{bucket}/monitoring", storage_options=s3.options, folder=tmp_path / "work"
    )
    yield opened
    opened.close()
