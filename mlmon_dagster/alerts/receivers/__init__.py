"""From the outbox to Slack, mail, webhooks and the terminal, once each.

In: rows of the outbox. Out: requests, and how each ended; one file for each kind of receiver.
"""
