"""The one statement that counts a window: bins, slices, losses and sums of its rows.

In: binnings and the declared slices. Out: SQL for DuckDB, and cells read from its answer.
"""
