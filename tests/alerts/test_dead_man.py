"""The dead-man switch says what is wrong and never repeats its address."""

from __future__ import annotations

import pytest

from mlmon_dagster.alerts.receivers.worker import ping
from tests.alerts.fake_slack import FakeSlack


def test_an_address_that_answers_is_well(slack: FakeSlack) -> None:
    assert ping(f"{slack.url}ping") == ""


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1/secret", "cannot be reached: ConnectionRefusedError"),
        ("http://example.com/secret", "over https"),
    ],
)
def test_what_is_wrong_is_said_without_the_address(url: str, said: str) -> None:
    problem = ping(url)

    assert said in problem
    assert "secret" not in problem
