"""A spec that changes after the first events does what the table of the docs says, key by key."""

from __future__ import annotations

import copy
import datetime as dt
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.pipeline import run as steps
from mlmon_dagster.pipeline.baseline import fit_baseline
from mlmon_dagster.pipeline.ingest import ingest
from mlmon_dagster.pipeline.plan import COMPARED, Request, plan, try_again
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, spec_from_mapping
from mlmon_dagster.spec.changes import RULES, rule_of
from mlmon_dagster.spec.steps import of_actuals, windowed_of
from mlmon_dagster.store.state import metric_log
from mlmon_dagster.work import Work
from tests.defs.small_model import (
    FIRST,
    MODEL,
    YAML,
    customers,
    drop,
    landing,
    make_project,
    windows_of_days,
)
from tests.defs.worlds import Clock

DAY = dt.timedelta(days=1)
DAYS = (FIRST, FIRST + DAY)
NEXT = FIRST + 2 * DAY
FIRST_LOOK = dt.datetime(2024, 3, 3, 1, tzinfo=dt.UTC)  # half of the second day's truth is there
NOW = dt.datetime(2024, 3, 5, 12, tzinfo=dt.UTC)
ROWS = 60
BASE = yaml.safe_load(YAML.format(model=MODEL, zone="UTC", start=FIRST))


class Many(dict[str, Any]):
    """Several keys that change together."""


# Key -> its new value; None takes the key away. Several keys, where one needs another.
CHANGES: dict[str, Any] = {
    "model": "attrition",
    "task": Many(
        {
            "task": "regression",
            "columns.score": None,
            "monitors": {},
            "columns.prediction": "score",
        }
    ),
    "owners": ["team:other"],
    "time.zone": "Asia/Tokyo",
    "time.granularity": "week",
    "time.start": dt.date(2024, 2, 29),
    "time.end": dt.date(2024, 3, 2),
    "time.allowed_lateness": "1h",
    "time.naive": "zone",
    "time.holidays": "DE-BE",
    "events.name": Many(
        {"events": [{"name": "sale", "from": dt.date(2024, 3, 1), "to": dt.date(2024, 3, 2)}]}
    ),
    "columns.prediction_id": ["id", "version"],
    "columns.event_time": "moment",
    "columns.dataset": Many({"columns.dataset": None, "baseline": {"moving": "7d"}}),
    "columns.actual": "gone",
    "columns.actual_time": None,
    "columns.score": Many(
        {"columns.score": None, "monitors.performance": {"metric": "f1", "drop": 0.1}}
    ),
    "columns.outcomes": {"revenue": "revenue"},
    "spans": {"join": "mlmon.prediction_id", "sampling": "tail", "stages": {"fetch": "fetch"}},
    "columns.shap": {"age": "shap_age", "balance": "shap_balance"},
    "actuals.expected_within": "1h",
    "actuals.min_rows": 10,
    "actuals.no_actual_when": "region = 'west'",
    "actuals.unmatched_after": "10d",
    "actuals.unit": "minutes",
    "features.age.type": Many({"features.age": {"type": "categorical"}}),
    "features.region.type": Many({"features.region": {"type": "text"}, "slices": None}),
    "features.region.describe": Many(
        {"features.region": {"type": "text", "describe": ["length", "email"]}, "slices": None}
    ),
    "features.vector.embedder": Many(
        {"features.vector": {"type": "embedding", "embedder": "static", "nullable": True}}
    ),
    "features.age.from": "years",
    "features.age.alias": ["years"],
    "features.age.min": 10,
    "features.age.pii": False,
    "features.age.nullable": True,
    "features.age.null_rate": Many(
        {"features.age.nullable": True, "features.age.null_rate": {"above": 0.5}}
    ),
    "features.age.unit": "years",
    "baseline.asset": Many({"baseline": {"dataset": "validation", "asset": "training_set"}}),
    "baseline.moving": Many({"baseline": {"moving": "7d"}}),
    "slices": [],
    "explain.tolerance": Many(
        {
            "columns.shap": {"age": "shap_age", "balance": "shap_balance"},
            "explain.tolerance": 0.01,
        }
    ),
    "registry": {"mlflow": "churn"},
    "labels": {"positive": "gone", "negative": "here"},
    "datasets": {"validation": "reference"},
    "metrics.of": Many({"metrics": [{"of": "math:fsum", "columns": ["age"]}]}),
    "costs": {"fp": 1},
    "expectations.expect": Many(
        {
            "expectations": [
                {"expect": "expect_column_values_to_not_be_null", "arguments": {"column": "age"}}
            ]
        }
    ),
    "effects.cause": Many({"effects": [{"cause": "age", "outcome": "actual"}]}),
    "top_share": 0.2,
    "monitors.schema.bad_rate": {"above": 0.5},
    "monitors.freshness.no_data_for": "100h",
    "monitors.quality.null_rate": {"above": 0.5},
    "monitors.drift.above": 0.5,
    "monitors.drift.baseline": {"previous": True},
    "monitors.performance.metric": Many({"monitors.performance": {"metric": "f1", "drop": 0.1}}),
    "monitors.estimated_performance.drop": Many({"monitors.estimated_performance": []}),
    "monitors.business.change": Many(
        {"monitors.business": {"change": "20%"}, "columns.outcomes": {"revenue": "revenue"}}
    ),
    "monitors.service.volume_drop": {"above": 0.9},
    "monitors.service.stages": Many(
        {
            "monitors.service": {"stages": {"fetch": {"p95_ms": {"above": 50}}}},
            "spans": {
                "join": "mlmon.prediction_id",
                "sampling": "unbiased",
                "stages": {"fetch": "f"},
            },
        }
    ),
    "monitors.versions.staleness": Many({"monitors.versions": {"staleness": {"above": "90d"}}}),
    "monitors.versions.severity": Many({"monitors.versions": {"severity": "ERROR"}}),
    "alerts.slack": {"channel": "#other"},
    "alerts.repeat": "12h",
    "retention.production": "90d",
    "retention.min_cell": 5,
    "run_tags": {"team": "growth"},
    "key_prefix": "ml/monitoring",
    "compute.engine": "ray",
    "source.predictions.asset": "scored_customers",
    "source.actuals.asset": "churned_customers",
    "source.predictions.path": "landing/churn/elsewhere/*.parquet",
    "source.actuals.settle": "1s",
}
# What a new file calls a column, where that changed.
RENAMED = {
    "columns.event_time": {"at": "moment"},
    "columns.actual": {"left": "gone"},
    "features.age.from": {"age": "years"},
}
REFIT = ("baseline",)  # and then every window
# What the planner asks for; nothing for all others.
OF_ACTUALS = of_actuals(spec_from_mapping(BASE))
NEW = ("business_impact",)
OWN = (("versions",), ("custom_metrics",))
EXPECTED: dict[str, tuple[str, ...]] = {
    "time.end": (),
    "features.region.type": REFIT,
    "features.region.describe": REFIT,
    "features.vector.embedder": REFIT,
    "features.age.from": REFIT,
    "features.age.alias": REFIT,
    "features.age.min": REFIT,
    "features.age.pii": REFIT,
    "slices": REFIT,
    "baseline.moving": REFIT,
    "monitors.drift.baseline": COMPARED,
    "columns.dataset": REFIT,
    "columns.actual_time": REFIT,
    "columns.score": REFIT,
    "columns.outcomes": REFIT,
    "spans": REFIT,
    "monitors.service.stages": REFIT,
    "monitors.business.change": REFIT,
    "monitors.versions.staleness": ("versions",),
    "columns.shap": REFIT,
    "explain.tolerance": REFIT,
    "actuals.expected_within": OF_ACTUALS,
    "actuals.min_rows": (),
    "actuals.no_actual_when": REFIT,
    "time.allowed_lateness": OF_ACTUALS,
    "costs": NEW,
    "metrics.of": ("custom_metrics",),
}


def changed(key: str) -> ModelSpec:
    """Return the base spec with one key changed, and what that needs."""
    values, value = copy.deepcopy(BASE), CHANGES[key]
    for path, new in (value if isinstance(value, Many) else {key: value}).items():
        *above, last = path.split(".")
        place = values
        for part in above:
            place = place.setdefault(part, {})
        if new is None:
            place.pop(last, None)
        else:
            place[last] = new
    return spec_from_mapping(values)


def work(project: Project, spec: ModelSpec, days: tuple[dt.date, ...] = DAYS) -> Work:
    return Work(project, spec, tuple(windows_of_days(spec, days)), project.now(), "run", False)


def land(
    folder: Path, day: dt.date, renamed: dict[str, str] | None = None, n_known: int = ROWS
) -> None:
    predictions, actuals = (frame.rename(columns=renamed or {}) for frame in customers(day, n=ROWS))
    actuals = actuals.head(n_known)
    drop(predictions, landing(folder, "predictions") / f"{day}.parquet")
    drop(actuals, landing(folder, "actuals") / f"{day}.parquet")


def run(project: Project, spec: ModelSpec, days: tuple[dt.date, ...] = DAYS) -> None:
    """Do what a run of some windows does, without Dagster."""
    here = work(project, spec, days)
    steps.run(here, ("baseline", *windowed_of(spec)))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose first two days are computed; what is asked of it changes nothing."""
    folder = tmp_path_factory.mktemp("changes")
    clock = Clock(FIRST_LOOK)
    project, spec = make_project(folder, clock), spec_from_mapping(BASE)
    predictions, actuals = customers(dt.date(2024, 2, 1), "validation", n=300)
    drop(predictions, landing(folder, "predictions") / "validation.parquet")
    drop(actuals, landing(folder, "actuals") / "validation.parquet")
    for day, n_known in zip(DAYS, (ROWS, ROWS // 2), strict=True):
        land(folder, day, n_known=n_known)
    assert ingest(work(project, spec), print).files
    run(project, spec)
    clock.moment = NOW
    assert plan(project, spec, NOW) == []
    yield project
    project.store.close()


@pytest.fixture
def own(shared: Project, tmp_path: Path) -> Iterator[Project]:
    """A copy of it to change, with the files of a third day."""
    shutil.copytree(shared.folder, tmp_path / "project")
    found = make_project(tmp_path / "project", lambda: NOW)
    yield found
    found.store.close()


def ingested(project: Project, spec: ModelSpec) -> dict[str, str]:
    """Take in what is new; return what became of each file, those of a copied folder left out."""
    files = ingest(work(project, spec, ()), print).files
    return {f"{f.stream}/{Path(f.path).stem}": f.status for f in files if f.status != "duplicate"}


def test_every_rule_is_tried_through_a_store() -> None:
    tried = {rule_of(key) for key in CHANGES}
    # Of another task: tests/pipeline/test_generation.py has such a model.
    tried |= {rule_of(f"evaluations.{key}") for key in ("by", "good")}
    # Of tables that rows stay in: tests/warehouse/test_in_place.py.
    tried |= {rule_of(f"source.{stream}.in_place") for stream in ("predictions", "actuals")}

    assert [rule.paths for rule in RULES if rule not in tried] == []


REFUSED = [key for key in CHANGES if rule_of(key).effect == "refused" and key not in EXPECTED]


@pytest.mark.parametrize("key", REFUSED)
def test_a_refused_key_says_what_is_stored_and_changes_nothing(shared: Project, key: str) -> None:
    before = metric_log.newest(shared.store.state, MODEL)

    with pytest.raises(ConfigError) as caught:
        ingest(work(shared, changed(key), ()), print)

    said = str(caught.value)
    assert f"  {key} is " in said
    assert "but events are stored with" in said
    assert f"mlmon model rebuild {MODEL}" in said
    assert metric_log.newest(shared.store.state, MODEL).equals(before)


@pytest.mark.parametrize("key", [key for key in CHANGES if key not in REFUSED])
def test_the_planner_asks_for_what_the_table_says(shared: Project, key: str) -> None:
    spec, expected = changed(key), EXPECTED.get(key, ())

    requests = plan(shared, spec, NOW)
    try_again(shared, spec)  # what was asked for is not done here

    assert {request.assets for request in requests} == ({expected} if expected else set())
    if expected and expected != REFIT:
        assert _days(requests) <= set(map(str, DAYS))
    allowed = {
        "kept": {(), REFIT},
        "followed": {(), REFIT, COMPARED, OF_ACTUALS, NEW, *OWN},
    }
    assert expected in allowed.get(rule_of(key).effect, {REFIT})


def _days(requests: list[Request]) -> set[str]:
    return {window.key for request in requests for window in request.windows}


@pytest.mark.parametrize("key", ["columns.event_time", "columns.dataset", "columns.actual",
                                 "columns.actual_time", "columns.score", "features.age.from",
                                 "source.predictions.path", "model"])  # fmt: skip
def test_what_is_kept_holds_for_the_next_file(own: Project, key: str) -> None:
    spec = changed(key)
    land(own.folder, NEXT, RENAMED.get(key))

    found = ingested(own, spec)

    expected = {f"{stream}/{NEXT}" for stream in ("predictions", "actuals")}
    if key == "source.predictions.path":
        expected = {f"actuals/{NEXT}"}
    assert expected <= set(found)
    assert set(found.values()) == {"done"}
    assert key == "model" or expected == set(found)


@pytest.mark.proof
@pytest.mark.parametrize("key", ["slices", "time.start",
                                 "baseline.moving", "monitors.drift.baseline"])  # fmt: skip
def test_what_is_followed_is_computed_once(own: Project, key: str) -> None:
    spec = changed(key)
    fit_baseline(work(own, spec))
    if key not in ("time.start", "baseline.moving"):
        requests = plan(own, spec, NOW)
        wanted = COMPARED if key.startswith("monitors") else windowed_of(spec)
        assert {(r.assets, *sorted(_days([r]))) for r in requests} == {(wanted, *map(str, DAYS))}

    run(own, spec)

    assert plan(own, spec, NOW) == []


def test_kept_keys_hold_for_the_next_window_and_leave_the_others_alone(own: Project) -> None:
    values = copy.deepcopy(BASE)
    values["monitors"] |= {"drift": {"above": 0.9}, "quality": {"null_rate": {"above": 0.5}}}
    values |= {"top_share": 0.2, "owners": ["team:other"]}
    spec = spec_from_mapping(values)
    before = metric_log.newest(own.store.state, MODEL)
    land(own.folder, NEXT)
    ingested(own, spec)

    [request] = plan(own, spec, NOW)
    assert _days([request]) == {str(NEXT)}
    run(own, spec, (NEXT,))

    after = metric_log.newest(own.store.state, MODEL)
    start = windows_of_days(spec, [NEXT])[0].start
    assert len(after[after["window_start"] < start]) == len(before)
    lifts = after[(after["metric"] == "lift") & (after["slice_key"] == "all")]
    shares = lifts["method_version"].str.partition("@")[2]  # also of those that are weighted back
    assert set(shares) == {"0.1", "0.2"}
    assert set(lifts.loc[lifts["window_start"] < start, "method_version"]) == set(
        before.loc[before["metric"] == "lift", "method_version"]
    )
