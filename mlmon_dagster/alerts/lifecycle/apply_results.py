"""Monitor results in, alerts and their history out.

A broken window explains its own drift and performance, a broken column its drift. A window is
broken when its rows did not arrive (freshness fails), or when what arrived is not what the model
saw: files refused as a whole, more rows that cannot be stored than a file may have, or another
failing ERROR of the schema. A few of them, rows that a rule refuses, or a WARN, leave the rest of
the window fit to judge. A column whose values are missing, unseen or out of range has drifted for
that reason.

Columns whose quality fails at once are one alert: one feed is down, not seven columns. And families
that could not be judged for long are an alert too, one for each condition that keeps them from it.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import TypeVar, cast

import sqlalchemy as sa

from mlmon_dagster.alerts.lifecycle.transitions import (
    DEFAULT_ENVIRONMENT,
    MEMORY,
    STATUS_RANK,
    AlertState,
    Episode,
    Nature,
    Opinion,
    Turn,
    Verdict,
    failed,
    fingerprint,
    forget_ahead,
    is_known,
    keep_state,
    new_row,
    read_turn,
    replayed_from,
    resolve,
    revise,
    state_of,
    step,
)
from mlmon_dagster.alerts.messages.view import local_moment
from mlmon_dagster.monitors.change_wording import percent
from mlmon_dagster.monitors.wording import NAMES, headline, limit_of, told
from mlmon_dagster.spec.baseline import GRAINS
from mlmon_dagster.spec.declaration import Granularity
from mlmon_dagster.spec.known_events import EVENT, find_known, list_days
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.monitors import FAMILIES, SUSTAINED_SHIFT
from mlmon_dagster.spec.names import (
    ALL,
    DRIFT,
    FRESHNESS,
    NO_VERDICT,
    QUALITY,
    SCHEMA,
    SERVICE,
    TABLE,
)
from mlmon_dagster.spec.windows import window_containing
from mlmon_dagster.store import Store, alert_state
from mlmon_dagster.store.alert_state import AlertEvent, AlertRow, StoredEvent
from mlmon_dagster.store.known_events import load_known
from mlmon_dagster.store.state import writing
from mlmon_dagster.store.state.monitor_results import Finding, MonitorResult, StoredResult

Result = TypeVar("Result", MonitorResult, StoredResult)
WINDOWS_UNTIL_MISSING = 2
RETIRED_AFTER = dt.timedelta(days=1)
_BATCH = 5000
# What an alert's details say of its newest window, whether that failed or not.
_OF_NEWEST = ("newest_value", "newest_message", "newest_window_end", "judged_at")
_OVERDUE = "actuals_missing"  # ground truth that comes ends it; it was late all the same
_TURN = "changed"  # since when its episode is of another nature, and what it said before
_OF_DATA = (QUALITY, DRIFT, SERVICE)  # whose alerts say when they change their nature
# Reasons that are one condition, as one thing mends them; every other reason is its own.
_CONDITIONS = {
    "few_of_rarer_class": "few_rows",
    "few_independent_rows": "few_rows",
    "learning": "no_baseline",
    "not_in_baseline": "no_baseline",
    "few_baseline_rows": "no_baseline",
    "few_baseline_rarer": "no_baseline",
    "baseline_no_actuals": "no_baseline",
    "few_windows": "no_baseline",
}
_AT_ONCE = ("no_baseline",)
_WHEN_MATURE = ("no_actuals",)
# Told by other alerts, over by themselves, or known to whoever installed it.
_EXPLAINED = (
    "no_rows", "no_records", "not_expected", "holiday", "given_by_window", "files_unread",
    "files_refused", "schema", "labels_still_coming", "arrival_unknown", "no_actuals",
    "no_scikit_learn", "undecided", "few_shared_windows", "sample_ratio",
)  # fmt: skip
# Windows with predictions in a row without a verdict: a week of days, two days of hours.
_PATIENCE: dict[Granularity, int] = {"hour": 48, "day": 7, "week": 3, "month": 2}
_NEXT = {
    "moving_baseline": "Declare baseline: {dataset: validation}, or promote a period as baseline.",
    "not_in_baseline": "Is it called otherwise now? If it is new, promote a baseline that has it.",
    "few_rows": "Choose a coarser time.granularity, or lower the monitor's min_rows.",
    "few_of_rarer_class": "Choose a coarser time.granularity, so that a window holds more of them.",
}
CAUSES = tuple(f.name for f in FAMILIES.values() if f.breaks_windows or f.breaks_columns)
WHOLE = ""  # instead of a column: the cause concerns the window
Causes = Mapping[tuple[dt.datetime, str, str], str]
SEVERAL = 3  # columns
_MOST = 8  # that are named


def fold_results(
    store: Store,
    specs: Sequence[ModelSpec],
    now: dt.datetime,
    *,
    environment: str = DEFAULT_ENVIRONMENT,
) -> int:
    """Take the new monitor results of some models into their alerts.

    Safe to run in several processes at once and to be killed: results, alerts and history change
    in one transaction, and a result is taken in once.

    Args:
        store: Where the state database is.
        specs: The models; results of other models wait.
        now: The time written beside the changes.
        environment: Part of an alert's identity, such as ``production`` or ``staging``.

    Returns:
        How many results were taken in.
    """
    n_folded = 0
    waiting = set(alert_state.models_with_new_results(store.state))
    for spec in [spec for spec in specs if spec.model in waiting]:
        more = True
        while more:
            with alert_state.exclusive(store.state, f"alerts:{spec.model}") as conn:
                n_batch, more = _fold_batch(conn, spec, now, environment)
                writing.reached("fold.before_commit")
            writing.reached("fold.committed")
            n_folded += n_batch
        with alert_state.exclusive(store.state, f"alerts:{spec.model}") as conn:
            _resolve_missing(conn, spec.model, now)
    return n_folded


def retire_undeclared(
    store: Store,
    specs: Sequence[ModelSpec],
    now: dt.datetime,
    *,
    waiting: Collection[str] = (),
) -> list[str]:
    """End the alerts of models that are not monitored any more.

    A model that another project declares on the same state database still gets verdicts; one that
    has been taken away does not. So only models without a verdict for a day are ended.

    Args:
        store: Where the state database is.
        specs: All the monitored models, not a selection.
        now: The time written beside the changes.
        waiting: Models whose declaration does not load; they are not gone.

    Returns:
        The models that are gone and of which a receiver has still to be told.
    """
    declared = {spec.model for spec in specs} | set(waiting)
    undeclared = set(alert_state.models_to_flush(store.state)) - declared
    gone = []
    for model in sorted(undeclared):
        with alert_state.exclusive(store.state, f"alerts:{model}") as conn:
            last = alert_state.last_result(conn, model)
            if last is not None and last > now - RETIRED_AFTER:
                continue
            end_all(conn, model, "model_removed", now)
        gone.append(model)
    return gone


def end_all(conn: sa.Connection, model: str, reason: str, now: dt.datetime) -> int:
    """End every active alert of a model; return how many those were."""
    rows = alert_state.load_alerts(conn, model, states=alert_state.ACTIVE).values()
    for row in rows:
        _end_episode(conn, row, reason, row["last_window_start"], now)
    return len(rows)


def _fold_batch(
    conn: sa.Connection, spec: ModelSpec, now: dt.datetime, environment: str
) -> tuple[int, bool]:
    """Take in one batch; return its size and whether there may be more."""
    model, limit, zone = spec.model, spec.source.predictions.max_bad_rate, spec.time.zone
    read = alert_state.new_results(conn, model, _BATCH)
    results = _leave_cut_window(read)
    alerts = alert_state.load_alerts(conn, model)
    touched: set[str] = set()
    events: list[AlertEvent] = []
    windows = sorted({result["window_start"] for result in results})
    causes = failing_causes(conn, spec, windows)
    late: dict[str, list[StoredResult]] = {}
    newest = max(now, alert_state.newest_window(conn, model) or now)
    # Window by window, so that many at once are told as if each had been looked at when it came.
    for window, rows in groupby(results, key=lambda r: r["window_start"]):
        happened: list[AlertEvent] = []
        of_window = list(rows)
        unjudged = _find_unjudged(conn, spec, of_window, alerts.values())
        taken = (*join_columns(_keep_newest(of_window)), *unjudged)
        for result in sorted(taken, key=lambda one: one["metric"] == SUSTAINED_SHIFT):
            key = fingerprint(result, environment)
            if result["status"] == "NO_DATA" or _is_told_by_drift(spec, result, alerts, key):
                continue
            row = alerts.setdefault(key, new_row(result, environment, now))
            touched.add(key)
            forget_ahead(row, window, newest)
            if is_known(state_of(row), window):
                # What kept an older window from a verdict is no news: the newest says if it lasts.
                if row["metric"] != NO_VERDICT or window == row["last_window_start"]:
                    late.setdefault(key, []).append(result)
                continue
            # What is late of an alert comes before what is new of it, and is taken in as a whole.
            happened += _take_in_late(conn, row, late.pop(key, ()), now, limit, zone)
            breaks = breaks_window(result, limit)
            happened += _take_in(conn, row, result, now, zone, breaks=breaks)
        touched |= mute(alerts.values(), happened, causes, [window])
        events += happened
    for key, past in late.items():
        events += _take_in_late(conn, alerts[key], past, now, limit, zone)
    older = sorted({event["window_start"] for event in events} - set(windows))
    causes = {**causes, **(failing_causes(conn, spec, older) if older else {})}
    touched |= mute(alerts.values(), events, causes, windows)
    alert_state.save_alerts(conn, [alerts[key] for key in sorted(touched)])
    alert_state.append_events(conn, events)
    alert_state.mark_folded(conn, [result["id"] for result in results], now)
    return len(results), len(read) == _BATCH


def _keep_newest(results: Iterable[StoredResult]) -> list[StoredResult]:
    """Return the last verdict of each monitor and slice on a window, NO_DATA apart.

    What was corrected before anybody looked is not told: it was never known.
    """
    found: dict[tuple[str, ...], StoredResult] = {}
    for row in results:
        if row["status"] != "NO_DATA":
            key = (row["monitor"], row["dataset"], row["slice_key"], row["slice_value"])
            found.pop(key, None)
            found[key] = row
    return list(found.values())


def _leave_cut_window(results: Sequence[StoredResult]) -> Sequence[StoredResult]:
    """Leave a last window that the batch's end may have cut for the next batch."""
    if len(results) < _BATCH:
        return results
    last = results[-1]["window_start"]
    return [result for result in results if result["window_start"] != last] or results


def _take_in(
    conn: sa.Connection,
    row: AlertRow,
    result: StoredResult,
    now: dt.datetime,
    zone: str,
    *,
    breaks: bool,
) -> list[AlertEvent]:
    """Change the alert row by a result on a newer window and return the events to write."""
    after, kinds = step(state_of(row), _read_verdict(result), k=result["k"], n=result["of_n"])
    keep_state(row, after)
    _keep_newest_window(row, result, now, breaks)
    if {"opened", "escalated", "resolved"} & set(kinds):
        row |= {"acked_by": "", "acked_at": None}
    if "opened" in kinds:
        _open_episode(row, now, "backfill" if result["is_backfill"] else "")
        _keep_turn(row, "")
        if sum(failed(known.status) for known in after.recent[-result["of_n"] :]) < result["k"]:
            severe = {"severe": f"{result['k']} of {result['of_n']}"}
            row["details"] = json.dumps(json.loads(row["details"]) | severe)
    if "resolved" in kinds:
        row |= {"resolved_at": now, "resolved_reason": "recovered"}
        if row["muted_reason"] == "backfill" and not result["is_backfill"]:
            row["muted_reason"] = ""  # it outlived the backfill that it came with
    events = [write_event(row, kind, result["window_start"], result, now) for kind in kinds]
    if "changed" in kinds:
        events[-1]["message"], before = _tell_turn(conn, read_turn(after), zone)
        _keep_turn(row, before)
    return events


def _read_verdict(result: StoredResult) -> Verdict:
    evidence = result["excess"], result["excess_error"]
    nature = _read_nature(result)
    return Verdict(result["window_start"], result["status"], result["id"], *evidence, nature)


def _read_nature(result: StoredResult) -> Nature:
    """Return what a window of the data families is like; of others a change is no news."""
    if result["family"] not in _OF_DATA or result["metric"] == NO_VERDICT:
        return Nature()
    details = json.loads(result["details"] or "{}")
    is_share = result["metric"].endswith("_rate") and result["metric"] != "burn_rate"
    value = result["value"]
    if value is not None and result["family"] == DRIFT:
        value -= result["baseline_value"] or 0.0  # of a distance what chance gives
    return Nature(
        value=None if value is None else round(value, 9),
        rows=result["n"] if is_share else 0,
        term=details.get("term", ""),
        place=details.get("place"),
        width=details.get("width"),
        beside=tuple(details.get("beside", ())),
    )


def _tell_turn(conn: sa.Connection, turn: Turn, zone: str) -> tuple[str, str]:
    """Return what an alert says since a change of nature, and since when, with what it said."""
    said = alert_state.load_messages(conn, (turn.was, turn.now))
    was, now = headline(said.get(turn.was, "")), said.get(turn.now, "")
    before = f"since {local_moment(turn.since, zone)}" + (f", before: {was}" if was else "")
    return told(headline(now), f"{before[:1].upper()}{before[1:]}"), before


def _keep_turn(row: AlertRow, before: str) -> None:
    row["details"] = json.dumps({**json.loads(row["details"]), _TURN: before})


def _open_episode(row: AlertRow, now: dt.datetime, muted: str) -> None:
    row |= {"opened_at": now, "resolved_at": None, "resolved_reason": "", "muted_reason": muted}


def _take_in_late(
    conn: sa.Connection,
    row: AlertRow,
    results: Sequence[StoredResult],
    now: dt.datetime,
    max_bad_rate: float,
    zone: str,
) -> list[AlertEvent]:
    """Change the alert row by results on windows that are not newer, all of them at once.

    Args:
        conn: The transaction.
        row: The alert.
        results: What came late of it, in the order of windows and then of ids.
        now: The time written beside the changes.
        max_bad_rate: The share of bad rows from which a window counts as broken.
        zone: Time zone of the model.

    Returns:
        The events to write.
    """
    if not results:
        return []
    before, history = state_of(row), alert_state.events_of(conn, row["fingerprint"])
    episodes = _read_episodes(history)
    start = replayed_from(episodes, results[0]["window_start"])
    known = _collect_opinions(conn, row, before, results[0], start)
    news = {r["window_start"]: r for r in results if _is_news(known.get(r["window_start"]), r)}
    newest = results[-1]
    if newest["window_start"] == row["last_window_start"]:
        _keep_newest_window(row, newest, now, breaks_window(newest, max_bad_rate))
    if not news:
        return []
    opinions = {start: opinion for start, (opinion, _) in known.items()}
    opinions |= {w: Opinion(_read_verdict(r), r["k"], r["of_n"]) for w, r in news.items()}
    revision = revise(before, episodes, [opinions[w] for w in sorted(opinions)], set(news))
    keep_state(row, revision.after)
    # Of the same rows, as the spec or the baseline is another one now: no news, but listed.
    again = {w for w, r in news.items() if w in known and known[w][1] == _hash_rows(r)}
    silent = {e["episode"]: e["muted_reason"] for e in history if _is_silent(e)}
    events: list[AlertEvent] = []
    for kind, episode, window, is_late, is_news in revision.changes:
        about = [r for w, r in news.items() if episode.first <= w <= episode.last] or [newest]
        worst = max(about, key=_rate_badness)
        takes_back = kind == "withdrawn" or (kind == "revised" and is_late)
        if row["metric"] == _OVERDUE and takes_back and not failed(worst["status"]):
            continue
        is_told = is_news and any(
            not r["is_backfill"] and r["window_start"] not in again for r in about
        )
        muted = "" if is_told else "backfill"
        if is_late:
            hidden = silent.get(episode.number, "")
            muted = hidden if hidden and (kind == "withdrawn" or hidden != "backfill") else muted
        elif kind == "opened":
            _open_episode(row, now, muted)
            _keep_turn(row, "")
            if failed(worst["status"]):
                _keep_failure(row, worst, breaks_window(worst, max_bad_rate))
        else:
            muted = row["muted_reason"]
        if not is_late and kind in ("opened", "escalated", "resolved"):
            row |= {"acked_by": "", "acked_at": None}
        if not is_late and kind == "resolved":
            reason = "revised" if set(news) - again else "recomputed"
            row |= {"resolved_at": now, "resolved_reason": reason}
        if not is_late and kind == "withdrawn" and row["resolved_reason"] == "revised":
            row["resolved_reason"] = "withdrawn"
        event = write_event(row, kind, window, worst, now)
        if (
            not failed(worst["status"])
            or not episode.first <= worst["window_start"] <= episode.last
        ):
            event |= {"message": "", "value": None}  # what was said of it before stays said
        if kind == "changed":
            (turn,) = (turn for turn in episode.turns if turn.window == window)
            event["message"], change = _tell_turn(conn, turn, zone)
            if not is_late:
                _keep_turn(row, change)
        event |= {
            "episode": episode.number,
            "is_late": is_late,
            "first_window": episode.first,
            "last_window": episode.last,
            "severity": episode.severity,
            "muted_reason": muted,
        }
        events.append(event)
    return events


def _is_silent(event: StoredEvent) -> bool:
    """Whether nobody was told that an episode opened."""
    return event["kind"] == "opened" and event["muted_reason"] != "" and not event["message_key"]


def _rate_badness(result: StoredResult) -> tuple[int, float, dt.datetime]:
    excess = -math.inf if result["excess"] is None else result["excess"]
    return (STATUS_RANK[result["status"]], excess, result["window_start"])


def _read_episodes(events: Sequence[StoredEvent]) -> list[Episode]:
    """Return the episodes of an alert that stand, as its events tell them, oldest first."""
    found, turns = dict[int, Episode](), dict[int, list[Turn]]()
    for event in events:
        number, first, last = event["episode"], event["first_window"], event["last_window"]
        if event["kind"] == "acknowledged" or first is None or last is None:
            continue
        if event["kind"] == "changed":
            window = event["window_start"]
            turns.setdefault(number, []).append(Turn(window, window, 0, 0))
        if event["kind"] == "withdrawn":
            found.pop(number, None)
            continue
        old = found.get(number)
        ended = old.ended if old else None
        if event["kind"] == "resolved" or (ended is not None and event["kind"] != "changed"):
            ended = event["window_start"]
        found[number] = Episode(
            number=number,
            first=first,
            last=last,
            ended=ended,
            severity=event["severity"],
            opened_in=old.opened_in if old else event["window_start"],
            turns=tuple(turns.get(number, ())),
        )
    return [found[number] for number in sorted(found)]


_Known = dict[dt.datetime, tuple[Opinion, str]]


def _collect_opinions(
    conn: sa.Connection,
    row: AlertRow,
    before: AlertState,
    result: StoredResult,
    start: dt.datetime,
) -> _Known:
    """Return what an alert has taken in: by window the opinion and the rows it was formed on.

    What is told of windows that could not be judged is no verdict of a monitor, and is known as far
    back as the alert remembers.
    """
    if row["metric"] == NO_VERDICT:
        k, n = result["k"], result["of_n"]
        return {v.window_start: (Opinion(v, k, n), "") for v in before.recent}
    memory = max(MEMORY, result["of_n"])
    taken = alert_state.results_taken_in(conn, row, start, memory)
    about = (row["monitor"], row["column_name"])
    return {
        one["window_start"]: (Opinion(_read_verdict(one), one["k"], one["of_n"]), _hash_rows(one))
        for one in join_columns(taken)
        if (one["monitor"], one["column_name"]) == about
    }


def _hash_rows(result: MonitorResult) -> str:
    """Return the fingerprint of what a verdict was formed on: of freshness also what time made it.

    Rows that do not come are late by the clock alone, which is news as a correction is. So is what
    a window that was judged early shows by the same rows once nothing more is waited for.
    """
    version, family = str(result["data_version"]), FAMILIES.get(result["family"])
    if family is not None and family.is_by_clock:
        return version
    return version.partition(":")[0] + (":early" if result["maturity"] == "early" else "")


def _is_news(known: tuple[Opinion, str] | None, result: StoredResult) -> bool:
    if known is None:
        return True
    old, new = known[0].verdict, _read_verdict(result)
    return old.result_id < new.result_id and old._replace(result_id=new.result_id) != new


def _keep_newest_window(
    row: AlertRow, result: MonitorResult, now: dt.datetime, breaks: bool
) -> None:
    """Keep what the newest window said; the sentence and numbers stay the last failure's."""
    row |= {
        "last_window_start": result["window_start"],
        "last_data_version": result["data_version"],
        "updated_at": now,
    }
    if failed(result["status"]):
        _keep_failure(row, result, breaks)
    details: dict[str, object] = json.loads(row["details"])
    details["newest_value"], details["newest_message"] = result["value"], result["message"]
    details["newest_window_end"] = result["window_end"].isoformat()
    if not result["is_backfill"]:
        details["judged_at"] = now.isoformat()  # history is no reason to remind of anything
    row["details"] = json.dumps(details)


def _keep_failure(row: AlertRow, result: MonitorResult, breaks: bool) -> None:
    """Keep the sentence and the numbers of a window that failed."""
    row |= {
        "value": result["value"],
        "message": result["message"],
        "owner": result["owner"],
        "runbook": result["runbook"],
    }
    before = json.loads(row["details"])
    details = {name: before[name] for name in (*_OF_NEWEST, _TURN) if name in before}
    details |= {
        "baseline_value": result["baseline_value"],
        "lower": result["lower"],
        "upper": result["upper"],
        "n": result["n"],
        "threshold": result["threshold"],
        "granularity": result["granularity"],
        "run_id": result["run_id"],
        "window_start": result["window_start"].isoformat(),
        "breaks_window": breaks,
        "explain": json.loads(result["details"] or "{}"),
    }
    row["details"] = json.dumps(details)


def write_event(
    row: AlertRow,
    kind: str,
    window: dt.datetime,
    result: MonitorResult | None,
    now: dt.datetime,
) -> AlertEvent:
    """Return what happened to an alert in a window, as the result says or else the alert itself."""
    return {
        "fingerprint": row["fingerprint"],
        "episode": row["episode"],
        "kind": kind,
        "is_late": False,
        "window_start": window,
        "first_window": row["opened_window"],
        "last_window": row["failed_window"],
        "data_version": result["data_version"] if result else row["last_data_version"],
        "severity": row["severity"],
        "value": result["value"] if result else row["value"],
        "message": result["message"] if result else row["message"],
        "muted_reason": row["muted_reason"],
        "created_at": now,
    }


def _resolve_missing(conn: sa.Connection, model: str, now: dt.datetime) -> None:
    """End the alerts that had no result at all in the last windows their family was judged in."""
    coverage: dict[tuple[str, str], dict[dt.datetime, set[tuple[str, str, str]]]] = {}
    for row in alert_state.load_alerts(conn, model, states=alert_state.ACTIVE).values():
        if row["family"] == "pipeline" or row["metric"] == NO_VERDICT:
            continue
        stream = (row["family"], row["dataset"])
        if stream not in coverage:
            coverage[stream] = alert_state.recent_coverage(conn, model, *stream)
        newer = {w: keys for w, keys in coverage[stream].items() if w > row["last_window_start"]}
        key = (row["monitor"], row["slice_key"], row["slice_value"])
        if len(newer) >= WINDOWS_UNTIL_MISSING and not any(key in keys for keys in newer.values()):
            reason = "monitor_removed" if row["slice_key"] == ALL else "slice_missing"
            _end_episode(conn, row, reason, max(newer), now)


def _end_episode(
    conn: sa.Connection, row: AlertRow, reason: str, window: dt.datetime, now: dt.datetime
) -> None:
    after, kinds = resolve(state_of(row))
    keep_state(row, after)
    row |= {"resolved_at": now, "resolved_reason": reason}
    row |= {"acked_by": "", "acked_at": None, "updated_at": now}
    alert_state.save_alerts(conn, [row])
    alert_state.append_events(conn, [write_event(row, kind, window, None, now) for kind in kinds])


def _find_unjudged(
    conn: sa.Connection,
    spec: ModelSpec,
    results: Sequence[StoredResult],
    alerts: Iterable[AlertRow],
) -> list[StoredResult]:
    """Return the results about what could not be judged in a window; see `unjudged_results`.

    The families of a window may come one after the other: those that an open condition is of are
    read again, as it is over only when all of them are judged.
    """
    waiting = {
        (row["dataset"], row["monitor"].partition("/")[2]): frozenset[str](
            json.loads(row["details"])["explain"]["families"]
        )
        for row in alerts
        if row["metric"] == NO_VERDICT and row["state"] != "OK"
    }
    missing = frozenset[str]().union(*waiting.values()) - {row["family"] for row in results}
    window = results[0]["window_start"]
    read = alert_state.whole_results(conn, spec.model, sorted(missing), window) if missing else ()
    return unjudged_results((*results, *read), spec, waiting)


def unjudged_results(
    results: Iterable[StoredResult],
    spec: ModelSpec,
    waiting: Mapping[tuple[str, str], Collection[str]],
) -> list[StoredResult]:
    """Return one more result per dataset and condition that keeps families of a window unjudged.

    Args:
        results: Rows of ``monitor_result``; only those of the whole window (slice ``all``) count.
        spec: The model that they are of.
        waiting: Dataset and condition of the alerts that are not over -> families they are of.

    Returns:
        WARN where no monitor of a family could judge, or one could not and somebody must act; it
        names all the families that have the condition. OK where all the families of an alert were
        judged, or have another condition. Nothing where there was no verdict for a reason that
        needs no one. What may pass by itself fires only if it lasts: a week of days, or two days
        of hours.
    """
    groups: dict[str, list[StoredResult]] = {}
    for row in results:
        if row["slice_key"] == ALL and row["family"] in FAMILIES:
            groups.setdefault(row["dataset"], []).append(row)
    found: list[StoredResult] = []
    for dataset, rows in groups.items():
        newest = {row["monitor"]: row for row in sorted(rows, key=lambda row: row["id"])}
        silent: dict[str, list[StoredResult]] = {}
        heard = set()  # families that were judged, or of which it is known why not
        for family in FAMILIES:
            mine = [row for row in newest.values() if row["family"] == family]
            unjudged = _find_silent(mine)
            if unjudged:
                conditions = Counter(map(_name_condition, unjudged))
                (most, _), *_ = conditions.most_common(1)  # what keeps most of it from a verdict
                silent.setdefault(most, []).extend(
                    r for r in unjudged if _name_condition(r) == most
                )
            if unjudged or any(row["status"] != "NO_DATA" for row in mine):
                heard.add(family)
        over = {
            condition
            for (of_dataset, condition), families in waiting.items()
            if of_dataset == dataset and condition not in silent and heard.issuperset(families)
        }
        example = max(rows, key=lambda row: row["id"])
        found += [
            _write_unjudged_result(example, condition, silent.get(condition, ()), spec)
            for condition in (*silent, *sorted(over))
        ]
    return found


def _find_silent(rows: Sequence[StoredResult]) -> list[StoredResult]:
    """Return a family's results that say that it is not judged, and should be."""
    unjudged = [row for row in rows if row["status"] == "NO_DATA"]
    silent = [row for row in unjudged if _needs_someone(row)]
    if silent or len(unjudged) < len(rows):
        return silent
    return [row for row in unjudged if row["reason"] not in _EXPLAINED and row["n"]]


def _name_condition(row: StoredResult) -> str:
    return _CONDITIONS.get(row["reason"], row["reason"])


def _write_unjudged_result(
    example: StoredResult, condition: str, silent: Sequence[StoredResult], spec: ModelSpec
) -> StoredResult:
    patience = _count_patience(spec)
    at_once = any(_needs_someone(row) for row in silent)
    families = list(dict.fromkeys(row["family"] for row in silent))
    return {
        **(silent or [example])[0],
        "id": example["id"],
        "monitor": f"{NO_VERDICT}/{condition}",
        "metric": NO_VERDICT,
        "column_name": TABLE,
        "status": "WARN" if silent else "OK",
        "value": None,
        "excess": None,
        "excess_error": None,
        "threshold": "",
        "message": _write_unjudged_message(silent, spec) if silent else "",
        "details": json.dumps({"families": families}),
        "k": 1 if at_once else patience,
        "of_n": patience,
    }


def _needs_someone(row: StoredResult) -> bool:
    if row["reason"] in _AT_ONCE:
        return True
    return row["reason"] in _WHEN_MATURE and row["maturity"] in ("mature", "closed")


def _count_patience(spec: ModelSpec) -> int:
    """Return how many windows without a verdict are borne, beside those that are learnt from."""
    grain = spec.time.granularity
    learnt = spec.baseline.windows_needed(grain) if spec.baseline.is_rolling else 0
    return _PATIENCE[grain] + learnt


def _write_unjudged_message(silent: Sequence[StoredResult], spec: ModelSpec) -> str:
    first = silent[0]
    families = list(dict.fromkeys(row["family"].replace("_", " ") for row in silent))
    of = f" ({', '.join(families)})" if len(families) > 1 else ""
    others = f" The same holds for {len(silent) - 1} more{of}." if len(silent) > 1 else ""
    step = _NEXT.get(first["reason"], "")
    if first["reason"] == "learning":
        step = f"Windows are compared with {spec.baseline.described()}; too few have come."
    return f"{first['message']}{others}" + (f" {step}" if step else "")


def breaks_window(result: Finding, max_bad_rate: float) -> bool:
    """Tell whether a monitor result says that its window cannot be judged at all.

    Args:
        result: ``family``, ``status``, ``metric``, ``value`` and ``details`` of a result.
        max_bad_rate: The share of rows that cannot be stored from which a window counts as broken.
            Rows that a rule of the spec refuses leave the others fit to judge.
    """
    if result["family"] == FRESHNESS:
        return failed(result["status"]) and result["metric"] != _OVERDUE
    if result["family"] != SCHEMA or result["status"] != "ERROR":
        return False
    if result["metric"] != "bad_rate":
        return True
    details = json.loads(result["details"] or "{}")
    unstorable = (result["value"] or 0.0) - details.get("by_rule", 0.0)
    return bool(details.get("n_quarantined")) or unstorable > max_bad_rate


def failing_causes(
    conn: sa.Connection, spec: ModelSpec, windows: Sequence[dt.datetime]
) -> dict[tuple[dt.datetime, str, str], str]:
    """Return a monitor that says a window or column is broken, by (window, dataset, column).

    And an event that explains what a family found, by (window, `EVENT`, family).
    """
    limit = spec.source.predictions.max_bad_rate
    results = alert_state.newest_results(conn, spec.model, CAUSES, windows)
    known = load_known(conn, spec)
    causes: dict[tuple[dt.datetime, str, str], str] = {}
    for row in sorted(results, key=lambda row: str(row["monitor"]), reverse=True):
        place = row["window_start"], row["dataset"]
        if FAMILIES[row["family"]].breaks_columns:
            if failed(row["status"]) and row["slice_key"] == ALL:
                causes[(*place, row["column_name"])] = row["monitor"]
        elif breaks_window(row, limit):
            causes[(*place, WHOLE)] = row["monitor"]
    for start in windows if known else ():
        days = list_days(start, window_containing(spec.time, start).end, spec.time.zone)
        for family in FAMILIES:
            event = find_known(known, family, days)
            if event is not None:
                causes[start, EVENT, family] = f"{EVENT}/{event.name}"
    return causes


def _find_cause(causes: Causes, window: dt.datetime, row: AlertRow) -> str | None:
    """Return the monitor that explains an alert's failure in a window."""
    place = window, row["dataset"]
    family = FAMILIES.get(row["family"])
    event = causes.get((window, EVENT, row["family"]))
    if family is None or not family.is_muted:
        return event
    of_column = row["column_name"] if family.is_by_column else WHOLE
    return causes.get((*place, WHOLE)) or causes.get((*place, of_column)) or event


def mute(
    alerts: Collection[AlertRow],
    events: Sequence[AlertEvent],
    causes: Causes,
    windows: Collection[dt.datetime],
) -> set[str]:
    """Mute or unmute what other alerts and known events explain; return the changed fingerprints.

    What was muted stays so while it recovers, and what was told is not muted by a window that
    passes: only a known event does that.
    """
    judged, changed = set(windows), set()
    suppressible: dict[str, AlertRow] = {}
    for row in alerts:
        family = FAMILIES.get(row["family"])
        if family is None or row["muted_reason"] == "backfill":
            continue
        suppressible[row["fingerprint"]] = row
        if row["last_window_start"] in judged:
            cause = _find_cause(causes, row["last_window_start"], row)
            is_event = cause is not None and cause.startswith(f"{EVENT}/")
            if row["state"] == "RECOVERING" and not is_event:
                continue
            reason = f"suppressed:{cause}" if cause else _drop_suppression(row["muted_reason"])
            if reason != row["muted_reason"]:
                row["muted_reason"] = reason
                changed.add(row["fingerprint"])
    for event in events:
        alert = suppressible.get(event["fingerprint"])
        cause = _find_cause(causes, event["window_start"], alert) if alert else None
        if cause:
            event["muted_reason"] = f"suppressed:{cause}"
    return changed


def _is_told_by_drift(
    spec: ModelSpec, result: StoredResult, alerts: Mapping[str, AlertRow], key: str
) -> bool:
    """Tell whether a sustained shift would open beside drift of the same column: one is enough.

    Nor does it open while a window of which drift was told is one of those that it is of.
    """
    if result["metric"] != SUSTAINED_SHIFT or not failed(result["status"]):
        return False
    mine = alerts.get(key)
    if mine is not None and mine["state"] != "OK":
        return False
    n_windows = json.loads(result["details"]).get("n_windows", 0)
    before = result["window_start"] - n_windows * GRAINS[spec.time.granularity]
    return any(
        (row["family"], row["slice_key"]) == (DRIFT, ALL)
        and (row["dataset"], row["column_name"]) == (result["dataset"], result["column_name"])
        and row["metric"] != SUSTAINED_SHIFT
        and row["n_episodes"]
        and (
            row["state"] in alert_state.ACTIVE
            or (row["failed_window"] is not None and row["failed_window"] > before)
        )
        for row in alerts.values()
    )


def _drop_suppression(reason: str) -> str:
    return "" if reason.startswith("suppressed:") else reason


def join_columns(results: Iterable[Result]) -> list[Result]:
    """Return results as alerts take them in: what fails in several columns at once as one.

    The joint result is about `SEVERAL` columns or more: it fails when so many fail the same metric
    in the same window, and the results of these columns are left out then, so that their own
    alerts stay as they are. Its evidence is that of the column which decides.

    Args:
        results: Rows of ``monitor_result``.

    Returns:
        The rows, and one more per window, dataset and metric of the quality where enough columns
        were judged.
    """
    taken, groups = list[Result](), dict[tuple[object, ...], list[Result]]()
    for row in results:
        if row["family"] == QUALITY and row["slice_key"] == ALL and row["status"] != "NO_DATA":
            key = (row["window_start"], row["dataset"], row["metric"])
            groups.setdefault(key, []).append(row)
        else:
            taken.append(row)
    for rows in groups.values():
        newest = {row["column_name"]: row for row in rows}  # in the order of their ids
        if len(newest) < SEVERAL:
            taken += rows
            continue
        failing = [row for row in newest.values() if failed(row["status"])]
        is_joint = len(failing) >= SEVERAL
        taken += rows if not is_joint else [r for r in rows if not failed(r["status"])]
        taken.append(_join_rows(list(newest.values()), failing if is_joint else []))
    return taken


def _join_rows(rows: Sequence[Result], failing: Sequence[Result]) -> Result:
    """Return the result about all the columns; ``failing`` is empty if there is no failure."""
    by_excess = sorted(rows, key=lambda r: math.inf if r["excess"] is None else -r["excess"])
    deciding = by_excess[SEVERAL - 1]
    worst = next((r for r in failing if r["status"] == "ERROR"), (failing or rows)[0])
    metric = str(worst["metric"])
    joint = {
        **worst,
        "id": max(cast("Mapping[str, int]", row).get("id", 0) for row in rows),
        "monitor": f"{QUALITY}/{metric}",
        "column_name": TABLE,
        "status": worst["status"] if failing else "OK",
        "value": None,
        "lower": None,
        "upper": None,
        "excess": deciding["excess"],
        "excess_error": deciding["excess_error"],
        "message": _join_messages(metric, failing) if failing else "",
        "details": json.dumps({"n_columns": len(failing)}),
    }
    return cast("Result", joint)


def _join_messages(metric: str, failing: Sequence[MonitorResult]) -> str:
    names = sorted(str(row["column_name"]) for row in failing)
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    limits = {limit for row in failing if (limit := limit_of(row)) is not None}
    past = f"above {percent(min(limits))}" if len(limits) == 1 else "above their limits"
    values = [row["value"] for row in failing if row["value"] is not None]
    worst = f"; at worst {percent(max(values))}" if values else ""
    n = max(int(row["n"]) for row in failing)
    label = NAMES.get(metric, metric)
    return (
        f"{len(names)} columns have a {label[:1].lower()}{label[1:]} {past}: "
        f"{', '.join(names[:_MOST])}{more}{worst} (n {n:,})."
    )
