"""What is kept of alerts: their state, what was told of them, the outbox, silences.

In: what alerts/ decides. Out: rows that outlive every process, and claims that one worker holds.
"""
