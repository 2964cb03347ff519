"""What people do with alerts: list, acknowledge, silence, read their history, send again.

In: what somebody typed. Out: events of alerts, and tables in the terminal.
"""
