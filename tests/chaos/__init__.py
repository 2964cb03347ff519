"""Alerts under fire: killed dispatchers, a faulty Slack, a database that restarts."""
