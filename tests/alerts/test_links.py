"""Links of messages: reminders have them too, and it is said where nobody could open them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlmon_dagster.alerts.messages.view import dagster_links, page_links
from mlmon_dagster.alerts.receivers.slack import SlackReceiver
from mlmon_dagster.pipeline.receivers import local_links
from mlmon_dagster.project import Project, project_from_environment
from mlmon_dagster.store import Store
from mlmon_dagster.tables.alerts import list_alerts
from tests.alerts.fake_slack import FakeSlack
from tests.alerts.worlds import day, result, send, settle, spec_of

MAIL = {"slack": None, "email": {"to": "ml@example.com"}}


def test_a_reminder_carries_the_links_of_the_first_message(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    specs = [spec_of(repeat="1d")]
    for number in (1, 2, 3):
        settle(store, specs, day(number + 1), result(number), links=dagster_links("https://ui"))
        send(store, receiver)

    (head,) = slack.heads()
    reminders = [reply for reply in slack.replies(head) if "Still firing" in reply.text]
    assert reminders
    for message in (head, *reminders):
        assert "https://ui/assets/credit/drift" in str(message.body["attachments"])


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return project_from_environment(tmp_path, environ={})


@pytest.mark.parametrize(
    ("ui_url", "alerts", "token", "is_told"),
    [
        ("http://127.0.0.1:3000", MAIL, None, True),
        ("http://localhost:3000", MAIL, None, True),
        ("https://dagster.example.com", MAIL, None, False),
        ("http://127.0.0.1:3000", {"slack": None}, None, False),  # the terminal is this machine
        ("http://127.0.0.1:3000", {}, None, False),  # shown here while there is no token
        ("http://127.0.0.1:3000", {}, "xoxb-1", True),
    ],
)
def test_links_to_this_machine_are_told_where_messages_go_to_others(
    project: Project, ui_url: str, alerts: dict[str, Any], token: str | None, is_told: bool
) -> None:
    variables = {"MLMON_SLACK_TOKEN": token}
    changed = replace(project, ui_url=ui_url, variables=variables.get)
    warning = local_links(changed, [spec_of(**alerts)])

    assert bool(warning) == is_told
    assert ("Set MLMON_UI_URL" in warning) == is_told


def test_messages_lead_to_the_page_of_the_alert_first(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    links = page_links("https://pages/", dagster_links("https://ui"))
    settle(store, [spec_of()], day(2), result(1), links=links)
    send(store, receiver)

    (head,) = slack.heads()
    (row,) = list_alerts(store)
    said = str(head.body["attachments"])
    assert f"https://pages/m/credit/alerts/{row.fingerprint}" in said
    assert said.index("https://pages/") < said.index("https://ui/")


def test_pages_on_this_machine_are_told_where_messages_go_to_others(project: Project) -> None:
    changed = replace(
        project, ui_url="https://dagster.example.com", pages_url="http://localhost:8322"
    )

    assert "Set MLMON_PAGES_URL" in local_links(changed, [spec_of(**MAIL)])
    open_ = replace(changed, pages_url="https://pages.example.com")
    assert not local_links(open_, [spec_of(**MAIL)])
