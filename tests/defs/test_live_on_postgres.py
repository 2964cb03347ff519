"""The whole system as a team runs it: UI, daemon and state on PostgreSQL, Slack over HTTP."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.defs.assets import asset_key
from mlmon_dagster.defs.instance import open_instance
from mlmon_dagster.project import Project, project_from_environment
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store.state import metric_log
from tests.alerts.fake_slack import FakeSlack, Message, fake_slack
from tests.defs.small_model import (
    DAYS,
    MODEL,
    customers,
    drop,
    land_days,
    land_validation,
    landing,
    write_declaration,
)

ROOT = Path(__file__).parents[2]
DEADLINE = 300.0  # of each wait; a slow machine fails no test
T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T | None], log: Callable[[], str]) -> T:
    """Look until there is something to see."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.5)
    raise AssertionError(f"waited {DEADLINE:.0f} s for {what}.\n{log()[-5000:]}")


@contextmanager
def running(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path
) -> Iterator[None]:
    """Run a command, all its processes in a group that is killed at the end."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(15)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def dagster_dev(folder: Path, environment: dict[str, str]) -> Iterator[Callable[[], str]]:
    """Run ``mlmon dev``; yield what reads its log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder.parent / "dev.log"
    command = [sys.executable, "-m", "mlmon_dagster.cli", "--project", str(folder), "dev"]
    with running([*command, "--port", str(port)], ROOT, environment, log):
        wait_for("the UI", lambda: is_up(port), log.read_text)
        yield log.read_text


def is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def declare(folder: Path, first: dt.date) -> ModelSpec:
    """Declare the model so that each trouble of this story is told by one family alone."""
    spec = write_declaration(folder, start=first, zone="UTC")
    path = folder / "models" / f"{MODEL}.yaml"
    text = path.read_text()
    text = text.replace("drift: {", "freshness: {no_data_for: 100h}\n  drift: {columns: [age], ")
    text = text.replace("repeat: 24h", "repeat: 24h, group_interval: 1s")
    path.write_text(text)
    return spec


class Watcher:
    """Sees what the system did, in its databases and in Slack."""

    def __init__(self, project: Project, instance: dg.DagsterInstance, slack: FakeSlack) -> None:
        self.project, self.instance, self.slack = project, instance, slack

    def metrics(self) -> pd.DataFrame:
        return metric_log.newest(self.project.store.state, MODEL)

    def computed_at(self, metric: str) -> dict[str, pd.Timestamp]:
        """Return when the newest value of a metric was computed, by day."""
        frame = self.metrics()
        mine = frame[(frame["metric"] == metric) & (frame["slice_key"] == "all")]
        mine = mine[mine["value"].notna()]
        days = mine["window_start"].dt.strftime("%Y-%m-%d")
        return dict(zip(days, mine["computed_at"], strict=True))

    def runs(self) -> list[dg.DagsterRun]:
        return [r.dagster_run for r in self.instance.get_run_records()]

    def failed_check(self, spec: ModelSpec, asset: str, family: str, day: str) -> str | None:
        """Return what a failed check says about a day."""
        key = dg.AssetCheckKey(asset_key(spec, asset), family)
        evaluated = dg.DagsterEventType.ASSET_CHECK_EVALUATION
        history = self.instance.event_log_storage.get_asset_check_execution_history(key, limit=50)
        for record in history:
            event = record.event and record.event.dagster_event
            if record.partition == day and event and event.event_type == evaluated:
                evaluation = event.asset_check_evaluation_data
                return None if evaluation.passed else evaluation.description
        return None

    def replies(self, head: Message) -> list[Message]:
        return self.slack.replies(head)


@pytest.mark.proof
def test_a_bad_day_is_told_in_slack_and_corrected_ground_truth_resolves_it(
    pg_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "project"
    today = dt.datetime.now(dt.UTC).date()
    days = [today - dt.timedelta(days=n) for n in (4, 3, 2, 1)]
    yesterday = str(days[-1])
    spec = declare(folder, days[0])
    with fake_slack() as slack:
        variables = {
            "MLMON_DB_URL": pg_url,
            "MLMON_SLACK_TOKEN": slack.token,
            "MLMON_SLACK_API_URL": slack.url,
            "MLMON_TICK_SECONDS": "3",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        land_validation(folder, first=days[0] - dt.timedelta(days=30))
        for day, like in zip(days[:-1], DAYS, strict=False):
            land_days(folder, day, like=like)
        project = project_from_environment(folder)
        with open_instance(project) as instance, dagster_dev(folder, dict(os.environ)) as log:
            seen = Watcher(project, instance, slack)

            def failure(asset: str, family: str) -> str:
                """Wait for a failing check: its event comes after the verdict that is told."""
                look = partial(seen.failed_check, spec, asset, family, yesterday)
                return wait_for(f"the failing check of {asset}", look, log)

            wait_for("the first metrics", lambda: len(seen.computed_at("roc_auc")) == 3, log)
            quality = seen.computed_at("null_rate")
            performance = seen.computed_at("roc_auc")
            assert slack.messages == []

            predictions, actuals = customers(days[-1], like=DAYS[3])
            predictions.loc[: int(0.4 * len(predictions)) - 1, "balance"] = np.nan
            drop(predictions, landing(folder, "predictions") / f"{yesterday}.parquet")
            wait_for("Slack's message", lambda: slack.heads(), log)
            said = failure("data_quality", "quality")
            assert said == "balance is missing in 40 % of rows (n 150), above 20 %."
            [head] = slack.messages
            assert "balance" in head.text
            assert {d: t for d, t in seen.computed_at("null_rate").items() if d != yesterday} == (
                quality
            )

            wrong = actuals.assign(left=1 - actuals["left"])
            drop(wrong, landing(folder, "actuals") / f"{yesterday}.parquet")

            def told() -> str:  # the same window fails, so it is told in the same thread
                return json.dumps([reply.body for reply in seen.replies(head)])

            wait_for("ROC AUC in the thread", lambda: "ROC AUC is 0." in told(), log)
            # What came true, and that the estimate without ground truth did not see it.
            wait_for("the missed estimate", lambda: "worse than estimated" in told(), log)
            said = failure("performance", "performance")
            assert slack.heads() == [head]

            later = actuals.assign(known_at=actuals["known_at"] + pd.Timedelta(minutes=10))
            drop(later, landing(folder, "actuals") / f"{yesterday}-corrected.parquet")
            n_told = len(seen.replies(head))
            wait_for("a reply", lambda: len(seen.replies(head)) > n_told, log)
            reply = seen.replies(head)[n_told]
            assert "resolved" in reply.text.lower()
            wait_for("the thread's head", lambda: "ROC AUC" not in json.dumps(head.shown), log)
            assert "balance" in head.shown["text"]  # whose nulls go on
            assert slack.heads() == [head]

            after = seen.computed_at("roc_auc")
            assert {d: t for d, t in after.items() if d != yesterday} == performance
            status = dg.DagsterRunStatus
            going_on = {status.NOT_STARTED, status.QUEUED, status.STARTING, status.STARTED}
            # The newest report may still be in the making: it is asked for once an alert changed.
            statuses = [run.status for run in seen.runs() if run.status not in going_on]
            assert set(statuses) == {status.SUCCESS}
        project.store.close()
