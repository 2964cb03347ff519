"""What a report must know of an alert; whoever asks for the report brings the alerts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Protocol

from mlmon_dagster.monitors.wording import NAMES, number
from mlmon_dagster.spec import ModelSpec


class AlertEpisode(Protocol):
    """One firing of one alert; `mlmon_dagster.alerts.AlertEpisode` is one."""

    @property
    def monitor(self) -> str:
        """Id of the monitor."""

    @property
    def metric(self) -> str:
        """What it measures."""

    @property
    def column(self) -> str:
        """The column, ``:table`` or empty for none."""

    @property
    def slice_key(self) -> str:
        """The slice, ``all`` for everything."""

    @property
    def state(self) -> str:
        """FIRING, RECOVERING, RESOLVED or PENDING."""

    @property
    def severity(self) -> str:
        """The highest so far."""

    @property
    def opened_window(self) -> dt.datetime:
        """Start of the window that opened it."""

    @property
    def resolved_window(self) -> dt.datetime | None:
        """Start of the window that ended it; None while it lasts."""

    @property
    def worst_value(self) -> float | None:
        """The failing value farthest from its baseline."""

    @property
    def message(self) -> str:
        """The last sentence."""

    @property
    def is_explained(self) -> bool:
        """Whether another alert is the cause of it, which is told instead."""


def firing(episodes: Iterable[AlertEpisode]) -> Sequence[AlertEpisode]:
    """Return what fires now and no other alert explains, errors first, then the longest."""
    now = [e for e in episodes if e.state in ("FIRING", "RECOVERING") and not e.is_explained]
    return sorted(now, key=lambda e: (e.severity != "ERROR", e.opened_window, e.monitor))


def sentence_of(spec: ModelSpec, episode: AlertEpisode) -> str:
    """Return an alert's sentence; one about a pii column is told without the stored text.

    The text may have been stored before the column was marked, with values in it.
    """
    columns = {episode.column, *episode.slice_key.split(",")}
    if not any(f.pii for name, f in spec.features.items() if name in columns):
        return episode.message
    subject = f"{NAMES.get(episode.metric, episode.metric)} of {episode.column}"
    if episode.worst_value is None:
        return f"{subject} failed."
    return f"{subject} reached {number(episode.worst_value)}."
