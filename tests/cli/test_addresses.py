"""No address with a password is printed, whichever variable or key of a spec holds it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

import pytest
from pydantic import BaseModel

import mlmon_dagster
from mlmon_dagster.spec import ModelSpec
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


NO_ADDRESS: Final = {
    "MLMON_ENVIRONMENT", "MLMON_KEY_PREFIX", "MLMON_MAIL_FROM", "MLMON_MEMORY", "MLMON_NOW",
    "MLMON_OPS_CHANNEL", "MLMON_PROJECT", "MLMON_SLACK_APP_TOKEN", "MLMON_SLACK_TOKEN",
    "MLMON_SPILL", "MLMON_THREADS", "MLMON_TICK_SECONDS",
}  # fmt: skip
ALERTS: Final = 'alerts: {slack: {channel: "#ml-alerts", mention: "@here"}, repeat: 24h}'
SERVICE: Final = "  service: {prometheus: {%s, metrics: {up: {query: up}}}}\n"
# What a spec says with each key that holds an address, or a variable with one or its secret.
KEYS: Final = {
    "webhook.url": f"alerts: {{webhook: {{url: 'https://{AT}/hook?key={PASSWORD}'}}}}",
    "webhook.url_env": "alerts: {webhook: {url_env: SECRET_PLACE}}",
    "webhook.secret_env": "alerts: {webhook: {url: 'http://127.0.0.1:9', secret_env: SECRET}}",
    "apprise.url_env": "alerts: {apprise: {url_env: SECRET_PLACE}}",
    "pagerduty.key_env": "alerts: {pagerduty: {key_env: SECRET}}",
    "prometheus.url": SERVICE % f"url: 'http://{AT}/'" + ALERTS,
    "prometheus.url_env": SERVICE % "url_env: SECRET_PLACE" + ALERTS,
    "prometheus.token_env": SERVICE % "url: 'http://127.0.0.1:9', token_env: SECRET" + ALERTS,
    "registry.url_env": f"{ALERTS}\nregistry: {{mlflow: churn, url_env: SECRET_PLACE}}",
    "registry.token_env": f"{ALERTS}\nregistry: {{mlflow: churn, token_env: SECRET}}",
}
OF_SOURCES: Final = {"path", "delta", "url_env", "config_env"}  # in SOURCES


def models_in(kind: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections that a type of the spec holds."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for part in get_args(kind):
        yield from models_in(part)


def addresses_in(section: type[BaseModel], name: str = "", depth: int = 6) -> Iterator[str]:
    """Yield the keys of a section that can hold an address or name a variable with a secret."""
    for key, field in section.model_fields.items():
        if key in ("url", "path", "delta") or key.endswith("_env"):
            yield f"{name}.{key}"
        for below in models_in(field.annotation):
            if depth:
                yield from addresses_in(below, key, depth - 1)


def test_every_variable_that_is_read_is_an_address_here_or_holds_none() -> None:
    package = Path(mlmon_dagster.__file__).parent
    text = "".join(path.read_text() for path in package.rglob("*.py"))
    read = set(re.findall(r"\b(?:MLMON_[A-Z0-9_]+|AWS_ENDPOINT_URL(?:_[A-Z0-9]+)?)\b", text))

    assert read - set(VARIABLES) - NO_ADDRESS == set()


def test_every_key_of_a_spec_that_can_hold_an_address_is_here() -> None:
    of_sources = {f"{s}.{k}" for s in ("predictions", "actuals") for k in OF_SOURCES}

    assert set(addresses_in(ModelSpec)) == set(KEYS) | of_sources


@pytest.mark.parametrize("key", KEYS)
def test_an_address_of_a_spec_is_never_printed_or_kept(
    tmp_path: Path, mlmon: Command, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    declare(tmp_path, PREDICTIONS)
    path = tmp_path / "models" / "churn.yaml"
    text = path.read_text()
    assert ALERTS in text
    path.write_text(text.replace(ALERTS, KEYS[key]))
    is_apprise = key.startswith("apprise")
    monkeypatch.setenv("SECRET_PLACE", f"{'json' if is_apprise else 'http'}://{AT}/?k={PASSWORD}")
    monkeypatch.setenv("SECRET", PASSWORD)

    said = look(tmp_path, mlmon)

    assert "unknown key" not in said
    assert PASSWORD not in said


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


@pytest.mark.parametrize("command", [("watchdog",), ("ingest",), ("doctor",), ("alerts", "list")])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h.invalid/db?password=CANARY1",
        "postgresql://me:pa/CANARY1@h.invalid/db",
        "postgresql://me:p@ss/CANARY1@h.invalid/db",
        "postgresql://me:CANARY1@h.invalid:port/db",
        "postgresql://me:x%2FCANARY1@127.0.0.1:99999/db?connect_timeout=CANARY1",
    ],
)
def test_no_command_prints_the_secrets_of_the_database_s_url(
    mlmon: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, command: list[str]
) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("MLMON_DB_URL", url)

    ended = mlmon("--project", tmp_path, *command)

    assert "CANARY1" not in ended.out + ended.err
    assert "MLMON_DB_URL" in ended.out + ended.err or command == ("ingest",)
    assert ended.code == (1 if command == ("doctor",) else 2)


def test_the_address_that_messages_link_to_holds_no_secret(
    mlmon: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLMON_UI_URL", "https://me:CANARY1@dagster.example.com/x")

    ended = mlmon("--project", tmp_path, "validate")

    assert ended.code == 2
    assert "MLMON_UI_URL (https://dagster.example.com/…)" in ended.err
    assert "CANARY1" not in ended.err


@pytest.mark.parametrize("name", ["MLMON_SLACK_API_URL", "MLMON_HEARTBEAT_URL"])
def test_an_address_with_a_user_is_refused_before_a_name_server_is_asked_for_it(
    mlmon: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "http://CANARY1:CANARY2@127.0.0.1:1/CANARY3?k=CANARY4")

    ended = mlmon("--project", tmp_path, "validate")

    assert ended.code == 2
    assert f"{name} (http://127.0.0.1:1/…)" in ended.err
    assert "CANARY" not in ended.err
