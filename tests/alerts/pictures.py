"""Draw the pictures of docs/alerts.md: ``python -m tests.alerts.pictures``.

Alerts go their whole way, from monitor results through the real Slack client to a fake Slack; what
it was sent is drawn in a browser (Chromium). The sentences are those of the demo's monitors.
"""

from __future__ import annotations

import atexit
import datetime as dt
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mlmon_dagster.alerts.messages.digest import write_digests
from mlmon_dagster.alerts.messages.view import dagster_links
from mlmon_dagster.alerts.receivers.slack import SlackReceiver
from mlmon_dagster.monitors.evidence import excess
from mlmon_dagster.pipeline.receivers import draw_plot
from mlmon_dagster.spec import ModelSpec, load_model
from mlmon_dagster.store import Store, open_store
from tests.alerts.block_kit import draw_thread
from tests.alerts.fake_slack import FakeSlack, fake_slack
from tests.alerts.worlds import result, send, settle
from tests.pipeline.orders import live_cause, make_healthy

ROOT = Path(__file__).parent.parent.parent
IMAGES = ROOT / "docs" / "images"
DEMO = ROOT / "mlmon_dagster" / "demo" / "flight_delay.yaml"
RUN = "5f1c8a70-6c1f-4b0e-9a9f-3a1d2c9b7e44"
WEATHER = ("dewp", "humid", "precip", "pressure", "temp", "visib", "wind_speed")
WEEK = {"from": "2013-12-16", "to": "2013-12-22"}
NOISE = np.random.default_rng(7)


def moment(day: int) -> dt.datetime:
    """Midnight in New York of a day of December 2013."""
    return dt.datetime(2013, 12, 1, 5, tzinfo=dt.UTC) + dt.timedelta(days=day - 1)


def row(day: int, status: str = "OK", **changes: Any) -> dict[str, Any]:
    start = moment(day)
    times = {"window_start": start, "window_end": moment(day + 1), "created_at": moment(day + 1)}
    common = {"model": "flight_delay", "run_id": RUN, "n": 776, "owner": "team:ml-platform"}
    return result(1, status, **{**common, **times, **changes})


def roc_auc(day: int, status: str = "OK", value: float = 0.72, **changes: Any) -> dict[str, Any]:
    low, high = value - 0.05, value + 0.05
    message = (
        f"ROC AUC is {value:.2f}, worse than the usual 0.73.\n95 % interval {low:.2f} to "
        f"{high:.2f} (n 739); the limit is a fall of 0.05."
    )
    changes = {**excess(0.73 - value, 0.05, 0.055), "k": 2, "of_n": 3, **changes}
    airport = {"slice_key": "origin", "slice_value": "LGA", "baseline_value": 0.74, "n": 228}
    slices = [{**airport, "value": value - 0.2}]
    numbers = {"value": value, "lower": low, "upper": high, "baseline_value": 0.73, "n": 739}
    traced = {"window": f"2013-12-{day}"}
    details = {"traced": traced, "worst_slices": slices}
    return row(
        day, status, family="performance", metric="roc_auc", column_name=":table",
        message=message, details=details if status != "OK" else {},
        threshold="drop 0.05", monitor="performance/roc_auc", **{**numbers, **changes},
    )  # fmt: skip


def missed(day: int, worse: float, status: str = "OK", why: str = "") -> dict[str, Any]:
    message = (
        f"ROC AUC over 7 days turned out {abs(worse):.2f} {'worse' if worse > 0 else 'better'} "
        f"than estimated.\n95 % interval of the difference {worse - 0.06:.2f} to "
        f"{worse + 0.06:.2f} (n 6,357); the limit is 0.03. The scores no longer mean what they "
        "meant in the baseline."
    )
    return row(
        day, status, family="estimated_performance", metric="roc_auc_residual", n=6357,
        column_name=":table", message=message, value=worse,
        details={"why": why, "traced": WEEK} if why else {},
        lower=worse - 0.06, upper=worse + 0.06, baseline_value=None, threshold="above 0.03",
        monitor="estimated_performance/roc_auc_residual", **excess(worse, 0.03, 0.06),
    )  # fmt: skip


def nulls(day: int, column: str, share: float) -> dict[str, Any]:
    status = "WARN" if share > 0.6 else "OK"
    rows = "in every row" if share == 1 else f"in {share:.0%} of rows".replace("%", " %")
    message = f"{column} is missing {rows} (n 776), above 60 %."
    return row(
        day, status, family="quality", metric="null_rate", column_name=column, message=message,
        value=share, baseline_value=None, threshold="above 0.60", **excess(share, 0.6, 0.01),
    )  # fmt: skip


class Stage:
    """One model, one Slack, and what happens on it."""

    def __init__(self, store: Store, slack: FakeSlack, spec: ModelSpec) -> None:
        self.store, self.slack, self.spec = store, slack, spec
        self.receiver = SlackReceiver(slack.token, base_url=slack.url, draw=draw_plot)

    def tell(self, day: float, *rows: dict[str, Any]) -> None:
        now = moment(1) + dt.timedelta(days=day - 1)
        links = dagster_links("https://dagster.example.com")
        settle(self.store, [self.spec], now, *rows, links=links, with_plots=True)
        for _ in range(3):
            send(self.store, self.receiver)

    def picture(self, **kw: Any) -> bytes:
        return draw_thread(self.slack, self.slack.heads()[-1], **kw)


def opened(stage: Stage) -> None:
    days = [roc_auc(d, value=0.72 + NOISE.normal(0, 0.015)) for d in range(1, 25)]
    bad = [roc_auc(25, "ERROR", 0.63), roc_auc(26, "ERROR", 0.59)]
    stage.tell(27, *days, *bad)


def grouped(stage: Stage) -> None:
    more = ("seats", "plane_age", "carrier", "dest", "distance")
    days = [
        nulls(d, c, abs(NOISE.normal(0.02, 0.01))) for d in range(1, 31) for c in (*WEATHER, *more)
    ]
    stage.tell(32, *days, *(nulls(31, c, 1.0) for c in (*WEATHER, *more)))


def why(stage: Stage) -> None:
    """What the demo says of the week to 22 December."""
    days = [missed(d, NOISE.normal(0.01, 0.01)) for d in range(1, 22)]
    said = (
        "ROC AUC is .674, the baseline's .691. 2013-12-16, 2013-12-18 and 2013-12-21 did most of "
        "it: without them ROC AUC is .732."
    )
    stage.tell(23, *days, missed(22, 0.07, "WARN", said))


def gap(day: int, value: float, **changes: Any) -> dict[str, Any]:
    return row(
        day, family="performance", metric="calibration_gap", column_name=":table", value=value,
        lower=value - 0.1, upper=value + 0.1, baseline_value=-0.005, n=4014,
        threshold="shift 0.02", monitor="performance/calibration_gap",
        **{**excess(abs(value), 0.02, 0.1), "message": "As usual.", **changes},
    )  # fmt: skip


def money(stage: Stage) -> None:
    """What the demo says of 10 December, had it been alive."""
    days = [gap(d, NOISE.normal(0, 0.01)) for d in range(1, 10)]
    said = (
        "Over the last 5 days the model expects 30.9 % on average where 52.2 % come true.\n"
        "Calibration gap is -0.21, in the baseline -0.0049 (n 4,014); 95 % interval of the change "
        "-0.31 to -0.11, limit 0.02."
    )
    worth = (
        "covered is 360 % above usual (21.8 min a request, usually 4.72; 92 % of the usual number "
        "of outcomes is in so far), worth about 68,000 min more (30,000 to 110,000); missed is "
        "110 % above usual (11.6 a request, usually 5.55; 92 % of the usual number of outcomes is "
        "in so far)"
    )
    failed = gap(10, -0.213, message=said, status="WARN", details={"money": worth})
    stage.tell(11, *days, failed)


def digest(stage: Stage) -> None:
    opened(stage)
    grouped_days = [nulls(d, "temp", 1.0) for d in range(26, 29)]
    stage.tell(29, *grouped_days)
    policy = stage.spec.alerts.digest.model_copy(update={"every": "daily"})
    alerts = stage.spec.alerts.model_copy(update={"digest": policy})
    write_digests(stage.store, [stage.spec.model_copy(update={"alerts": alerts})], moment(30))
    stage.tell(30)


SCENES: dict[str, Callable[[Stage], None]] = {
    "opened": opened,
    "why": why,
    "grouped": grouped,
    "money": money,
    "digest": digest,
}


# Of a model that is lived day by day, from the first message to the last.
THREADS = {
    "thread-dead-feed": "dead feed",
    "thread-nulls": "null surge",
    "thread-inverted-labels": "inverted labels",
}
NAMES = (*SCENES, *THREADS)


def draw_scene(name: str) -> bytes:
    """Play one scene in a store and a Slack of its own, and return its picture."""
    spec = load_model(DEMO)
    route = spec.alerts.slack.model_copy(update={"mention": "@here"}) if spec.alerts.slack else None
    alerts = spec.alerts.model_copy(update={"slack": route})
    with tempfile.TemporaryDirectory() as folder, fake_slack() as slack:
        store = open_store(folder)
        stage = Stage(store, slack, spec.model_copy(update={"alerts": alerts}))
        SCENES[name](stage)
        picture = stage.picture()
        store.close()
    return picture


@cache
def _live_healthily() -> Path:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    make_healthy(folder)
    return folder


def draw_cause(name: str) -> bytes:
    """Live one of `CAUSES` through the pipeline, and return the picture of its whole thread."""
    with tempfile.TemporaryDirectory() as folder, fake_slack() as slack:
        receiver = SlackReceiver(slack.token, base_url=slack.url)
        orders = live_cause(THREADS[name], _live_healthily(), Path(folder) / "orders", receiver)
        (head,) = slack.heads()
        picture = draw_thread(slack, head)
        orders.project.store.close()
    return picture


def draw(name: str) -> bytes:
    """Return one picture of `NAMES`."""
    return draw_cause(name) if name in THREADS else draw_scene(name)


def main(names: list[str]) -> None:
    for name in names or NAMES:
        path = IMAGES / f"slack-{name}.png"
        path.write_bytes(draw(name))
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main(sys.argv[1:])
