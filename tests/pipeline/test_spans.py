"""From spans to stages: joined by trace or attribute, late and repeated, profiled, erased."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from mlmon_dagster.commands import doctor
from mlmon_dagster.commands.rows import rows
from mlmon_dagster.commands.tables import status
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.ingest import ingest_new, readers
from mlmon_dagster.ingest.report import render_report
from mlmon_dagster.landing_file import publish
from mlmon_dagster.pipeline.plan import plan
from mlmon_dagster.pipeline.run import compute, run
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, spec_from_mapping, window_from_key
from mlmon_dagster.spec.steps import windowed_of
from mlmon_dagster.store.erasure import erase
from mlmon_dagster.store.erasure.places import find_traces
from mlmon_dagster.store.state import metric_log, window_state
from mlmon_dagster.store.upkeep.maintenance import maintain
from mlmon_dagster.tables.rows import LATENCY, rows_of, trace_of
from mlmon_dagster.work import Work

NOW = dt.datetime(2024, 3, 3, 12, tzinfo=dt.UTC)
AT = dt.datetime(2024, 3, 1, 10, tzinfo=dt.UTC)
N = 200
SPEC: dict[str, Any] = {
    "model": "loan",
    "task": "binary_classification",
    "owners": ["team:risk"],
    "time": {"start": "2024-03-01"},
    "source": {"predictions": {"path": "landing/*.jsonl", "settle": "0s"}},
    "columns": {
        "prediction_id": "id", "event_time": "at", "score": "score", "trace_id": "trace",
        "latency_ms": "ms", "status": "status", "model_version": "version",
    },
    "features": {"age": {"type": "numeric"}, "region": {"type": "categorical"}},
    "slices": ["region"],
    "spans": {
        "stages": {"fetch": "fetch*", "score": "score"},
        "sampling": "unbiased",
        "link": "https://traces.example.com/{trace_id}",
    },
}  # fmt: skip


def spec_with(**spans_: Any) -> ModelSpec:
    return spec_from_mapping({**SPEC, "spans": {**SPEC["spans"], **spans_}})


def trace(i: int) -> str:
    return f"{i + 1:032x}"


def span(i: int, name: str, ms: float, number: int, **more: Any) -> dict[str, Any]:
    return {
        "kind": "span", "trace_id": trace(i), "span_id": f"{i * 10 + number:016x}", "name": name,
        "start_us": int((AT + dt.timedelta(seconds=i)).timestamp() * 1e6), "duration_ms": ms,
        "status": "ok", **more,
    }  # fmt: skip


def land(project: Project, lines: list[dict[str, Any]], name: str, below: str) -> None:
    publish(project.folder / below, name, [json.dumps(line).encode() + b"\n" for line in lines])


def events() -> list[dict[str, Any]]:
    return [
        {
            "id": f"p{i}", "at": (AT + dt.timedelta(seconds=i)).isoformat(), "score": 0.5,
            "trace": trace(i), "ms": 10.0 + i, "status": "error" if i % 10 == 0 else "ok",
            "version": "ab"[i % 2], "age": 30, "region": "north" if i % 4 else "south",
        }
        for i in range(N)
    ]  # fmt: skip


def land_all(project: Project, spans: list[dict[str, Any]] | None = None) -> None:
    """Land the requests, and spans of them: by default all."""
    land(project, events(), "e.jsonl", "landing")
    land(project, all_spans() if spans is None else spans, "s.jsonl", "spans/loan")


def declare(project: Project) -> None:
    (project.folder / "models").mkdir()
    (project.folder / "models/loan.yaml").write_text(yaml.safe_dump(SPEC))


def ingest(project: Project, spec: ModelSpec) -> Any:
    return ingest_new(project.store, spec, project.folder, readers(), now=NOW)


def look(project: Project, spec: ModelSpec) -> pd.DataFrame:
    """Take in what has landed and compute the day; return its numbers."""
    ingest(project, spec)
    windows = (window_from_key(spec.time, "2024-03-01"),)
    work = Work(project, spec, windows, NOW, "test", False)
    compute(work, ["baseline", "inference_store", "profiles", "service_health"])
    return metric_log.newest(project.store.state, spec.model)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    found = Project(tmp_path, str(tmp_path / "store"), now=lambda: NOW)
    yield found
    found.store.close()


def records(project: Project, spec: ModelSpec) -> pd.DataFrame:
    table = project.store.inference_records(spec).read()
    return table.to_pandas().set_index("prediction_id").sort_index()


def all_spans() -> list[dict[str, Any]]:
    """Two fetches and one score a trace, of three quarters of the requests."""
    return [
        one
        for i in range(N)
        if i % 4 != 1
        for one in (
            span(i, "fetch users", 1.25, 1),
            span(i, "fetch cards", 2.0, 2, status="timeout" if i % 8 == 0 else "ok"),
            span(i, "score", 5.0 + i / 10, 3),
            span(i, "other", 99.0, 4),
        )
    ]


def test_stages_are_joined_in_any_order_and_a_repeated_span_counts_once(project: Project) -> None:
    spec = spec_with()
    half = all_spans()
    land(project, half[:300], "one.jsonl", "spans/loan")
    ingest(project, spec)
    land(project, events(), "e.jsonl", "landing")
    look(project, spec)
    before = window_state.load(project.store.state, "loan")
    land(project, half[200:], "two.jsonl", "spans/loan")
    report = ingest(project, spec)
    assert [window.key for window in report.windows] == ["2024-03-01"]
    after = window_state.load(project.store.state, "loan")
    [start] = before
    assert after[start].input_revision == before[start].input_revision + 1
    frame = look(project, spec)

    found = records(project, spec)
    assert found.loc["p3", "n_spans"] == 4
    assert found.loc["p3", "stage.fetch_ms"] == 3.25
    assert found.loc["p8", "stage.fetch_status"] == "timeout"
    assert found.loc["p3", ["stage.fetch_calls", "stage.score_calls"]].tolist() == [2, 1]
    assert found.loc["p1", ["n_spans", "stage.score_ms"]].isna().all()
    assert not list((project.folder / "spans/loan").iterdir())

    whole = frame[(frame["slice_key"] == "all") & (frame["model_version"] == "all")]
    value = whole.set_index(["metric", "column_name"])["value"]
    exact = found["stage.score_ms"].dropna()
    assert value["span_coverage", ":table"] == 0.75
    assert value["p50_stage_ms", "stage.score_ms"] == pytest.approx(exact.median(), rel=0.02)
    assert value["stage_timeout_rate", "stage.fetch_ms"] == 25 / 150
    assert value["p95_stage_calls", "stage.fetch_ms"] == 2
    assert {"a", "b"} <= set(frame["model_version"])
    assert "south" in set(frame.loc[frame["metric"] == "p95_stage_ms", "slice_value"])


@pytest.mark.parametrize("named", ["mlmon.model_version", "scoring"])
def test_an_event_without_a_version_has_that_of_its_spans_unless_they_disagree(
    project: Project, named: str
) -> None:
    columns = {name: of for name, of in SPEC["columns"].items() if name != "model_version"}
    spec = spec_from_mapping(
        {**SPEC, "columns": columns, "spans": {"sampling": "unbiased", "version": named}}
    )
    land(project, events(), "e.jsonl", "landing")
    look(project, spec)
    assert records(project, spec)["model_version"].isna().all()

    def told(i: int, number: int, version: str) -> dict[str, Any]:
        if named == "scoring":
            return span(i, "score", 1.0, number, flags=["other=z", f"scoring={version}"])
        return span(i, "score", 1.0, number, model_version=version)

    lines = [told(i, 1, "ab"[i % 2]) for i in range(1, N)]
    lines += [span(3, "plain", 1.0, 2), told(5, 2, "a")]
    land(project, lines, "s.jsonl", "spans/loan")
    frame = look(project, spec)
    found = records(project, spec)["model_version"]
    assert (found["p2"], found["p3"]) == ("a", "b")
    assert found[["p0", "p5"]].isna().all()
    of_a = frame[(frame["metric"] == "error_rate") & (frame["model_version"] == "a")]
    assert of_a.loc[of_a["slice_key"] == "all", "n"].tolist() == [N // 2 - 1]


def test_attributes_and_flags_of_spans_are_columns_that_slice_and_their_coverage_is_said(
    project: Project,
) -> None:
    """Of 200 requests 150 have spans; one's spans contradict each other, and one says nothing."""
    told = {"node": "k8s.node.name", "key": "checkout"}
    spans_ = {**SPEC["spans"], "columns": told}
    spec = spec_from_mapping({**SPEC, "spans": spans_, "slices": ["region", "node", ["key"]]})
    lines = []
    for one in all_spans():
        i = int(one["trace_id"], 16) - 1
        node, flag = f"n{i % 2}", f"checkout={'ab'[i % 3 == 0]}"
        if one["name"] == "fetch users":
            node = "n9" if i == 2 else node
            flag = "other=z" if i == 4 else flag
            lines.append({**one, "attributes": [f"k8s.node.name={node}"], "flags": [flag]})
        else:
            lines.append({**one, "attributes": [f"k8s.node.name={node}"] if i == 2 else []})
    land_all(project, lines)
    frame = look(project, spec)
    found = records(project, spec)
    assert found.loc[["p2", "p1"], "node"].isna().all()
    assert found.loc[["p3", "p6"], "node"].tolist() == ["n1", "n0"]
    assert found.loc[["p4", "p3", "p8"], "key"].fillna("").tolist() == ["", "b", "a"]

    whole = frame[(frame["slice_key"] == "all") & (frame["model_version"] == "all")]
    coverage = whole[whole["metric"] == "span_coverage"].set_index("column_name")["value"]
    assert coverage.to_dict() == {":table": 0.75, "node": 149 / 200, "key": 149 / 200}
    sliced = frame[(frame["slice_key"] == "node") & (frame["model_version"] == "all")]
    for metric, column in (("p95_latency_ms", ":table"), ("p50_stage_ms", "stage.score_ms")):
        mine = sliced[(sliced["metric"] == metric) & (sliced["column_name"] == column)]
        assert {"n0", "n1"} <= set(mine["slice_value"]), metric
    n = sliced[sliced["metric"] == "error_rate"].set_index("slice_value")["n"]
    assert n.to_dict() == {"n0": 99, "n1": 50, "<null>": 51}
    with pytest.raises(ConfigError, match="needs sampling: unbiased"):
        spec_with(columns=told, sampling="tail")
    with pytest.raises(ConfigError, match="'age' is a feature"):
        spec_with(columns={"age": "x"})


@pytest.mark.parametrize("sampling", ["unbiased", "tail"])
def test_classes_told_by_spans_are_rates_of_requests_with_spans_unless_these_are_sampled(
    project: Project, sampling: str
) -> None:
    """Two thirds of the requests of node n0 say that they fell back; others say nothing of it."""
    columns = {} if sampling == "tail" else {"fallback": "fallback"}
    classes = {
        "cold_start": {"when": "stage.fetch_ms is not null and stage.score_ms > 20"},
        "slow_fetch": {"when": "stage.fetch_status = 'timeout'", "above": 0.1},
        "failed": {"when": "status = 'error'", "above": 0.9},
    } | ({"default": {"when": "fallback = 'true'"}} if columns else {})
    spec = spec_from_mapping({
        **SPEC, "monitors": {"service": {"classes": classes}},
        "spans": SPEC["spans"] | {"sampling": sampling, "columns": columns},
    })  # fmt: skip
    lines = [
        {**one, "attributes": [f"fallback={'false' if i % 3 else 'true'}"] if i % 2 else []}
        for one in all_spans()
        for i in [int(one["trace_id"], 16) - 1]
    ]
    land_all(project, lines)
    frame = look(project, spec)
    found = frame[frame["metric"] == "class_rate"].set_index("column_name")
    assert found.loc["failed", ["value", "n"]].tolist() == [0.1, N]
    if sampling == "tail":
        assert set(found.loc[["cold_start", "slow_fetch"], "reason"]) == {"sampled"}
        assert found.loc[["cold_start", "slow_fetch"], "value"].isna().all()
        return
    traced = [i for i in range(N) if i % 4 != 1]
    cold = sum(5 + i / 10 > 20 for i in traced)
    assert found.loc["cold_start", ["value", "n"]].tolist() == [cold / 150, 150]
    assert found.loc["slow_fetch", ["value", "n"]].tolist() == [25 / 150, 150]
    odd = [i for i in traced if i % 2]
    assert found.loc["default", "n"] == len(odd)
    assert found.loc["default", "value"] == sum(i % 3 == 0 for i in odd) / len(odd)
    good = {"name": "fast", "good": "stage.fetch_ms < 9", "target": 0.9}
    with pytest.raises(ConfigError, match="there is no column"):
        spec_from_mapping({**SPEC, "monitors": {"service": {"objectives": [good]}}})


def test_late_spans_have_their_window_computed_once_more_and_after_its_close_when_reopened(
    project: Project,
) -> None:
    spec = spec_from_mapping({**SPEC, "actuals": {"closed_after": "2d"}})
    land(project, events(), "e.jsonl", "landing")
    ingest(project, spec)

    def planned(now: dt.datetime = NOW) -> list[str]:
        return [window.key for one in plan(project, spec, now) for window in one.windows]

    def computed() -> None:
        windows = (window_from_key(spec.time, "2024-03-01"),)
        run(Work(project, spec, windows, NOW, "run", False), ("baseline", *windowed_of(spec)))

    computed()
    assert planned() == []
    late = all_spans()
    land(project, [{**late[0], "kind": "log"}], "l.jsonl", "spans/loan")
    assert ingest(project, spec).windows == []  # nothing is joined to logs
    land(project, late[:200], "s.jsonl", "spans/loan")
    ingest(project, spec)
    assert planned() == ["2024-03-01"]
    computed()
    assert records(project, spec).loc["p3", "n_spans"] == 4
    assert planned() == []

    closed = NOW + dt.timedelta(days=9)
    land(project, late[200:], "t.jsonl", "spans/loan")
    report = ingest_new(project.store, spec, project.folder, readers(), now=closed)
    assert (report.windows, planned(closed)) == ([], [])
    [state] = window_state.load(project.store.state, "loan").values()
    assert state.n_late_after_close == 100
    windows = [window_from_key(spec.time, "2024-03-01")]
    with project.store.state.begin() as conn:
        window_state.reopen_windows(conn, spec, windows, closed)
    assert planned(closed) == ["2024-03-01"]


@pytest.mark.parametrize("sampling", ["unbiased", "tail"])
def test_tokens_are_summed_over_a_trace_and_once_where_an_agent_repeats_them(
    project: Project, sampling: str
) -> None:
    spec = spec_with(tokens=True, sampling=sampling)
    land(project, events(), "e.jsonl", "landing")
    lines = []
    for i in range(100):
        agent = span(i, "agent", 9.0, 1, input_tokens=100 + i, output_tokens=7)
        calls = [
            span(i, "chat", 1.0, n, parent_id=agent["span_id"], input_tokens=k, output_tokens=m)
            for n, k, m in ((2, 40, 7), (3, 60 + i, None))
        ]
        lines += [agent, *calls, calls[0]]
    land(project, lines, "s.jsonl", "spans/loan")
    frame = look(project, spec)
    found = records(project, spec)
    assert found.loc["p7", ["tokens.input", "tokens.output"]].tolist() == [107, 7]
    assert found.loc["p150", ["tokens.input", "tokens.output"]].isna().all()

    whole = frame[(frame["slice_key"] == "all") & (frame["model_version"] == "all")]
    value = whole.set_index(["metric", "column_name"])
    told = {
        ("sum_tokens", "tokens.input"): sum(range(100, 200)),
        ("sum_tokens", "tokens.output"): 700,
        ("p50_tokens", "tokens.input"): 149,
        ("p95_tokens", "tokens.input"): 194,
    }
    for key, exact in told.items():
        if sampling == "tail":
            assert value.loc[key, "reason"] == "sampled"
        else:
            rel = 0 if key[0] == "sum_tokens" else 0.01
            assert value.loc[key, "value"] == pytest.approx(exact, rel=rel)


def test_an_attribute_of_one_span_joins_its_whole_trace(project: Project) -> None:
    spec = spec_with(join="mlmon.prediction_id")
    land(project, events(), "e.jsonl", "landing")
    look(project, spec)
    land(project, [span(500, "fetch", 3.0, 1)], "child.jsonl", "spans/loan")
    assert not ingest(project, spec).windows
    root = span(500, "request", 9.0, 2, prediction_id="p7")
    land(project, [root], "root.jsonl", "spans/loan")
    assert ingest(project, spec).windows
    look(project, spec)
    assert records(project, spec).loc["p7", "stage.fetch_ms"] == 3.0


def test_sampled_spans_move_no_rate_and_their_bias_is_told(project: Project) -> None:
    """A tail sampler keeps the failed and the slow ones: the rates of all stay what they were."""
    spec = spec_with(sampling="tail")
    land(project, events(), "e.jsonl", "landing")
    without = look(project, spec)
    kept = [one for i in range(N) if i % 10 == 0 or i > 150 for one in [span(i, "score", 9.0, 1)]]
    land(project, kept, "s.jsonl", "spans/loan")
    frame = look(project, spec)

    names = ["n", "error_rate", "p50_latency_ms", "p95_latency_ms", "p99_latency_ms"]
    keys = ["metric", "column_name", "model_version", "slice_key", "slice_value"]
    found, before = (
        f[f["metric"].isin(names)].set_index(keys)["value"].sort_index() for f in (frame, without)
    )
    pd.testing.assert_series_equal(found, before)
    stages = frame[frame["column_name"] == "stage.score_ms"]
    assert len(stages)
    assert stages["value"].isna().all()
    assert set(stages["reason"]) == {"sampled"}
    whole = frame[(frame["slice_key"] == "all") & (frame["model_version"] == "all")]
    value = whole.set_index("metric")["value"]
    assert value["span_error_bias"] == pytest.approx(1 - 45 / 180)
    assert value["span_latency_bias"] > 0.3


def test_a_file_is_taken_in_once_wherever_it_is_killed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_with()
    land(project, events(), "e.jsonl", "landing")
    look(project, spec)
    for step in ("spans.committed", "spans.marked"):
        land(project, all_spans(), "s.jsonl", "spans/loan")

        def die(name: str, at: str = step) -> None:
            if name == at:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("mlmon_dagster.ingest.spans.reached", die)
            with pytest.raises(KeyboardInterrupt):
                ingest(project, spec)
        assert "2024-03-01" in [window.key for window in ingest(project, spec).windows]
    assert project.store.spans("loan").to_arrow().num_rows == len(all_spans())


def test_spans_that_are_sent_again_have_nothing_computed_and_are_kept_once(
    project: Project,
) -> None:
    spec = spec_with()
    land_all(project)
    look(project, spec)
    land(project, all_spans()[:2], "again.jsonl", "spans/loan")
    assert ingest(project, spec).windows == []
    assert project.store.spans("loan").to_arrow().num_rows == len(all_spans())
    one_more = span(2, "other", 9.0, 77)
    land(project, [*all_spans()[:2], one_more], "more.jsonl", "spans/loan")
    assert [window.key for window in ingest(project, spec).windows] == ["2024-03-01"]
    assert project.store.spans("loan").to_arrow().num_rows == len(all_spans()) + 1


def test_an_erasure_takes_the_spans_along_and_refuses_later_ones(project: Project) -> None:
    spec = spec_with()
    told = [span(3, "request", 9.0, 5, prediction_id="p3", message="secret of p3")]
    land_all(project, all_spans() + told)
    look(project, spec)
    erase.erase(project.store, spec, ["p3"], now=NOW)
    left = project.store.spans("loan").to_pandas()
    assert trace(3) not in set(left["trace_id"])
    assert trace(2) in set(left["trace_id"])
    assert not find_traces(project.store, [trace(3), "secret of p3"]).traces
    land(project, all_spans() + told, "again.jsonl", "spans/loan")
    ingest(project, spec)
    assert trace(3) not in set(project.store.spans("loan").to_pandas()["trace_id"])
    assert not erase.resume_erasures(project.store, spec, NOW)


def test_spans_go_with_their_age(project: Project) -> None:
    spec = spec_from_mapping({**SPEC, "retention": {"spans": "1d"}})
    land_all(project)
    newer = {**events()[0], "id": "newer", "at": (NOW - dt.timedelta(hours=1)).isoformat()}
    land(project, [newer], "newer.jsonl", "landing")  # old is what is older than the newest
    look(project, spec)
    gone = [r for r in maintain(project.store, spec, NOW) if r.what.startswith("spans before")]
    assert [r.rows for r in gone] == [len(all_spans())]
    assert project.store.spans("loan").to_arrow().num_rows == 0
    assert records(project, spec).loc["p3", "stage.fetch_ms"] == 3.25  # what was joined stays


def test_a_file_that_nobody_can_read_is_set_aside_and_said_with_its_reason(
    project: Project,
) -> None:
    declare(project)
    spec = spec_with()
    land_all(project)
    assert doctor.spans(project).is_fine
    bad = project.folder / "spans/loan/t.jsonl"
    bad.write_text('{"kind": "span", "trace_id": 7}\n')
    report = ingest(project, spec)
    assert (report.n_spans, report.unread) == (len(all_spans()), ("t.jsonl",))
    assert "set aside   spans       t.jsonl" in render_report(report)
    found = doctor.spans(project)
    assert not found.is_fine
    assert f"{bad}.refused (JSON parse error: Column(/trace_id) changed" in found.found
    assert "take .refused off its name" in found.cure
    told = CliRunner().invoke(status, ["loan"], obj=project).output
    assert f"spans set aside: {bad}.refused (JSON parse error" in told


@pytest.mark.parametrize("join", ["trace_id", "mlmon.prediction_id"])
def test_the_slowest_events_lead_to_their_spans_and_a_trace_back_to_its_event(
    project: Project, join: str
) -> None:
    spec = spec_with(join=join)
    both = [span(N - 1, "score", 5.0, 1), span(N - 1, "fetch", 1.0, 2)]
    land_all(project, [{**one, "prediction_id": f"p{N - 1}"} for one in both])
    look(project, spec)
    windows = [window_from_key(spec.time, "2024-03-01")]
    [slowest] = rows_of(project.store, spec, windows, limit=1, slowest=LATENCY).table.to_pylist()
    assert (slowest["prediction_id"], slowest["stage.score_ms"]) == (f"p{N - 1}", 5.0)
    found = trace_of(project.store, spec, slowest["trace_id"])
    assert sorted(found.rows["name"].to_pylist()) == ["fetch", "score"]
    assert found.link == f"https://traces.example.com/{trace(N - 1)}"
    back = rows_of(project.store, spec, windows, found.events)
    assert back.table["prediction_id"].to_pylist() == [f"p{N - 1}"]


def test_the_command_shows_a_trace_and_the_slowest_with_their_link(project: Project) -> None:
    declare(project)
    spec = spec_with()
    land_all(project, [span(7, "fetch", 1.25, 2)])
    look(project, spec)
    run = CliRunner().invoke
    shown = run(rows, ["loan", "--trace", trace(7)], obj=project)
    assert shown.exit_code == 0, shown.output
    assert "fetch" in shown.output
    assert "p7" in shown.output
    assert f"https://traces.example.com/{trace(7)}" in shown.output
    slow = run(rows, ["loan", "--window", "2024-03-01", "--slowest", "--worst", "3"], obj=project)
    assert f"p{N - 1}" in slow.output
    assert "the slowest 3" in slow.output
