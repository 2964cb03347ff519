"""Keeping the store whole: backups, exports, compaction, retention, damage and its repair.

In: a store. Out: the same store, smaller or mended, and a report.
"""
