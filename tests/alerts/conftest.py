"""Fixtures of the alert tests: a fake Slack and a receiver that talks to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlmon_dagster.alerts.receivers.slack import SlackReceiver
from tests.alerts.fake_slack import FakeSlack, fake_slack


@pytest.fixture
def slack() -> Iterator[FakeSlack]:
    with fake_slack() as fake:
        yield fake


@pytest.fixture
def receiver(slack: FakeSlack) -> SlackReceiver:
    return SlackReceiver(slack.token, base_url=slack.url, timeout_seconds=30)
