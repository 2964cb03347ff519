"""Alerts: from monitor results to messages that arrive once."""

from mlmon_dagster.alerts.dispatching import DispatchReport, dispatch, send_test
from mlmon_dagster.alerts.lifecycle.apply_results import fold_results, retire_undeclared
from mlmon_dagster.alerts.lifecycle.pipeline_failures import (
    RunFailure,
    RunSuccess,
    observe_run_failures,
)
from mlmon_dagster.alerts.listing import AlertEpisode, list_alerts, render_alerts
from mlmon_dagster.alerts.messages.incidents import flush_groups
from mlmon_dagster.alerts.messages.view import Links, dagster_links, page_links
from mlmon_dagster.alerts.receivers.base import ConsoleReceiver, Receiver
from mlmon_dagster.alerts.receivers.worker import DeliveryPolicy, DeliveryReport, deliver

__all__ = [
    "AlertEpisode",
    "ConsoleReceiver",
    "DeliveryPolicy",
    "DeliveryReport",
    "DispatchReport",
    "Links",
    "Receiver",
    "RunFailure",
    "RunSuccess",
    "dagster_links",
    "deliver",
    "dispatch",
    "flush_groups",
    "fold_results",
    "list_alerts",
    "observe_run_failures",
    "page_links",
    "render_alerts",
    "retire_undeclared",
    "send_test",
]
