"""The event log and the inference records as Delta tables, and the engine that reads them.

In: canonical rows. Out: rows as they were at a pinned version.
"""
