"""What each place must still hear of, also when it is over: nothing unmuted goes untold."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Sequence

from mlmon_dagster.alerts.lifecycle.routing import Destination, destinations
from mlmon_dagster.alerts.lifecycle.silences import silenced_by
from mlmon_dagster.alerts.lifecycle.undeclared_models import PLATFORM
from mlmon_dagster.alerts.messages.group_state import GroupState, dump, episode_of, split, told_of
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store
from mlmon_dagster.store.alerting import alert_state, outbox_health, told_events
from mlmon_dagster.store.state.frames import Row

GRACE = dt.timedelta(minutes=15)


def note_owed(state: GroupState) -> None:
    """Keep for each place which episodes it must hear of, before any of them is told."""
    keys = sorted(f"{f}:{number}" for f, numbers in state.untold.items() for number in numbers)
    for key, view in zip(keys, state.episodes(keys) if keys else (), strict=True):
        for place in destinations(state.context.spec, view.row):
            _owe(state, place, key)


def _owe(state: GroupState, place: Destination, key: str) -> None:
    row = state.alerts[split(key)[0]]
    group = state.group(place, row["family"])
    told, owed = told_of(group), set(json.loads(group["owed"]))
    if state.is_active(key):
        is_known = state.key(row) in told.firing
    else:  # the end of what was told as firing is told anyway
        is_known = key in {episode_of(k) for k in told.firing} | told.resolved
    if not is_known and key not in owed:
        group["owed"] = dump(owed | {key})
        alert_state.save_group(state.conn, group)


def is_told(row: Row, *, is_owed: bool) -> bool:
    """Whether an active alert is told: its window explains itself, or what came before is owed."""
    muted = row["muted_reason"]
    return not muted or (is_owed and muted.startswith("suppressed:"))


def mute_ended(state: GroupState, episodes: Collection[str]) -> None:
    """Record of what ended under a silence that nobody is told."""
    for key in episodes:
        silence = silenced_by(state.alerts[split(key)[0]], state.silences)
        told_events.mute_untold(state.conn, [split(key)], f"silence:{silence}")


def something_waits(store: Store) -> bool:
    """Whether a message waits to be delivered, or an alert to be told of, whatever is declared."""
    waits = outbox_health.outbox_health(store.state).n_waiting > 0
    return waits or bool(told_events.models_to_flush(store.state))


def count_untold(store: Store, specs: Sequence[ModelSpec], now: dt.datetime) -> int:
    """Count the unmuted events of alerts that are in no message though their time has come.

    It is 0 as long as every episode is told. What happened less than the longest wait of a group
    and a quarter of an hour ago does not count.
    """
    waits = [spec.alerts.group_wait + spec.alerts.group_interval for spec in specs]
    before = now - max(waits, default=dt.timedelta(0)) - GRACE
    models = [*(spec.model for spec in specs), PLATFORM]
    return told_events.count_untold(store.state, models, before)
