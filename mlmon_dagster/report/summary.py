"""A model's standing in tables: the last verdict per family, firing alerts, the months."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from mlmon_dagster.metrics.frames import concat_frames
from mlmon_dagster.monitors.wording import NAMES, REASONS
from mlmon_dagster.profiles import Baseline, load_profiles
from mlmon_dagster.profiles.baseline.calibration_half import scored_columns
from mlmon_dagster.profiles.measure.estimates import estimate
from mlmon_dagster.profiles.measure.measures import measure, performance_columns
from mlmon_dagster.report.rollup import by_windows, coarsen
from mlmon_dagster.spec import FAMILIES, Granularity, ModelSpec, window_containing
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.estimates import estimated
from mlmon_dagster.spec.metric_registry import BINARY
from mlmon_dagster.spec.names import ALL, TABLE
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import monitor_results, window_steps

if TYPE_CHECKING:
    import pandas as pd

NONE = "\N{EN DASH}"
_LOOK_BACK = 40  # windows in which a family's last verdict is looked for
_LENGTH: dict[Granularity, dt.timedelta] = {
    "hour": dt.timedelta(hours=1),
    "day": dt.timedelta(days=1),
    "week": dt.timedelta(days=7),
    "month": dt.timedelta(days=31),
}
PERIODS_SHOWN = 13
# Windows of a week do not fit into months.
_PERIOD: dict[Granularity, Granularity] = {
    "hour": "month",
    "day": "month",
    "week": "week",
    "month": "month",
}


@dataclass(frozen=True)
class Standing:
    """How one family of monitors judged its newest window.

    Attributes:
        family: The family.
        status: ERROR, WARN, NO_DATA, OK, or ``-`` if it never judged.
        window: The window, in the model's zone; empty if there is none.
        text: What is wrong, or how many verdicts passed.
    """

    family: str
    status: str
    window: str
    text: str


def standing_of(store: Store, spec: ModelSpec, now: dt.datetime) -> list[Standing]:
    """Return the worst verdict of each family on the newest window that it could judge.

    A newest window without a verdict, such as one whose ground truth is still to come, does not
    hide the last one that has; if none of the family's newest 40 windows has, it is NO_DATA. A
    family keeps its last verdict when its data has ended.
    """
    last = monitor_results.last_windows(store.state, spec.model, end=now)
    back = _LOOK_BACK * _LENGTH[spec.time.granularity]
    found = []
    for family in FAMILIES:
        if family not in last:
            found.append(Standing(family, "-", "", "nothing to judge"))
            continue
        rows = monitor_results.newest(
            store.state, spec.model, start=last[family] - back, end=now, family=family
        )
        rows = rows[(rows["slice_key"] == ALL) & (rows["dataset"] == PRODUCTION)]
        found.append(_standing(spec, family, rows))
    return found


def overall(standings: Sequence[Standing]) -> str:
    """Return a model's status from its families': the worst verdict.

    A family that could judge none of its newest windows is NO_DATA, and then so is the model,
    unless something is failing: what was not judged is not healthy.

    Example:
        >>> overall([Standing("drift", "NO_DATA", "", ""), Standing("quality", "OK", "", "")])
        'NO_DATA'
    """
    statuses = {standing.status for standing in standings}
    return next((s for s in ("ERROR", "WARN", "NO_DATA", "OK") if s in statuses), "NO_DATA")


def _standing(spec: ModelSpec, family: str, rows: pd.DataFrame) -> Standing:
    if rows.empty:
        return Standing(family, "-", "", "nothing to judge")
    judged = rows[rows["status"] != "NO_DATA"]
    pool = judged if len(judged) else rows
    newest = pool[pool["window_start"] == pool["window_start"].max()]
    statuses = list(newest["status"])
    status = next((s for s in ("ERROR", "WARN", "OK") if s in statuses), "NO_DATA")
    window = moment(spec, newest["window_start"].iloc[0].to_pydatetime())
    if status == "NO_DATA":
        reasons = newest["reason"].dropna().value_counts()
        known = REASONS.get(str(reasons.index[0]), str(reasons.index[0])) if len(reasons) else ""
        why = f": {known}" if known else ""
        return Standing(family, status, window, f"nothing could be judged{why}")
    failing = newest[newest["status"].isin(["ERROR", "WARN"])]
    if failing.empty:
        return Standing(family, status, window, f"{_counted(len(newest), 'verdict')}, all passed")
    names = [_subject(row) for row in failing.to_dict("records")]
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    text = f"{len(failing)} of {_counted(len(newest), 'verdict')} failed: "
    return Standing(family, status, window, text + ", ".join(names[:6]) + more)


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _subject(row: dict[object, object]) -> str:
    name = NAMES.get(str(row["metric"]), str(row["metric"]))
    column = str(row["column_name"])
    return name if column in (TABLE, "") else f"{name} of {column}"


# What a row says of a task; the first has its interval beside it.
_SHOWN = {
    "binary_classification": ("roc_auc", estimated("roc_auc"), "f1", "accuracy", "actual_rate"),
    "multiclass_classification": (
        "accuracy", estimated("accuracy"), "macro_f1", "macro_roc_auc", "unseen_class_rate",
    ),
    "regression": ("mae", estimated("mae"), "rmse", "me", "r2"),
    "ranking": ("ndcg", "map", "mrr", "hit_rate"),
}  # fmt: skip


@dataclass(frozen=True)
class Period:
    """Numbers of one month, or of one week for a model with weekly windows; texts to be shown.

    Attributes:
        name: Such as ``2013-04``.
        n: Predictions.
        coverage: Share of them with ground truth.
        values: A text for each of `period_names`.
    """

    name: str
    n: str
    coverage: str
    values: tuple[str, ...]


def period_names(spec: ModelSpec) -> list[str]:
    """Return what the values of a `Period` are called."""
    first, *others = (NAMES.get(metric, metric) for metric in _SHOWN[spec.task])
    drift = [f"PSI of the {name}" for name in _outputs(spec)]
    return [f"{first} (95 %)", *others, *drift]


def periods_of(store: Store, spec: ModelSpec, baseline: Baseline | None) -> list[Period]:
    """Return the newest 13 months (or weeks), oldest first, merged from the stored profiles.

    The estimate is by plain CBPE, without weights, which would need the baseline's rows.
    """
    grain = _PERIOD[spec.time.granularity]
    realized, scored = performance_columns(spec), scored_columns(spec)
    if spec.task == BINARY:
        realized = ["score", "prediction"]
    profiles = load_profiles(
        store,
        spec,
        dataset=PRODUCTION,
        columns=[*realized, *scored, *_outputs(spec)],
        slices=[()],
    )
    merged = {name: coarsen(spec, stats, grain) for name, stats in profiles.items()}
    coarse = {name: merged[name] for name in realized if name in merged}
    if not coarse:
        return []
    whole = {} if baseline is None else baseline.windows
    drift_spec = spec.model_copy(update={"features": {}})  # of the output alone
    output = {name: merged[name] for name in _outputs(spec) if name in merged}
    frame = concat_frames(
        [
            by_windows(
                spec,
                {name: profiles[name] for name in coarse},
                grain,
                measure(spec, "performance", coarse, None),
            ),
            measure(drift_spec, "drift", output, {k: whole[k] for k in output if k in whole}),
            # Without the inputs' profiles nothing is weighted, so that no rows are read.
            estimate(store, spec, {n: merged[n] for n in scored if n in merged}, baseline)
            if scored
            else concat_frames([]),
        ]
    )
    frame = frame[frame["slice_key"] == ALL]
    some = next(iter(coarse.values()))
    sizes = some.cells.assign(n=some.n).groupby("window_start")["n"].sum()
    covered = _coverage(store, spec, grain)
    newest = sorted(frame["window_start"].unique())[-PERIODS_SHOWN:]
    return [
        _period(
            spec,
            grain,
            start,
            (int(sizes.get(start, 0)), covered.get(start.to_pydatetime())),
            frame[frame["window_start"] == start],
        )
        for start in newest
    ]


def _outputs(spec: ModelSpec) -> list[str]:
    """Return the output whose drift a row says, if the model logs one."""
    return [r for r in ("score", "prediction") if getattr(spec.columns, r) is not None][:1]


def _coverage(store: Store, spec: ModelSpec, grain: Granularity) -> dict[dt.datetime, float]:
    """Return start of a month or week -> share of its predictions that have ground truth."""
    sums: dict[dt.datetime, list[int]] = {}
    for start, state in window_steps.load(store.state, spec.model).items():
        period = sums.setdefault(window_containing(spec.time, start, grain).start, [0, 0])
        period[0] += state.n_actual
        period[1] += state.n_expected
    return {start: known / due for start, (known, due) in sums.items() if due}


def _period(
    spec: ModelSpec,
    grain: Granularity,
    start: pd.Timestamp,
    size: tuple[int, float | None],
    frame: pd.DataFrame,
) -> Period:
    rows = {
        str(row["metric"]): row
        for row in frame.to_dict("records")
        if row["column_name"] in (TABLE, *_outputs(spec))
    }
    local = start.to_pydatetime().astimezone(ZoneInfo(spec.time.zone))
    first, *others = (
        decimal(rows[metric]["value"]) if metric in rows else NONE
        for metric in (*_SHOWN[spec.task], *(["psi"] if _outputs(spec) else []))
    )
    if first != NONE:
        found = rows[_SHOWN[spec.task][0]]
        ends = [decimal(found[end]) for end in ("lower", "upper")]
        first += f" ({' to '.join(ends)})" if NONE not in ends else ""
    n, coverage = size
    return Period(
        name=local.strftime("%Y-%m" if grain == "month" else "%Y-%m-%d"),
        n=f"{n:,}",
        coverage=f"{coverage:.1%}" if coverage is not None else NONE,
        values=(first, *others),
    )


def decimal(value: float, places: int = 3) -> str:
    """Write a number with a fixed number of places; a dash for none."""
    return NONE if value is None or value != value else f"{value:.{places}f}"


def moment(spec: ModelSpec, when: dt.datetime) -> str:
    """Write the start of a window in the model's zone: a date, with the time for hours."""
    local = when.astimezone(ZoneInfo(spec.time.zone))
    return local.strftime("%Y-%m-%d %H:%M" if spec.time.granularity == "hour" else "%Y-%m-%d")


def last_day(spec: ModelSpec, end: dt.datetime) -> str:
    """Write the window that ends at a moment."""
    return moment(spec, window_containing(spec.time, end - dt.timedelta(microseconds=1)).start)
