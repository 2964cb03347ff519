"""Faults in copies of a processed fortnight: judged as the pipeline judges, and never stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from mlmon_dagster.drill.drill import Drill, Finding
from mlmon_dagster.drill.faults import FAULTS
from mlmon_dagster.drill.past import Past
from mlmon_dagster.drill.trial import Slice, Trial
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import load_model
from mlmon_dagster.spec.names import TABLE
from mlmon_dagster.work import Work
from tests.defs.small_model import (
    MODEL,
    NOW,
    make_project,
    write_declaration,
)
from tests.defs.worlds import processed_fortnight

BY_NAME = {fault.name: fault for fault in FAULTS}
pytestmark = pytest.mark.xdist_group("fortnight")


@pytest.fixture
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    """The processed fortnight, which nobody writes to."""
    folder = processed_fortnight(tmp_path_factory.getbasetemp())
    spec = load_model(folder / "models" / f"{MODEL}.yaml")
    project = make_project(folder)
    yield Work(project, spec, (), NOW, "drill", is_backfill=True)
    project.store.close()


def stored(work: Work) -> dict[str, int]:
    """Count the rows of all tables of the state database, and the files of the store."""
    with work.project.store.state.connect() as conn:
        names = sa.inspect(conn).get_table_names()
        counts = {n: conn.scalar(sa.text(f'SELECT COUNT(*) FROM "{n}"')) or 0 for n in names}
    root = work.project.folder / ".mlmon" / "store"
    return counts | {"files": sum(p.suffix in (".parquet", ".json") for p in root.rglob("*"))}


def finding(drill: Drill, column: str, fault: str, family: str) -> Finding:
    (subject,) = drill.columns([column])
    return next(f for f in subject.findings if (f.fault, f.family) == (fault, family))


@pytest.mark.parametrize(
    ("column", "family", "fault"),
    [
        ("age", "quality", "out_of_range"),
        ("age", "drift", "stuck"),
        ("region", "drift", "swap"),
        ("actual", "performance", "label_flip"),
        ("actual", "estimated_performance", "label_flip"),
    ],
)
def test_a_copy_without_a_fault_gets_the_verdicts_of_the_pipeline(
    work: Work, column: str, family: str, fault: str
) -> None:
    past = Past(work)
    judged = column if column in work.spec.features else TABLE
    windows = past.healthy(family, judged, 14)
    trial = Trial(past, column, {family: windows}, seed=1)
    trial._profile({"0": (BY_NAME[fault], 0.0)})
    found = trial._judge(family, "0", 0)
    stored = [row for one in past.inputs(family, windows) for row in one.verdicts()]
    real = [row for row in stored if judged in (row["column_name"], TABLE)]

    def numbers(row: dict[str, object]) -> tuple[object, ...]:
        value = row["value"]
        near = None if value is None else pytest.approx(value, abs=1e-9)
        return (row["window_start"], row["monitor"], row["status"], row["n"], near)

    assert len(windows) >= 10
    key = lambda r: (r["window_start"], r["monitor"])  # noqa: E731
    assert [numbers(r) for r in sorted(found, key=key)] == [
        numbers(r) for r in sorted(real, key=key)
    ]


def test_a_drill_finds_the_limit_that_the_spec_declares_and_stores_nothing(work: Work) -> None:
    before = stored(work)
    found = finding(Drill(work, 14, 0, ["nulls"]), "balance", "nulls", "quality")

    assert found.size in (0.2, 0.25)  # the limit is above 20 %, and shares vary by chance
    assert found.monitor == "quality/null_rate/balance"
    assert stored(work) == before


def test_a_limit_that_is_never_reached_makes_blind(work: Work) -> None:
    loose = work.spec.monitors.drift.model_copy(update={"above": 1e6})
    monitors = work.spec.monitors.model_copy(update={"drift": loose})
    blind = replace(work, spec=work.spec.model_copy(update={"monitors": monitors}))
    found = finding(Drill(blind, 14, 0, ["shift"]), "age", "shift", "drift")

    assert (found.size, found.after, found.largest, found.reason) == (None, 0, 3.0, "")


def test_only_the_rows_of_the_slice_are_hit(work: Work) -> None:
    past = Past(work)
    windows = past.healthy("performance", TABLE, 14)
    trial = Trial(past, "actual", {"performance": windows}, 1, Slice("region", "north"))
    hit = trial._luck < 1
    regions = trial._rows.column("region").to_pandas()

    assert set(regions[hit]) == {"north"}
    assert hit.sum() == ((regions == "north") & trial.values.notna()).sum()


def test_large_windows_are_judged_on_a_share_of_their_rows(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlmon_dagster.drill.trial.MOST_ROWS", 75)
    drill = Drill(work, 14, 0, ["out_of_range"])
    (subject,) = drill.columns(["age"])

    assert subject.share_read == 0.5
    assert 120 < subject.rows < 170
    assert subject.findings[0].size is not None


def test_a_model_without_computed_windows_cannot_be_drilled(tmp_path: Path) -> None:
    spec = write_declaration(tmp_path)
    project = make_project(tmp_path)

    with pytest.raises(ConfigError, match=r"mlmon run churn computes them"):
        Drill(Work(project, spec, (), NOW, "drill", is_backfill=True), 14, 0)
    project.store.close()


def test_windows_in_which_an_alert_fires_are_not_healthy(work: Work) -> None:
    past = Past(work)
    failed = {r["window_start"] for r in past.verdicts("quality") if r["status"] == "WARN"}
    two_to_end = [{**row, "k": 1, "of_n": 2} for row in past.verdicts("quality")]
    before = past.healthy("quality", "balance", 14)
    past._verdicts["quality"] = two_to_end
    after = past.healthy("quality", "balance", 14)

    assert len(failed) == 1
    assert not failed & {window.start for window in before}
    # One pass does not end it: the window after the failure is left out as well.
    assert [w for w in before if w not in after] == [w for w in before if w.start > max(failed)][:1]
