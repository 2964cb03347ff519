"""mlmon doctor says whether object storage can be used, and if not, what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mlmon_dagster.commands.doctor import Finding, examine
from mlmon_dagster.errors import StoreError
from mlmon_dagster.project import project_from_environment, storage_options
from mlmon_dagster.store.places import objects
from mlmon_dagster.store.places.objects import ObjectPlace, place_of
from tests.defs.small_model import write_declaration
from tests.objects.server import S3Server


def _look(folder: Path, variables: dict[str, str]) -> Finding:
    write_declaration(folder)
    project = project_from_environment(folder, environ=variables)
    findings = {finding.subject: finding for finding in examine(project)}
    project.store.close()
    return findings["object storage"]


def test_store_in_a_bucket_is_tried_out_and_left_clean(
    s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    root = f"s3://{bucket}/monitoring"

    found = _look(tmp_path, {**s3.variables, "MLMON_STORE": root})

    assert found.is_fine, found
    assert root in found.found
    assert ObjectPlace(root, s3.options).below() == []


def test_server_that_ignores_conditions_is_found_out(
    s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    s3.ignores_conditions = True
    try:
        found = _look(tmp_path, {**s3.variables, "MLMON_STORE": f"s3://{bucket}/monitoring"})
    finally:
        s3.ignores_conditions = False

    assert not found.is_fine
    assert "two runs at once could lose a commit" in found.found


@pytest.mark.parametrize(
    ("url", "endpoint", "step"),
    [
        ("s3://nowhere/x", None, "does not exist. Create it"),
        ("s3://bucket/x", "http://127.0.0.1:1", "Check AWS_ENDPOINT_URL"),
    ],
)
def test_what_cannot_be_reached_is_named_with_the_next_step(
    url: str, endpoint: str | None, step: str, s3: S3Server
) -> None:
    options = s3.options | ({"aws_endpoint_url": endpoint} if endpoint else {})

    found = objects.probe(ObjectPlace(url, options), is_written=True)

    assert url in found
    assert step in found
    assert "not-a-secret" not in found


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)

    with pytest.raises(StoreError, match=r"pip install 'mlmon-dagster\[object-storage\]'"):
        place_of("s3://bucket/never-connected").below()


def test_environment_becomes_options() -> None:
    found = storage_options(
        {"AWS_ACCESS_KEY_ID": "k", "MLMON_S3_ENDPOINT": "http://storage:9000", "HOME": "/root"}
    )

    assert found == {
        "aws_access_key_id": "k",
        "aws_endpoint_url": "http://storage:9000",
        "aws_region": "us-east-1",
        "allow_http": "true",
    }
    assert storage_options({"AWS_ENDPOINT_URL": "https://x", "AWS_REGION": "eu-west-1"}) == {
        "aws_endpoint_url": "https://x",
        "aws_region": "eu-west-1",
    }
