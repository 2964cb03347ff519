"""Alerts: from monitor results to messages that arrive once."""

from mlmon_dagster.alerts.dispatching import DispatchReport, dispatch
from mlmon_dagster.alerts.lifecycle.apply_results import fold_results, retire_undeclared
from mlmon_dagster.alerts.lifecycle.pipeline_failures import (
    RunFailure,
    RunSuccess,
    observe_run_failures,
)
from mlmon_dagster.alerts.messages.incidents import flush_groups
from mlmon_dagster.alerts.messages.links import Links, dagster_links
from mlmon_dagster.alerts.people.listing import AlertEpisode, list_alerts, render_alerts
from mlmon_dagster.alerts.people.sample_message import send_test
from mlmon_dagster.alerts.receivers.base import Receiver
from mlmon_dagster.alerts.receivers.console import ConsoleReceiver
from mlmon_dagster.alerts.receivers.deliver import deliver
from mlmon_dagster.alerts.receivers.worker import DeliveryPolicy, DeliveryReport

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
    "render_alerts",
    "retire_undeclared",
    "send_test",
]
