"""What deploy/ ships for Compose and Kubernetes is valid, and does its work as it is started there.

No container is run here. The processes of the Compose file are: its commands and environment, with
this machine's addresses in place of the containers' names.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config_schema

from mlmon_dagster.defs.instance import model_tags
from mlmon_dagster.spec import ModelSpec, load_model
from tests.alerts.fake_slack import fake_slack
from tests.defs.small_model import DAYS, MODEL, VARIABLES, customers, land_validation
from tests.defs.test_live_on_postgres import declare, is_up, running, wait_for
from tests.objects.server import S3Server

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "docker-compose.yml").read_text())
OURS = [name for name, one in COMPOSE["services"].items() if one["image"] == "mlmon"]
VALUES: dict[str, Any] = yaml.safe_load((ROOT / "deploy/kubernetes/values.yaml").read_text())
K8S: dict[str, Any] = VALUES["runLauncher"]["config"]["k8sRunLauncher"]


def test_the_compose_file_is_one_and_names_only_what_there_is() -> None:
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    subprocess.run([*words, str(DOCKER / "docker-compose.yml")], check=True, capture_output=True)

    text = (DOCKER / "docker-compose.yml").read_text()
    asked = set(re.findall(r"\$\{(\w+)", text))
    listed = set(re.findall(r"^(\w+)=", (DOCKER / ".env.example").read_text(), re.M))
    assert asked == listed
    for name in OURS:
        service = COMPOSE["services"][name]
        assert shutil.which(service["command"][0], path=str(Path(sys.executable).parent)), name
        assert set(service["depends_on"]) <= set(COMPOSE["services"]), name
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            assert (
                source in COMPOSE["volumes"]
                or source.startswith("./project/")
                or (DOCKER / source).exists()
            ), mount


def test_the_storage_is_started_as_the_processes_ask_for_it() -> None:
    storage = COMPOSE["services"]["storage"]
    flags = dict(word[1:].split("=") for word in storage["command"][1:])
    asked = COMPOSE["services"]["code"]["environment"]

    assert asked["MLMON_S3_ENDPOINT"] == f"http://storage:{flags['s3.port']}"
    assert asked["MLMON_STORE"].startswith(f"s3://{flags['bucket']}/")
    assert f"http://127.0.0.1:{flags['s3.port']}/healthz" in storage["healthcheck"]["test"]
    assert f"storage:{flags['dir']}" in storage["volumes"]
    assert "ports" not in storage
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert storage["environment"][name] == asked[name]


def test_the_image_is_made_of_what_the_package_has() -> None:
    lines = (DOCKER / "Dockerfile").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [asked] = re.findall(r"/src\[([\w,-]+)\]", lines)
    assert set(asked.split(",")) <= set(extras["optional-dependencies"])
    for copied in re.findall(r"^COPY (.+) /src\S*$", lines, re.M):
        assert all((ROOT / name).exists() for name in copied.split())


def snake(key: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", key).lower()


def snaked(value: object) -> object:
    """Write the chart's keys as Dagster's own; what is Kubernetes' stays."""
    if isinstance(value, dict):
        return {snake(key): snaked(one) for key, one in value.items()}
    return value


def launcher() -> dict[str, object]:
    """Return the run launcher's settings as the chart writes them into dagster.yaml."""
    names = ("envConfigMaps", "envSecrets")
    found: dict[str, object] = {
        snake(key): [one["name"] for one in value] if key in names else value
        for key, value in K8S.items()
    }
    k8s = K8S["runK8sConfig"]
    found["run_k8s_config"] = {
        snake(key): {snake(name): one for name, one in part.items()} for key, part in k8s.items()
    }
    home = VALUES["global"]["dagsterHome"]
    secret = VALUES["global"]["postgresqlSecretName"]
    return found | {
        "service_account_name": "mlmon",
        "instance_config_map": "mlmon-instance",
        "postgres_password_secret": secret,
        "dagster_home": home,
    }


def test_the_values_give_settings_that_dagster_takes() -> None:
    daemon = VALUES["dagsterDaemon"]
    queue = daemon["runCoordinator"]["config"]["queuedRunCoordinator"]
    config = {
        "run_monitoring": snaked(daemon["runMonitoring"]),
        "run_retries": snaked(daemon["runRetries"]),
        "sensors": snaked(daemon["sensors"]),
        "schedules": snaked(daemon["schedules"]),
        "retention": snaked({k: v for k, v in VALUES["retention"].items() if k != "enabled"}),
        "telemetry": VALUES["telemetry"],
        "run_coordinator": {
            "module": "dagster.core.run_coordinator",
            "class": daemon["runCoordinator"]["type"],
            "config": snaked(queue),
        },
        **VALUES["additionalInstanceConfig"],
    }
    taken = process_config(dagster_instance_config_schema(), config)
    assert taken.success, taken.errors
    with pytest.raises(AssertionError):
        assert process_config(dagster_instance_config_schema(), config | {"poolz": {}}).success

    from dagster_k8s import K8sRunLauncher  # of all workers that collect this, one needs it

    taken = process_config(resolve_to_config_type(K8sRunLauncher.config_type()), launcher())
    assert taken.success, taken.errors

    [code] = VALUES["dagster-user-deployments"]["deployments"]
    assert {one["name"] for one in code["env"]} == {
        "MLMON_PROJECT", "MLMON_STORE", "DAGSTER_EVENT_BATCH_SIZE"
    }  # fmt: skip
    assert {one["name"] for one in code["volumeMounts"]} == {one["name"] for one in code["volumes"]}


def heavy(folder: Path) -> ModelSpec:
    """Return a model whose runs declare what they may take, as docs/scale.md shows it."""
    [shown] = re.findall(
        r"```yaml\n(run_tags:.*?)```", (ROOT / "docs" / "scale.md").read_text(), re.DOTALL
    )
    declare(folder, dt.date(2024, 3, 1))
    path = folder / "models" / f"{MODEL}.yaml"
    path.write_text(path.read_text() + shown)
    return load_model(path)


def test_a_models_run_tags_become_the_resources_of_its_job(tmp_path: Path) -> None:
    from dagster_k8s.job import DagsterK8sJobConfig, construct_dagster_k8s_job
    from dagster_k8s.job import get_user_defined_k8s_config as declared_config

    tags = model_tags([heavy(tmp_path)])
    assert tags["mlmon/model"] == MODEL
    settings = launcher()
    job = construct_dagster_k8s_job(
        DagsterK8sJobConfig(
            job_image="registry.example.com/mlmon:0.1.0",
            dagster_home=str(settings["dagster_home"]),
            image_pull_policy="IfNotPresent",
            postgres_password_secret=str(settings["postgres_password_secret"]),
        ),
        ["dagster", "api", "execute_run", "{}"],
        "dagster-run-1",
        declared_config(tags),
    ).to_dict()

    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"memory": "12Gi"}
    assert container["resources"]["requests"] == {"cpu": "2", "memory": "8Gi"}


@contextmanager
def started(name: str, folder: Path, environment: Mapping[str, str], port: int) -> Iterator[Path]:
    """Run a service of the Compose file on this machine; yield its log."""
    given = [str(port) if word.isdigit() else word for word in COMPOSE["services"][name]["command"]]
    command = [word.replace("0.0.0.0", "127.0.0.1") for word in given]
    log = folder.parent / f"{name}.log"
    program = str(Path(sys.executable).parent / command[0])
    with running([program, *command[1:]], folder, environment, log):
        yield log


def free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def is_open(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.proof
@pytest.mark.xdist_group("live")
def test_the_processes_of_the_compose_file_take_a_file_from_the_bucket_to_a_message(
    s3: S3Server, bucket: str, pg_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "project"
    today = dt.datetime.now(dt.UTC).date()
    bad_day = today - dt.timedelta(days=1)
    declare(folder, bad_day)
    declared = folder / "models" / f"{MODEL}.yaml"
    declared.write_text(
        declared.read_text().replace("path: landing/", f"path: s3://{bucket}/landing/")
    )
    shutil.copy(ROOT / "dagster.yaml", folder)
    shutil.copy(DOCKER / "workspace.yaml", folder)
    land_validation(folder, first=bad_day - dt.timedelta(days=30))
    predictions, _ = customers(bad_day, like=DAYS[3])
    predictions.loc[: int(0.4 * len(predictions)) - 1, "balance"] = np.nan
    late = folder / "landing" / MODEL / "predictions" / "bad.parquet"
    predictions.to_parquet(late, index=False)
    for path in sorted((folder / "landing").rglob("*.parquet")):
        s3.put(bucket, path.relative_to(folder).as_posix(), path.read_bytes())
    shutil.rmtree(folder / "landing")

    code_port, web_port = free_ports(2)
    with fake_slack() as slack, ExitStack() as stack:
        theirs = COMPOSE["services"]["code"]["environment"]
        ours = {
            "DAGSTER_HOME": str(folder),
            "MLMON_PROJECT": str(folder),
            "MLMON_DB_URL": pg_url,
            "MLMON_STORE": f"s3://{bucket}/store",
            "MLMON_S3_ENDPOINT": s3.url,
            "AWS_ACCESS_KEY_ID": s3.options["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": s3.options["aws_secret_access_key"],
            "MLMON_CODE_HOST": "127.0.0.1",
            "MLMON_CODE_PORT": str(code_port),
            "MLMON_SLACK_TOKEN": slack.token,
            "MLMON_UI_URL": f"http://127.0.0.1:{web_port}",
            "MLMON_PAGES_URL": "http://127.0.0.1:8322",
        }
        assert ours.keys() == theirs.keys()
        fast = {"MLMON_SLACK_API_URL": slack.url, "MLMON_TICK_SECONDS": "3"}
        environment = dict(os.environ) | ours | fast
        logs = [stack.enter_context(started("code", folder, environment, code_port))]

        def said() -> str:
            return "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in logs)

        health = COMPOSE["services"]["code"]["healthcheck"]["test"][1:-1]
        words = [str(Path(sys.executable).parent / health[0]), *health[1:], str(code_port)]

        def is_serving() -> bool:
            return subprocess.run(words, capture_output=True, check=False).returncode == 0

        wait_for("the code location's port", lambda: is_open(code_port), said)  # asking is dear
        wait_for("the code location", is_serving, said)
        for name in ("webserver", "daemon"):
            log = stack.enter_context(started(name, folder, environment, web_port))
            logs.append(log)
        wait_for("the UI", lambda: is_up(web_port), said)
        wait_for("Slack's message", slack.heads, said)
        [head] = slack.messages
        assert "balance" in head.text, said()
        assert f"http://127.0.0.1:{web_port}" in json.dumps(head.shown)
