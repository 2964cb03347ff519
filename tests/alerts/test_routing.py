"""Where alerts go, and what happens when they move, wait, or a place refuses them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlmon_dagster.alerts.lifecycle.routing import Destination, destinations, fallback_of
from mlmon_dagster.alerts.messages.incidents import flush_groups
from mlmon_dagster.alerts.receivers.slack import SlackReceiver
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.store import Store
from mlmon_dagster.store.state.schema import outbox
from tests.alerts.fake_slack import FakeSlack
from tests.alerts.test_outage import MINUTE
from tests.alerts.worlds import day, result, rows_of, send, settle, spec_of

ONCALL = {"slack": {"channel": "#other", "mention": "@here"}}
ROW = {"family": "drift", "severity": "WARN", "monitor": "drift/psi/age", "owner": ""}


@pytest.mark.parametrize(
    ("routes", "row", "channels"),
    [
        ([], {}, ["#ml-alerts"]),
        ([{"family": "drift", **ONCALL}], {}, ["#other"]),
        ([{"family": "service", **ONCALL}], {}, ["#ml-alerts"]),
        ([{"severity": "ERROR", **ONCALL}], {}, ["#ml-alerts"]),
        ([{"severity": ["WARN", "ERROR"], "monitor": "drift/*/age", **ONCALL}], {}, ["#other"]),
        ([{"owner": "team:risk", **ONCALL}], {}, ["#other"]),
        ([{"owner": "team:risk", **ONCALL}], {"owner": "team:x"}, ["#ml-alerts"]),
        ([{"family": "drift", "continue": True, **ONCALL}], {}, ["#ml-alerts", "#other"]),
        (
            [
                {"family": "drift", "continue": True, **ONCALL},
                {"family": "drift", "email": {"to": "a@example.com"}},
                {"family": "*", "email": {"to": "never@example.com"}},
            ],
            {},
            ["#other", "a@example.com"],
        ),
    ],
)
def test_the_first_route_that_matches_takes_the_alert(
    routes: list[dict[str, Any]], row: dict[str, Any], channels: list[str]
) -> None:
    spec = spec_of(routes=routes)

    assert sorted(p.channel for p in destinations(spec, {**ROW, **row})) == channels


def test_without_any_place_a_route_leaves_the_rest_to_the_terminal() -> None:
    spec = spec_of(slack=None, routes=[{"family": "service", **ONCALL}])

    assert list(destinations(spec, ROW)) == [("console", "terminal")]


def test_the_default_place_is_the_fallback_of_routes_unless_one_is_declared() -> None:
    other = Destination("slack", "#other")
    declared = spec_of(fallback={"email": {"to": "a@example.com"}})

    assert fallback_of(spec_of(), other) == ("slack", "#ml-alerts")
    assert fallback_of(spec_of(), Destination("slack", "#ml-alerts")) is None
    assert fallback_of(declared, other) == ("email", "a@example.com")


@pytest.mark.parametrize(
    ("alerts", "said"),
    [
        ({"routes": [{"family": "drift"}]}, "a route needs a place"),
        ({"routes": [ONCALL]}, "takes every alert"),
        ({"fallback": {}}, "a fallback needs a place"),
        ({"webhook": {}}, "needs url, or url_env"),
        ({"webhook": {"url": "http://example.com"}}, "over https"),
        ({"webhook": {"url_env": "https://secret"}}, "name of an environment variable"),
        ({"webhook": {"url": "https://u:p@example.com"}}, "user and password do not belong"),
        ({"email": {"to": ["a@example.com", "Bob <b@example.com>"]}}, "not a mail address"),
        ({"email": {"to": []}}, "at least one address"),
        ({"digest": "hourly"}, "daily"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(alerts: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=said):
        spec_of(**alerts)


def test_an_alert_that_escalates_is_announced_on_its_new_route_and_ends_in_both(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    specs = [spec_of(slack={"channel": "#ml-alerts"}, routes=[{"severity": "ERROR", **ONCALL}])]
    settle(store, specs, day(2), result(1, "WARN"))
    send(store, receiver)
    settle(store, specs, day(3), result(2, "ERROR"))
    send(store, receiver)
    repeated = settle(store, specs, day(5), result(4, "ERROR"))
    settle(store, specs, day(6), result(5, "OK"))
    send(store, receiver)

    here, there = (m for m in sorted(slack.heads(), key=lambda m: m.channel))
    assert (here.channel, there.channel) == ("C0000001", "C0000002")
    assert "<!here>" in there.text
    assert "<!here>" not in here.text
    assert repeated == 1
    assert ["1 worse" in r.text or "1 resolved" in r.text for r in slack.replies(here)] == [
        True
    ] * 2
    assert len(slack.replies(there)) == 2
    assert (here.colour, there.colour) == ("#1a7f37", "#1a7f37")


def test_everybody_whose_alert_is_in_a_message_is_mentioned(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    routes = [
        {"owner": "team:a", "slack": {"channel": "#ml-alerts", "mention": "S0AAAAAAA"}},
        {"owner": "team:b", "slack": {"channel": "#ml-alerts", "mention": "S0BBBBBBB"}},
    ]
    rows = [result(1, owner="team:a"), result(1, owner="team:b", column_name="b")]
    settle(store, [spec_of(routes=routes)], day(2), *rows)
    send(store, receiver)

    (head,) = slack.heads()
    assert "<!subteam^S0AAAAAAA>" in head.text
    assert "<!subteam^S0BBBBBBB>" in head.text


def test_the_first_message_waits_and_what_ends_meanwhile_is_told_once_as_over(store: Store) -> None:
    specs = [spec_of(group_wait="10m")]
    settle(store, specs, day(2), result(1), result(1, column_name="b"))
    early = flush_groups(store, specs, day(2) + 9 * MINUTE)
    late = flush_groups(store, specs, day(2) + 10 * MINUTE)
    settle(store, specs, day(13), result(12, family="service"))
    settle(store, specs, day(13) + MINUTE, result(13, "OK", family="service"))
    flush_groups(store, specs, day(14))
    again = flush_groups(store, specs, day(14) + MINUTE)

    assert (early, late, again) == (0, 1, 0)
    told = [json.loads(row["payload"])["plain"] for row in rows_of(store, outbox)]
    assert ["credit: over: " in text for text in told] == [False, True]


def test_what_a_place_refuses_for_good_goes_to_its_fallback_in_order(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    ghost = {"slack": {"channel": "#ghost"}}
    specs = [spec_of(routes=[{"family": "drift", **ghost}])]
    settle(store, specs, day(2), result(1))
    report = send(store, receiver)
    settle(store, specs, day(3), result(2, "OK"))
    again = send(store, receiver)

    assert (report.n_dead + again.n_dead, again.n_waiting) == (2, 0)
    opened, resolved = slack.messages
    assert "psi of age is high" in opened.text
    assert "Meant for #ghost, which refused it: channel_not_found" in opened.text
    assert "1 resolved" in resolved.text
    assert {m.channel for m in slack.messages} == {"C0000001"}
