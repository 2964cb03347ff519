"""Alerts: from monitor results to messages that arrive once.

Verdicts come in by `lifecycle`, become messages in `messages`, and leave by `receivers`;
`dispatching` is the three in a row, `handling` is what people do; they see them in `tables/`.
"""
