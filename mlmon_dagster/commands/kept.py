"""What the doctor says of what is kept: the disk, refused files, baselines, and every table."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

from mlmon_dagster.commands.findings import Finding
from mlmon_dagster.commands.options import models_of
from mlmon_dagster.commands.outside import sentence

if TYPE_CHECKING:
    from mlmon_dagster.project import Project

NEWS = dt.timedelta(days=30)  # refused files that are older are told by --deep alone


def disk(project: Project) -> Finding:
    """Write something beside the state and the tables, and say how much room is left."""
    from mlmon_dagster.store.places.disk import LEAST_FREE, free_bytes, why_not_writable

    local = [] if "://" in project.store_root else [Path(project.store_root)]
    folders = [*local, project.state_folder]
    free = min(free_bytes(folder) for folder in folders)
    problems = list(dict.fromkeys(why for f in folders if (why := why_not_writable(f))))
    found = f"{free / 1e9:.1f} GB free" if free >= 1e9 else f"{free / 1e6:.0f} MB free"
    if problems:
        return Finding(
            "disk",
            False,
            f"{'; '.join(problems)} ({found})",
            "Make room (mlmon store maintain), or give this user the right to write there; nothing "
            "can be taken in until then.",
        )
    return Finding(
        "disk",
        free >= LEAST_FREE,
        f"{found}, can be written",
        "Make room before it is full: mlmon store maintain --dry-run shows what would go.",
    )


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
        files = manifest.files(project.store.state, spec.model, seen_from=since)
        taken = set(files.loc[files["status"] == "done", "path"])  # corrected under its own name
        refused = files[(files["status"] == "quarantined") & ~files["path"].isin(taken)]
        found += [(spec.model, row) for row in refused.to_dict("records")]
    period = "" if since is None else f" since {since:%Y-%m-%d}"
    if not found:
        return Finding("quarantine", True, f"no refused files{period}")
    shown = "; ".join(f"{printable(row['path'])} ({row['reason']})" for _, row in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    model, row = found[-1]
    return Finding(
        "quarantine",
        False,
        f"{len(found)} refused files{period}: {shown}{more}",
        "Land the corrected file under the same name, or correct the spec: then the next ingest "
        f"reads it again by itself. By hand: mlmon ingest {model} --replay {row['sha256'][:12]}",
    )


def baselines(project: Project) -> Finding:
    """Name models that have events but nothing to compare them with."""
    from mlmon_dagster.store.baselines.fitted_baselines import newest
    from mlmon_dagster.store.state import manifest

    without = []
    for spec in models_of(project).specs:
        engine = project.store.state
        taken = manifest.files(engine, spec.model, "predictions", status="done")
        is_due = len(taken) and not spec.baseline.is_rolling  # those wait for their first windows
        if is_due and newest(engine, spec.model) is None:
            without.append((spec.model, spec.baseline.described()))
    if not without:
        return Finding("baselines", True, "no model with events is without one")
    return Finding(
        "baselines",
        False,
        "; ".join(f"{m} has events and no baseline, which is {d}" for m, d in without),
        f"Land those events, then mlmon run {without[0][0]}; until then drift and performance "
        "have no verdict.",
    )


def kept(project: Project) -> list[Finding]:
    """Name everything that is not as it was kept."""
    from mlmon_dagster.store.upkeep.integrity import examine_store

    try:
        damages = list(examine_store(project.store))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return [Finding("what is kept", False, sentence(error) or str(error))]
    if not damages:
        n_tables = len(project.store.root.tables())
        found = f"{n_tables} tables, their logs and files, and the state agree"
        return [Finding("what is kept", True, found)]
    return [
        Finding(damage.model or "store", False, f"{damage.place}: {damage.found}", damage.cure)
        for damage in damages
    ]
