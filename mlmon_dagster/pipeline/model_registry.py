"""The model registry: aliases that move become events, and the gate leaves its word on a version.

Nothing here stops monitoring: a registry that does not answer is noted, and `mlmon doctor` says so.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from mlmon_dagster.errors import StoreError
from mlmon_dagster.families.versions import Served
from mlmon_dagster.profiles.compiler import NO_VERSION
from mlmon_dagster.project import Project, wall_clock
from mlmon_dagster.spec import ModelSpec, Window, complete_windows
from mlmon_dagster.spec.declaration import Registry
from mlmon_dagster.store import mlflow_registry
from mlmon_dagster.store.clocks import measure_age
from mlmon_dagster.store.mlflow_registry import (
    Known,
    MlflowRegistry,
    Move,
    RegistryAwayError,
    RegistryLook,
    Version,
    version_link,
)
from mlmon_dagster.work import Numbers, Work

if TYPE_CHECKING:
    from mlmon_dagster.pipeline.gate import Gate

EVERY = dt.timedelta(minutes=5)  # one request a model
GATE, GATE_AT, GATE_WHY = "mlmon.gate", "mlmon.gate.at", "mlmon.gate.why"


def registry_of(declared: Registry, variable: Callable[[str], str | None]) -> MlflowRegistry:
    """Open the registry that a spec declares; nothing is asked yet.

    Raises:
        StoreError: If a variable is not set, or holds no web address.
    """
    url = variable(declared.url_env)
    token = variable(declared.token_env) if declared.token_env else None
    missing = [n for n, v in ((declared.url_env, url), (declared.token_env, token)) if n and not v]
    if url is None or missing:
        raise StoreError(
            f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not set where this "
            "runs, so MLflow is not asked. Set it for Dagster's daemon and for runs."
        )
    return MlflowRegistry.at(url, token)


def look_at_registry(project: Project, spec: ModelSpec) -> None:
    """Ask which versions the aliases name, if the last look is `EVERY` ago or longer.

    A server that let one model wait in vain is left alone for a minute by the others.
    """
    declared = spec.registry
    if declared is None:
        return
    engine, now = project.store.state, wall_clock()
    last = mlflow_registry.load_last_look(engine, spec.model)
    if last is not None and measure_age(last.looked_at, now) < EVERY:
        return
    if mlflow_registry.is_away(engine, declared.url_env, now - dt.timedelta(minutes=1), now):
        return
    try:
        ask_registry(project, spec)
    except StoreError as error:
        _note(project, spec, error)


def ask_registry(project: Project, spec: ModelSpec) -> Known:
    """Ask now, and note what is new.

    Raises:
        StoreError: If there is no answer.
    """
    declared = spec.registry
    assert declared is not None
    engine = project.store.state
    server = registry_of(declared, project.variables)
    named = server.aliases(declared.mlflow)
    last = mlflow_registry.load_last_look(engine, spec.model)
    stored = last.known if last is not None else Known()
    known = stored if stored.name == declared.mlflow else Known(name=declared.mlflow)
    moves, versions = list(known.moves), dict(known.versions)
    for alias in declared.aliases:
        number = named.get(alias, "")
        if number == known.now(alias):
            continue
        if number and number not in versions:
            found = server.version(declared.mlflow, number)
            versions |= {number: found} if found is not None else {}
        moves.append(Move(alias=alias, version=number, at=project.now()))
    update = {"address": server.url, "versions": versions, "moves": tuple(moves)}
    after = known.model_copy(update=update)
    mlflow_registry.note_known(engine, spec.model, declared.url_env, stored, after, wall_clock())
    return after


def registry_numbers(work: Work) -> Numbers:
    """Return which version each alias names and what it was trained on, for an asset's metadata."""
    last = _last(work.project, work.spec)
    if last is None or work.spec.registry is None:
        return {}
    found: Numbers = {"registry": last.problem} if last.problem else {}
    for alias in work.spec.registry.aliases:
        if number := last.known.now(alias):
            where = last.known.versions[number].text() if number in last.known.versions else ""
            found[f"registry/{alias}"] = f"version {number}" + (f"; {where}" if where else "")
            found[f"registry/{alias}/page"] = version_link(
                last.known.address, last.known.name, number
            )
    return found


def tell_gate(project: Project, spec: ModelSpec, gate: Gate) -> str:
    """Write what a gate found onto the version that it is about; return what was done, in words.

    That is the version that answered most of the newest judged window, where events say which, else
    the one that the first alias named throughout it. Where nobody can tell, nothing is written.
    """
    declared = spec.registry
    if declared is None or not declared.tags:
        return ""
    window = _window_of(spec, gate, project.now())
    if window is None:
        return "No tag was written to MLflow: no window is judged yet."
    try:
        known = ask_registry(project, spec)
        server = registry_of(declared, project.variables)
        version = _version_of(project, spec, server, known, window)
        if version is None:
            return (
                f"No tag was written to MLflow: it is not known which version of "
                f"{declared.mlflow!r} answered in {window.key}."
            )
        said = "passed" if gate.is_open else "failed"
        tags = {
            GATE: said,
            GATE_AT: project.now().isoformat(timespec="seconds"),
            GATE_WHY: gate.text(),
        }
        server.tag(declared.mlflow, version, tags)
    except StoreError as error:
        _note(project, spec, error)
        return f"No tag was written: {error}"
    return f"MLflow: {GATE}={said} on version {version} of {declared.mlflow!r}."


def _window_of(spec: ModelSpec, gate: Gate, now: dt.datetime) -> Window | None:
    """Return the newest window that closes a gate, or that an open one rests on."""
    from mlmon_dagster.store.state.monitor_results import name_window

    closing = {standing.window for standing in gate.closed_by if standing.window}
    named = closing or {standing.window for standing in gate.families}
    windows = reversed(complete_windows(spec.time, now))
    return next((w for w in windows if name_window(spec, w.start) in named), None)


def _version_of(
    project: Project, spec: ModelSpec, server: MlflowRegistry, known: Known, window: Window
) -> str | None:
    declared = spec.registry
    assert declared is not None
    logged = None
    if spec.has_versions:
        idle = Work(project, spec, (window,), project.now(), "", False)
        logged = Served(idle).deployed(window.start)
    if logged and logged != NO_VERSION:
        number = next((v.number for v in known.versions.values() if v.run_id == logged), logged)
        found: Version | None = known.versions.get(number)
        if found is None and number.isdecimal():
            found = server.version(declared.mlflow, number)
        return None if found is None else found.number
    return known.at(declared.aliases[0], window.start, window.end) or None


def _last(project: Project, spec: ModelSpec) -> RegistryLook | None:
    if spec.registry is None:
        return None
    last = mlflow_registry.load_last_look(project.store.state, spec.model)
    if last is None or last.known.name in ("", spec.registry.mlflow):
        return last
    return replace(last, known=Known(name=spec.registry.mlflow))


def _note(project: Project, spec: ModelSpec, error: StoreError) -> None:
    assert spec.registry is not None
    is_away = isinstance(error, RegistryAwayError)
    mlflow_registry.note_problem(
        project.store.state,
        spec.model,
        spec.registry.url_env,
        str(error),
        wall_clock(),
        away=is_away,
    )
