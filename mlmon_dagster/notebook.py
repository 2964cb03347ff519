"""A project in a notebook: its numbers, verdicts, alerts, rows and traces as pandas frames.

import mlmon_dagster as mm

project = mm.open(".")
project  # how every model is
project.plot("churn", "roc_auc")
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.project import Project, project_from_environment
from mlmon_dagster.spec import (
    Models,
    ModelSpec,
    Window,
    parse_predicate,
    predicate_columns,
    read_models,
    window_containing,
    windows_between,
)
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.declaration import Granularity
from mlmon_dagster.spec.names import ALL, TABLE
from mlmon_dagster.tables.asked import (
    ALWAYS,
    Days,
    against_asked,
    complete_period,
    moments_of,
    period_asked,
    window_range,
)
from mlmon_dagster.tables.metrics import query_metrics, refuse_unknown_metrics

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from mlmon_dagster.tables.effects import Association
    from mlmon_dagster.tables.standing import ModelStatus
    from mlmon_dagster.tables.table import Answer
    from mlmon_dagster.trace.explain import Explained
    from mlmon_dagster.trace.rows import Searched

Day = str | dt.date | None
_MOST_ROWS = 20
_PAGE_HEIGHT = 900


def open(folder: str | Path = ".") -> Monitoring:  # as people say it: mm.open(".")
    """Open a project for reading.

    Args:
        folder: The one with ``models/``. Store and database are those that the environment names,
            as for the command line.

    Raises:
        ConfigError: If the folder does not exist, or a variable of the environment is wrong.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ConfigError(f"{path} is no folder; expected the one that holds models/.")
    return Monitoring(project_from_environment(path, None))


@dataclass(frozen=True)
class Trace:
    """Why a metric changed.

    Attributes:
        lines: What was found, in plain sentences.
        explained: The numbers: change, slices, decisions, scores, windows.
        searched: Slices that a search of the rows found; None if none was made.
        zone: Time zone of the model.
    """

    lines: tuple[str, ...]
    explained: Explained = field(repr=False)
    searched: Searched | None = field(default=None, repr=False)
    zone: str = "UTC"

    def __str__(self) -> str:
        """Return the sentences, one a line."""
        return "\n".join(self.lines)

    def to_frame(self, of: Literal["slices", "windows"] = "slices") -> pd.DataFrame:
        """Return the parts of the change as a table.

        Args:
            of: Every slice with its values, its change, and what chance could make of it; or every
                window with what it adds, the most harmful first.
        """
        return self.explained.slices if of == "slices" else self.explained.windows

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the sentences, then the slices."""
        lines = "".join(f"<p>{escape(line)}</p>" for line in self.lines)
        return f"{lines}{self.to_frame().head(_MOST_ROWS).to_html(index=False)}"

    def plot(self) -> Figure:
        """Draw what each window, and each value of the first slice keys, adds to the change."""
        from mlmon_dagster.report.plots import draw_contributions

        return draw_contributions(self.explained, self.zone)


@dataclass(frozen=True)
class Page:
    """The health report of a model.

    Attributes:
        html: The whole page; it asks for nothing elsewhere.
    """

    html: str = field(repr=False)

    def _repr_html_(self) -> str:
        """Return the page in a frame of its own, so that neither page changes the other."""
        return (
            f'<iframe srcdoc="{escape(self.html)}" style="width:100%;height:{_PAGE_HEIGHT}px;'
            'border:0" title="health report"></iframe>'
        )


class Monitoring:
    """A project, open for reading.

    Days are those of a model's zone, both ends included, as ``2013-04-01`` or dates.
    """

    def __init__(self, project: Project, models: Models | None = None) -> None:
        """Open a project for reading.

        Args:
            project: The project.
            models: Its models, if they are not those of its folder.
        """
        self.project = project
        self._models = models

    def status(self) -> pd.DataFrame:
        """Return a row a model, worst first: status, newest window, what fires and since when."""
        from mlmon_dagster.tables.rendering import frame_of

        return frame_of(self._ask_status())

    def _ask_status(self) -> Answer[ModelStatus]:
        from mlmon_dagster.tables.standing import STATUS, list_models
        from mlmon_dagster.tables.table import Answer

        found = self._read()
        return Answer(STATUS, list_models(self.project, found.specs, found.broken))

    def _repr_html_(self) -> str:
        """Return what a notebook shows of the project: how every model is."""
        from mlmon_dagster.tables.rendering import render_html

        return render_html(self._ask_status())

    @property
    def models(self) -> list[str]:
        """The names of the models that load."""
        return [spec.model for spec in self._specs]

    @property
    def _specs(self) -> Sequence[ModelSpec]:
        return self._read().specs

    def _read(self) -> Models:
        return self._models or read_models(self.project.models_folder, self.project.now())

    def spec(self, model: str) -> ModelSpec:
        """Return what a model declares.

        Raises:
            ConfigError: If there is no such model, or its file does not load.
        """
        return self._read().find(model)

    def metrics(
        self,
        model: str,
        *metric: str,
        first: Day = None,
        last: Day = None,
        column: str | Sequence[str] = (),
        slice: str = f"{ALL}={ALL}",  # as on the command line
        granularity: Granularity | None = None,
        dataset: str = PRODUCTION,
    ) -> pd.DataFrame:
        """Return metrics with intervals, a row per window, column and metric, times in its zone.

        Args:
            model: The model.
            *metric: Only these, such as ``roc_auc`` or ``psi``; all by default.
            first: First day.
            last: Last day.
            column: Only of these columns.
            slice: Of a slice, such as ``origin=JFK``, or of all of a key, such as ``origin``,
                instead of the whole; ``*`` of everything.
            granularity: Longer windows, merged from the stored profiles.
            dataset: ``production``, ``shadow`` or ``canary``.

        Raises:
            ConfigError: If the model has no such metric or column.
        """
        columns = (column,) if isinstance(column, str) else tuple(column)
        spec = self.spec(model)
        found = query_metrics(
            self.project,
            spec,
            metric=metric,
            column=columns,
            dataset=dataset,
            slice_=slice,
            granularity=granularity,
            days=_days(first, last),
        )
        if found.empty and (metric or columns):
            refuse_unknown_metrics(self.project, spec, metric, columns)
        return _in_zone(found, spec)

    def plot(
        self,
        model: str,
        metric: str,
        column: str = TABLE,
        *,
        slice: str = f"{ALL}={ALL}",
        first: Day = None,
        last: Day = None,
    ) -> Figure:
        """Draw a metric over windows: its intervals, the windows that failed, and its alerts.

        Args:
            model: The model.
            metric: Such as ``roc_auc``.
            column: Of a metric of a column, such as ``psi``.
            slice: Of a slice instead of the whole.
            first: First day.
            last: Last day.

        Raises:
            ConfigError: If there is nothing to draw.
        """
        from mlmon_dagster.monitors.wording import named
        from mlmon_dagster.report.charts import Curve, Episode
        from mlmon_dagster.report.plots import draw_figure

        spec, (key, _, value) = self.spec(model), slice.partition("=")
        found = self.metrics(model, metric, column=column, slice=slice, first=first, last=last)
        if found.empty:
            raise ConfigError(f"{model} has no {metric} of {column}, {slice}, in that time.")
        judged = self.verdicts(model, first=first, last=last)
        mine = {"metric": metric, "column_name": column, "slice_key": key, "slice_value": value}
        for name, wanted in mine.items():
            judged = judged[judged[name] == wanted]
        failed = set(judged.loc[judged["status"].isin(("WARN", "ERROR")), "window_start"])
        alerts = self.alerts(model)
        for name, wanted in mine.items():
            alerts = alerts[alerts[name if name in alerts else "column"] == wanted]
        starts = [start.to_pydatetime() for start in found["window_start"]]
        of = "" if column == TABLE else f" of {column}"
        where = "" if key == ALL else f", {slice}"
        return draw_figure(
            Curve(
                f"{model}: {named(metric)}{of}{where}",
                starts,
                found["value"].tolist(),
                window_containing(spec.time, starts[-1]).end,
                found["lower"].tolist(),
                found["upper"].tolist(),
                spec.time.zone,
                episodes=[
                    Episode(opened, _moment(ended))
                    for opened, ended in zip(
                        alerts["opened_window"], alerts["resolved_window"], strict=True
                    )
                ],
                failing=[start in failed for start in found["window_start"]],
            )
        )

    def report(self, model: str) -> Page:
        """Return the health report of a model, which a notebook shows as it is."""
        from mlmon_dagster.report.health import health_report

        return Page(health_report(self.project.store, self.spec(model), self.project.now()).html)

    def verdicts(
        self, model: str, family: str | None = None, first: Day = None, last: Day = None
    ) -> pd.DataFrame:
        """Return the newest verdict of each monitor on each window, with its sentence."""
        from mlmon_dagster.store.state import monitor_results

        spec = self.spec(model)
        start, end = moments_of(spec, _days(first, last))
        found = monitor_results.newest(self.project.store.state, model, start, end, family)
        return _in_zone(found, spec)

    def alerts(self, model: str | None = None, *, firing: bool = False) -> pd.DataFrame:
        """Return alert episodes, those that fire first, then the newest."""
        import pandas as pd

        from mlmon_dagster.store.alert_state import AlertEpisode
        from mlmon_dagster.tables.alerts import list_alerts

        found = list_alerts(self.project.store, model, "FIRING" if firing else None)
        return pd.DataFrame([asdict(e) for e in found], columns=list(AlertEpisode.__annotations__))

    def records(
        self,
        model: str,
        *,
        window: str | None = None,
        first: Day = None,
        last: Day = None,
        where: str | None = None,
        limit: int = 10_000,
        dataset: str = PRODUCTION,
    ) -> pd.DataFrame:
        """Return predictions with their ground truth, the worst first.

        Args:
            model: The model.
            window: One window, such as ``2013-04-22``; by default the newest that is over.
            first: First day, instead of a window.
            last: Last day.
            where: Only these rows, such as ``origin = 'JFK' and temp > 80``.
            limit: At most so many.
            dataset: Of which dataset.
        """
        from mlmon_dagster.tables.rows import rows_of

        spec = self.spec(model)
        picked = parse_predicate(where, predicate_columns(spec), spec.time.zone) if where else None
        windows = period_asked(self.project, spec, window, _days(first, last))
        windows = windows or complete_period(spec, ALWAYS, self.project.now())[-1:]
        found = rows_of(
            self.project.store, spec, windows, picked, limit=limit, dataset=dataset,
            shown=spec.features,
        )  # fmt: skip
        frame: pd.DataFrame = found.table.to_pandas()
        return frame

    def trace(
        self,
        model: str,
        metric: str | None = None,
        *,
        window: str | None = None,
        first: Day = None,
        last: Day = None,
        against: str = "baseline",
        search: bool = True,
    ) -> Trace:
        """Say why a metric changed.

        Args:
            model: The model.
            metric: By default the first that is monitored.
            window: One window; by default the newest with mature ground truth.
            first: First day, instead of a window.
            last: Last day.
            against: ``baseline``, a window, ``DAY..DAY`` or ``version:V``.
            search: Whether rows are searched for slices, declared or not.

        Raises:
            ConfigError: If a side has no ground truth.
        """
        from mlmon_dagster.report.trace import explained, newest_mature, score_explained, searched
        from mlmon_dagster.trace.sentences import describe_trace
        from mlmon_dagster.trace.slices import default_metrics

        spec = self.spec(model)
        windows: Sequence[Window] | None = period_asked(
            self.project, spec, window, _days(first, last)
        )
        if windows is None:
            mature = newest_mature(self.project.store, spec)
            windows = windows_between(spec.time, *mature) if mature else ()
        if not windows:
            raise ConfigError(f"No window of {model} has mature ground truth yet.")
        period = windows[0].start, windows[-1].end
        other, other_name = against_asked(self.project, spec, against)
        found = explained(
            self.project.store, spec, metric or default_metrics(spec)[0], period, other
        )
        if found is None:
            raise ConfigError(f"{model}: one of the two sides has no ground truth.")
        slices = searched(self.project.store, spec, period) if search else None
        name = windows[0].key if len(windows) == 1 else window_range(windows)
        scored = score_explained(self.project.store, spec, period, other)
        said = describe_trace(spec, found, name, other_name, slices, scored)
        return Trace(tuple(said), found, slices, spec.time.zone)

    def effect(
        self,
        model: str,
        cause: str | None = None,
        *,
        first: Day = None,
        last: Day = None,
        per: float | None = None,
        within: Sequence[str] | None = None,
    ) -> Association:
        """Say what a logged cause goes with in the outcome.

        Args:
            model: The model.
            cause: By default the first that its ``effects`` declare, or ``latency_ms``.
            first: First day; by default of all complete windows.
            last: Last day.
            per: Units of the cause that sentences speak of.
            within: Covariates that rows are compared within, instead of those declared.

        Raises:
            ConfigError: If the model logs no such cause, or no row has an outcome.
        """
        from mlmon_dagster.tables.effects import asked_of, effect_in

        spec = self.spec(model)
        windows = complete_period(spec, _days(first, last), self.project.now())
        asked = asked_of(spec, cause, per, within)[0]
        return effect_in(self.project.store, spec, windows, asked)

    def close(self) -> None:
        """Close the store."""
        self.project.store.close()

    def __enter__(self) -> Monitoring:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()


def _in_zone(frame: pd.DataFrame, spec: ModelSpec) -> pd.DataFrame:
    """Return a frame with its windows in the model's zone."""
    times = {
        name: frame[name].dt.tz_convert(spec.time.zone)
        for name in ("window_start", "window_end")
        if name in frame and len(frame)
    }
    return frame.assign(**times)


def _moment(value: object) -> dt.datetime | None:
    """Return a moment of a frame; None where there is none."""
    import pandas as pd

    return value.to_pydatetime() if isinstance(value, pd.Timestamp) else None


def _days(*ends: Day) -> Days:
    return Days(*(dt.date.fromisoformat(day) if isinstance(day, str) else day for day in ends))
