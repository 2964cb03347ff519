"""Alerts: from monitor results to messages that arrive once."""

from mlmon_dagster.alerts.console import ConsoleReceiver
from mlmon_dagster.alerts.deliver import deliver
from mlmon_dagster.alerts.dispatching import DispatchReport, dispatch
from mlmon_dagster.alerts.failures import RunFailure, RunSuccess, observe_run_failures
from mlmon_dagster.alerts.fold import fold_results, retire_undeclared
from mlmon_dagster.alerts.grouping import flush_groups
from mlmon_dagster.alerts.links import Links, dagster_links
from mlmon_dagster.alerts.listing import AlertEpisode, list_alerts, render_alerts
from mlmon_dagster.alerts.receivers import Receiver
from mlmon_dagster.alerts.trial import send_test
from mlmon_dagster.alerts.worker import DeliveryPolicy, DeliveryReport

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
