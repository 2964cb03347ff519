"""What people do with an alert on its page."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlmon_dagster.collect.admission import create_token
from mlmon_dagster.serve.app import Pages
from mlmon_dagster.spec import Models
from mlmon_dagster.store import Store
from mlmon_dagster.store.state.schema import alert, known_event, outbox, silence
from tests.alerts.worlds import day, only_alert, result, rows_of, settle, spec_of
from tests.serve.conftest import asked, pages_over

OURS = {"sec-fetch-site": "same-origin"}


@pytest.fixture
def pages(store: Store) -> Pages:
    """The pages of a model with one alert that fires."""
    spec = spec_of()
    settle(store, [spec], day(3), result(1), result(2))
    return pages_over(store, Models((spec,), ()), day(3))


def send(pages: Pages, store: Store, headers: dict[str, str] = OURS, **form: str) -> Any:
    path = f"/m/credit/alerts/{only_alert(store)['fingerprint'][:8]}"
    return asked(pages, "POST", path, headers, {"author": "ann", **form})


def test_an_alert_is_acknowledged_on_its_page_which_says_so_as_its_thread_does(
    store: Store, pages: Pages
) -> None:
    answer = send(pages, store, do="acknowledge", comment="looking at the feed")

    assert (answer.status_code, answer.headers["location"][:16]) == (303, "/m/credit/alerts")
    assert only_alert(store)["acked_by"] == "ann"
    html = asked(pages, "GET", answer.headers["location"]).text
    assert "ann" in html
    assert 'value="acknowledge"' not in html
    assert "acknowledged by ann" in asked(pages, "GET", "/").text
    reply = json.loads(rows_of(store, outbox)[-1]["payload"])["plain"]
    assert "acknowledged by ann: looking at the feed" in reply


def test_an_alert_is_silenced_on_its_page_for_a_while(store: Store, pages: Pages) -> None:
    answers = [send(pages, store, **{"do": "silence", "for": "7d"}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [303, 303]
    (one,) = rows_of(store, silence)
    assert (one["author"], one["ends_at"] - one["starts_at"]) == ("ann", day(8) - day(1))


def test_an_alert_is_said_to_be_of_a_known_event_on_its_page(store: Store, pages: Pages) -> None:
    assert send(pages, store, **{"do": "event", "for": "7d", "comment": "sale"}).status_code == 303
    (row,) = rows_of(store, known_event)
    declared = json.loads(row["declared"])
    assert (declared["name"], declared["from"], declared["to"]) == (
        "sale", "2024-01-01", "2024-01-10",
    )  # fmt: skip
    assert declared["explains"] == ["drift"]


@pytest.mark.parametrize(
    "form",
    [
        {"author": " "},
        {"do": "nothing"},
        {"do": "silence", "for": "soon"},
        {"do": "silence", "for": "9999d"},
    ],
)
def test_a_form_that_cannot_be_is_a_sentence(
    store: Store, pages: Pages, form: dict[str, str]
) -> None:
    answer = send(pages, store, **form)

    assert answer.status_code == 400
    assert "<h1>" in answer.text
    assert (only_alert(store)["acked_by"], rows_of(store, silence)) == ("", [])


def test_a_form_of_many_bytes_is_refused(store: Store, pages: Pages) -> None:
    assert send(pages, store, comment="x" * 5_000).status_code == 413
    assert only_alert(store)["acked_by"] == ""


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "https://elsewhere.example.com"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost"}, 303),
        ({}, 303),  # no browser
    ],
)
def test_what_another_page_makes_a_browser_send_is_refused(
    store: Store, pages: Pages, headers: dict[str, str], status: int
) -> None:
    assert send(pages, store, headers).status_code == status
    assert (only_alert(store)["acked_by"] == "ann") == (status == 303)


def test_without_a_token_of_the_model_nothing_is_done(store: Store) -> None:
    spec = spec_of()
    settle(store, [spec], day(3), result(1))
    create_token(store.state, "other", now=day(3))
    answer = send(pages_over(store, Models((spec,), ()), day(3)), store)

    assert answer.status_code == 401
    assert rows_of(store, alert)[0]["acked_by"] == ""
