"""What breaks outside the data, as a family ``pipeline``: runs, checks, ticks, daemons.

They go the same way as every other alert: identity, threads, silences and retries are the same.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from mlmon_dagster.spec.names import TABLE
from mlmon_dagster.store import Store, alert_state
from mlmon_dagster.store.state.schema import monitor_result
from mlmon_dagster.store.state.sql import insert_or_ignore

Kind = Literal[
    "run", "check", "file", "stuck", "planning", "backlog", "source", "tick", "daemon", "spec"
]

Unsettled = dict[tuple[str, str, str], str]

_MAX_MESSAGE = 500
_SENTENCES: dict[Kind, str] = {
    "run": "A run failed",
    "check": "A check crashed",
    "file": "A file was quarantined",
    "stuck": "A run does not get on",
    "planning": "New data could not be looked at",
    "backlog": "Landing files pile up",
    "source": "Landing files cannot be read",
    "tick": "A sensor or schedule fails",
    "daemon": "A daemon of Dagster is silent",
    "spec": "A model does not load and is not monitored",
}


@dataclass(frozen=True)
class RunFailure:
    """Something that went wrong outside the data.

    Attributes:
        model: The model it was for.
        run_id: Dagster's run, or another name of this very failure: the same one counts once.
        when: When it failed; timezone-aware. The alert's window starts here.
        message: The error; its first line is shown.
        kind: What failed.
        owner: Who is to act; the model's owners if empty.
        subject: Which of its kind, such as the sensor's name; each has an alert of its own.
        in_a_row: Failures in a row that make an alert; a single tick may time out.
    """

    model: str
    run_id: str
    when: dt.datetime
    message: str
    kind: Kind = "run"
    owner: str = ""
    subject: str = ""
    in_a_row: int = 1


@dataclass(frozen=True)
class RunSuccess:
    """A later run that went well and ends the alert of its kind and subject."""

    model: str
    run_id: str
    when: dt.datetime
    kind: Kind = "run"
    subject: str = ""
    in_a_row: int = 1


Observed = RunFailure | RunSuccess


def observe_runs(store: Store, found: Iterable[Observed], *, now: dt.datetime) -> int:
    """Write failures and recoveries as monitor results; the next fold takes them in.

    The same run may be reported any number of times. A success that is older than the last failure
    changes nothing.

    Returns:
        How many of them were new.
    """
    rows = [_write_row(one, now) for one in found]
    rows.sort(key=lambda row: (row["model"], row["window_start"]))
    if not rows:
        return 0
    with store.state.begin() as conn:
        return insert_or_ignore(conn, monitor_result, rows)


def settle_failures(
    store: Store,
    model: str,
    kind: Kind,
    failing: Mapping[str, str],
    *,
    when: dt.datetime,
    now: dt.datetime,
    in_a_row: int = 1,
) -> int:
    """Write what of one kind fails at a look, what fires already not again, and what has ended.

    Args:
        store: Where the alerts are.
        model: The model they are of.
        kind: What fails.
        failing: Subject -> the error; empty where it goes on without anything new to say.
        when: The real moment of the look.
        now: The project's moment.
        in_a_row: Failures in a row that make an alert.

    Returns:
        How many results were new.
    """
    known = {
        subject: state for (_, of, subject), state in unsettled(store, model).items() if of == kind
    }
    look = f"{kind} {when:%Y%m%dT%H%M%S%f}"
    failures = [
        RunFailure(model, look, when, error, kind, subject=subject, in_a_row=in_a_row)
        for subject, error in failing.items()
        if error and known.get(subject) != "FIRING"
    ]
    well = [
        RunSuccess(model, f"no {look}", when, kind, subject, in_a_row)
        for subject in sorted(set(known) - set(failing))
    ]
    return observe_runs(store, [*failures, *well], now=now)


def _write_row(event: Observed, now: dt.datetime) -> dict[str, object]:
    row: dict[str, object] = {
        "model": event.model,
        "monitor": "/".join(("pipeline", event.kind, *([event.subject] if event.subject else []))),
        "family": "pipeline",
        "metric": f"failed_{event.kind}",
        "column_name": event.subject or TABLE,
        "k": event.in_a_row,
        "of_n": event.in_a_row,
        "window_start": event.when,
        "window_end": event.when,
        "data_version": event.run_id,
        "run_id": event.run_id,
        "created_at": now,
    }
    if isinstance(event, RunSuccess):
        return row | {"status": "OK", "message": "", "owner": ""}
    first_line = next(iter(event.message.strip().splitlines()), "")[:_MAX_MESSAGE]
    said = _SENTENCES[event.kind] + (f": {first_line}" if first_line else "")
    return row | {"status": "ERROR", "message": said, "owner": event.owner}


def unsettled(store: Store, model: str | None = None) -> Unsettled:
    """Return the state of the failures that have not ended, or that may be beginning.

    Only these need to be told when all is well again, and what fires need not be told again.

    Returns:
        State of the alert by (model, kind, subject).
    """
    return {
        (
            row["model"],
            row["metric"].removeprefix("failed_"),
            "" if row["column_name"] == TABLE else row["column_name"],
        ): str(row["state"])
        for row in alert_state.unsettled(store.state, "pipeline", model)
    }
