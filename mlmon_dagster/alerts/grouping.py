"""Alerts in, messages in the outbox out: one thread per incident of a model and family.

The notification log (``alert_group``) says what a receiver was last told. It changes in the same
transaction that writes the message, whose idempotency key comes from the log's version: so two
flushes at once, or one that is killed, can neither lose a message nor write it twice.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from mlmon_dagster.alerts import message as say
from mlmon_dagster.alerts.message import Changes, Context, Links, Message
from mlmon_dagster.alerts.notify import Reason, Told, needs_update
from mlmon_dagster.alerts.outgoing import outbox_row, row_key
from mlmon_dagster.alerts.silencing import silenced_by
from mlmon_dagster.alerts.view import AlertView, view_of
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.store import Store, alert_state, outbox

GROUP_INTERVAL = dt.timedelta(minutes=5)  # between two messages of a group
BACKFILL_QUIET = dt.timedelta(minutes=30)  # after which a backfill that left gaps has ended
SUMMARY = "summary"

_KINDS: dict[Reason, str] = {
    "first": "opened",
    "new_alerts": "updated",
    "some_resolved": "updated",
    "all_resolved": "resolved",
    "repeat": "repeated",
}


def flush_groups(
    store: Store,
    specs: Sequence[ModelSpec],
    now: dt.datetime,
    *,
    links: Links | None = None,
    backfilling: Collection[str] = (),
) -> int:
    """Write the messages that are due into the outbox.

    Args:
        store: Where the state database is.
        specs: The models; the groups of others are left alone.
        now: The time for repeats and silences.
        links: Addresses shown for an alert; none by default.
        backfilling: Models of which a backfill is known to run still. Without that, one has ended
            when no ended window waits for its metrics, or after half an hour without a result.

    Returns:
        How many messages were written, updates of heads not counted.
    """
    declared = {spec.model: spec for spec in specs}
    n_written = 0
    for model in alert_state.models_to_flush(store.state):
        if model not in declared:
            continue
        context = Context(declared[model], links) if links else Context(declared[model])
        with alert_state.exclusive(store.state, f"alerts:{model}") as conn:
            flush = _load(conn, context, now)
            n_written += flush.run(backfill_known=model in backfilling)
    return n_written


@dataclass
class _Flush:
    """The flush of one model, inside one transaction."""

    conn: sa.Connection
    context: Context
    now: dt.datetime
    groups: dict[str, dict[str, Any]]
    alerts: dict[str, dict[str, Any]]
    silences: Sequence[alert_state.Row]
    n_changes: dict[str, int]
    receiver: str = "console"
    channel: str = "terminal"
    views: dict[str, AlertView] = field(default_factory=dict)

    def run(self, *, backfill_known: bool) -> int:
        self._apply_silences()
        self.views = {
            f: view_of(row, self.context.spec.time.zone) for f, row in self.alerts.items()
        }
        n_written = self._summarize_backfill(backfill_known)
        families = {row["family"] for row in self.alerts.values()}
        return n_written + sum(self._flush_family(family) for family in sorted(families))

    # What is firing, and what was told

    def _apply_silences(self) -> None:
        for fingerprint, row in self.alerts.items():
            muted = row["muted_reason"]
            if row["state"] not in alert_state.ACTIVE or not (muted == "" or _is_silence(muted)):
                continue
            silence = silenced_by(row, self.silences)
            reason = "" if silence is None else f"silence:{silence}"
            if reason != muted:
                row["muted_reason"] = reason
                alert_state.set_muted(self.conn, fingerprint, reason)

    def _key(self, row: alert_state.Row) -> str:
        """Name what is told of an alert: its episode and how often that changed."""
        return f"{row['fingerprint']}:{row['episode']}:{self.n_changes[row['fingerprint']]}"

    def _active(self, family: str) -> dict[str, dict[str, Any]]:
        return {
            self._key(row): row
            for row in self.alerts.values()
            if row["family"] == family and row["state"] in alert_state.ACTIVE
        }

    def _views(self, keys: Iterable[str]) -> list[AlertView]:
        fingerprints = dict.fromkeys(key.split(":")[0] for key in sorted(keys))
        return [self.views[f] for f in fingerprints if f in self.views]

    def _group(self, family: str) -> dict[str, Any]:
        group_key = f"{self.receiver}|{self.channel}|{self.context.spec.model}|{family}"
        if group_key not in self.groups:
            self.groups[group_key] = {
                "group_key": group_key,
                "receiver": self.receiver,
                "channel": self.channel,
                "model": self.context.spec.model,
                "family": family,
                "head_key": "",
                "version": 0,
                "firing": "[]",
                "resolved": "[]",
                "last_sent_at": None,
                "first_dirty_at": None,
                "next_flush_at": None,
            }
        return self.groups[group_key]

    # One group

    def _flush_family(self, family: str) -> int:
        group = self._group(family)
        told = _told(group)
        active = self._active(family)
        audible = {key for key, row in active.items() if not row["muted_reason"]}
        episodes = {_episode(key): key for key in active}
        # Muted after it was announced: neither told again nor taken for resolved.
        held = {k for k in told.firing if _episode(k) in episodes} - audible
        held = {k for k in held if active[episodes[_episode(k)]]["muted_reason"]}
        ended = {k for k in told.firing if _episode(k) not in episodes}
        quiet = {k for k in ended if silenced_by(self.alerts[k.split(":")[0]], self.silences)}
        resolved = told.resolved | {_episode(k) for k in ended - quiet}
        known = Told(told.firing - quiet, told.resolved, told.at)
        firing = frozenset(audible | held)
        repeat = self.context.spec.alerts.repeat
        reason = needs_update(
            known if group["version"] else None, firing, resolved, now=self.now, repeat=repeat
        )
        if reason == "repeat" and not audible:
            reason = None
        if reason is None and not quiet:
            return 0
        if self._too_soon(group):
            return 0
        group |= {"firing": _dump(firing), "resolved": _dump(resolved)}
        if reason is None:  # they ended under a silence: only the head says so
            self._write_head(group)
            alert_state.save_group(self.conn, group)
            return 0
        self._write(group, reason, told, audible, ended - quiet)
        return 1

    def _too_soon(self, group: dict[str, Any]) -> bool:
        """Whether the last message is too recent; a clock that stands still is no reason."""
        last, due = group["last_sent_at"], group["next_flush_at"]
        if last is None or due is None or not last < self.now < due:
            return False
        if group["first_dirty_at"] is None:
            group["first_dirty_at"] = self.now
            alert_state.save_group(self.conn, group)
        return True

    def _write(
        self,
        group: dict[str, Any],
        reason: Reason,
        told: Told,
        audible: set[str],
        ended: set[str],
    ) -> None:
        group |= {
            "version": group["version"] + 1,
            "last_sent_at": self.now,
            "first_dirty_at": None,
            "next_flush_at": self.now + GROUP_INTERVAL,
        }
        key = row_key(group)
        if reason == "first":
            group |= {"head_key": key, "resolved": "[]"}
            text = say.head_message(self.context, self._views(audible))
            self._enqueue(group, key, _KINDS[reason], text, head_key="")
        elif reason == "all_resolved" and self._withdraw(group):
            text = say.missed_message(self.context, self._views(ended))
            self._enqueue(group, key, _KINDS[reason], text, head_key="")
        else:
            text = self._reply(reason, told, audible, ended)
            self._enqueue(group, key, _KINDS[reason], text, head_key=group["head_key"])
            if reason != "repeat":
                self._write_head(group)
        alert_state.save_group(self.conn, group)

    def _reply(self, reason: Reason, told: Told, audible: set[str], ended: set[str]) -> Message:
        if reason == "repeat":
            return say.repeat_message(self.context, self._views(audible))
        known = {_episode(key) for key in told.firing}
        changed = {key for key in audible - told.firing if _episode(key) in known}
        events = alert_state.last_events(
            self.conn, {k.split(":")[0]: int(k.split(":")[1]) for k in changed}
        )
        worse = {k for k in changed if events[k.split(":")[0]]["kind"] == "escalated"}
        changes = Changes(
            opened=self._views(key for key in audible if _episode(key) not in known),
            escalated=self._views(worse),
            revised=self._views(changed - worse),
            resolved=self._views(ended),
        )
        mention = bool(changes.opened or changes.escalated)
        return say.change_message(self.context, changes, self._views(audible), mention=mention)

    def _withdraw(self, group: dict[str, Any]) -> bool:
        """Withdraw a thread of this group alone that was never posted."""
        shared = [g for g in self.groups.values() if g["head_key"] == group["head_key"]]
        return len(shared) == 1 and outbox.supersede_unsent_thread(self.conn, group["head_key"])

    def _write_head(self, group: dict[str, Any]) -> None:
        """Bring the first message of the thread up to date; a summary's thread has many groups."""
        head_key = group["head_key"]
        if not head_key:
            return
        sharing = [g for g in self.groups.values() if g["head_key"] == head_key]
        firing = self._views(key for g in sharing for key in json.loads(g["firing"]))
        resolved = self._views(key for g in sharing for key in json.loads(g["resolved"]))
        if firing:
            is_summary = any(g["family"] == SUMMARY for g in sharing)
            render = say.summary_message if is_summary else say.head_message
            text = render(self.context, firing)
        else:
            text = say.closed_message(self.context, resolved)
        outbox.supersede_head_updates(self.conn, head_key)
        key = row_key(group, "head")
        self._enqueue(group, key, "head", text, head_key=head_key)

    def _enqueue(
        self, group: dict[str, Any], key: str, kind: str, text: Message, *, head_key: str
    ) -> None:
        row = outbox_row(group, key, kind, text, head_key=head_key, now=self.now)
        outbox.enqueue(self.conn, [row])

    # The end of a backfill

    def _summarize_backfill(self, backfill_known: bool) -> int:
        """Tell in one message what a backfill left firing; from then on it counts as told."""
        rows = [
            row
            for row in self.alerts.values()
            if row["state"] in alert_state.ACTIVE
            and row["muted_reason"] == "backfill"
            and silenced_by(row, self.silences) is None
        ]
        if not rows or backfill_known or self._backfill_runs():
            return 0
        summary = self._group(SUMMARY)
        summary |= {"version": summary["version"] + 1, "last_sent_at": self.now}
        key = row_key(summary)
        summary["head_key"] = key
        text = say.summary_message(self.context, [self.views[r["fingerprint"]] for r in rows])
        self._enqueue(summary, key, SUMMARY, text, head_key="")
        alert_state.save_group(self.conn, summary)
        for row in rows:
            row["muted_reason"] = ""
            alert_state.set_muted(self.conn, row["fingerprint"], "")
            self._count_as_told(row, key)
        return 1

    def _backfill_runs(self) -> bool:
        model = self.context.spec.model
        if not alert_state.has_stale_windows(self.conn, model, self.now):
            return False
        last = alert_state.last_backfill_result(self.conn, model)
        return last is not None and last > self.now - BACKFILL_QUIET

    def _count_as_told(self, row: alert_state.Row, head_key: str) -> None:
        group = self._group(row["family"])
        firing = set(json.loads(group["firing"]))
        if not firing:
            group |= {"head_key": head_key, "resolved": "[]"}
        group |= {
            "firing": _dump(firing | {self._key(row)}),
            "version": max(group["version"], 1),
            "last_sent_at": self.now,
        }
        alert_state.save_group(self.conn, group)


def _load(conn: sa.Connection, context: Context, now: dt.datetime) -> _Flush:
    model, slack = context.spec.model, context.spec.alerts.slack
    groups = {key: dict(row) for key, row in alert_state.load_groups(conn, model).items()}
    told = [json.loads(g["firing"]) + json.loads(g["resolved"]) for g in groups.values()]
    fingerprints = sorted({key.split(":")[0] for keys in told for key in keys})
    rows = alert_state.load_alerts(
        conn, model, states=alert_state.ACTIVE, fingerprints=fingerprints
    )
    alerts = {key: dict(row) for key, row in rows.items()}
    episodes = {key: row["episode"] for key, row in alerts.items()}
    flush = _Flush(
        conn=conn,
        context=context,
        now=now,
        groups=groups,
        alerts=alerts,
        silences=alert_state.silences(conn, now),
        n_changes=alert_state.changes_announced(conn, episodes),
    )
    if slack is not None:
        flush.receiver, flush.channel = "slack", slack.channel
    return flush


def _told(group: dict[str, Any]) -> Told:
    return Told(
        frozenset(json.loads(group["firing"])),
        frozenset(json.loads(group["resolved"])),
        group["last_sent_at"],
    )


def _episode(key: str) -> str:
    """Strip how often the episode changed: a key of ``resolved``."""
    return ":".join(key.split(":")[:2])


def _dump(keys: Iterable[str]) -> str:
    return json.dumps(sorted(keys))


def _is_silence(reason: str) -> bool:
    return reason.startswith("silence:")
