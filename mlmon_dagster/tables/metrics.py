"""The table of metrics: of the model's own windows, and of longer ones."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.declaration import Granularity, SliceKey
from mlmon_dagster.spec.names import ALL, counted, did_you_mean, listed
from mlmon_dagster.tables.asked import ALWAYS, Days, moments_of
from mlmon_dagster.tables.rendering import csv_text, json_lines, render_text
from mlmon_dagster.tables.table import Answer, Column, Table, digits

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.project import Project

_DAYS_AT_A_TIME = 16
_FIELDS = [
    "window",
    "slice_key",
    "slice_value",
    "column_name",
    "metric",
    "value",
    "lower",
    "upper",
    "by_chance",
    "n",
    "reason",
    "method_version",
]

METRICS: Table[Mapping[str, Any]] = Table(
    "metrics",
    (
        Column("window", "window"),
        Column(
            "slice",
            lambda row: (
                "all" if row["slice_key"] == ALL else f"{row['slice_key']}={row['slice_value']}"
            ),
        ),
        Column("column", "column_name"),
        Column("metric", "metric"),
        Column("value", "value", digits, is_number=True),
        Column("lower", "lower", digits, is_number=True),
        Column("upper", "upper", digits, is_number=True),
        Column("by chance", "by_chance", digits, is_number=True),
        Column("n", lambda row: int(row["n"]), "{:,}", is_number=True),
        Column("reason", "reason"),
    ),
)


def query_metrics(
    project: Project,
    spec: ModelSpec,
    *,
    metric: tuple[str, ...] = (),
    column: tuple[str, ...] = (),
    dataset: str = PRODUCTION,
    model_version: str = ALL,
    slice_: str | None = None,
    granularity: Granularity | None = None,
    days: Days = ALWAYS,
    as_of: dt.datetime | None = None,
) -> pd.DataFrame:
    """Return the metrics that match, one row each, ordered by window.

    Windows of the model's own length come from the metric table, longer ones are merged from the
    stored profiles. Estimates of the former have the bands that the model's record asks for, see
    `with_learnt_bands`. Numbers of columns in a slice that no monitor judges are not stored: those
    of the slice that is asked for are measured from the profiles.

    Raises:
        ConfigError: If the windows asked for are too short, or longer windows, or slices that are
            not stored, are asked for as of a past moment.
    """
    slice_key, slice_value = _read_slice(slice_)
    keys = [key for key in spec.slices if slice_ == "*" or ",".join(key) == slice_key]
    start, end = moments_of(spec, days)
    if granularity in (None, spec.time.granularity):
        from mlmon_dagster.families.measuring import join_measured
        from mlmon_dagster.profiles.estimates import with_learnt_bands
        from mlmon_dagster.store.state import metric_log

        frame = metric_log.newest(
            project.store.state,
            spec.model,
            metric=metric or None,
            column=column or None,
            slice_key=slice_key,
            slice_value=slice_value,
            dataset=dataset,
            model_version=model_version,
            start=start,
            end=end,
            as_of=as_of,
        )
        measured = _measure_slices(project, spec, keys, metric, column, start, end, as_of)
        if len(measured) and dataset == PRODUCTION:
            mine = measured["model_version"].eq(model_version)
            if metric:
                mine &= measured["metric"].isin(metric)
            if slice_value is not None:
                mine &= measured["slice_value"].eq(slice_value)
            frame = join_measured(frame, measured[mine])
        frame = with_learnt_bands(project.store, spec, frame, as_of)
    else:
        if as_of is not None:
            own = spec.time.granularity
            raise ConfigError(
                f"--as-of with --granularity {granularity}: longer windows are merged from the "
                "newest profiles, and what they were made with then is not kept for ever. "
                f"Numbers of then are kept for windows of a {own}: leave --granularity out."
            )
        from mlmon_dagster.tables.periods import rolled_up_metrics

        frame = rolled_up_metrics(project.store, spec, granularity, start, end, keys)
        wanted = {
            "metric": metric,
            "column_name": column,
            "slice_key": (slice_key,) if slice_key else (),
            "slice_value": (slice_value,) if slice_value else (),
        }
        for name, values in wanted.items():
            if values:
                frame = frame[frame[name].isin(values)]
    zone = ZoneInfo(spec.time.zone)
    local = frame["window_start"].dt.tz_convert(zone)
    frame = frame.assign(
        window=hours_of(local)
        if (granularity or spec.time.granularity) == "hour"
        else local.dt.strftime("%Y-%m-%d")
    )
    order = ["window_start", "slice_key", "slice_value", "column_name", "metric"]
    return frame.sort_values(order, ignore_index=True)


def hours_of(local: pd.Series) -> pd.Series:
    """Name hours by the clock; of one that comes twice, as clocks go back, with its offset."""
    plain = local.dt.strftime("%Y-%m-%d %H:%M")
    is_twice = local.groupby(plain).transform("nunique") > 1
    named: pd.Series = plain.where(~is_twice, local.dt.strftime("%Y-%m-%d %H:%M%z"))
    return named


def metrics_by_days(
    project: Project,
    spec: ModelSpec,
    *,
    days: Days = ALWAYS,
    granularity: Granularity | None = None,
    newest_first: bool = False,
    **wanted: Any,
) -> Iterator[pd.DataFrame]:
    """Yield what `query_metrics` returns in parts of whole days, so that years fit in memory.

    Parts have a row or more; there is none where nothing matches. Longer windows than the model's
    own are one part, since they are made together.

    Args:
        project: The project.
        spec: The model.
        days: Which.
        granularity: As of `query_metrics`.
        newest_first: Begin with the newest days, a few, then more at a time; rows within a part
            keep their order.
        **wanted: What else `query_metrics` takes.
    """
    if granularity not in (None, spec.time.granularity):
        frame = query_metrics(project, spec, days=days, granularity=granularity, **wanted)
        if len(frame):
            yield frame
        return
    from mlmon_dagster.store.state import metric_log

    zone = ZoneInfo(spec.time.zone)
    starts = metric_log.window_starts(project.store.state, spec.model, *moments_of(spec, days))
    left = list(dict.fromkeys(start.astimezone(zone).date() for start in starts))
    size = 1 if newest_first else _DAYS_AT_A_TIME
    while left:
        if newest_first:
            part, left = left[-size:], left[:-size]
        else:
            part, left = left[:size], left[size:]
        frame = query_metrics(project, spec, days=Days(part[0], part[-1]), **wanted)
        if len(frame):
            yield frame
        size = min(size * 3, _DAYS_AT_A_TIME)


def refuse_unknown_metrics(
    project: Project, spec: ModelSpec, metrics: Sequence[str], columns: Sequence[str]
) -> None:
    """Refuse metrics and columns that no window of a model has; before any is computed, nothing.

    Raises:
        ConfigError: With the nearest name that there is.
    """
    from mlmon_dagster.store.state import metric_log

    series = metric_log.list_series(project.store.state, spec.model)
    for what, asked, known in (
        ("metric", metrics, {metric for metric, _ in series}),
        ("column with a metric", columns, {column for _, column in series}),
    ):
        for name in asked:
            if known and name not in known:
                hint = did_you_mean(name, known) or "."
                raise ConfigError(
                    f"{spec.model} has no {what} {name!r}{hint} There are: {listed(sorted(known))}."
                )


def _read_slice(text: str | None) -> tuple[str | None, str | None]:
    """Return key and value of a slice; no value for all of a key, nothing for all there are."""
    if text in (None, "*"):
        return None, None
    if text == ALL:  # as the tables call everything
        return ALL, ALL
    key, separator, value = text.partition("=")
    return key, value if separator else None


def _measure_slices(
    project: Project,
    spec: ModelSpec,
    keys: Sequence[SliceKey],
    metrics: Sequence[str],
    columns: Sequence[str],
    start: dt.datetime | None,
    end: dt.datetime | None,
    as_of: dt.datetime | None,
) -> pd.DataFrame:
    """Return what is not stored of slices, measured from the profiles.

    Raises:
        ConfigError: As of a past moment.
    """
    from mlmon_dagster.families.measuring import list_unstored, measure_slices
    from mlmon_dagster.families.registry import JUDGED_BY
    from mlmon_dagster.metrics.frames import concat_frames
    from mlmon_dagster.spec import window_containing
    from mlmon_dagster.spec.metric_registry import METRICS as OF_TRUTH
    from mlmon_dagster.store.state import window_state
    from mlmon_dagster.work import Work, parts_of

    is_stored = bool(metrics) and all(metric in OF_TRUTH for metric in metrics)
    families = list_unstored(spec, JUDGED_BY.values())
    if not keys or is_stored or not families:
        return concat_frames([])
    if as_of is not None:
        names = " and ".join(family.name for family in families)
        raise ConfigError(
            f"--as-of with --slice: {names} of slices are measured from the newest "
            "profiles when somebody asks, and what those were then is not kept. Name metrics of "
            "ground truth, such as --metric roc_auc, or let drift.slices be judged: then they are "
            "stored from now on."
        )
    states = window_state.load(project.store.state, spec.model, start, end)
    windows = tuple(window_containing(spec.time, moment) for moment in sorted(states))
    work = Work(project, spec, windows, project.now(), "", is_backfill=False)
    return concat_frames(
        [
            measure_slices(part, family, columns, keys)
            for part in parts_of(work, states)
            for family in families
        ]
    )


def render_metrics(frame: pd.DataFrame, format_: str, *, with_head: bool = True) -> str:
    """Return metrics as a table for people, CSV (safe to open in a spreadsheet) or JSON lines."""
    if format_ == "text":
        is_far = len(frame) == 0 or frame["by_chance"].notna().any()
        columns = tuple(c for c in METRICS.columns if is_far or c.value != "by_chance")
        return render_text(Answer(replace(METRICS, columns=columns), frame.to_dict("records")))
    shown = frame[_FIELDS]
    return csv_text(shown, with_head=with_head) if format_ == "csv" else json_lines(shown)


def drop_empty_metrics(shown: pd.DataFrame) -> pd.DataFrame:
    """Return metrics without those that have no value in any of the windows.

    Where none has a value, all are returned.
    """
    series = ["slice_key", "slice_value", "column_name", "metric"]
    has_value = shown["value"].notna().groupby([shown[name] for name in series]).transform("any")
    known: pd.DataFrame = shown[has_value]
    return known if len(known) else shown


def describe_empty_metrics(shown: pd.DataFrame, known: pd.DataFrame) -> list[str]:
    """Say how many metrics were left out as they have no value, and why; nothing for none.

    Args:
        shown: The metrics of some windows.
        known: What `drop_empty_metrics` returned of them.
    """
    from mlmon_dagster.monitors.wording import REASONS

    series = ["reason", "slice_key", "slice_value", "column_name", "metric"]
    dropped = shown.drop(known.index).drop_duplicates(series)
    if dropped.empty:
        return []
    reasons = dropped["reason"].replace("", "no reason is stored").map(lambda r: REASONS.get(r, r))
    why = "; ".join(f"{n}: {reason}" for reason, n in reasons.value_counts().items())
    n_dropped = len(dropped.drop_duplicates(series[1:]))
    return [f"{counted(n_dropped, 'metric')} without a value left out ({why})."]


def describe_widths(shown: pd.DataFrame) -> list[str]:
    """Say which bands are wider than the baseline asks for, of the newest window."""
    if "band_factor" not in shown:
        return []
    from mlmon_dagster.monitors.wording import width_text

    said = []
    for metric, part in shown[shown["band_factor"] > 1].groupby("metric"):
        newest = part.iloc[-1]
        text = width_text(newest["band_factor"], int(newest["band_windows"]))
        said.append(f"{metric}, {newest['window']}: {text}.")
    return said


def describe_weighted(shown: pd.DataFrame) -> list[str]:
    """Say which metrics are of all predictions though ground truth is of some."""
    from mlmon_dagster.metrics.late_truth.rectified import METHOD

    weighted = shown[shown["method_version"].str.startswith(METHOD)]
    if weighted.empty:
        return []
    metrics = ", ".join(sorted(weighted["metric"].unique()))
    return [
        f"{metrics}: in {counted(weighted['window'].nunique(), 'window')} ground truth covers less "
        "than 95 % of the predictions, and values are weighted back to all of them "
        "(post-stratified)."
    ]


def pick_newest_windows(frame: pd.DataFrame, limit: int) -> pd.DataFrame:
    """Return the newest windows with at most so many rows; of one that has more, its first rows."""
    sizes = frame.groupby("window_start").size()[::-1].cumsum()
    fitting = sizes.index[sizes <= limit]
    if len(fitting):
        whole: pd.DataFrame = frame[frame["window_start"] >= fitting[-1]]
        return whole
    newest: pd.DataFrame = frame[frame["window_start"] == frame["window_start"].iloc[-1]]
    # What is true of the whole before what is true of its parts.
    whole_first = newest.sort_values("slice_key", key=lambda key: key.ne(ALL), kind="stable")
    return whole_first.head(limit)
