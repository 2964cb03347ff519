"""Numbers for Prometheus: what the parsers read is what the database says, whatever its names."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
import sqlalchemy as sa
from prometheus_client import parser as plain_parser
from prometheus_client.openmetrics import parser as open_parser
from prometheus_client.samples import Sample

from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.files.loader import BrokenModel, Models
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import model_history
from mlmon_dagster.store.state.schema import alert, window_state
from mlmon_dagster.tables.openmetrics import Bounds, Exporter
from tests.alerts.worlds import DAY, day, observe, result, settle, spec_of

OPEN = "application/openmetrics-text; version=1.0.0"
HOSTILE = 'a"b\\c\nd{e="f"} # EOF é\u2028'
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")


def declared(*names: str) -> Models:
    return Models(tuple(spec_of(name) for name in names or ("credit",)))


def scraped(store: Store, models: Models | None = None, **bounds: int) -> bytes:
    read = (store, lambda: models or declared(), lambda: day(9))
    exporter = Exporter(*read, bounds=Bounds(**bounds))
    body, _ = exporter.answer(OPEN, lambda _model: True)
    return body


def samples(body: bytes) -> list[Sample]:
    return [s for f in open_parser.text_string_to_metric_families(body.decode()) for s in f.samples]


def values(found: Iterable[Sample], name: str, *labels: str) -> dict[tuple[str, ...], float]:
    return {tuple(s.labels[x] for x in labels): s.value for s in found if s.name == name}


def checked(body: bytes) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL is not None
    return subprocess.run(
        [PROMTOOL, "check", "metrics"], input=body.decode(), capture_output=True, text=True
    )


def test_a_verdict_has_status_value_limit_and_excess_and_no_data_has_none_of_them(
    any_store: Store,
) -> None:
    observe(
        any_store,
        result(3, "ERROR", excess=3.0, threshold="above 0.10", n=50, reason=""),
        result(3, "OK", column_name="plan", monitor="drift/psi/plan", reason=""),
        result(3, "NO_DATA", column_name="pay", monitor="drift/psi/pay", reason="few_rows"),
    )
    found = samples(scraped(any_store))

    statuses = values(found, "mlmon_monitor_status", "monitor")
    assert statuses == {("drift/psi/age",): 2.0, ("drift/psi/plan",): 0.0}
    blind = values(found, "mlmon_monitor_no_data", "monitor", "reason")
    assert blind == {("drift/psi/pay", "few_rows"): 1.0}
    for name, value in (("value", 0.4), ("limit", 0.1), ("excess", 3.0), ("rows", 50.0)):
        of_age = values(found, f"mlmon_monitor_{name}", "column")
        assert of_age["age",] == value
        assert ("pay",) not in of_age
    (end,) = values(found, "mlmon_family_window_end_timestamp_seconds", "family").values()
    assert end == (day(3) + DAY).timestamp()


def test_every_name_comes_back_from_both_formats(store: Store) -> None:
    monitor = f"drift/psi/{HOSTILE}"
    hostile = {"monitor": monitor, "column_name": HOSTILE, "owner": HOSTILE}
    observe(store, *(result(3, slice_key=k, slice_value=v, **hostile)
                     for k, v in (("all", "all"), ("origin", HOSTILE))))  # fmt: skip
    exporter = Exporter(store, declared, lambda: day(9))
    body, headers = exporter.answer(OPEN, lambda _model: True)
    older, plain = exporter.answer("text/plain", lambda _model: True)

    assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert plain["content-type"].startswith("text/plain")
    families = plain_parser.text_string_to_metric_families(older.decode())
    for found in (samples(body), [s for f in families for s in f.samples]):
        _, labels = [s.labels for s in found if s.name == "mlmon_monitor_status"]
        assert labels["monitor"] == monitor
        assert (labels["column"], labels["slice_value"]) == (HOSTILE, HOSTILE)


@needs_promtool
def test_promtool_accepts_hostile_names(store: Store) -> None:
    observe(store, result(3, monitor=f"drift/psi/{HOSTILE}", column_name=HOSTILE))
    exporter = Exporter(store, declared, lambda: day(9))
    body, _ = exporter.answer("text/plain", lambda _model: True)

    done = checked(body)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_too_much_is_left_out_and_counted(store: Store) -> None:
    rows = [
        result(3, column_name=f"c{i}", monitor=f"drift/psi/c{i}", slice_key=key, slice_value=key)
        for i in range(5)
        for key in ("origin", "all")
    ]
    observe(store, *rows)
    found = samples(scraped(store, of_model=6))

    keys = [s.labels["slice_key"] for s in found if s.name == "mlmon_monitor_status"]
    assert keys == ["all"] * 5 + ["origin"]
    assert values(found, "mlmon_left_out_monitors") == {(): 4.0}
    whole = samples(scraped(store, in_all=3))
    assert values(whole, "mlmon_left_out_monitors") == {(): 7.0}


def test_alerts_that_fire_are_series_and_muted_ones_say_why(store: Store) -> None:
    settle(store, [spec_of()], day(3), result(2),
           result(2, column_name="plan", monitor="drift/psi/plan"))  # fmt: skip
    with store.state.begin() as conn:
        silenced = alert.update().where(alert.c.monitor == "drift/psi/plan")
        conn.execute(silenced.values(muted_reason="silence:7"))
    found = samples(scraped(store))

    firing = values(found, "mlmon_alert_firing", "monitor", "severity", "muted")
    assert firing == {
        ("drift/psi/age", "ERROR", ""): 1.0,
        ("drift/psi/plan", "ERROR", "silence"): 1.0,
    }


def test_the_machinery_and_the_newest_window_are_told(store: Store) -> None:
    model_history.note_beat(store.state, "dispatcher", day(4))
    with store.state.begin() as conn:
        rows = [
            {"model": "credit", "window_start": day(k), "window_end": day(k + 1), "n": n,
             "n_actual": 25, "n_exempt": 0, "input_revision": 2, "computed_revision": done}
            for k, n, done in ((1, 100, 2), (2, 50, 1), (3, 0, 1))
        ]  # fmt: skip
        conn.execute(window_state.insert(), rows)
    models = Models(declared().specs, (BrokenModel("bad", Path("models/bad.yaml"), "no"),))
    found = samples(scraped(store, models))

    said = {s.name: s.value for s in found}
    assert said["mlmon_windows_waiting"] == 2.0
    assert said["mlmon_window_predictions"] == 50.0
    assert said["mlmon_window_actual_coverage"] == 0.5
    assert said["mlmon_window_end_timestamp_seconds"] == day(3).timestamp()
    assert said["mlmon_outbox_waiting"] == 0.0
    assert values(found, "mlmon_last_tick_timestamp_seconds", "part") == {
        ("dispatcher",): day(4).timestamp()
    }
    assert values(found, "mlmon_model_broken", "model") == {("bad",): 1.0}


def test_scrapes_that_come_together_look_once(store: Store) -> None:
    looks: list[ModelSpec] = []

    def look() -> Models:
        looks.append(spec_of())
        return declared()

    exporter = Exporter(store, look, lambda: day(9))
    for _ in range(5):
        exporter.answer(OPEN, lambda _model: True)
    assert len(looks) == 1


def test_a_scrape_reads_again_only_the_models_with_new_verdicts(store: Store) -> None:
    both = declared("credit", "churn")
    observe(store, *(result(3, "OK", model=m) for m in ("credit", "churn")))
    exporter = Exporter(store, lambda: both, lambda: day(9), fresh_seconds=0)
    read: list[str] = []

    @sa.event.listens_for(store.state, "before_cursor_execute")
    def _seen(_conn: object, _cursor: object, text: str, values: object, *_: object) -> None:
        if "verdict AS" in text:
            read.append(str(values))

    def statuses() -> dict[tuple[str, ...], float]:
        body, _ = exporter.answer(OPEN, lambda _model: True)
        return values(samples(body), "mlmon_monitor_status", "model")

    assert statuses() == {("credit",): 0.0, ("churn",): 0.0}
    read.clear()
    observe(store, result(4, "ERROR", model="churn"))
    assert statuses() == {("credit",): 0.0, ("churn",): 2.0}
    assert read
    assert all("churn" in one and "credit" not in one for one in read)


def test_a_model_that_nobody_declares_any_more_is_not_exported(store: Store) -> None:
    observe(store, result(3, model="gone"), result(3))
    assert set(values(samples(scraped(store)), "mlmon_monitor_status", "model")) == {("credit",)}
