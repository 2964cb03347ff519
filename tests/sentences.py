"""Every sentence that monitors say to people, made by the judges from drawn evidence.

``python -m tests.sentences`` prints family, monitor, sentence and its number of words.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

import numpy as np
import pandas as pd

from mlmon_dagster.families.releases import Replaced
from mlmon_dagster.metrics.drift.carriers import Carriers
from mlmon_dagster.metrics.drift.column_change import ColumnChange
from mlmon_dagster.metrics.drift.sustained import SustainedShift
from mlmon_dagster.metrics.objectives import RULES, Burned
from mlmon_dagster.metrics.versions import Mismatch
from mlmon_dagster.metrics.windows.presence import Calendar
from mlmon_dagster.metrics.windows.repeats import Repeats
from mlmon_dagster.monitors.change_wording import in_words
from mlmon_dagster.monitors.wording import REASONS, explain, no_verdict, subject
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.declaration import ATTRIBUTION, ATTRIBUTION_SHIFT, NOT_ADDITIVE
from mlmon_dagster.spec.metric_registry import (
    AUTO,
    COUNTED,
    METRICS,
    MULTICLASS,
    NOVEL,
    OFF_HEAP,
    REGRESSION,
    MetricInfo,
)
from mlmon_dagster.spec.monitors import (
    CANARY_SHARE,
    CLASS_RATE,
    DISTANCES,
    PROMETHEUS,
    SKEW_RATE,
    SPAN_COVERAGE,
    VERSION_AGE,
    BusinessMonitor,
    ComparedMetric,
    EstimateMonitor,
    PerformanceMonitor,
)
from mlmon_dagster.spec.tasks import estimated, residual
from tests.conftest import SPEC, make_spec
from tests.monitors.cases import DAY, FEATURES, NOW, frame, metric, verdicts, window

ONE_DAY = pd.Timedelta(days=1)
BEFORE = DAY - 100 * ONE_DAY
ROW_ENDS = {"lower": 0.0, "upper": 1.0}
MEASURED: Mapping[str, Mapping[str, Any]] = {
    "plane_age": {"type": "numeric", "pii": False, "unit": "years", "min": 0, "max": 60},
    "wait": {"type": "datetime", "pii": False},
    "salary": {"type": "numeric", "pii": True, "unit": "EUR"},
    "question": {"type": "text", "pii": False},
    "price": {"type": "numeric", "pii": False, "unit": "USD", "max": 500},
}
COLUMNS = cast("dict[str, Any]", SPEC["columns"])
MODEL = make_spec(
    features={**FEATURES, **MEASURED},
    columns=COLUMNS
    | {"shap": "shap_{feature}", "outcomes": {"revenue": {"column": "revenue", "unit": "EUR"}}},
    slices=[],
    currency="EUR",
)
OTHERS: Mapping[str, ModelSpec] = {
    REGRESSION: make_spec(
        task=REGRESSION,
        columns={"prediction_id": "id", "event_time": "at", "prediction": "p", "actual": "y"},
        actuals={"unit": "minutes"},
    ),
    MULTICLASS: make_spec(
        task=MULTICLASS,
        columns={
            "prediction_id": "id", "event_time": "at", "prediction": "p", "actual": "y",
            "scores": {"a": "pa", "b": "pb", "c": "pc"},
        },
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Said:
    """A sentence, and the monitor that says it.

    Attributes:
        family: Of monitors.
        monitor: Its id.
        status: OK, NO_DATA, WARN or ERROR; empty of what a sentence is put together from.
        text: The sentence, without its full stop.
        unit: That its column declares.
        verdict: All that the monitor says with it.
    """

    family: str
    monitor: str
    status: str
    text: str
    unit: str = ""
    verdict: str = ""

    @property
    def words(self) -> int:
        """Count its words."""
        return len(self.text.split())


def split_sentences(message: str) -> list[str]:
    """Return the sentences of a verdict's text, without full stops."""
    lines = message.strip().split("\n")
    parts = [part for line in lines for part in re.split(r"(?<=[\w%)'])\. (?=\S)", line)]
    return [part.strip().rstrip(".") for part in parts if part.strip()]


def with_monitors(model: ModelSpec, **declared: Any) -> ModelSpec:
    """Return a spec with other monitors, whatever else they would need of it."""
    monitors = model.monitors.model_copy(update=declared)
    return model.model_copy(update={"monitors": monitors})


def list_sentences() -> list[Said]:
    """Return every sentence, once for each monitor."""
    found = [said for tell in TELLERS for row in tell() for said in _sentences_of(row)]
    found += [*_tell_reasons(), *_tell_changes()]
    return list({(said.monitor, said.text): said for said in found}.values())


def _sentences_of(row: Mapping[str, Any]) -> Iterator[Said]:
    feature = MODEL.features.get(row["column_name"])
    unit = (feature.unit or "") if feature is not None else ""
    for text in split_sentences(row["message"]):
        yield Said(row["family"], row["monitor"], row["status"], text, unit, row["message"])


def _tell_reasons() -> Iterator[Said]:
    """Yield why there is no verdict, for each reason, whatever the monitor."""
    for reason in REASONS:
        for text in split_sentences(no_verdict(subject("roc_auc"), reason, 40)):
            yield Said("any", reason, "NO_DATA", text)


CHANGES = (
    ("plane_age", ColumnChange("above", 0.4)),
    ("plane_age", ColumnChange("below", 0.04)),
    ("plane_age", ColumnChange("missing", 0.4, 0.01)),
    ("region", ColumnChange("other", 0.4, 0.01)),
    ("plane_age", ColumnChange("sign", 0.4)),
    ("plane_age", ColumnChange("swapped", value="price")),
    ("plane_age", ColumnChange("shape")),
    ("region", ColumnChange("value", 0.4, 0.1, "north")),
    ("region", ColumnChange("value", 1.0, 0.1, "north")),
    ("region", ColumnChange("value", 0.0, 0.1, "north")),
    ("name", ColumnChange("value", 0.4, 0.1, "Ann")),
    ("region", ColumnChange("respelled", 0.4, value="'North' for 'north'")),
    ("region", ColumnChange("exchanged", 0.4, 0.1, value="north and south")),
    ("region", ColumnChange("unseen", 0.4, value="east", is_alone=True)),
    ("region", ColumnChange("unseen", 0.4, 0.1, value="east, west")),
    ("name", ColumnChange("unseen", 0.4)),
    ("plane_age", ColumnChange("ceiling", 0.11, 0.12, value="25")),
    ("plane_age", ColumnChange("floor", 0.0, 0.12, value="5")),
    ("plane_age", ColumnChange("rounded", factor=1.0)),
    ("plane_age", ColumnChange("cut", factor=5.0)),
    ("price", ColumnChange("unit", 0.4, value="0", factor=100.0)),
    ("price", ColumnChange("unit", 1.0, value="0", factor=100.0, low=53.0, high=5300.0)),
    ("price", ColumnChange("groups", 0.01, 0.3, low=38.0, high=82.0)),
    ("price", ColumnChange("step", 15.0, 14.0, factor=1.0)),
    ("plane_age", ColumnChange("place", 11.2, 10.4, spread=4.0, is_mean=True)),
    ("plane_age", ColumnChange("place", 44.8, 10.4, spread=4.0)),
    ("plane_age", ColumnChange("place", 2.1, 10.4, spread=4.0)),
    ("salary", ColumnChange("place", 44.8, 40.4, spread=4.0)),
    ("question", ColumnChange("place", 44.8, 40.4, spread=4.0)),
    ("wait", ColumnChange("place", 400_000.0, 300_000.0, spread=4.0)),
    ("price", ColumnChange("range", 0.3, 0.1, low=10.0, high=20.0)),
    ("salary", ColumnChange("range", 0.3, 0.1, low=10.0, high=20.0)),
    ("price", ColumnChange("width", 10.0, 20.0)),
    ("price", ColumnChange("width", 0.0, 20.0)),
)  # fmt: skip


def _tell_changes() -> Iterator[Said]:
    """Yield what may have changed in a column, which starts the sentence of a drift."""
    for column, change in CHANGES:
        text = in_words(MODEL, column, change)
        yield Said("drift", f"changes/{change.kind}/{column}", "", text)


class _Shifts:
    """A shift of one column over its newest windows."""

    def __init__(self, column: str, shift: SustainedShift, change: ColumnChange | None) -> None:
        self._column, self._shift, self._change = column, shift, change

    def shifts(self, start: object) -> Mapping[str, SustainedShift]:
        return {self._column: self._shift}

    def change(self, column: str, start: object, shift: SustainedShift) -> ColumnChange | None:
        return self._change


def tell_drift() -> Iterator[Mapping[str, Any]]:
    """Distances of every method: far, near, by chance, of a slice, of new rows; other windows."""
    change = ColumnChange("place", 11.2, 10.4, spread=4.0, is_mean=True)
    for method in DISTANCES:
        model = with_monitors(
            MODEL, drift=MODEL.monitors.drift.model_copy(update={"method": method, "slices": True})
        )
        chance = None if method.endswith("_shift") else 0.031
        for value, p in ((11.63, 1e-9), (0.04, 0.4), (11.63, 0.3)):
            row = metric(method, value, "plane_age", p_value=p, by_chance=chance)
            yield from verdicts("drift", [row], model=model, changes=lambda *_: change)
    yield from _tell_slices_and_new_rows(change)
    for is_far in (0.31, -0.31, 0.02):
        rows = [metric(ATTRIBUTION_SHIFT, is_far, "plane_age", p_value=1e-9),
                metric(ATTRIBUTION, 0.4, "plane_age")]  # fmt: skip
        yield from verdicts("drift", rows, model=MODEL)
    rows = [metric(ATTRIBUTION_SHIFT, 0.31, "plane_age", p_value=0.3)]
    yield from verdicts("drift", rows, model=MODEL)
    yield from _tell_lasting_shifts(change)
    yield from _tell_repeats()


def _tell_slices_and_new_rows(change: ColumnChange) -> Iterator[Mapping[str, Any]]:
    whole = metric("psi", 0.63, "plane_age", p_value=1e-9, by_chance=0.031)
    part = metric("psi", 1.63, "plane_age", p_value=1e-9, by_chance=0.031,
                  slice_key="region", slice_value="north")  # fmt: skip
    carriers = (Carriers("carrier", ("UA",), 0.8, 0.2, 0.2, False),
                Carriers("carrier", ("UA", "DL"), 1.0, 0.4, 0.2, True))  # fmt: skip
    drift = MODEL.monitors.drift.model_copy(update={"slices": True})
    model = with_monitors(MODEL, drift=drift)
    for carrier in carriers:
        known: dict[str, Any] = {
            "changes": lambda *_: change,
            "carriers": lambda *_, found=carrier: found,
        }
        for row in verdicts("drift", [whole, part], model=model, **known):
            yield row
            yield from _explained(row)
    beside = [
        metric(NOVEL, 0.21, "plane_age", p_value=1e-9),
        metric(f"{NOVEL}{AUTO}", 0.01, "plane_age"),
        metric(OFF_HEAP, 0.41, "plane_age", p_value=1e-9, by_chance=0.02),
    ]
    yield from verdicts("drift", [whole, *beside], model=MODEL, changes=lambda *_: change)
    near = metric("psi", 0.05, "plane_age", p_value=0.6, by_chance=0.031)
    yield from verdicts("drift", [near, *beside[:2]], model=MODEL)
    yield from verdicts("drift", [near, beside[2]], model=MODEL)


def _explained(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    import json

    details = json.loads(row["details"])
    for text in explain(row["metric"], row["column_name"], details):
        yield {**row, "message": text, "monitor": f"{row['monitor']} (why)"}


def _tell_lasting_shifts(change: ColumnChange) -> Iterator[Mapping[str, Any]]:
    real = SustainedShift(1e-9, 14, "place", 0, 0.3, 0.28, 0.25, 14_000, 60_000)
    chance = SustainedShift(0.2, 7, "place", 0, 0.2, 0.2, 0.0, 7_000, 60_000)
    over = SustainedShift(1e-9, 14, "place", 0, 0.3, -0.2, 0.0, 14_000, 60_000)
    for shift in (real, chance, over, SustainedShift(1.0)):
        for one in (change, None):
            known = _Shifts("plane_age", shift, one)
            yield from verdicts("drift", [], model=MODEL, sustained=known)
    never = SustainedShift(1e-9, 7, "place", 0, -0.3, 0.28, 0.0, 7_000, 60_000)
    yield from verdicts("drift", [], model=MODEL, sustained=_Shifts("plane_age", never, change))


def _tell_repeats() -> Iterator[Mapping[str, Any]]:
    start = int((DAY - ONE_DAY).timestamp())
    for likeness, p in ((0.93, 1e-9), (0.14, 1.0), (0.93, 0.3)):
        found = Repeats(likeness, 0.12, start, 1_200, p)
        yield from verdicts("drift", [], model=MODEL, repeated=lambda _, one=found: one)


def tell_quality() -> Iterator[Mapping[str, Any]]:
    """Every rate of broken values: past its limit, within it, of too few rows, in one slice."""
    names = {"null_rate": "plane_age", "nan_rate": "plane_age", "unseen_rate": "region",
             "out_of_range_rate": "plane_age", NOT_ADDITIVE: ":table"}  # fmt: skip
    for name, column in names.items():
        for value, n in ((0.31, 1000), (0.002, 1000), (0.31, 40), (0.0, 1000), (0.05, 40)):
            row = metric(name, value, column, n=n, lower=value * 0.9, upper=value * 1.1)
            if value == 0.05:
                row |= {"lower": 0.001}
            yield from verdicts("quality", [row], [window(n=n)], model=MODEL)
    part = metric("null_rate", 0.93, "plane_age", n=300, slice_key="region", slice_value="north")
    whole = metric("null_rate", 0.31, "plane_age", lower=0.28, upper=0.34)
    for row in verdicts("quality", [whole, part], model=MODEL):
        yield row
        yield from _explained(row)
    unseen = metric("unseen_rate", 0.31, "region", lower=0.28, upper=0.34)
    usual = metric(f"unseen_rate{AUTO}", 0.2, "region")
    names_of = {("region", DAY): {"east": 200, "west": 100, "nord": 8, "sud": 2}}
    yield from verdicts("quality", [unseen, usual], model=MODEL, unseen=names_of)
    spelled = {("region", DAY): {"east": "'EAST'"}}
    yield from verdicts("quality", [unseen], model=MODEL, unseen=names_of, respelled=spelled)
    above = metric("out_of_range_rate", 0.31, "price", lower=0.28, upper=0.34)
    below = metric("out_of_range_rate", 0.31, "age", lower=0.28, upper=0.34)
    yield from verdicts("quality", [above], model=MODEL)
    yield from verdicts("quality", [below], model=MODEL)


def tell_schema() -> Iterator[Mapping[str, Any]]:
    """Refused rows and files, rows that came again, columns that changed, expectations."""
    reasons = '{"wrong_type:plane_age": 3, "missing_id": 2}'
    because = "in/a.csv: not UTF-8; expected text."
    expectation = {"expectation": "expect_column_values_to_be_between", "columns": ["price"],
                   "severity": "WARN", "kept": False, "rows": 900, "unexpected": 90,
                   "values": ["-3", "-5"], "error": ""}  # fmt: skip
    worlds: tuple[dict[str, Any], ...] = (
        {}, {"n": 0}, {"n_bad": 5, "bad_reasons": reasons},
        {"n": 0, "n_quarantined": 2, "refused_because": because},
        {"unplaced": {"unknown_id": 4}, "unplaced_in": ["in/a.csv", "in/b.csv"]},
        {"changes": ["price was float64 and is string (in/a.csv)"]},
        {"n_sent": 1000, "n_duplicate": 600, "n_conflict": 100},
        {"n_sent": 1000, "n_duplicate": 1, "n_conflict": 0},
        {"expectations": [expectation]},
        {"expectations": [expectation | {"severity": "refuse"}, expectation | {"kept": True}]},
        {"expectations": [expectation | {"error": "column not found"}]},
        {"expectations": [expectation | {"unexpected": None, "values": ["812"]}]},
        {"expectations": [expectation | {"kept": True}]},
    )  # fmt: skip
    for fields in worlds:
        yield from verdicts("schema", [], [window(**fields)], model=MODEL)


def tell_freshness() -> Iterator[Mapping[str, Any]]:
    """Silence of predictions, with and without a usual pause; ground truth in each state."""
    refused: dict[str, Any] = {"refused_because": "in/a.csv: 20 of 40 rows cannot be stored."}
    silences: tuple[list[dict[str, Any]], ...] = (
        [window()], [window(n=0)], [window(), window(DAY + ONE_DAY, n=0)],
        [window(n=0, n_unread=3, unread_until="2024-01-11T00:00:00+00:00")],
        [window(n=0, **refused)],
        [window(), window(DAY + ONE_DAY, n=0, **refused), window(DAY + 2 * ONE_DAY, n=0)],
    )  # fmt: skip
    for windows in silences:
        yield from verdicts("freshness", [], windows, model=MODEL)
    yield from _tell_pauses()
    late = NOW + dt.timedelta(days=200)
    worlds: tuple[dict[str, Any], ...] = (
        {"n_actual": 0}, {"n_actual": 400}, {"n_expected": 0},
        {"n_expected": 0, "is_waiting": True},
        {"n_actual": 0, "n_unread_actuals": 1},
        {"n_actual": 0, "n_refused_actuals": 2, "refused_actuals_because": "in/t.csv: no label."},
    )  # fmt: skip
    for fields in worlds:
        for now in (NOW, late):
            yield from verdicts(
                "freshness", [], [window(**{"n_expected": 1000, **fields})], model=MODEL, now=now
            )


def _tell_pauses() -> Iterator[Mapping[str, Any]]:
    """Yield a silence from Friday to Tuesday, where weekends are usually empty."""
    friday = pd.Timestamp("2024-01-12", tz="UTC")
    days = [friday + i * ONE_DAY for i in range(-28, 8)]
    for holidays in ({}, {30: "Example Day"}):
        expected = np.array([day.weekday() < 5 for day in days])
        expected[list(holidays)] = False
        starts = np.array([day.timestamp() for day in [*days, days[-1] + ONE_DAY]])
        served = expected & np.array([day <= friday for day in days])
        first = np.where(served, starts[:-1] + 3600, np.nan)
        last = np.where(served, starts[:-1] + 80_000, np.nan)
        calendar = Calendar(starts, expected, served, first, last, holidays=holidays)
        windows = [
            window(day, n=1000 if day <= friday else 0, calendar=calendar)
            for day in days
            if day >= friday
        ]
        yield from verdicts("freshness", [], windows, model=MODEL)


def tell_performance() -> Iterator[Mapping[str, Any]]:
    """Every metric: against a baseline's windows and rows, and a bound; early and weighted back."""
    for family in ("performance", "business"):
        for task in dict.fromkeys(info.tasks[0] for info in METRICS.values()):
            named = [m for m in METRICS.values() if m.tasks[0] == task and m.family == family]
            if named:
                yield from _tell_metrics(OTHERS.get(task, MODEL), family, named)
    yield from _tell_levels()
    yield from _tell_newest()
    yield from _tell_releases()


def _tell_metrics(
    model: ModelSpec, family: str, named: Sequence[MetricInfo]
) -> Iterator[Mapping[str, Any]]:
    """Yield a day that is worse, one that is better, and one whose ground truth is still coming."""
    early = {"maturity": "early", "n_actual": 400, "n_expected": 1000, "truth_share": 0.4}
    days = [(-1, 0.1, {}), (1, 0.1, {}), (-1, 1.5, early)]
    windows = [
        window(DAY + i * ONE_DAY, actual_coverage=0.4, **fields)
        for i, (_, _, fields) in enumerate(days)
    ]
    monitors, rows, of_rows, of_windows = [], [], [], []
    for info in named:
        usual, column = _usual_of(info), _column_of(info)
        step = usual / 5
        monitors += _list_monitors(info, usual, column)
        for i, (side, error, fields) in enumerate(days):
            value = usual + side * step
            rows.append(
                metric(info.name, value, column, window_start=DAY + i * ONE_DAY,
                       lower=value - error * step, upper=value + error * step,
                       method_version="post-stratified-2" if fields else "x")
            )  # fmt: skip
        part = {"slice_key": "region", "slice_value": "north", "n": 200}
        rows.append(rows[-3] | part)
        known = metric(info.name, usual, column, lower=usual - step / 10, upper=usual + step / 10)
        small = step / 20
        of_rows += [known, known | part]
        of_windows.append(
            known | {"usual": usual, "usual_error": small, "spread": small, "row_error": small,
                     "n_windows": 40}
        )  # fmt: skip
    changed = with_monitors(model, **{family: tuple(monitors)})
    for baseline in (pd.DataFrame(of_windows), frame(of_rows)):
        yield from verdicts(family, rows, windows, model=changed, baseline=baseline)


def _usual_of(info: MetricInfo) -> float:
    return 0.7 if info.high in (1.0, 2.0) else 123.4


def _column_of(info: MetricInfo) -> str:
    if info.needs in (("evaluations",), ("numbers",), ("judges",)):
        return "helpful"
    return "revenue" if "outcome" in info.name else ":table"


def _list_monitors(info: MetricInfo, usual: float, column: str) -> list[PerformanceMonitor]:
    named = {"revenue": {"outcome": column}, "helpful": {"evaluation": column}}.get(column, {})
    declared = PerformanceMonitor if info.family == "performance" else BusinessMonitor
    bounds: dict[str, float] = {"above": usual, "below": usual}
    if info.better != "neither" and info.name not in COUNTED:
        bounds["drop"] = usual / 10
    return [
        declared(metric=info.name, slices=side == "drop", **{side: bound}, **named)  # type: ignore[arg-type]
        for side, bound in bounds.items()
    ]


def _tell_levels() -> Iterator[Mapping[str, Any]]:
    models = {"calibration_gap": MODEL, "bias": OTHERS[REGRESSION]}
    for name, model in models.items():
        for shift in (-0.11, 0.11, 0.005):
            yield from _judge_level(name, model, shift, {})
    for shift in (0.11, -0.11):
        yield from _judge_level(
            "calibration_gap", OTHERS[MULTICLASS], shift, {"column_name": "class:a"}
        )


def _judge_level(
    name: str, model: ModelSpec, shift: float, fields: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    def draw(values: Sequence[float], first: pd.Timestamp, n: int) -> list[dict[str, Any]]:
        return [
            metric(name, value, window_start=first + i * ONE_DAY, n=n, lower=value - 0.02,
                   upper=value + 0.02, **fields)
            for i, value in enumerate(values)
        ]  # fmt: skip

    baseline = draw([0.005, -0.005] * 20, BEFORE, 2000)
    rows = draw([shift] * 5, DAY, 2000)
    beside = [
        metric("actual_rate", 0.29, window_start=row["window_start"], n=2000) for row in rows
    ] + [metric("me", 31.4 * shift, window_start=row["window_start"], n=2000) for row in rows]
    windows = [window(row["window_start"]) for row in rows]
    known = {"baseline": frame([]), "baseline_windows": frame(baseline)}
    for shown in (rows, [*rows, *beside]):
        yield from verdicts("performance", shown, windows[-1:], model=model, **known)


def _tell_newest() -> Iterator[Mapping[str, Any]]:
    """Yield a fall that no day shows and two weeks do."""
    strays = np.random.default_rng(0).normal(0, 0.04, 40)

    def draw(values: Any, first: pd.Timestamp, **fields: Any) -> list[dict[str, Any]]:
        return [
            metric("roc_auc", float(value), window_start=first + i * ONE_DAY, n=150,
                   lower=value - 0.09, upper=value + 0.09, **fields)
            for i, value in enumerate(values)
        ]  # fmt: skip

    baseline = draw(0.82 + strays - strays.mean(), BEFORE, dataset="validation")
    known = metric("roc_auc", 0.82, lower=0.81, upper=0.83, n=6_000) | {
        "usual": 0.82, "usual_error": 0.006, "spread": 0.01, "row_error": 0.045, "n_windows": 40,
    }  # fmt: skip
    rows = draw(0.73 + np.random.default_rng(1).normal(0, 0.03, 14), DAY)
    yield from verdicts(
        "performance", rows, [window(rows[-1]["window_start"], n_actual=150)], model=MODEL,
        baseline=pd.DataFrame([known]), baseline_windows=frame(baseline),
    )  # fmt: skip


def _tell_releases() -> Iterator[Mapping[str, Any]]:
    n_before, n_after = 56, 70
    for drop in (0.03, 0.008, 0.0, -0.03):
        areas = 0.78 + np.random.default_rng(8).normal(0, 0.004, n_before + n_after)
        areas[n_before:] -= drop
        days = [DAY + i * ONE_DAY for i in range(len(areas))]
        rows = [
            metric("roc_auc", area, window_start=day, n=2_000, lower=area - 0.008,
                   upper=area + 0.008)
            for day, area in zip(days, areas, strict=True)
        ]  # fmt: skip
        for last in (n_before + 9, n_before + 60):
            release = Replaced("3", "2", tuple(days[n_before : last + 1]), tuple(days[:n_before]))
            windows = [window(days[last], release=release)]
            yield from verdicts("performance", rows, windows, model=MODEL, baseline=frame([]))


def tell_estimates() -> Iterator[Mapping[str, Any]]:
    """Estimates and how far the truth turned out from them: worse, better, by chance, waiting."""
    for name in ("roc_auc", "brier", "mae"):
        model = with_monitors(
            OTHERS[REGRESSION] if name == "mae" else MODEL,
            estimated_performance=(EstimateMonitor(metric=name, drop=0.05, residual=0.02),),
        )
        baseline = frame([metric(estimated(name), 0.72, lower=0.715, upper=0.725)])
        sign = 1 if name == "roc_auc" else -1
        for by, half in ((0.08, 0.02), (0.08, 0.09), (-0.08, 0.02)):
            low = 0.72 - sign * by
            missed = [
                metric(residual(name), sign * by, window_start=DAY - i * ONE_DAY, n=900,
                       lower=sign * by - half, upper=sign * by + half)
                for i in range(7)
            ]  # fmt: skip
            rows = [metric(estimated(name), low, lower=low - half, upper=low + half), *missed]
            usual = [
                metric(residual(name), sign * 0.02 + 0.004 * (-1) ** i,
                       window_start=BEFORE + i * ONE_DAY, lower=-0.02, upper=0.06)
                for i in range(40)
            ]  # fmt: skip
            for known in ({}, {"baseline_windows": frame(usual)}):
                for maturity in ("mature", "provisional"):
                    yield from verdicts(
                        "estimated_performance", rows, [window(maturity=maturity)], model=model,
                        baseline=baseline, **known,
                    )  # fmt: skip


def tell_service() -> Iterator[Mapping[str, Any]]:
    """Limits of latency, errors, classes, stages, costs and Prometheus; volume; budgets."""
    declared = make_spec(
        features={**FEATURES, **MEASURED},
        columns=COLUMNS,
        monitors={
            "service": {
                "p95_latency_ms": {"above": 250}, "p99_latency_ms": {"above": 250},
                "error_rate": {"above": 0.01}, "n": {"below": 100},
                "classes": {"timed_out": {"when": "latency_ms > 900", "above": 0.01}},
                "prometheus": {
                    "url": "http://prometheus:9090",
                    "metrics": {"memory": {"query": "m", "unit": "MB", "above": 250}},
                },
                "objectives": [{"name": "answered", "good": "status = 'ok'", "target": 0.99}],
            }
        },
    )  # fmt: skip
    quiet = {"answered": _burn(None, 0.4)}
    for value, share, n in ((341.2, 0.034, 1000), (120.0, 0.004, 1000), (341.2, 0.034, 60)):
        ends: dict[str, Any] = {
            "lower": share * (0.8 if n == 1000 else 0.1),
            "upper": share * 1.2,
            "n": n,
        }
        rows = [
            metric("p95_latency_ms", value), metric("p99_latency_ms", value),
            metric("error_rate", share, **ends), metric(CLASS_RATE, share, "timed_out", **ends),
            metric(PROMETHEUS, value, "memory"),
        ]  # fmt: skip
        for size in (1000, 60):
            yield from verdicts("service", rows, [window(n=size, burned=quiet)], model=declared)
    for rule in RULES:
        burned = {"answered": _burn(rule, 3 * rule.factor)}
        for left in (0.31, -1.4):
            burned["answered"]["left"] = left
            yield from verdicts("service", [], [window(burned=burned)], model=declared)
    few = {"answered": {**_burn(None, 0.4), "burn": Burned(None, -1, -1, 0.4, 12, 0)}}
    yield from verdicts("service", [], [window(burned=few)], model=declared)
    yield from _tell_volume()
    yield from _tell_spans()


def _burn(rule: Any, burn: float) -> dict[str, Any]:
    return {"burn": Burned(rule, 3, 9, burn, 9000, 400), "left": 0.31,
            "since": DAY.to_pydatetime(), "until": (DAY + ONE_DAY / 2).to_pydatetime()}  # fmt: skip


def _tell_volume() -> Iterator[Mapping[str, Any]]:
    rng = np.random.default_rng(1)
    steady = np.full(28, 900) + rng.integers(-20, 20, 28)
    wild = np.exp(rng.uniform(3, 7.6, 28)).astype(int)
    worlds: tuple[tuple[int, Any, dict[str, Any]], ...] = (
        (300, steady, {}), (880, steady, {}), (2_000, steady, {}), (30, wild, {}),
        (300, steady, {"holiday": "Example Day"}), (300, steady, {"covered": 0.6}),
    )  # fmt: skip
    for n, sizes, fields in worlds:
        known: dict[str, Any] = {
            "place": 2,
            "earlier_places": np.tile(np.arange(7), 4),
            "earlier_sizes": sizes,
        }
        for model in (MODEL, _hourly()):
            yield from verdicts("service", [], [window(n=n, **known, **fields)], model=model)


def _hourly() -> ModelSpec:
    return make_spec(time={"start": "2024-01-01", "granularity": "hour"})


def _tell_spans() -> Iterator[Mapping[str, Any]]:
    from mlmon_dagster.families.service import _judge_metric
    from mlmon_dagster.monitors.evidence import Evidence, fill_windows
    from mlmon_dagster.spec.monitors import Condition

    limits = {
        ("p95_stage_ms", "stage:retrieve"): 250.0, ("p99_stage_ms", "stage:retrieve"): 250.0,
        ("p95_stage_calls", "stage:retrieve"): 3.0, ("stage_error_rate", "stage:retrieve"): 0.01,
        ("stage_timeout_rate", "stage:retrieve"): 0.01, ("mean_cost", "price"): 0.02,
        ("sum_cost", "price"): 20.0,
    }  # fmt: skip
    for (name, column), bound in limits.items():
        for value in (bound * 3, bound / 3):
            row = metric(name, value, column, lower=value * 0.9, upper=value * 1.1)
            filled = fill_windows([window()])
            evidence = Evidence("service", MODEL, filled, frame([row]), NOW, "r", False)
            yield _judge_metric(evidence, filled[0], name, Condition(above=bound), column)
    for value in (0.4, 0.99):
        row = metric(SPAN_COVERAGE, value, lower=value - 0.01, upper=value + 0.01)
        filled = fill_windows([window()])
        evidence = Evidence("service", MODEL, filled, frame([row]), NOW, "r", False)
        yield _judge_metric(evidence, filled[0], SPAN_COVERAGE, Condition(below=0.9))


def tell_versions() -> Iterator[Mapping[str, Any]]:
    """Each comparison with each verdict; a canary's share, skew and age."""
    for how in ("shadow", "canary"):
        for name in get_args(ComparedMetric):
            yield from _tell_gain(how, name)
    aged = make_spec(monitors={"versions": {
        "skew": {"dataset": "training"}, "staleness": {"above": "30d"}}})  # fmt: skip
    for rate, days in ((0.04, 41.0), (0.0, 12.0)):
        rows = [
            metric(SKEW_RATE, rate, "age", lower=rate * 0.8, upper=rate * 1.2),
            metric(VERSION_AGE, days),
        ]
        for kind, by in (("offset", 3.0), ("unit", 60.0), ("null", np.nan), ("mixed", np.nan)):
            skews = {"age": Mismatch(1000, rate, 0.03, 0.05, 4, cast("Any", kind), by, ())}
            known = window(skews=skews, deployed="3")
            yield from verdicts("versions", rows, [known], model=aged)


def _tell_gain(how: str, name: str) -> Iterator[Mapping[str, Any]]:
    declared: dict[str, Any] = {"metric": name, "dataset": how}
    if how == "canary":
        declared["share"] = 0.1
    costs = {"costs": {"fp": 1.0, "fn": 3.0}} if name == "expected_value" else {}
    if name == "mae":
        task = {"task": REGRESSION, "columns": {
            "prediction_id": "id", "event_time": "at", "prediction": "p", "actual": "y",
            "dataset": "dataset", "model_version": "v"}}  # fmt: skip
    else:
        task = {}
    model = make_spec(monitors={"versions": {"compare": declared}}, **costs, **task)
    gain = f"{how}_{name}_gain"
    for value, half, p in ((-0.05, 0.01, 0.5), (0.05, 0.01, 0.5), (0.0, 0.005, 0.5),
                           (-0.02, 0.04, 0.5), (0.05, 0.01, 1e-9)):  # fmt: skip
        rows = [
            metric(gain, value, lower=value - half, upper=value + half, method_version="shadow-1"),
            metric(CANARY_SHARE, 0.131, p_value=p),
        ]
        windows = [window(pairs={gain: ("2", "3")})]
        yield from verdicts("versions", rows, windows, model=model)


def tell_custom() -> Iterator[Mapping[str, Any]]:
    """A number of the user's own function, on each side, and what it raises."""
    for better in ("higher", "lower", "neither"):
        declared = {"of": "tests.sentences:split_sentences", "name": "basket_value",
                    "better": better, "change": 0.5}  # fmt: skip
        model = make_spec(metrics=[declared])
        usual = [
            metric("basket_value", 20.0 + 0.3 * (-1) ** i, window_start=BEFORE + i * ONE_DAY)
            for i in range(40)
        ]
        rows = [
            metric("basket_value", value, window_start=DAY + i * ONE_DAY)
            for i, value in enumerate((14.2, 20.1, 27.9))
        ]
        windows = [window(row["window_start"]) for row in rows]
        known = {"baseline_windows": frame(usual)}
        yield from verdicts("custom", rows, windows, model=model, **known)
    raised = metric(
        "basket_value",
        None,
        reason="tests.sentences:split_sentences raised KeyError: 'price' for 3 May",
    )
    yield from verdicts("custom", [raised], model=model)


TELLERS = (
    tell_drift, tell_quality, tell_schema, tell_freshness, tell_performance, tell_estimates,
    tell_service, tell_versions, tell_custom,
)  # fmt: skip


def main() -> None:
    """Print them."""
    for said in list_sentences():
        status = said.status or "-"
        print(f"{said.family}\t{said.monitor}\t{status}\t{said.words}\t{said.text}")


if __name__ == "__main__":
    main()
