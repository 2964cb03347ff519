"""Alerts: from monitor results to messages that arrive once."""

from mlmon_dagster.alerts.dispatching import DispatchReport, dispatch, send_test
from mlmon_dagster.alerts.listing import list_alerts, render_alerts
from mlmon_dagster.alerts.messages.view import dagster_links, page_links

__all__ = [
    "DispatchReport",
    "dagster_links",
    "dispatch",
    "list_alerts",
    "page_links",
    "render_alerts",
    "send_test",
]
