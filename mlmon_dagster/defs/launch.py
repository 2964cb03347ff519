"""Runs without a daemon: the same assets, the same instance, in this process."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from mlmon_dagster.defs.assets import (
    BACKFILL_TAG,
    OVERVIEW_KEY,
    PLANNED_TAG,
    asset_key,
    keys_of,
    range_tags,
)
from mlmon_dagster.defs.build import build_definitions
from mlmon_dagster.defs.instance import model_of_key, model_tags
from mlmon_dagster.defs.metadata import REBUILT
from mlmon_dagster.pipeline.baseline import ONE_SEASON
from mlmon_dagster.pipeline.quiet_models import FEW
from mlmon_dagster.project import Project
from mlmon_dagster.spec import Models, ModelSpec, Window
from mlmon_dagster.work import computing

OnStep = Callable[[str], None]


@dataclass(frozen=True)
class RunReport:
    """How one run went.

    Attributes:
        run_id: Dagster's run.
        is_success: Whether every step succeeded; failed checks do not change that.
        seconds: Wall time from launch to end.
        computing_seconds: What of it was spent in our own work; the rest is Dagster's.
        n_checks: Check evaluations.
        not_passed: How many of them did not pass, by family and ``error``, ``warning`` or
            ``no verdict``.
        newest: Of each such family the newest window, and what was said of it.
        errors: One message per failed step.
        n_waiting: Landing files that an ingest left for later, as they may not be complete.
        read_again: What an ingest read again, and why; empty if nothing.
        season: Which columns may have a season that the baseline misses; empty if none.
        n_files: Landing files that an ingest settled, one way or another.
        n_new: Rows of them that are new.
        n_bad: Rows of them that were refused.
        n_quarantined: How many of them were refused as a whole.
        refused: Why files or rows of them were refused, a message for each of the first files.
        failed: Why files or sources could not be read; it is tried again at the next ingest.
    """

    run_id: str
    is_success: bool
    seconds: float
    computing_seconds: float
    n_checks: int
    not_passed: Counter[tuple[str, str]]
    newest: dict[str, str]
    errors: list[str]
    n_waiting: int = 0
    read_again: str = ""
    season: str = ""
    n_files: int = 0
    n_new: int = 0
    n_bad: int = 0
    n_quarantined: int = 0
    refused: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    @property
    def is_news(self) -> bool:
        """Whether files were taken in or refused, a step failed, or a check did not pass."""
        return bool(self.n_files or self.not_passed) or not self.is_success


class Launcher:
    """Materializes assets of some models in this process."""

    def __init__(
        self,
        project: Project,
        models: Sequence[ModelSpec] | Models,
        instance: dg.DagsterInstance,
        on_step: OnStep | None = None,
    ) -> None:
        self._project, self._models = project, models
        self._loggers = dg.Definitions(loggers={"console": _step_logger(on_step)})
        self.definitions = dg.Definitions.merge(build_definitions(models, project), self._loggers)
        self.instance = instance
        self.overview_keys = [OVERVIEW_KEY]
        self.seconds = 0.0  # of all runs so far
        self.computing_seconds = 0.0
        self._n_models = len(models.specs if isinstance(models, Models) else models)
        self._job = self.definitions.resolve_implicit_global_asset_job_def()

    def materialize(
        self,
        spec: ModelSpec,
        assets: Sequence[str],
        windows: Sequence[Window] = (),
        *,
        is_backfill: bool = False,
        is_planned: bool = False,
        keys: Sequence[dg.AssetKey] = (),
    ) -> RunReport:
        """Materialize some assets of a model, with their checks, in one run.

        Args:
            spec: The model.
            assets: Asset names, such as ``drift``.
            windows: A contiguous range, oldest first; () if no asset is partitioned.
            is_backfill: Whether a person named these windows.
            is_planned: Whether the planner did.
            keys: More assets, by key.
        """
        tags = model_tags([spec]) | range_tags(windows)
        tags |= {BACKFILL_TAG: "true"} if is_backfill else {}
        tags |= {PLANNED_TAG: "true"} if is_planned else {}
        return self.run(tags, [*keys_of(spec, tuple(assets)), *keys])

    def tick(self, sensor: str) -> Iterator[RunReport]:
        """Let a sensor look once, as the daemon would; yield the runs that it asks for."""
        context = dg.build_sensor_context(
            instance=self.instance, definitions=self.definitions, sensor_name=sensor
        )
        found = self.definitions.resolve_sensor_def(sensor).evaluate_tick(context)
        for request in found.run_requests or []:
            yield self.run(dict(request.tags), request.asset_selection or [])

    def _job_of(self, names: set[str]) -> dg.JobDefinition:
        """Return a job that knows some models alone: of each run Dagster stores what its job is."""
        if self._n_models <= FEW:
            return self._job
        mine = build_definitions(self._models, self._project, only=names)
        return dg.Definitions.merge(mine, self._loggers).resolve_implicit_global_asset_job_def()

    def run(self, tags: dict[str, str], selection: Sequence[dg.AssetKey]) -> RunReport:
        """Execute a selection of assets with some run tags, as a sensor requests them."""
        start, computed = time.perf_counter(), computing.seconds
        result = self._job_of({model_of_key(key) for key in selection}).execute_in_process(
            instance=self.instance,
            asset_selection=list(selection),
            tags=tags,
            run_config={"loggers": {"console": {}}},
            raise_on_error=False,
        )
        report = _report(result, time.perf_counter() - start, computing.seconds - computed)
        self.seconds += report.seconds
        self.computing_seconds += report.computing_seconds
        return report


def season_told(instance: dg.DagsterInstance, spec: ModelSpec) -> str:
    """Return what the newest baseline of a model said of a season that it misses."""
    event = instance.get_latest_materialization_event(asset_key(spec, "baseline"))
    found = event.asset_materialization if event else None
    return season_of(found.metadata) if found else ""


def season_of(metadata: Mapping[str, dg.MetadataValue]) -> str:
    """Return what a baseline's metadata says of a season that it misses; empty if nothing."""
    said = metadata.get(ONE_SEASON)
    return str(said.value) if said else ""


def _report(
    result: dg.ExecuteInProcessResult, seconds: float, computing_seconds: float
) -> RunReport:
    errors, read_again, season = [], "", ""
    refused: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    counts = dict.fromkeys(("n_waiting", "n_files", "n_new", "n_bad", "n_quarantined"), 0)
    for event in result.all_events:
        if event.is_step_materialization:
            metadata = event.step_materialization_data.materialization.metadata
            for name in counts.keys() & metadata.keys():
                counts[name] += int(str(metadata[name].value))
            again = metadata.get("read_again")
            read_again = str(again.value) if again else read_again
            season = season_of(metadata) or season
            if told := metadata.get("refused"):
                refused = tuple(str(told.value).splitlines())
            if unread := metadata.get("failed"):
                failed = tuple(str(unread.value).splitlines())
        if event.is_step_failure:
            error = event.step_failure_data.error
            cause = error.cause if error and error.cause else error
            text = cause.message.strip() if cause else "unknown error"
            errors.append(f"{_shown(event.step_key or '')}: {text}")
    evaluations = [
        evaluation
        for evaluation in result.get_asset_check_evaluations()
        if not REBUILT.keys() & evaluation.metadata.keys()
    ]
    not_passed = [evaluation for evaluation in evaluations if not evaluation.passed]
    return RunReport(
        run_id=result.run_id,
        is_success=result.success,
        seconds=seconds,
        computing_seconds=computing_seconds,
        n_checks=len(evaluations),
        not_passed=Counter((one.check_name, _how(one)) for one in not_passed),
        newest={
            one.check_name: f"{one.partition}: {one.description}"
            if one.partition
            else str(one.description)
            for one in sorted(
                not_passed, key=lambda one: (_how(one) != "no verdict", one.partition or "")
            )
        },
        errors=errors,
        read_again=read_again,
        season=season,
        refused=refused,
        failed=failed,
        **counts,
    )


def _how(evaluation: dg.AssetCheckEvaluation) -> str:
    """Say how a check did not pass; see `defs.checks.evaluation` for one without a verdict."""
    if evaluation.severity is dg.AssetCheckSeverity.ERROR:
        return "error"
    failing = evaluation.metadata.get("failing")
    return "no verdict" if failing is not None and failing.value == 0 else "warning"


def _shown(step_key: str) -> str:
    """Turn ``flight_delay__drift`` into ``drift``; Dagster joins the parts of an asset key so."""
    return step_key.rpartition("__")[2]


def _step_logger(on_step: OnStep | None) -> dg.LoggerDefinition:
    """Return a console logger that says only which step begins, and errors."""

    class Steps(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            event = getattr(record, "dagster_meta", {}).get("dagster_event")
            if on_step is not None and event is not None and event.is_step_start:
                on_step(_shown(event.step_key or ""))

    def steps(_context: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("mlmon.steps", level=logging.DEBUG)
        logger.addHandler(Steps())
        return logger

    return dg.LoggerDefinition(steps, description="Reports to the command line which step begins.")
