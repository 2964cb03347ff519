"""Alerts that a known event explains: listed, not sent, and sent once they go on without it."""

from __future__ import annotations

from mlmon_dagster.alerts.handling import note_event
from mlmon_dagster.spec import ModelSpec, spec_from_mapping
from mlmon_dagster.store import Store
from mlmon_dagster.store.state.schema import alert, known_event
from mlmon_dagster.tables.alerts import list_alerts, name_muted
from tests.alerts.test_grouping import texts
from tests.alerts.worlds import DAY, day, kinds, only_alert, result, rows_of, settle, spec_of

PROMO = {"name": "promo", "from": "2024-01-01", "to": "2024-01-03"}


def declare(**changes: object) -> ModelSpec:
    spec = spec_of()
    declared = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return spec_from_mapping({**declared, "events": [{**PROMO, **changes}]})


def test_what_an_event_explains_is_listed_and_not_sent(store: Store) -> None:
    spec = declare()
    settle(store, [spec], day(4), *(result(n) for n in (1, 2, 3)))
    (listed,) = list_alerts(store)
    settle(store, [spec], day(5), result(4, "OK"))

    assert kinds(store) == []
    assert (listed.muted_reason, listed.is_explained) == ("suppressed:event/promo", True)
    assert name_muted(listed.muted_reason) == "explained by the known event promo"


def test_what_goes_on_after_an_event_is_sent_then(store: Store) -> None:
    spec = declare()
    settle(store, [spec], day(4), *(result(n) for n in (1, 2, 3)))
    assert kinds(store) == []
    settle(store, [spec], day(5), result(4))

    assert kinds(store) == ["opened"]
    assert "Since:         2024-01-01" in texts(store)[0]


def test_the_summary_of_a_backfill_leaves_out_what_is_explained_at_its_end(store: Store) -> None:
    spec = declare()
    latency = {"family": "service", "metric": "p95_latency_ms", "message": "slow"}
    past = [result(n, is_backfill=True, **kw) for n in (2, 3) for kw in ({}, latency)]
    settle(store, [spec], day(4), *past)

    (text,) = texts(store)
    assert "credit: slow" in text
    assert "psi of age" not in text
    settle(store, [spec], day(5), result(4), result(4, **latency))
    assert "psi of age is high" in texts(store)[1]  # it goes on without the event


def test_an_event_explains_its_families_alone(store: Store) -> None:
    latency = {"family": "service", "metric": "p95_latency_ms", "message": "slow"}
    settle(store, [declare()], day(3), result(2), result(2, **latency))
    assert ["slow" in text for text in texts(store)] == [True]

    settle(store, [declare(name="load test", explains=["service"])], day(4), result(3, **latency))
    muted = {row["family"]: row["muted_reason"] for row in rows_of(store, alert) if row["episode"]}
    assert muted["service"] == "suppressed:event/load test"


def test_an_alert_of_more_than_a_year_is_known_for_the_newest_year(store: Store) -> None:
    settle(store, [spec_of()], day(3), result(2))
    short = only_alert(store)["fingerprint"][:8]
    event = note_event(store, short, "ana", day(500), 7 * DAY)

    assert event is not None
    assert (event.from_, event.to) == (day(507).date() - 366 * DAY, day(507).date())


def test_whoever_reads_an_alert_says_that_it_is_known_and_its_thread_says_so(store: Store) -> None:
    specs = [spec_of()]
    settle(store, specs, day(3), result(2))
    short = only_alert(store)["fingerprint"][:8]
    added = [note_event(store, short, "ana", day(3), 7 * DAY, "new tariff") for _ in range(2)]
    settle(store, specs, day(4), result(3))
    settle(store, specs, day(5), result(4, "OK"))

    assert [one is not None for one in added] == [True, False]
    (row,) = rows_of(store, known_event)
    assert row["author"] == "ana"
    assert "a known event until 2024-01-10, says ana: new tariff" in texts(store)[1]
    assert kinds(store)[:2] == ["opened", "acknowledged"]
    assert only_alert(store)["muted_reason"] == "suppressed:event/new tariff"
