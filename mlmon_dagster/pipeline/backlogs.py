"""Landing files that come faster than they are taken in, as an observation for the alerts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from mlmon_dagster.project import Project
from mlmon_dagster.store.state.manifest import Backlog

BACKLOG_AFTER = dt.timedelta(minutes=10)


def note_backlog(
    project: Project, model: str, before: Mapping[str, Backlog], now: Mapping[str, Backlog]
) -> None:
    """Record that a model's files arrive faster than they are taken in, or no longer.

    Files count once they could have been read for ten minutes. While there are fewer at every
    look, as after many came at once, nothing is wrong.

    Args:
        project: Where the state is.
        model: Whose files.
        before: What the look before left, by stream.
        now: What this look left.
    """
    from mlmon_dagster.alerts import RunFailure, RunSuccess, observe_run_failures
    from mlmon_dagster.alerts.lifecycle.pipeline_failures import unsettled

    real_now = dt.datetime.now(dt.UTC)
    late = {
        stream: left
        for stream, left in now.items()
        if left.left_since is not None and real_now - left.left_since >= BACKLOG_AFTER
    }
    known = {
        subject: state
        for (_, kind, subject), state in unsettled(project.store, model).items()
        if kind == "backlog"
    }
    mark = f"{real_now:%Y%m%dT%H%M%S%f}"
    failures = []
    for stream, left in late.items():
        grows = left.n_left >= before.get(stream, Backlog()).n_left
        if grows and left.left_since is not None and known.get(stream) != "FIRING":
            minutes = (real_now - left.left_since).total_seconds() / 60
            text = (
                f"{left.n_left:,} complete files of {stream} wait, the oldest for {minutes:.0f} "
                "min: they come faster than they are taken in. Fewer and larger files, or "
                f"mlmon ingest {model}, which takes its time, help."
            )
            failures.append(
                RunFailure(
                    model, f"backlog {mark}", real_now, text, "backlog", subject=stream, in_a_row=2
                )
            )
    well = [
        RunSuccess(model, f"no backlog {mark}", real_now, "backlog", stream, in_a_row=2)
        for stream in known
        if stream not in late
    ]
    observe_run_failures(project.store, failures, well, now=project.now())
