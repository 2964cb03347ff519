"""Who hears of an alert, and how often."""

from __future__ import annotations

import datetime as dt

from pydantic import Field

from mlmon_dagster.spec.scalars import Declared, Duration


class SlackRoute(Declared):
    """The Slack channel that hears of a model, and who is mentioned."""

    channel: str
    mention: str | None = Field(default=None, max_length=80)


class AlertPolicy(Declared):
    """Where alerts go, how often they repeat, and the least time between messages of a thread."""

    slack: SlackRoute | None = None
    repeat: Duration = dt.timedelta(hours=24)
    group_interval: Duration = dt.timedelta(minutes=5)
