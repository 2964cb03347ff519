"""The model registry: who serves is known, the gate leaves its word, and nothing waits for it."""

from __future__ import annotations

import datetime as dt
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from mlmon_dagster.commands.doctor import _registries
from mlmon_dagster.errors import StoreError
from mlmon_dagster.pipeline.gate import gate_of
from mlmon_dagster.pipeline.ingest import ingest
from mlmon_dagster.pipeline.model_registry import ask_registry, registry_numbers, tell_gate
from mlmon_dagster.project import Project
from mlmon_dagster.report.health import health_report
from mlmon_dagster.spec import ModelSpec, load_model
from mlmon_dagster.store.mlflow_registry import MlflowRegistry, load_last_look
from mlmon_dagster.store.state.model_history import load_history
from mlmon_dagster.store.state.schema import registry_state
from mlmon_dagster.work import Work
from tests.defs.small_model import MODEL, make_project, write_declaration
from tests.defs.worlds import World
from tests.mlflow import NAME, RUNS, Mlflow, mlflow_server
from tests.prometheus import free_port


@pytest.fixture
def mlflow() -> Iterator[Mlflow]:
    with mlflow_server() as server:
        yield server


def declare(folder: Path, model: str = MODEL, **registry: Any) -> ModelSpec:
    write_declaration(folder, model)
    path = folder / "models" / f"{model}.yaml"
    declared = yaml.safe_load(path.read_text())
    declared["registry"] = {"mlflow": NAME, "url_env": "OUR_MLFLOW", **registry}
    path.write_text(yaml.safe_dump(declared, sort_keys=False))
    return load_model(path)


def project_of(folder: Path, url: str) -> Project:
    project = make_project(folder)
    return replace(project, variables={"OUR_MLFLOW": url, "TOKEN": "secret"}.get)


def look(project: Project, spec: ModelSpec) -> None:
    assert not ingest(Work(project, spec, (), project.now(), "", False)).files


def let_time_pass(project: Project) -> None:
    with project.store.state.begin() as conn:
        early = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=6)
        conn.execute(sa.update(registry_state).values(looked_at=early))


def test_an_alias_that_moves_is_an_event_with_run_and_training_data_and_is_on_page_and_asset(
    mlflow: Mlflow, tmp_path: Path
) -> None:
    spec = declare(tmp_path, aliases=["champion", "challenger"])
    project = project_of(tmp_path, mlflow.url)

    look(project, spec)
    look(project, spec)
    asked = list(mlflow.asked)
    let_time_pass(project)
    look(project, spec)
    mlflow.aliases = {"champion": "3"}
    let_time_pass(project)
    look(project, spec)

    assert asked == ["GET registered-models/get", "GET model-versions/get", "GET runs/get",
                     "GET model-versions/get"]  # fmt: skip
    assert mlflow.asked[len(asked) :] == ["GET registered-models/get"] * 2 + [
        "GET model-versions/get", "GET runs/get",
    ]  # fmt: skip
    told = [
        (row["kind"], row["author"], row["note"])
        for row in load_history(project.store.state, MODEL)
    ]
    assert sorted(told) == sorted([
        ("alias champion", "MLflow", "version 1; run train-1, trained on customers-2024-01 "
         "(digest 13ed02ef)"),
        ("alias challenger", "MLflow", "version 2"),
        ("alias champion", "MLflow", "version 3, before version 1; run train-1, no training data "
         "set logged"),
        ("alias challenger", "MLflow", "no version, before version 2"),
    ])  # fmt: skip
    shown = registry_numbers(Work(project, spec, (), project.now(), "", False))
    page = f"{mlflow.url}/#/models/churn%20eu%20%26%20co/versions/3"
    assert shown == {
        "registry/champion": "version 3; run train-1, no training data set logged",
        "registry/champion/page": page,
    }
    html = health_report(project.store, spec, project.now()).html
    assert f'<a href="{page}">version 3</a> is champion' in html
    assert f'href="{mlflow.url}/#/experiments/1/runs/{RUNS["3"]}"' in html
    [finding] = _registries(project)
    assert finding.is_fine
    assert finding.found.endswith("champion is version 3, challenger is version (none)")
    project.store.close()


def test_the_gate_tags_the_version_that_answered_and_a_read_only_registry_is_left_alone(
    own_fortnight: World, mlflow: Mlflow
) -> None:
    """Events of the fortnight were answered by version 3, whatever the alias names."""
    spec = declare(own_fortnight.folder)
    project = replace(own_fortnight.project, variables={"OUR_MLFLOW": mlflow.url}.get)

    judged = gate_of(project, spec, ("schema", "quality", "drift", "performance")).families
    well = next(standing.family for standing in judged if standing.status in ("OK", "WARN"))
    opened = gate_of(project, spec, (well,))
    passed = tell_gate(project, spec, opened)
    closed = gate_of(project, spec, (well, "versions"))
    failed_tags = dict(mlflow.tags["3"])
    failed = tell_gate(project, spec, closed)
    silent = declare(own_fortnight.folder, tags=False)

    assert (opened.is_open, closed.is_open) == (True, False)
    assert passed == f"MLflow: mlmon.gate=passed on version 3 of '{NAME}'."
    assert failed == f"MLflow: mlmon.gate=failed on version 3 of '{NAME}'."
    assert failed_tags["mlmon.gate.why"] == opened.text()
    assert mlflow.tags == {
        "3": {
            "mlmon.gate": "failed",
            "mlmon.gate.at": "2024-03-15T16:00:00+00:00",
            "mlmon.gate.why": closed.text(),
        }
    }
    assert tell_gate(project, silent, closed) == ""
    del mlflow.created["3"]
    assert "not known which version" in tell_gate(project, spec, closed)
    assert mlflow.tags["3"]["mlmon.gate"] == "failed"
    mlflow.broken = (403, b"Permission denied")
    assert "refuses (HTTP 403)" in tell_gate(project, spec, closed)


def test_without_logged_versions_the_alias_throughout_the_window_decides() -> None:
    from mlmon_dagster.store.mlflow_registry import Known, Move, Version

    day = [dt.datetime(2024, 3, n, tzinfo=dt.UTC) for n in range(1, 9)]
    versions = {
        "1": Version(number="1", created_at=day[1]),
        "2": Version(number="2", created_at=day[4]),
    }
    moves = (
        Move(alias="champion", version="1", at=day[3]),
        Move(alias="champion", version="2", at=day[5] + dt.timedelta(hours=3)),
    )
    known = Known(versions=versions, moves=moves)

    found = [known.at("champion", day[n], day[n + 1]) for n in range(7)]

    #        before it was registered; before the first look; known; moved within; known
    assert found == ["", "1", "1", "1", "1", "", "2"]
    assert known.at("other", day[0], day[1]) == ""


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b"<html>who are you</html>", "refuses (HTTP 401)"),
        (200, b"<html>sign in</html>", "not MLflow's REST API"),
        (302, b"", "redirects are not followed"),
        (503, b"", "answered HTTP 503"),
        (0, b"", "has no registered model 'other'"),
    ],
)
def test_a_registry_that_says_no_stops_nothing_and_doctor_says_what_it_said(
    mlflow: Mlflow, tmp_path: Path, status: int, body: bytes, said: str
) -> None:
    spec = declare(tmp_path, token_env="TOKEN", **({} if status else {"mlflow": "other"}))
    project = project_of(tmp_path, mlflow.url)
    mlflow.broken = (status, body) if status else None

    look(project, spec)
    look(project, spec)

    last = load_last_look(project.store.state, MODEL)
    assert last is not None
    assert said in last.problem
    assert [h["authorization"] for h in mlflow.headers] == ["Bearer secret"]
    [finding] = _registries(project)
    assert (finding.is_fine, said in finding.found) == (False, True)
    project.store.close()


def test_a_registry_that_was_asked_without_a_token_says_where_one_is_declared(
    mlflow: Mlflow,
) -> None:
    mlflow.broken = (403, b"")
    with pytest.raises(StoreError, match=r"without a token\. Declare registry\.token_env"):
        MlflowRegistry.at(mlflow.url, None).aliases("churn")


def test_a_server_that_is_away_makes_one_model_wait_and_not_the_next(tmp_path: Path) -> None:
    specs = [declare(tmp_path, model) for model in ("churn", "credit")]
    project = project_of(tmp_path, f"http://127.0.0.1:{free_port()}")

    for spec in specs:
        look(project, spec)

    found = [load_last_look(project.store.state, spec.model) for spec in specs]
    assert found[0] is not None
    assert "cannot be reached" in found[0].problem
    assert found[1] is None
    unset = replace(project, variables=lambda _: None)
    with pytest.raises(StoreError, match="OUR_MLFLOW is not set where this runs"):
        ask_registry(unset, specs[0])
    project.store.close()


def test_a_user_and_password_of_the_address_are_sent_and_shown_nowhere() -> None:
    server = MlflowRegistry.at("https://me:p%40ss@mlflow.example.com/base/", None)

    assert server.url == "https://mlflow.example.com/base"
    assert server.authorization == f"Basic {b64encode(b'me:p@ss').decode()}"
    assert "Basic" not in repr(server)
    with pytest.raises(StoreError, match="starts with http"):
        MlflowRegistry.at("sqlite:///mlflow.db", None)
