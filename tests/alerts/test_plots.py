"""Plots: each once into its thread, never in the way of a text."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from PIL import Image

from mlmon_dagster.alerts.receivers.email import MailReceiver, MailServer
from mlmon_dagster.alerts.receivers.slack import SlackReceiver
from mlmon_dagster.monitors.wording import limit_of
from mlmon_dagster.pipeline.receivers import draw_plot
from mlmon_dagster.store import Store
from mlmon_dagster.store.state.schema import outbox
from tests.alerts.fake_slack import FakeSlack
from tests.alerts.fake_smtp import fake_smtp
from tests.alerts.worlds import day, deliver, kinds, result, rows_of, send, settle, spec_of

SPECS = [spec_of()]
PICTURE = b"\x89PNG a picture"


def plotted(slack: FakeSlack, draw: Any = lambda _plot: PICTURE) -> SlackReceiver:
    return SlackReceiver(slack.token, base_url=slack.url, timeout_seconds=30, draw=draw)


def incident(store: Store, **changes: Any) -> None:
    history = [result(n, "OK", **changes) for n in range(1, 5)]
    settle(store, SPECS, day(6), *history, result(5, **changes), with_plots=True)


def test_an_incident_has_one_plot_in_its_thread_and_its_end_another(
    any_store: Store, slack: FakeSlack
) -> None:
    incident(any_store)
    send(any_store, plotted(slack))
    settle(any_store, SPECS, day(7), result(6, "OK"), with_plots=True)
    send(any_store, plotted(slack))

    (head,) = slack.heads()
    first, second = slack.files
    assert first.thread_ts == second.thread_ts == head.ts
    assert first.content == PICTURE
    assert first.title == "credit: PSI of age"
    assert first.alt == (
        "PSI of age from 2024-01-01 to 2024-01-05: last 0.40, lowest 0.01, highest 0.40, "
        "baseline 0, limit 0.10; 1 of 5 windows failed"
    )
    assert kinds(any_store) == ["opened", "plot", "resolved", "plot", "head"]


def test_a_plot_is_drawn_from_what_was_judged(store: Store, slack: FakeSlack) -> None:
    incident(store, lower=0.3, upper=0.5)
    send(store, plotted(slack, draw_plot))

    (file,) = slack.files
    picture = Image.open(io.BytesIO(file.content))
    payload = json.loads(rows_of(store, outbox)[1]["payload"])
    (curve,) = payload["plot"]["curves"]
    assert picture.size == (990, 286)
    assert curve["failing"] == [False] * 4 + [True]
    assert (curve["baseline"], curve["limit"]) == (0.0, 0.1)


@pytest.mark.parametrize(
    ("method", "step"),
    [
        ("files.getUploadURLExternal", "500"),
        ("files.getUploadURLExternal", "429:1"),
        ("upload", "500"),
        ("upload", "reset"),
        ("files.completeUploadExternal", "500"),
        ("files.completeUploadExternal", "after_500"),
        ("files.completeUploadExternal", "after_truncated"),
    ],
)
def test_whatever_breaks_there_is_one_plot(
    store: Store, slack: FakeSlack, method: str, step: str
) -> None:
    incident(store)
    slack.script(method, step)
    report = send(store, plotted(slack), max_messages=2)
    for _ in range(3):
        report = send(store, plotted(slack), budget_seconds=3)

    assert len(slack.files) == len(slack.messages) == 1
    assert report.n_waiting == 0


@pytest.mark.parametrize("step", ["missing_scope", "500:"])
def test_a_plot_that_fails_for_good_is_given_up_and_no_text_waits_for_it(
    store: Store, slack: FakeSlack, step: str
) -> None:
    incident(store)
    slack.script("files.getUploadURLExternal", *[step] * 20)
    send(store, plotted(slack), max_messages=2)
    settle(store, SPECS, day(7), result(6, "OK"), with_plots=True)
    # One call sees all of it through: what waits for the first plot does not hide when that is due.
    report = send(store, plotted(slack))

    assert len(slack.messages) == 2
    assert slack.files == []
    assert report.n_waiting == report.n_dead == 0
    assert {r["status"] for r in rows_of(store, outbox) if r["kind"] == "plot"} == {"superseded"}


def test_a_mail_shows_its_plot_inside_and_reads_without_it(store: Store) -> None:
    specs = [spec_of(slack=None, email={"to": ["a@example.com"]})]
    history = [result(n, "OK") for n in range(1, 5)]
    nasty = result(5, message="psi of <b>age</b> is high")
    settle(store, specs, day(6), *history, nasty, with_plots=True)
    with fake_smtp() as smtp:
        server = MailServer("127.0.0.1", smtp.port, "", "", "none", "mlmon@example.com")
        deliver(store, {"email": MailReceiver(server, draw=lambda _plot: PICTURE)})

    (mail,) = smtp.mails
    plain, page = mail.get_payload()
    html, picture = page.get_payload()
    body = html.get_payload(decode=True).decode()
    assert "psi of <b>age</b> is high" in plain.get_payload(decode=True).decode()
    assert "psi of &lt;b&gt;age&lt;/b&gt; is high" in body
    assert f"cid:{picture['Content-ID'][1:-1]}" in body
    assert 'alt="PSI of age from 2024-01-01' in body
    assert picture.get_payload(decode=True) == PICTURE


@pytest.mark.parametrize(
    ("metric", "threshold", "baseline", "limit"),
    [
        ("psi", "above 0.10", None, 0.1),
        ("ks", "above 0.10 beyond chance", 0.06, 0.16),
        ("ks", "above 0.10 beyond chance", None, 0.1),
        ("roc_auc", "drop 0.05", 0.75, 0.7),
        ("log_loss", "drop 0.05", 0.5, 0.55),
        ("roc_auc", "drop 0.05", None, None),
        ("n", "below 1,200", None, 1200.0),
        ("null_rate", "above 1e-05", None, 1e-5),
        ("no_data", "26 h", None, None),
        ("attribution_shift", "beyond 0.10", None, -0.1),
    ],
)
def test_the_limit_is_drawn_where_it_is_a_value(
    metric: str, threshold: str, baseline: float | None, limit: float | None
) -> None:
    found = {"metric": metric, "threshold": threshold, "baseline_value": baseline, "value": -0.3}

    assert limit_of(found) == pytest.approx(limit, abs=1e-12)
