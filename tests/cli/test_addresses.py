"""No address with a password is printed, whichever variable or key of a spec holds it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.cli.conftest import Command
from tests.defs.small_model import write_declaration

USER, PASSWORD = "canaryuser", "canary5Password"
AT: Final = f"{USER}:{PASSWORD}@127.0.0.1:9"
VARIABLES: Final = {
    "AWS_ENDPOINT_URL": f"http://{AT}",
    "AWS_ENDPOINT_URL_S3": f"http://{AT}",
    "MLMON_S3_ENDPOINT": f"http://{AT}/a?b={PASSWORD}",
    "MLMON_STORE": f"s3://{USER}:{PASSWORD}@bucket/store",
    "MLMON_DB_URL": f"postgresql://{AT}/mlmon",
    "MLMON_SLACK_API_URL": f"http://{AT}/api/",
    "MLMON_PAGES_URL": f"http://{AT}/",
    "MLMON_UI_URL": f"http://{AT}/",
    "MLMON_HEARTBEAT_URL": f"http://{AT}/beat?key={PASSWORD}",
    "MLMON_SMTP_URL": f"smtp://{AT}",
    "MLMON_ENGINE": f"ray://{AT}",
    "SCORES_DB_URL": f"postgresql://{AT}/scores",
    "KAFKA_CONFIG": f'{{"bootstrap.servers": "127.0.0.1:9", "sasl.password": "{PASSWORD}"}}',
    "HOOK_URL": f"http://{AT}/hook",
    "MLFLOW_URL": f"http://{AT}/",
    "HTTPS_PROXY": f"http://{AT}",
}
PREDICTIONS: Final = "{path: landing/churn/predictions/*.parquet, settle: 0s, max_bad_rate: 0.2}"
SOURCES: Final = {
    "an object's path": f"{{path: 's3://{USER}:{PASSWORD}@bucket/*.parquet'}}",
    "a delta table": f"{{delta: 's3://{USER}:{PASSWORD}@bucket/table'}}",
    "a bucket": "{delta: 's3://bucket/table'}",
    "a database": "{sql: scores, url_env: SCORES_DB_URL, cursor: {column: n, kind: id}}",
    "a topic": "{kafka: scores, config_env: KAFKA_CONFIG}",
}
COMMANDS: Final = (("validate",), ("doctor",), ("ingest",), ("alerts", "test", "churn"))


def declare(tmp_path: Path, source: str) -> None:
    """Write a model whose predictions come from a source."""
    write_declaration(tmp_path)
    path = tmp_path / "models" / "churn.yaml"
    text = path.read_text()
    assert PREDICTIONS in text
    path.write_text(text.replace(PREDICTIONS, source))


def look(tmp_path: Path, mlmon: Command) -> str:
    """Run what connects to something, and return all that is said and kept."""
    said = ""
    for command in COMMANDS:
        ended = mlmon("--project", tmp_path, "--now", "2024-03-15T16:00:00Z", *command)
        said += ended.out + ended.err
    kept = [p for p in tmp_path.rglob("*") if p.is_file() and p.parent.name != "models"]
    return said + "".join(path.read_bytes().decode("latin-1") for path in kept)


@pytest.mark.parametrize("name", VARIABLES)
def test_an_address_in_the_environment_is_never_printed_or_kept(
    tmp_path: Path, mlmon: Command, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    declare(tmp_path, SOURCES["a bucket"] if name.startswith(("AWS", "MLMON_S3")) else PREDICTIONS)
    monkeypatch.setenv(name, VARIABLES[name])

    said = look(tmp_path, mlmon)

    assert said
    assert PASSWORD not in said


@pytest.mark.parametrize("kind", SOURCES)
def test_an_address_of_a_source_is_never_printed_or_kept(
    tmp_path: Path, mlmon: Command, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    declare(tmp_path, SOURCES[kind])
    for name in ("SCORES_DB_URL", "KAFKA_CONFIG"):
        monkeypatch.setenv(name, VARIABLES[name])

    said = look(tmp_path, mlmon)

    assert said
    assert PASSWORD not in said
