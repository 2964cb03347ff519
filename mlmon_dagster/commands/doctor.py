"""``mlmon doctor``: what is wrong with the installation, and how to mend it."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import platform
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlmon_dagster.commands import kept
from mlmon_dagster.commands.findings import Finding
from mlmon_dagster.commands.options import models_of
from mlmon_dagster.commands.outside import sentence
from mlmon_dagster.errors import ConfigError, MlmonError
from mlmon_dagster.project import Project, wall_clock

if TYPE_CHECKING:
    from mlmon_dagster.ingest.declared_columns import Stream
    from mlmon_dagster.spec import ModelSpec, SqlSource

PACKAGES = (
    "mlmon-dagster",
    "dagster",
    "dagster-postgres",
    "pandas",
    "scipy",
    "great-expectations",
    "slack-sdk",
    "deltalake",
    "duckdb",
    "sqlalchemy",
)
MAX_CLOCK_SKEW = dt.timedelta(seconds=30)


def examine(project: Project, *, is_deep: bool = False) -> list[Finding]:
    """Look at versions, models, Slack, the store and what it keeps, the clock and Dagster.

    Args:
        project: The project.
        is_deep: Also read every table's log, and open every file that is live.
    """
    findings = [_safely(look, project) for look in (_versions, _models, _slack, _store)]
    findings.append(_safely(kept.disk, project))
    findings += _sources(project)
    if next(f.is_fine for f in findings if f.subject == "store"):  # the others need it
        looks = (_declarations, _alerts, _clock, _instance, _landing_files)
        findings += [_safely(look, project) for look in looks]
        findings += [_safely(look, project) for look in (kept.baselines, _verdicts)]
        findings.append(_safely(kept.all_quarantined if is_deep else kept.quarantine, project))
        if is_deep:
            findings += kept.kept(project)
    findings.append(_safely(_object_storage, project))
    return findings


def _safely(look: Callable[[Project], Finding], project: Project) -> Finding:
    subject = look.__name__.strip("_").removeprefix("all_").replace("_", " ")
    try:
        return look(project)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the doctor must get through the whole list, panics too
        return Finding(subject, False, sentence(error) or f"{type(error).__name__}: {error}")


def _versions(_project: Project) -> Finding:
    found, missing = [f"Python {platform.python_version()}"], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    is_fine = not missing and sys.version_info >= (3, 11)
    cure = f"Install {', '.join(missing)} with the project's constraints.txt." if missing else ""
    return Finding("versions", is_fine, ", ".join(found), cure or "Use Python 3.11 or newer.")


def _models(project: Project) -> Finding:
    found = models_of(project)
    names = ", ".join(spec.model for spec in found.specs) or "none loads"
    said = f"{names} (in {project.models_folder})"
    if not found.broken:
        return Finding("models", True, said)
    problems = "\n".join(broken.problems for broken in found.broken)
    return Finding(
        "models",
        False,
        f"{said}\nnot monitored, since they do not load:\n{problems}",
        "Mend the files; mlmon validate says when they are right. The other models go on.",
    )


def _sources(project: Project) -> list[Finding]:
    """Connect to every database that events are read from."""
    from mlmon_dagster.ingest.declared_columns import STREAMS
    from mlmon_dagster.spec import SqlSource

    try:
        specs = models_of(project).specs
    except MlmonError:
        return []  # told by `_models`
    return [
        _source(project, spec, stream, source)
        for spec in specs
        for stream in STREAMS
        if isinstance(source := getattr(spec.source, stream), SqlSource)
    ]


def _source(project: Project, spec: ModelSpec, stream: Stream, source: SqlSource) -> Finding:
    from mlmon_dagster.ingest.formats.sql_source import check_source

    subject = f"source of {spec.model}/{stream}"
    try:
        return Finding(subject, True, check_source(spec, stream, source, project.variables))
    except MlmonError as error:
        return Finding(subject, False, str(error))


def _landing_files(project: Project) -> Finding:
    """Look for files beside the landing files that no source matches."""
    from mlmon_dagster.commands.options import models_of, told_of_strays

    told = told_of_strays(project, list(models_of(project).specs))
    cure = "Correct 'path' under 'source', or move the files where it looks, or delete them."
    return Finding("landing files", not told, told or "a source matches every one", cure)


def _store(project: Project) -> Finding:
    import sqlalchemy as sa

    with project.store.state.connect() as conn:
        conn.execute(sa.text("SELECT 1"))
        dialect = conn.dialect.name
    return Finding("store", True, f"{project.store_root}, state in {dialect}")


def _object_storage(project: Project) -> Finding:
    """Try out every place in object storage: the store's, and those of landing files."""
    from mlmon_dagster.ingest.landing.discover_objects import listed_folder
    from mlmon_dagster.store.places import objects
    from mlmon_dagster.store.places.addresses import place_of

    is_written = {project.store_root: True} if _is_remote(project.store_root) else {}
    for spec in models_of(project).specs:
        for source in (spec.source.predictions, spec.source.actuals):
            if _is_remote(path := getattr(source, "path", "")):
                is_written.setdefault(listed_folder(path), False)
    if not is_written:
        return Finding("object storage", True, "not used")
    problems = [
        problem
        for url, written in is_written.items()
        if (problem := objects.probe(place_of(url, project.storage_options), is_written=written))
    ]
    return Finding(
        "object storage",
        not problems,
        " ".join(problems) or f"{', '.join(is_written)} answers",
        "See docs/object-storage.md; the variables are AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
        "AWS_REGION and, for another server than Amazon's, AWS_ENDPOINT_URL.",
    )


def _is_remote(place: str) -> bool:
    return "://" in place


def _alerts(project: Project) -> Finding:
    """Count what alerts should have told and did not; see docs/alerts.md."""
    from mlmon_dagster.alerts.messages.owed import count_untold
    from mlmon_dagster.store.alerting.outbox_health import outbox_health

    n = count_untold(project.store, models_of(project).specs, project.now())
    health = outbox_health(project.store.state)
    found = (
        f"{n} events without a message, {health.n_waiting} messages waiting, "
        f"{health.n_dead} refused for good"
    )
    cure = "Run mlmon alerts deliver." if n else "Mend the cause, then: mlmon alerts requeue --all"
    return Finding("alerts", not (n or health.n_dead), found, cure)


def _verdicts(project: Project) -> Finding:
    """Name families that could judge none of their newest windows: nothing of them is healthy."""
    from mlmon_dagster.report.summary import standing_of

    unjudged = [
        f"{spec.model}/{standing.family}: {standing.text} (newest window {standing.window})"
        for spec in models_of(project).specs
        for standing in standing_of(project.store, spec, project.now())
        if standing.status == "NO_DATA"
    ]
    cure = (
        "docs/monitors.md says what each reason needs: a baseline, more rows a window, ground truth"
    )
    return Finding(
        "verdicts", not unjudged, "; ".join(unjudged) or "every family that looks can judge", cure
    )


def _declarations(project: Project) -> Finding:
    """Compare what is declared with what the stored events rest on."""
    from mlmon_dagster.store.state.declared import check_declared

    specs = models_of(project).specs
    problems = []
    for spec in specs:
        try:
            check_declared(project.store.state, spec)
        except ConfigError as error:
            problems.append(str(error))
    found = "\n".join(problems) or f"{len(specs)} fit the events that are stored"
    return Finding("declarations", not problems, found)


def _clock(project: Project) -> Finding:
    """Compare the clock with the database server's; leases and order of alerts depend on it."""
    import sqlalchemy as sa

    if project.store.state.dialect.name != "postgresql":
        return Finding("clock", True, f"{wall_clock().isoformat(timespec='seconds')}")
    with project.store.state.connect() as conn:
        server = conn.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
    skew = abs(server - wall_clock())
    return Finding(
        "clock",
        skew <= MAX_CLOCK_SKEW,
        f"{skew.total_seconds():.1f} s from the database server's",
        "Synchronise this machine's clock (NTP).",
    )


def _instance(project: Project) -> Finding:
    from mlmon_dagster.defs.instance import open_instance

    with open_instance(project) as instance:
        instance.get_runs(limit=1)
        storage = type(instance.event_log_storage).__name__
    return Finding("dagster instance", True, f"{storage}, home {project.folder}")


def _slack(project: Project) -> Finding:
    if project.slack_token is None:
        from mlmon_dagster.alerts.receivers.console import HOW_TO_CONNECT

        return Finding("slack", True, f"not connected. {HOW_TO_CONNECT}")
    from mlmon_dagster.pipeline.receivers import receivers

    check = receivers(project)["slack"].auth_test()  # type: ignore[attr-defined]
    return Finding(
        "slack",
        check.ok,
        check.text,
        "Check MLMON_SLACK_TOKEN; then mlmon alerts test sends one message to every channel.",
    )
