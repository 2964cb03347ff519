"""The store: event log, inference records, derived tables and the state database."""

from mlmon_dagster.store.store import Store, open_store

__all__ = ["Store", "open_store"]
