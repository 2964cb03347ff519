"""``mlmon doctor``: what is wrong with the installation, and how to mend it."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import platform
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

from mlmon_dagster.commands.options import models_of, told_of_strays
from mlmon_dagster.commands.outside import sentence
from mlmon_dagster.errors import MlmonError
from mlmon_dagster.project import Project
from mlmon_dagster.spec.names import counted

if TYPE_CHECKING:
    from mlmon_dagster.spec import ModelSpec

P = ParamSpec("P")
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
STATE_SECONDS = 5.0  # for which the state database is looked through without --deep
NEWS = dt.timedelta(days=30)  # refused files that are older are told by --deep alone


def examine(project: Project, *, is_deep: bool = False) -> list[Finding]:
    """Look at versions, models, Slack, the store and what it keeps, the clock and Dagster.

    Args:
        project: The project.
        is_deep: Also read every table's log, and open every file that is live.
    """
    looks: tuple[Callable[[Project], Finding], ...]
    looks = (_versions, _models, _slack, _places, _links, _store, disk)
    findings = [_safely(look, project) for look in looks]
    findings += [*_sources(project), *_registries(project)]
    if next(f.is_fine for f in findings if f.subject == "store"):  # the others need it
        looks = (_moments, _declarations, _alerts, _clock, retention, _instance, _landing_files)
        looks += (baselines, _verdicts, all_quarantined if is_deep else quarantine)
        findings += [_safely(look, project) for look in looks]
        findings += _engines(project)
        if told := tell_of_outside(project, _declared(project)):
            findings.append(Finding("folders", True, told))
        if any(spec.spans is not None for spec in models_of(project).specs):
            findings.append(_safely(spans, project))
        if is_deep:
            findings += tables(project)
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
    cure = "Correct the files; mlmon validate says when they are right. The other models go on."
    told = f"{said}\nnot monitored, since they do not load:\n{problems}"
    return Finding("models", False, told, cure)


def _declared(project: Project) -> Sequence[ModelSpec]:
    """Return the models that load; none where they cannot be read, which `_models` tells."""
    try:
        return models_of(project).specs
    except MlmonError:
        return ()


def _sources(project: Project) -> list[Finding]:
    """Connect to every database, table and topic that events are read from."""
    from mlmon_dagster.ingest.sources.polling import Surroundings, check_source
    from mlmon_dagster.spec.sources import STREAMS, FileSource

    around = Surroundings(project.folder, project.variables, project.storage_options)
    return [
        _ask(f"source of {spec.model}/{stream}", check_source, spec, stream, source, around)
        for spec in _declared(project)
        for stream in STREAMS
        if not isinstance(source := getattr(spec.source, stream), FileSource | None)
    ] + [
        _ask(f"windows of {spec.model}", _open_in_place, project, spec)
        for spec in _declared(project)
        if spec.source.predictions.in_place
    ]


def _open_in_place(project: Project, spec: ModelSpec) -> str:
    """Open the tables of a model in place as a look does; say how windows are found there."""
    owner = project.find_owner(spec)
    with owner.opened():
        return f"found in place, by the column {owner.wanted['predictions'].time}"


def _ask(subject: str, look: Callable[P, object], *args: P.args, **kw: P.kwargs) -> Finding:
    """Return what is said of something, or why it is refused."""
    try:
        return Finding(subject, True, str(look(*args, **kw)))
    except MlmonError as error:
        return Finding(subject, False, str(error))


def _engines(project: Project) -> list[Finding]:
    """Have the workers of every engine that is named do a small part."""
    from mlmon_dagster.engines.chosen import name_engines

    cure = "docs/scale.md says what workers need; mlmon doctor --engine lists every one."
    try:
        names = name_engines(project, list(_declared(project)))
    except MlmonError as error:
        return [Finding("engine", False, str(error), cure)]
    return [_engine(project, name, cure) for name in names]


def tell_of_outside(project: Project, specs: Sequence[ModelSpec]) -> str:
    """Say that a cluster must see folders outside the project; "" where there is nothing to say."""
    from mlmon_dagster.engines.chosen import name_engines
    from mlmon_dagster.spec.sources import STREAMS

    places = dict.fromkeys(
        place
        for spec in specs
        for stream in STREAMS
        for key in ("path", "delta")
        if (place := getattr(spec.source.of(stream), key, "")).startswith("/")
    )
    if not places:
        return ""
    clusters = name_engines(project, specs)
    home = Path(project.variables("DAGSTER_HOME") or project.folder)
    settings = home / "dagster.yaml"
    if settings.is_file() and re.search(r"^run_launcher:", settings.read_text(), re.MULTILINE):
        clusters.append("the run launcher")
    if not clusters:
        return ""
    return (
        f"{_name_some(list(places))}: outside the project, on this machine. Workers of "
        f"{' and '.join(clusters)} must see the same files under the same path"
    )


def _engine(project: Project, name: str, cure: str) -> Finding:
    from mlmon_dagster.engines.trying import try_workers

    try:
        tried = try_workers(project, name)
    except Exception as error:  # of clients that are not ours, too
        return Finding("engine", False, sentence(error) or str(error), cure)
    hosts = ", ".join(sorted({one.reply.host for one in tried}))
    fine = f"{name}: {counted(len(tried), 'worker')} on {hosts}, and all see the store"
    problems = list(dict.fromkeys(one.problem for one in tried if one.problem))
    return _judge("engine", problems, fine, cure)


def _registries(project: Project) -> list[Finding]:
    """Ask every registry that a model declares which version serves."""
    return [_registry(project, spec) for spec in _declared(project) if spec.registry is not None]


def _registry(project: Project, spec: ModelSpec) -> Finding:
    from mlmon_dagster.pipeline.model_registry import ask_registry

    subject = f"registry of {spec.model}"
    try:
        known = ask_registry(project, spec)
    except MlmonError as error:
        cure = "Monitoring goes on without it; docs/registry.md says what is asked."
        return Finding(subject, False, str(error), cure)
    assert spec.registry is not None
    named = [
        f"{alias} is version {known.now(alias) or '(none)'}" for alias in spec.registry.aliases
    ]
    is_fine = any(known.now(alias) for alias in spec.registry.aliases)
    cure = "Give a version one of these aliases in MLflow, or name others under registry.aliases."
    return Finding(subject, is_fine, f"{known.name} at {known.address}: {', '.join(named)}", cure)


def _landing_files(project: Project) -> Finding:
    """Look for files beside the landing files that no source matches."""
    if unreadable := examine_landing(project, models_of(project).specs):
        return Finding(
            "landing files", False, f"cannot be read: {'; '.join(unreadable[:5])}",
            "Give the user that ingests the right to read them, or mount the disk again.",
        )  # fmt: skip
    told = told_of_strays(project, list(models_of(project).specs))
    cure = "Correct 'path' under 'source', or move the files where it looks, or delete them."
    return Finding("landing files", not told, told or "a source matches every one", cure)


def examine_landing(project: Project, specs: Sequence[ModelSpec]) -> list[str]:
    """Name the landing folders and new files of some models that this user cannot read."""
    from mlmon_dagster.ingest.landing import find_unreadable
    from mlmon_dagster.spec.sources import STREAMS, FileSource
    from mlmon_dagster.store.state import manifest

    found: list[str] = []
    for spec in specs:
        for stream in STREAMS:
            source = spec.source.of(stream)
            if isinstance(source, FileSource) and not _is_remote(source.path):
                seen = manifest.load_paths(project.store.state, spec.model, stream)
                known = {n: p.look for n, p in seen.items()}
                found += find_unreadable(project.folder, source, known)
    return list(dict.fromkeys(found))


def _store(project: Project) -> Finding:
    import sqlalchemy as sa

    from mlmon_dagster.store.upkeep.integrity import examine_state

    with project.store.state.connect() as conn:
        conn.execute(sa.text("SELECT 1"))
        dialect = conn.dialect.name
    for damage in examine_state(project.store, STATE_SECONDS):
        return Finding("store", False, f"{damage.place}: {damage.found}", damage.cure)
    return Finding("store", True, f"{project.store_root}, state in {dialect}")


def _moments(project: Project) -> Finding:
    """Look whether the tables of each model are those that the state database is about."""
    from mlmon_dagster.store.moments import check_tables

    problems = _refusals(project, partial(check_tables, project.store))
    return _judge("moments", problems, "tables and state database belong together", "", "\n")


def _refusals(project: Project, check: Callable[[ModelSpec], object]) -> list[str]:
    """Return what a check says of the models that it refuses."""
    found = [_ask("", check, spec) for spec in models_of(project).specs]
    return [one.found for one in found if not one.is_fine]


def _judge(
    subject: str, problems: Sequence[str], fine: str, cure: str = "", between: str = "; "
) -> Finding:
    """Return a finding of the problems of something, if there are any."""
    return Finding(subject, not problems, between.join(problems) or fine, cure)


def _name_some(found: Sequence[str]) -> str:
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return "; ".join(found[:3]) + more


def _object_storage(project: Project) -> Finding:
    """Try out every place in object storage: the store's, and those of landing files."""
    from mlmon_dagster.ingest.landing import listed_folder
    from mlmon_dagster.store.places import objects
    from mlmon_dagster.store.places.objects import place_of

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
    cure = (
        "See docs/object-storage.md; the variables are AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
        "AWS_REGION and, for another server than Amazon's, AWS_ENDPOINT_URL."
    )
    return _judge("object storage", problems, f"{', '.join(is_written)} answers", cure, " ")


def _is_remote(place: str) -> bool:
    return "://" in place


def _alerts(project: Project) -> Finding:
    """Count what alerts should have told and did not; see docs/alerts.md."""
    from mlmon_dagster.alerts.messages.incidents import count_untold
    from mlmon_dagster.store.outbox import outbox_health

    n = count_untold(project.store, models_of(project).specs, project.now())
    health = outbox_health(project.store.state)
    found = (
        f"{n} events without a message, {health.n_waiting} messages waiting, "
        f"{health.n_dead} refused for good"
    )
    again = "Repair the cause, then: mlmon alerts requeue --all"
    cure = "Run mlmon alerts deliver." if n else again
    return Finding("alerts", not (n or health.n_dead), found, cure)


def _verdicts(project: Project) -> Finding:
    """Name families that could judge none of their newest windows: nothing of them is healthy."""
    from mlmon_dagster.tables.standing import standing_of

    unjudged = [
        f"{spec.model}, {standing.label}: {standing.text} (newest window {standing.window})"
        for spec in models_of(project).specs
        for standing in standing_of(project.store, spec, project.now())
        if standing.status == "NO_DATA"
    ]
    cure = (
        "docs/monitors.md says what each reason needs: a baseline, more rows a window, ground truth"
    )
    return _judge("verdicts", unjudged, "every family that looks can judge", cure)


def _declarations(project: Project) -> Finding:
    """Compare what is declared with what the stored events rest on."""
    from mlmon_dagster.store.state.model_history import check_declared

    fine = f"{len(models_of(project).specs)} fit the events that are stored"
    problems = _refusals(project, partial(check_declared, project.store.state))
    return _judge("declarations", problems, fine, "", "\n")


def _clock(project: Project) -> Finding:
    """Compare the clock with the database server's; leases and order of alerts depend on it."""
    import sqlalchemy as sa

    if project.store.state.dialect.name != "postgresql":
        return Finding("clock", True, f"{project.clock().isoformat(timespec='seconds')}")
    with project.store.state.connect() as conn:
        server = conn.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
    skew = abs(server - project.clock())
    found = f"{skew.total_seconds():.1f} s from the database server's"
    return Finding(
        "clock", skew <= MAX_CLOCK_SKEW, found, "Synchronise this machine's clock (NTP)."
    )


def retention(project: Project) -> Finding:
    """Look whether a clock that was ahead has marked rows as deleted that are still to come."""
    from mlmon_dagster.store.state import model_history

    now = project.now()
    ahead = {
        spec.model: marks
        for spec in models_of(project).specs
        if (marks := model_history.find_marks_ahead(project.store.state, spec.model, now))
    }
    if not ahead:
        return Finding("retention", True, "no mark of deleted rows lies ahead of now")
    told = [model_history.describe_marks(model, marks, now) for model, marks in ahead.items()]
    return Finding("retention", False, " ".join(told), f"mlmon store repair {next(iter(ahead))}")


def _instance(project: Project) -> Finding:
    from mlmon_dagster.defs.instance import open_instance

    with open_instance(project) as instance:
        instance.get_runs(limit=1)
        storage = type(instance.event_log_storage).__name__
    return Finding("dagster instance", True, f"{storage}, home {project.folder}")


def _slack(project: Project) -> Finding:
    from mlmon_dagster.alerts.receivers.base import HOW_TO_CONNECT
    from mlmon_dagster.alerts.receivers.slack import SlackReceiver
    from mlmon_dagster.pipeline.receivers import connect

    slack = connect(project, "slack")
    if not isinstance(slack, SlackReceiver):
        return Finding("slack", True, f"not connected. {HOW_TO_CONNECT}")
    check = slack.auth_test()
    cure = "Check MLMON_SLACK_TOKEN; then mlmon alerts test sends one message to every channel."
    return Finding("slack", check.ok, check.text, cure)


def _places(project: Project) -> Finding:
    """Look whether every place that the models name can be sent to; nothing is sent."""
    from mlmon_dagster.alerts.lifecycle.routing import every_destination
    from mlmon_dagster.pipeline.receivers import unready_places

    specs = models_of(project).specs
    problems = unready_places(project, specs)
    named = sorted({place.receiver for place in every_destination(specs)})
    cure = "Set what is named where the dispatcher runs; then mlmon alerts test sends one to each."
    return _judge("places", problems, f"messages go to {', '.join(named) or 'nobody'}", cure)


def _links(project: Project) -> Finding:
    """Look whether those who get messages can open what these link to."""
    from mlmon_dagster.pipeline.receivers import local_links

    warning = local_links(project, models_of(project).specs)
    led = [url for url in (project.pages_url, project.ui_url) if url]
    return Finding("links", not warning, warning or f"messages lead to {' and '.join(led)}")


def disk(project: Project) -> Finding:
    """Write something beside the state and the tables, and say how much room is left."""
    from mlmon_dagster.store.places.location import LEAST_FREE, free_bytes, why_not_writable

    local = [] if "://" in project.store_root else [Path(project.store_root)]
    folders = [*local, project.state_folder]
    free = min(free_bytes(folder) for folder in folders)
    problems = list(dict.fromkeys(why for f in folders if (why := why_not_writable(f))))
    found = f"{free / 1e9:.1f} GB free" if free >= 1e9 else f"{free / 1e6:.0f} MB free"
    if problems:
        cure = (
            "Make room outside of the store, some MB (with them mlmon store maintain frees more), "
            "or give this user the right to write there; nothing can be stored until then."
        )
        return Finding("disk", False, f"{'; '.join(problems)} ({found})", cure)
    cure = "Make room before it is full: mlmon store maintain --dry-run shows what would go."
    return Finding("disk", free >= LEAST_FREE, f"{found}, can be written", cure)


def all_quarantined(project: Project) -> Finding:
    """Name every refused file that nothing replaced."""
    return _refused_files(project, None)


def quarantine(project: Project) -> Finding:
    """Name refused files of the last weeks that nothing replaced: what they hold is missing."""
    return _refused_files(project, project.now() - NEWS)


def _refused_files(project: Project, since: dt.datetime | None) -> Finding:
    from mlmon_dagster.spec.scalars import printable
    from mlmon_dagster.store.state import manifest

    found = []
    for spec in models_of(project).specs:
        files = manifest.load_files_frame(project.store.state, spec.model, seen_from=since)
        taken = set(files.loc[files["status"] == "done", "path"])  # corrected under its own name
        refused = files[(files["status"] == "quarantined") & ~files["path"].isin(taken)]
        found += [(spec.model, row) for row in refused.to_dict("records")]
    period = "" if since is None else f" since {since:%Y-%m-%d}"
    if not found:
        return Finding("quarantine", True, f"no refused files{period}")
    shown = _name_some([f"{printable(row['path'])} ({row['reason']})" for _, row in found])
    model, row = found[-1]
    cure = (
        "Land the corrected file under the same name, or correct the spec: then the next ingest "
        f"reads it again by itself. By hand: mlmon ingest {model} --replay {row['sha256'][:12]}"
    )
    return Finding("quarantine", False, f"{len(found)} refused files{period}: {shown}", cure)


def spans(project: Project) -> Finding:
    """Name files of spans that ingest could not read, and why."""
    from mlmon_dagster.ingest.spans import set_aside

    found = [
        f"{path} ({why})"
        for spec in models_of(project).specs
        if spec.spans is not None
        for path, why in set_aside(project.folder, spec.model).items()
    ]
    if not found:
        return Finding("spans", True, "every file of spans could be read")
    cure = (
        "Repair the file and take .refused off its name: the next ingest reads it; or delete it. "
        "mlmon collect writes whole lines of JSON: look whether the disk is sound, or who else "
        "writes there."
    )
    return Finding(
        "spans", False, f"{len(found)} files could not be read: {_name_some(found)}", cure
    )


def baselines(project: Project) -> Finding:
    """Name models that have events but nothing to compare them with."""
    from mlmon_dagster.store.baselines import baselines_in_force
    from mlmon_dagster.store.state import manifest

    without = []
    for spec in models_of(project).specs:
        engine = project.store.state
        taken = manifest.load_files_frame(engine, spec.model, "predictions", status="done")
        is_due = len(taken) and not spec.baseline.is_rolling  # those wait for their first windows
        if is_due and baselines_in_force(engine, spec).newest is None:
            without.append((spec.model, spec.baseline.described()))
    if not without:
        return Finding("baselines", True, "no model with events is without one")
    cure = (
        f"Land those events, then mlmon run {without[0][0]}; until then drift and performance "
        "have no verdict."
    )
    problems = [f"{model} has events and no baseline, which is {d}" for model, d in without]
    return _judge("baselines", problems, "", cure)


def tables(project: Project) -> list[Finding]:
    """Name everything that is not as it was kept."""
    from mlmon_dagster.store.upkeep.integrity import examine_store

    try:
        damages = list(examine_store(project.store))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return [Finding("what is kept", False, sentence(error) or str(error))]
    declared = {spec.model for spec in models_of(project).specs}
    log = project.store.root / "event_log"
    others = {
        damage.model
        for damage in damages
        if damage.model and damage.model not in declared and not (log / damage.model).tables()
    }
    damages = [damage for damage in damages if damage.model not in others]
    if not damages:
        n_tables = len(project.store.root.tables())
        found = f"{n_tables} tables, their logs and files, and the state agree"
        if others:
            found += f"; not looked at, as another project keeps them: {', '.join(sorted(others))}"
        return [Finding("what is kept", True, found)]
    return [
        Finding(damage.model or "store", False, f"{damage.place}: {damage.found}", damage.cure)
        for damage in damages
    ]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: What it is.
        is_fine: Whether it works.
        found: What was found.
        cure: The next step, if it does not work.
    """

    subject: str
    is_fine: bool
    found: str
    cure: str = ""


def render_findings(findings: list[Finding]) -> str:
    """Return the findings as lines, with a cure under each that is not fine."""
    lines = []
    for finding in findings:
        lines.append(f"{'ok  ' if finding.is_fine else 'FIX '} {finding.subject}: {finding.found}")
        if not finding.is_fine and finding.cure:
            lines.append(f"     -> {finding.cure}")
    return "\n".join(lines)
